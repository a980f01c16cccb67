"""Split a file into file sections, each with a directory record and an extent of its own (ECMA-119, 6.5.1)."""

from __future__ import annotations

from cosremaster.units import BLOCK

MAX_EXTENT = 0xFFFFFFFF
"""The most bytes that one directory record can describe (9.1.4)."""
MAX_SECTION = MAX_EXTENT // BLOCK * BLOCK
"""The most bytes of a file section that another section follows: whole blocks."""


def split_into_sections(length: int) -> tuple[int, ...]:
    """Return the lengths of the fewest file sections that hold ``length`` bytes; all but the last are whole blocks."""
    needed = 1 if length <= MAX_EXTENT else 1 + -(-(length - MAX_EXTENT) // MAX_SECTION)
    return (*[MAX_SECTION] * (needed - 1), length - MAX_SECTION * (needed - 1))
