"""A file in several sections: how long each is (ECMA-119, 6.5.1)."""

from __future__ import annotations

from cosremaster.units import BLOCK, blocks_for

MAX_EXTENT = 0xFFFFFFFF
"""Bytes of a file in one directory record (9.1.4)."""
MAX_SECTION = MAX_EXTENT // BLOCK * BLOCK
"""Bytes of a file section that another follows: whole blocks."""


def split_into_sections(length: int, least: int) -> tuple[int, ...]:
    """``length`` bytes as sections, whole blocks in all but the last: as few as can be, but ``least`` of them."""
    needed = 1 if length <= MAX_EXTENT else 1 + -(-(length - MAX_EXTENT) // MAX_SECTION)
    each = MAX_SECTION if needed >= least else max(1, blocks_for(length) // least) * BLOCK
    sections, left = [], length
    for _ in range(max(needed, least) - 1):
        sections.append(min(each, left // BLOCK * BLOCK))
        left -= sections[-1]
    return (*sections, left)
