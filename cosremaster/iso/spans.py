"""Runs of blocks: what layouts are made of."""

from __future__ import annotations

from dataclasses import dataclass

from cosremaster.units import Lba


@dataclass(frozen=True, slots=True)
class Span:
    """A run of blocks and what it is for. ``end`` is the block behind it."""

    start: Lba
    blocks: int
    label: str

    @property
    def end(self) -> Lba:
        """The block behind the last."""
        return Lba(self.start + self.blocks)

    def touches(self, other: Span) -> bool:
        """True when the two share a block."""
        return self.start < other.end and other.start < self.end
