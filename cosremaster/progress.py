"""What long work tells whoever waits for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

Advance = Callable[[int], None]
"""Reports that so many more bytes are done."""


class Progress(Protocol):
    """Receives the steps of a remaster, in order, from the thread that runs it."""

    def step(self, title: str, total: int | None) -> AbstractContextManager[Advance]:
        """Begins a step called ``title`` of ``total`` bytes (None: not known); ends with the context."""
        ...

    def warn(self, message: str) -> None:
        """Something the user should know that stops nothing."""
        ...


class SilentProgress:
    """The progress of a caller who does not want any."""

    @contextmanager
    def step(self, title: str, total: int | None) -> Iterator[Advance]:
        """Takes the step and says nothing."""
        yield lambda count: None

    def warn(self, message: str) -> None:
        """Says nothing; the warning is in the result too."""
