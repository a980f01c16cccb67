"""Plain bytes as a source of pieces."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True, eq=False)
class Memory:
    """A source of pieces that holds its bytes."""

    data: bytes
    name: str = "memory"

    def chunks(self, offset: int, length: int) -> Iterator[bytes]:
        """Yield bytes from ``offset`` on."""
        yield self.data[offset : offset + length]
