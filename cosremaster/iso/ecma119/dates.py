"""The two forms of a date on an ISO 9660 image, as seconds since 1970 (ECMA-119; section numbers are its)."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

QUARTER = timedelta(minutes=15)
"""The unit in which offsets from Greenwich are counted (8.4.26.1)."""


def parse_short_date(raw: bytes) -> int:
    """A directory record's seven bytes (9.1.5); 0 where they are no date, or one before 1970."""
    return _seconds([1900 + raw[0], *raw[1:6]], raw[6])


def parse_long_date(raw: bytes) -> int:
    """Seventeen bytes with digits (8.4.26.1), hundredths left out; 0 where they are no date, or one before 1970."""
    if not raw[:14].isdigit():
        return 0
    return _seconds([int(raw[:4]), *(int(raw[at : at + 2]) for at in range(4, 14, 2))], raw[16])


def _seconds(fields: list[int], offset: int) -> int:
    """Of year, month, day, hour, minute and second; ``offset``: quarters of an hour east, as an unsigned byte."""
    year, month, day, hour, minute, second = fields
    east = QUARTER * (offset - 256 if offset > 127 else offset)
    try:
        local = datetime(year, month, day, hour, minute, second, tzinfo=timezone.utc)
    except ValueError:
        return 0
    return max(0, int(local.timestamp()) - int(east.total_seconds()))
