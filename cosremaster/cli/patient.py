"""Progress of commands that mostly have nothing to wait for: it appears where a step takes longer. Without click."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext

from cosremaster.cli.settings import Settings
from cosremaster.progress import OTHER, Advance, begin_work, skip_bytes

PATIENCE = 1.0
"""Seconds of a step before anything is shown."""


class PatientProgress:
    """Progress of which nothing stays on a terminal, and elsewhere a line every 10 seconds; implements ``Progress``."""

    def step(self, title: str, total: int | None) -> AbstractContextManager[Advance]:
        """Begin a step of other work."""
        return self.work(title, total, OTHER, "")

    def run(self) -> AbstractContextManager[None]:
        """Begin a run: each step is one by itself."""
        return nullcontext()

    def expect(self, kind: str, count: int) -> None:
        """Drop what will follow: each step is a run by itself."""

    @contextmanager
    def work(self, title: str, total: int | None, kind: str, method: str) -> Iterator[Advance]:
        """Begin a step of work of a ``kind``."""
        with ExitStack() as closing:
            yield _PatientStep(closing, title, total, kind, method)

    def warn(self, message: str) -> None:
        """Print a warning."""
        from cosremaster.cli.messages import warn  # noqa: PLC0415 - few commands warn

        warn(message)


class _PatientStep:
    """Counts the bytes of a step, and shows them once it has taken long enough, at once where JSON is asked for."""

    def __init__(self, closing: ExitStack, title: str, total: int | None, kind: str, method: str) -> None:
        """Begin it now; what is shown ends with ``closing``."""
        self._closing, self._facts = closing, (title, total, kind, method)
        self._begin, self._count = time.monotonic(), 0
        self._advance: Advance | None = None
        if Settings.progress == "json":
            self._show()

    def __call__(self, count: int) -> None:
        """Count processed bytes."""
        if self._advance is not None:
            self._advance(count)
            return
        self._count += count
        if time.monotonic() - self._begin >= PATIENCE:
            self._show()

    def _show(self) -> None:
        """Begin to show the step: bytes so far are no measure of its rate."""
        from cosremaster.cli.terminal import passing_progress  # noqa: PLC0415 - most steps are short

        title, total, kind, method = self._facts
        self._advance = self._closing.enter_context(begin_work(passing_progress(), title, total, kind, method))
        skip_bytes(self._advance, self._count)
