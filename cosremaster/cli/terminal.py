"""Progress on standard error: a live bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from cosremaster.progress import Advance
from cosremaster.units import human


class Lines:
    """One line when a step ends."""

    def __init__(self, console: Console) -> None:
        self._console = console

    @contextmanager
    def step(self, title: str, total: int | None) -> Iterator[Advance]:
        """Runs a step and says how long it took."""
        done = 0

        def advance(count: int) -> None:
            nonlocal done
            done += count

        start = time.monotonic()
        yield advance
        self._say(title, done, time.monotonic() - start)

    def _say(self, title: str, done: int, seconds: float) -> None:
        amount = f": {human(done)}" if done else ""
        self._console.print(f"{title}{amount} in {seconds:.1f} s", markup=False, highlight=False, soft_wrap=True)

    def warn(self, message: str) -> None:
        """A line of its own."""
        self._console.print(f"warning: {message}", markup=False, highlight=False, soft_wrap=True)


class Bars(Lines):
    """A bar with bytes and rate while a step runs, its line when it has ended."""

    @contextmanager
    def step(self, title: str, total: int | None) -> Iterator[Advance]:
        """Runs a step under a bar."""
        columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(True), TransferSpeedColumn())
        with (
            super().step(title, total) as counted,
            Progress(*columns, console=self._console, transient=True) as progress,
        ):
            task = progress.add_task(title, total=total)

            def advance(count: int) -> None:
                counted(count)
                progress.update(task, advance=count)

            yield advance


class Quiet(Lines):
    """Nothing but what an error says."""

    def _say(self, title: str, done: int, seconds: float) -> None:
        pass

    def warn(self, message: str) -> None:
        """Nothing."""


def terminal_progress(*, quiet: bool) -> Lines:
    """The progress that suits standard error."""
    console = Console(stderr=True)
    if quiet:
        return Quiet(console)
    return Bars(console) if console.is_terminal else Lines(console)
