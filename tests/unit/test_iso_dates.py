"""Dates on a volume are those of Python's calendar."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

from hypothesis import given, settings
from hypothesis import strategies as st

from cosremaster.iso.ecma119.dates import parse_long_date, parse_short_date

FIELDS = st.tuples(
    st.integers(0, 9999) | st.sampled_from([1900, 1904, 1970, 2000, 2100]), st.integers(0, 13), st.integers(0, 32),
    st.integers(0, 25), st.integers(0, 61), st.integers(0, 61), st.integers(-128, 127),
)  # fmt: skip


def _expect(year: int, month: int, day: int, hour: int, minute: int, second: int, quarters: int) -> int:
    """What Python's calendar says: 0 for what is no date, or one before 1970."""
    try:
        local = datetime(year, month, day, hour, minute, second, tzinfo=timezone.utc)
    except ValueError:
        return 0
    return max(0, int(local.timestamp()) - int(timedelta(minutes=15 * quarters).total_seconds()))


@settings(max_examples=300, deadline=None)
@given(FIELDS)
def test_dates(fields: tuple[int, int, int, int, int, int, int]) -> None:
    *numbers, quarters = fields
    text = b"%04d%02d%02d%02d%02d%02d00" % tuple(numbers) + bytes((quarters % 256,))
    assert parse_long_date(text) == _expect(*fields)
    year = numbers[0] % 256
    assert parse_short_date(bytes((year, *numbers[1:], quarters % 256))) == _expect(1900 + year, *fields[1:])
