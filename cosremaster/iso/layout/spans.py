"""Runs of blocks: what layouts are made of."""

from __future__ import annotations

from msgspec import Struct

from cosremaster.units import Lba


class Span(Struct, frozen=True):
    """A run of blocks and what it is for. ``end`` is the block behind it."""

    start: Lba
    blocks: int
    label: str

    @property
    def end(self) -> Lba:
        """The block behind the last."""
        return Lba(self.start + self.blocks)

    def overlaps(self, other: Span) -> bool:
        """True when the two share a block."""
        return self.start < other.end and other.start < self.end
