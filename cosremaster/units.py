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

_MONTHS = (31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
_DAYS_TO_1970 = 719162  # from the first of January of the year 1 on


def lba_offset(lba: Lba) -> int:
    """Return the byte offset of block ``lba``."""
    return lba * BLOCK


def blocks_for(length: int) -> int:
    """Return how many blocks ``length`` bytes take."""
    return -(-length // BLOCK)


def date_seconds(year: int, month: int, day: int, hour: int, minute: int, second: int) -> int | None:
    """Return the seconds since 1970 of a date in UTC; None where it is none, in the years 1 to 9999.

    ``datetime`` says the same, and takes longer to load than a small image to read.
    """
    if not (1 <= year <= 9999 and 1 <= month <= 12 and 0 <= hour < 24 and 0 <= minute < 60 and 0 <= second < 60):
        return None
    is_leap = year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)
    if not 1 <= day <= _MONTHS[month - 1] + (month == 2 and is_leap):
        return None
    before = year - 1
    days = 365 * before + before // 4 - before // 100 + before // 400 - _DAYS_TO_1970
    days += sum(_MONTHS[: month - 1]) + (month > 2 and is_leap) + day - 1
    return ((days * 24 + hour) * 60 + minute) * 60 + second


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
