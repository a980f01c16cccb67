"""Reports of progress from long work to its caller."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol, runtime_checkable

Advance = Callable[[int], None]
"""Called with the number of bytes that were processed since the last call."""


class Progress(Protocol):
    """Receives the steps of long work, in order, from the thread that runs it."""

    def step(self, title: str, total: int | None) -> AbstractContextManager[Advance]:
        """Begin the step ``title`` of ``total`` bytes (None: not known); it ends with the context."""
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


class SilentProgress:
    """Reports nothing."""

    @contextmanager
    def step(self, title: str, total: int | None) -> Iterator[Advance]:
        """Begin a step without a report."""
        yield lambda count: None

    def warn(self, message: str) -> None:
        """Drop the warning; it is in the result too."""
