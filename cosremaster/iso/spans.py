"""Runs of blocks, from which layouts are made."""

from __future__ import annotations

from cosremaster.records import Struct
from cosremaster.units import FIRST_DESCRIPTOR, Lba


class Span(Struct, frozen=True, checked=False):
    """A run of blocks, with a label that says what the blocks hold."""

    start: Lba
    blocks: int
    label: str

    @property
    def end(self) -> Lba:
        """The block after the last one."""
        return Lba(self.start + self.blocks)

    def overlaps(self, other: Span) -> bool:
        """Return True if the two spans share a block."""
        return self.start < other.end and other.start < self.end


CONTINUED_RECORDS = "continued records"
"""The label of new continuation areas (SUSP 5.1)."""
SYSTEM_AREA = Span(Lba(0), FIRST_DESCRIPTOR, "system area")
"""The blocks in front of the volume descriptors (ECMA-119, 6.2.1)."""
