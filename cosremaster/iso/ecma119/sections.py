"""Split a file into file sections, each with a directory record and an extent of its own (ECMA-119, 6.5.1)."""

from __future__ import annotations

from cosremaster.units import BLOCK, blocks_for

MAX_EXTENT = 0xFFFFFFFF
"""The most bytes that one directory record can describe (9.1.4)."""
MAX_SECTION = MAX_EXTENT // BLOCK * BLOCK
"""The most bytes of a file section that another section follows: whole blocks."""


def split_into_sections(length: int, least: int) -> tuple[int, ...]:
    """Return the lengths of the fewest file sections, but ``least`` at least, that hold ``length`` bytes.

    All sections but the last are whole blocks.
    """
    needed = 1 if length <= MAX_EXTENT else 1 + -(-(length - MAX_EXTENT) // MAX_SECTION)
    each = MAX_SECTION if needed >= least else max(1, blocks_for(length) // least) * BLOCK
    sections, remaining = [], length
    for _ in range(max(needed, least) - 1):
        sections.append(min(each, remaining // BLOCK * BLOCK))
        remaining -= sections[-1]
    return (*sections, remaining)
