"""Reports of progress from long work to its caller."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Protocol, TypeGuard, runtime_checkable

Advance = Callable[[int], None]
"""Called with the number of bytes that were processed since the last call."""

DECODE, ENCODE, COPY, PROOF, SUM, READ, OTHER = "decode", "encode", "copy", "proof", "sum", "read", "other"
"""The kinds of work: packed bytes that are decoded, plain ones that are fed to an encoder, bytes of the output, bytes
of it that are read again, bytes of which a checksum is made, files of the user, and what is none of these."""

SITES = "sites"
"""Images of a fleet, which are counted by their number."""

PLAN = "plan"
"""Expected as work of one byte until it is known what other work there is."""


class Progress(Protocol):
    """Receives the steps of long work, in order, from the thread that runs it."""

    def step(self, title: str, total: int | None) -> AbstractContextManager[Advance]:
        """Begin the step ``title`` of ``total`` bytes (None: not known); it ends with the context.

        An encoder's bytes count when they are fed to it. Bytes that stay packed count too, at once; where ``advance``
        has a method ``skip``, that is called with their number instead.
        """
        ...

    def warn(self, message: str) -> None:
        """Report a warning, which stops nothing."""
        ...


@runtime_checkable
class ShowsOutput(Protocol):
    """Progress that also takes what scripts print that run inside an image."""

    def show(self, name: str, line: str) -> None:
        """Show a ``line``, without its end and without control characters, that the script ``name`` printed."""
        ...


@runtime_checkable
class MeasuresRuns(Protocol):
    """Progress that also takes what kind of work a step is, and how much work there will be."""

    def run(self) -> AbstractContextManager[None]:
        """Begin a run, which has several steps; it ends with the context."""
        ...

    def expect(self, kind: str, count: int) -> None:
        """Take over that after the steps so far ``count`` bytes of work of a ``kind`` will follow in this run."""
        ...

    def work(self, title: str, total: int | None, kind: str, method: str) -> AbstractContextManager[Advance]:
        """Begin a step as ``step`` does. ``method``: what sets its speed, such as a codec; may be empty."""
        ...


class SilentProgress:
    """Reports nothing."""

    @contextmanager
    def step(self, title: str, total: int | None) -> Iterator[Advance]:
        """Begin a step without a report."""
        yield lambda count: None

    def warn(self, message: str) -> None:
        """Drop the warning; it is in the result too."""


def _measures_runs(progress: object) -> TypeGuard[MeasuresRuns]:
    """Return whether ``progress`` measures runs: as isinstance, which looks through the protocol at each call."""
    return hasattr(progress, "run") and hasattr(progress, "expect") and hasattr(progress, "work")


def begin_work(
    progress: Progress, title: str, total: int | None, kind: str, method: str = ""
) -> AbstractContextManager[Advance]:
    """Begin the step ``title`` of work of a ``kind``."""
    if _measures_runs(progress):
        return progress.work(title, total, kind, method)
    return progress.step(title, total)


def running(progress: Progress) -> AbstractContextManager[None]:
    """Begin a run of several steps, where ``progress`` measures runs."""
    return progress.run() if _measures_runs(progress) else nullcontext()


def expect_work(progress: Progress, kind: str, count: int) -> None:
    """Tell ``progress``, where it measures runs, that ``count`` bytes of work of a ``kind`` will follow."""
    if _measures_runs(progress):
        progress.expect(kind, count)


def skip_bytes(advance: Advance, count: int) -> None:
    """Count bytes of a step that need no work, such as those that stay packed."""
    skip: Advance = getattr(advance, "skip", advance)
    skip(count)


class ThreadedAdvance:
    """Counts bytes on any thread, and reports them on the thread that calls :meth:`report`."""

    def __init__(self, advance: Advance) -> None:
        """Begin without bytes; ``advance`` gets their numbers."""
        self._advance = advance
        self._counts: deque[tuple[bool, int]] = deque()

    def __call__(self, count: int) -> None:
        """Count processed bytes."""
        self._counts.append((True, count))

    def skip(self, count: int) -> None:
        """Count bytes that need no work."""
        self._counts.append((False, count))

    def report(self) -> None:
        """Report what was counted since the last call."""
        counts: Any = self._counts
        while counts:
            is_work, count = counts.popleft()
            if is_work:
                self._advance(count)
            else:
                skip_bytes(self._advance, count)
