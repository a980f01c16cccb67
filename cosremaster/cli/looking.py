"""Progress of commands that look: it is made when there is some, as most have nothing to wait for. Without click."""

from __future__ import annotations

from contextlib import AbstractContextManager
from functools import cached_property
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cosremaster.progress import Advance


class LookingProgress:
    """Progress on a terminal, and elsewhere a line every 10 seconds; implements ``Progress`` and ``MeasuresRuns``."""

    @cached_property
    def _progress(self) -> Any:
        """The progress that suits standard error, or that was asked for."""
        from cosremaster.cli.terminal import looking_progress  # noqa: PLC0415 - as this module says

        return looking_progress()

    def run(self) -> AbstractContextManager[None]:
        """Begin a run."""
        from cosremaster.progress import running  # noqa: PLC0415 - as this module says

        return running(self._progress)

    def expect(self, kind: str, count: int) -> None:
        """Take over that ``count`` bytes of work of a ``kind`` will follow."""
        from cosremaster.progress import expect_work  # noqa: PLC0415 - as this module says

        expect_work(self._progress, kind, count)

    def work(self, title: str, total: int | None, kind: str, method: str) -> AbstractContextManager[Advance]:
        """Begin a step of work of a ``kind``."""
        from cosremaster.progress import begin_work  # noqa: PLC0415 - as this module says

        return begin_work(self._progress, title, total, kind, method)

    def step(self, title: str, total: int | None) -> AbstractContextManager[Advance]:
        """Begin a step of other work."""
        step: AbstractContextManager[Advance] = self._progress.step(title, total)
        return step

    def show(self, name: str, line: str) -> None:
        """Show a line of a script."""
        self._progress.show(name, line)

    def warn(self, message: str) -> None:
        """Show a warning."""
        self._progress.warn(message)
