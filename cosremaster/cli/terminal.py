"""Progress on standard error: a live bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import click

from cosremaster.progress import Advance
from cosremaster.units import format_size


class Lines:
    """One line when a step ends."""

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
        amount = f": {format_size(done)}" if done else ""
        click.echo(f"{title}{amount} in {seconds:.1f} s", err=True)

    def warn(self, message: str) -> None:
        """A line of its own."""
        click.echo(f"warning: {message}", err=True)


class Bars(Lines):
    """A bar with bytes and rate while a step runs, its line when it has ended."""

    @contextmanager
    def step(self, title: str, total: int | None) -> Iterator[Advance]:
        """Runs a step under a bar."""
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
    if quiet:
        return Quiet()
    return Bars() if sys.stderr.isatty() else Lines()
