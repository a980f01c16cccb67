"""Progress on standard error: a live line on a terminal, plain lines elsewhere. Nothing here loads click."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext

from cosremaster.cli.colors import paint
from cosremaster.cli.messages import warn, write_event
from cosremaster.cli.settings import Settings
from cosremaster.layers.work_rates import WorkRates
from cosremaster.progress import COPY, SITES, Advance
from cosremaster.progress.events import Moved, Printed, ProgressEvent, StepEnded, Warned
from cosremaster.progress.measured import MeasuredProgress
from cosremaster.records import replace
from cosremaster.units import format_seconds, format_size

LINE_INTERVAL, LIVE_INTERVAL = 10.0, 0.25
"""Seconds between two lines about a run, and between two states of the live line."""

_BAR, _LEAST_BAR, _LEAST_TITLE = 20, 4, 12
"""Characters of the bar in the live line, if there is room for them; and those of a step's title that stay."""

_CLEAR = "\r\x1b[K"


class Lines(MeasuredProgress):
    """Progress as a line for each step, printed when it ends, and one every 10 seconds about the whole run."""

    def __init__(self, interval: float | None = LINE_INTERVAL) -> None:
        """Begin before the first step."""
        super().__init__(self._print, interval=interval, rates=WorkRates())

    def _print(self, event: ProgressEvent) -> None:
        """Print what happened."""
        if isinstance(event, StepEnded):
            count = event.processed + (event.skipped if event.kind == COPY else 0)  # copied beside earlier steps
            amount = f": {_amount(count, event.kind)}" if count else ""
            self._write(f"{event.title}{amount} in {event.seconds:.1f} s")
        elif isinstance(event, Printed):
            self._write(f"{event.script} | {event.line}")
        elif isinstance(event, Warned):
            self._write(f"{paint('warning:', 'warning', sys.stderr)} {event.message}")
        elif isinstance(event, Moved):
            self._show_state(event)

    def _show_state(self, state: Moved) -> None:
        """Print the state of the run."""
        self._write("; ".join(_describe(state)))

    def _write(self, line: str) -> None:
        """Print a line."""
        sys.stderr.write(f"{line}\n")
        sys.stderr.flush()


class StateLines(Lines):
    """Progress as a line every 10 seconds, and warnings."""

    def _print(self, event: ProgressEvent) -> None:
        """Print what happened, but for steps that ended."""
        if not isinstance(event, StepEnded):
            super()._print(event)


class LiveLine(Lines):
    """Progress as a line that changes while the run goes on, and the line of each step when it has ended."""

    def __init__(self) -> None:
        """Begin before the first step."""
        super().__init__(LIVE_INTERVAL)
        self._is_shown = False

    def _show_state(self, state: Moved) -> None:
        """Show the state of the run in place of the last one."""
        import shutil  # noqa: PLC0415 - loads lzma and bz2, and most runs have no terminal

        sys.stderr.write(_CLEAR + _fit_state(state, shutil.get_terminal_size().columns - 1))
        sys.stderr.flush()
        self._is_shown = True

    def _write(self, line: str) -> None:
        """Print a line in place of the state."""
        super()._write(_CLEAR + line if self._is_shown else line)
        self._is_shown = False

    def _end(self) -> None:
        """End the outermost run: the line goes away."""
        super()._end()
        if self._is_shown:
            sys.stderr.write(_CLEAR)
            sys.stderr.flush()
            self._is_shown = False


class PassingLine(StateLines, LiveLine):
    """Progress as a line that changes, and goes away."""


class Quiet:
    """No progress: nothing is printed but warnings and errors."""

    def step(self, title: str, total: int | None) -> AbstractContextManager[Advance]:
        """Begin a step without a report."""
        return nullcontext(lambda count: None)

    def show(self, name: str, line: str) -> None:
        """Print nothing."""

    def warn(self, message: str) -> None:
        """Print a warning on a line of its own."""
        warn(message)


def _fit_state(state: Moved, width: int) -> str:
    """Return the state of the run in ``width`` characters: the bar gives way first, then the title, last the rate."""
    line = "; ".join(_describe(state))
    if len(line) > width and len(state.title) > _LEAST_TITLE:
        kept = max(len(state.title) - (len(line) - width) - 3, _LEAST_TITLE - 3)
        line = "; ".join(_describe(replace(state, title=f"{state.title[:kept]}...")))
    bar = min(_BAR, width - len(line) - len("[] "))
    if bar < _LEAST_BAR:
        return line[:width]
    filled = round((state.percent or 0) / 100 * bar)
    return f"[{'#' * filled}{'-' * (bar - filled)}] {line}"


def _describe(state: Moved) -> Iterator[str]:
    """Yield how far the whole run is, and the step that runs."""
    if state.percent is not None and state.seconds_left is not None:
        word = "perhaps" if state.basis == "guessed" else "about"
        yield f"{state.percent:.0f} %, {word} {format_seconds(state.seconds_left)} left"
    if not state.title:
        yield f"{format_seconds(state.seconds)} so far"
        return
    rate = "" if state.rate is None else f", {_amount(state.rate, state.kind)}/s"
    if state.kind == SITES and state.total is not None:  # both are counts of the same
        yield f"{state.title}: {state.processed:,} of {_amount(state.total, SITES)}{rate}"
        return
    total = "" if state.total is None else f" of {_amount(state.total, state.kind)}"
    yield f"{state.title}: {_amount(state.processed, state.kind)}{total}{rate}"


def _amount(count: float, kind: str) -> str:
    """Return ``count`` bytes, or images where the work is of that ``kind``."""
    if kind != SITES:
        return format_size(int(count))
    return f"{count:,.0f} {'image' if count == 1 else 'images'}" if count == int(count) else f"{count:.3g} images"


def terminal_progress(*, quiet: bool) -> MeasuredProgress | Quiet:
    """Return the progress that suits standard error, or that was asked for."""
    if quiet or Settings.is_quiet or Settings.progress == "none":
        return Quiet()
    if Settings.progress == "json":
        return MeasuredProgress(write_event, rates=WorkRates())
    return LiveLine() if is_live() else Lines()


def looking_progress() -> MeasuredProgress | Quiet:
    """Return the progress of a command that writes nothing: elsewhere than on a terminal, no line for each step."""
    if Settings.progress == "auto" and not Settings.is_quiet and not is_live():
        return StateLines()
    return terminal_progress(quiet=False)


def passing_progress() -> MeasuredProgress | Quiet:
    """Return the progress of a command whose output is all that should stay: no line for a step that has ended."""
    if Settings.progress == "auto" and not Settings.is_quiet:
        return PassingLine() if is_live() else StateLines()
    return terminal_progress(quiet=False)


def is_live() -> bool:
    """Return whether standard error is a terminal on which a line can change."""
    return sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
