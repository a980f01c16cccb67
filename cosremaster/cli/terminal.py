"""Progress on standard error: a live bar on a terminal, plain lines elsewhere. Nothing here loads click."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from cosremaster.cli.settings import Settings
from cosremaster.progress import Advance
from cosremaster.units import format_size


class Lines:
    """Progress as one line for each step, printed when it ends."""

    @contextmanager
    def step(self, title: str, total: int | None) -> Iterator[Advance]:
        """Run a step and print how long it took."""
        total_count = 0

        def advance(count: int) -> None:
            """Count bytes."""
            nonlocal total_count
            total_count += count

        start = time.monotonic()
        yield advance
        self._say(title, total_count, time.monotonic() - start)

    def _say(self, title: str, size: int, seconds: float) -> None:
        """Print the line of a step: ``size`` bytes in ``seconds``."""
        amount = f": {format_size(size)}" if size else ""
        sys.stderr.write(f"{title}{amount} in {seconds:.1f} s\n")

    def show(self, name: str, line: str) -> None:
        """Print a line of a script, with its name in front."""
        sys.stderr.write(f"{name} | {line}\n")

    def warn(self, message: str) -> None:
        """Print a warning on a line of its own."""
        sys.stderr.write(f"warning: {message}\n")


class Bars(Lines):
    """Progress as a bar with bytes and rate while a step runs, and its line when it has ended."""

    @contextmanager
    def step(self, title: str, total: int | None) -> Iterator[Advance]:
        """Run a step under a bar."""
        from rich.console import Console  # noqa: PLC0415 - most runs have no bars, and start faster without rich
        from rich.markup import escape  # noqa: PLC0415
        from rich.progress import (  # noqa: PLC0415
            BarColumn,
            DownloadColumn,
            Progress,
            TextColumn,
            TransferSpeedColumn,
        )

        columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(True), TransferSpeedColumn())
        with (
            super().step(title, total) as counted,
            Progress(*columns, console=Console(stderr=True), transient=True) as progress,
        ):
            task = progress.add_task(escape(title), total=total)

            def advance(count: int) -> None:
                """Count bytes and move the bar."""
                counted(count)
                progress.update(task, advance=count)

            yield advance


class Quiet(Lines):
    """No progress: nothing is printed but warnings and errors."""

    def _say(self, title: str, size: int, seconds: float) -> None:
        """Print nothing."""

    def show(self, name: str, line: str) -> None:
        """Print nothing."""


def terminal_progress(*, quiet: bool) -> Lines:
    """Return the progress that suits standard error."""
    if quiet or Settings.is_quiet:
        return Quiet()
    return Bars() if sys.stderr.isatty() else Lines()
