"""The units of offsets and sizes inside an image."""

from __future__ import annotations

from typing import NewType

Lba = NewType("Lba", int)
"""A logical block address: 2,048-byte blocks from the start of the image (ECMA-119, 6.2)."""

Sector = NewType("Sector", int)
"""A disk sector: 512 bytes, the unit of partition tables and of El Torito load sizes."""

FIRST_DESCRIPTOR = Lba(16)
"""The block of the first volume descriptor, behind the system area (ECMA-119, 6.2.1)."""

BLOCK = 2048
SECTOR = 512
SECTORS_PER_BLOCK = BLOCK // SECTOR


def lba_offset(lba: Lba) -> int:
    """Return the byte offset of block ``lba``."""
    return lba * BLOCK


def blocks_for(length: int) -> int:
    """Return how many blocks ``length`` bytes take."""
    return -(-length // BLOCK)


def format_size(count: int) -> str:
    """Return ``count`` bytes for people: three figures and a binary unit."""
    value = float(count)
    for unit in ("B", "KiB", "MiB"):
        if value < 1024:
            return f"{value:.0f} B" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.2f} GiB"


def format_seconds(seconds: float) -> str:
    """Return ``seconds`` for people."""
    whole = round(seconds)
    if whole < 100:
        return f"{whole} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"
