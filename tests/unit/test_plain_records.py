"""Records of ordinary files are read a shorter way, because an image may have 100,000 of them: with the same result."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cosremaster.errors import ImageError
from cosremaster.io.source import ByteSource, open_source
from cosremaster.iso.ecma119.records import DirectoryRecord
from cosremaster.iso.model import IsoFile
from cosremaster.iso.rockridge import read
from cosremaster.units import Lba

_PX = b"PX\x2c\x01" + b"".join(n.to_bytes(4, "little") + n.to_bytes(4, "big") for n in (0o100644, 1, 7, 8, 99))
_WHOLE = (
    _PX, _PX[:2] + b"\x24\x01" + _PX[4:36], b"NM\x08\x01\0abc", b"NM\x05\x01\2", b"NM\x08\x01\0a\0c", b"RR\x05\x01\x89",
    b"TF\x0c\x01\x02" + bytes((126, 11, 28, 16, 58, 0, 0)), b"SL\x0a\x01\0\0\3lib", b"RE\x04\x01", b"ST\x04\x01",
    b"CL\x0c\x01" + (40).to_bytes(4, "little") + (40).to_bytes(4, "big"), b"ZF\x10\x01pz" + bytes(10),
)  # fmt: skip
_BROKEN = (b"NM\x03\x01", b"NM\xf0\x01\0a", b"PX\x06\x01\0\0", b"NM\0\x01", b"TF\x05\x01\x02")


def _make_record(fields: bytes, name: bytes) -> bytes:
    """Return a directory record with these fields."""
    head = bytes(32) + bytes((len(name),)) + name + b"\0" * (1 - len(name) % 2)
    return bytes((min(255, len(head) + len(fields)),)) + (head + fields)[1:]


def _read_both(raw: bytes, source: ByteSource) -> list[object]:
    """Return what both readers of fields make of a record, or the words of their errors."""
    results: list[object] = []
    for reader in (read.read_rock_ridge, read.read_attributes):
        try:
            results.append(reader(source, raw, 2048, 0, Lba(0)))
        except ImageError as error:
            results.append(str(error))
    return results


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(_WHOLE + _BROKEN), max_size=5), st.sampled_from((b"\0", b"A.;1", b"AB.;1")))
def test_the_short_way_gives_what_the_long_one_gives(fields: list[bytes], name: bytes) -> None:
    """Any order of fields, whole and broken ones, reads as if there were no short way."""
    raw = _make_record(b"".join(fields), name)
    with open_source(Path(__file__)) as source, pytest.MonkeyPatch.context() as patch:
        short = _read_both(raw, source)
        patch.setattr(read, "_read_plain_fields", lambda *_: None)
        patch.setattr(read, "_split_fields", lambda *_: None)
        assert short == _read_both(raw, source)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(20, 40), st.integers(0, 5000)), min_size=1, max_size=4))
def test_block_runs_are_the_spans(extents: list[tuple[int, int]]) -> None:
    """Spans are the runs with a label; extents that follow each other are one; those without data are none."""
    records = tuple(DirectoryRecord(0, Lba(lba), length, 0, (), b"A") for lba, length in extents)
    file = IsoFile(b"a", records)
    assert [(span.start, span.end) for span in file.spans] == list(file.block_runs)
    joined: list[int] = []
    for record in records:
        joined += range(record.lba, record.lba + record.blocks)
    assert joined == [block for start, end in file.block_runs for block in range(start, end)]
    assert all(before[1] != after[0] for before, after in zip(file.block_runs, file.block_runs[1:], strict=False))
