"""CRCs without fastcrc are those with it."""

from __future__ import annotations

import random
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cosremaster import crc

CHECKED = b"123456789"
VECTORS = {"crc16_xmodem": 0x31C3, "crc32": 0xCBF43926, "crc32c": 0xE3069283, "crc64_xz": 0x995DC9BBDF1939FA}
"""The check values of the catalogue of parametrised CRC algorithms (reveng.sourceforge.io)."""

LONG = random.Random(7).randbytes(400_000)


@pytest.mark.parametrize("is_fast", [True, False], ids=["fast", "plain"])
def test_check_values(is_fast: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    crc._quickest.cache_clear()
    if not is_fast:
        monkeypatch.setitem(sys.modules, "fastcrc", None)
    try:
        assert {name: getattr(crc, name)(CHECKED) for name in VECTORS} == VECTORS
        assert [crc.crc32(CHECKED[4:], crc.crc32(CHECKED[:4])), crc.crc32c(CHECKED[4:], crc.crc32c(CHECKED[:4]))] == [
            VECTORS["crc32"], VECTORS["crc32c"],
        ]  # fmt: skip
        is_plain = crc._quickest("crc64", "xz", crc._crc64_plainly) is crc._crc64_plainly
        assert is_plain is not is_fast
    finally:
        crc._quickest.cache_clear()


@settings(max_examples=40, deadline=None)
@given(st.binary(max_size=200), st.integers(0, (1 << 64) - 1))
def test_short_runs(data: bytes, before: int) -> None:
    assert crc._crc64_plainly(data, before) == crc.crc64_xz(data, before)
    assert crc._crc32c_plainly(data, before >> 32) == crc.crc32c(data, before >> 32)


@pytest.mark.parametrize("size", [(1 << 18) - 1, 1 << 18, (1 << 18) + 1, 400_000])
def test_long_runs_are_folded(size: int) -> None:
    view = memoryview(LONG)[:size]
    assert crc._crc64_plainly(view, 5) == crc.crc64_xz(view, 5)
    cut = size // 3
    assert crc._crc64_plainly(view[cut:], crc._crc64_plainly(view[:cut])) == crc.crc64_xz(view)
