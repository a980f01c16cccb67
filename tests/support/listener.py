"""A progress that records what it hears."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from cosremaster.progress import Advance


class Listener:
    """A progress that notes what it is told."""

    def __init__(self) -> None:
        self.steps: dict[str, tuple[int | None, int]] = {}
        self.warnings: list[str] = []

    @contextmanager
    def step(self, title: str, total: int | None) -> Iterator[Advance]:
        """Adds up the bytes of a step."""
        done = 0

        def advance(count: int) -> None:
            nonlocal done
            done += count

        yield advance
        self.steps[title] = (total, done)

    def warn(self, message: str) -> None:
        """Notes a warning."""
        self.warnings.append(message)
