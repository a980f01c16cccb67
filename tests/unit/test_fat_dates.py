"""Dates in directory entries of FAT, beside what datetime says of them."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

from hypothesis import given
from hypothesis import strategies as st

from cosremaster.boot.fat_names import pack_time, parse_time

FIRST, LAST = datetime(1980, 1, 1, tzinfo=timezone.utc), datetime(2107, 12, 31, 23, 59, 58, tzinfo=timezone.utc)


def expect(raw: bytes) -> int:
    """Return what datetime says of the time and date ``raw``; 0 where it knows no such date."""
    clock, date = int.from_bytes(raw[:2], "little"), int.from_bytes(raw[2:], "little")
    try:
        when = datetime(
            1980 + (date >> 9), date >> 5 & 15, date & 31, clock >> 11, clock >> 5 & 63, (clock & 31) * 2,
            tzinfo=timezone.utc,
        )  # fmt: skip
    except ValueError:
        return 0
    return int(when.timestamp())


def test_every_date_is_read_as_datetime_reads_it() -> None:
    for date in range(1 << 16):
        raw = b"\x21\x43" + date.to_bytes(2, "little")
        assert parse_time(raw) == expect(raw)


def test_every_time_of_day_is_read_as_datetime_reads_it() -> None:
    for clock in range(1 << 16):
        raw = clock.to_bytes(2, "little") + b"\x5d\x58"  # 29 February 2024
        assert parse_time(raw) == expect(raw)


@given(st.integers(-(1 << 40), 1 << 40))
def test_a_date_is_packed_as_the_nearest_that_fits(seconds: int) -> None:
    nearest = datetime(1970, 1, 1, tzinfo=timezone.utc) + timedelta(
        seconds=min(max(seconds, FIRST.timestamp()), LAST.timestamp())
    )
    assert parse_time(pack_time(seconds)) == int(nearest.timestamp()) // 2 * 2
