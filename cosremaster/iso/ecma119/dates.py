"""Parse and pack the two forms of a date on an ISO 9660 volume (ECMA-119; section numbers are those of the standard).

Dates in the package are whole seconds since 1970 in UTC.
"""

from __future__ import annotations

import time
from functools import lru_cache

from cosremaster.units import date_seconds

QUARTER = 15 * 60
"""The unit of offsets from Greenwich Mean Time (8.4.26.1), in seconds."""
_YEAR_1900, _YEAR_2156 = -2208988800, 5869584000
YEAR_1, YEAR_10000 = -62135596800, 253402300800
"""The range of a date with digits, in seconds since 1970; the end is exclusive."""


@lru_cache(maxsize=1024)  # the files of an image have few dates
def parse_short_date(raw: bytes) -> int:
    """Parse the seven bytes of a directory record's date (9.1.5).

    Returns seconds since 1970; 0 where the bytes are not a date, or are a date before 1970.
    """
    return _to_seconds([1900 + raw[0], *raw[1:6]], raw[6])


def parse_long_date(raw: bytes) -> int:
    """Parse the seventeen bytes of a date with digits (8.4.26.1), without its hundredths of a second.

    Returns seconds since 1970; 0 where the bytes are not a date, or are a date before 1970.
    """
    if not raw[:14].isdigit():
        return 0
    return _to_seconds([int(raw[:4]), *(int(raw[at : at + 2]) for at in range(4, 14, 2))], raw[16])


def _to_seconds(fields: list[int], offset: int) -> int:
    """Return the seconds since 1970 of ``fields``: year, month, day, hour, minute, second.

    ``offset``: quarters of an hour east of Greenwich, a signed number given as an unsigned byte.
    """
    seconds = date_seconds(*fields)
    if seconds is None:
        return 0
    east = QUARTER * (offset - 256 if offset > 127 else offset)
    return max(0, seconds - east)


def pack_short_date(seconds: int) -> bytes:
    """Return the seven bytes of a date (9.1.5) in UTC; the nearest date of 1900 to 2155."""
    date = time.gmtime(min(max(seconds, _YEAR_1900), _YEAR_2156 - 1))
    return bytes((date.tm_year - 1900, *date[1:6], 0))


def pack_long_date(seconds: int) -> bytes:
    """Return the seventeen bytes of a date with digits (8.4.26.1) in UTC; the nearest date of the years 1 to 9999."""
    date = time.gmtime(min(max(seconds, YEAR_1), YEAR_10000 - 1))
    return b"%04d%02d%02d%02d%02d%02d00\0" % date[:6]
