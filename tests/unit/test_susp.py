"""Rock Ridge's fields: names in pieces and in continuation areas, and what is malformed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from cosremaster.errors import ImageError
from cosremaster.io.source import ByteSource, open_source
from cosremaster.iso.rockridge.read import NO_ROCK_RIDGE, RockRidge, read_rock_ridge
from tests.support.susp import AREA, BASE, both, field, more, name, record


@pytest.fixture
def source(tmp_path: Path) -> Iterator[ByteSource]:
    path = tmp_path / "image"
    area = name(b"-and-more") + field(b"ZF", b"pz" + bytes(10))
    block = AREA + 20 * 2048
    path.write_bytes(bytes(block) + area + bytes(100) + more(block + len(area) + 100, 28) + bytes(5000))
    with open_source(path) as opened:
        yield opened


def read(source: ByteSource, fields: bytes, identifier: bytes = b"A;1") -> RockRidge:
    return read_rock_ridge(source, record(fields, identifier), 1000, 0, BASE)


def test_no_fields_say_nothing(source: ByteSource) -> None:
    assert read(source, b"") == NO_ROCK_RIDGE
    assert read(source, bytes(9)) == NO_ROCK_RIDGE, "zeros end the fields"
    assert read(source, field(b"ST", b"") + name(b"behind the end")) == NO_ROCK_RIDGE


@pytest.mark.parametrize("identifier", [b"A;1", b"AB;1", b"ABC.D;1"])
def test_a_name_in_pieces(source: ByteSource, identifier: bytes) -> None:
    fields = field(b"PX", both(0o100644) + bytes(24)) + name(b"caf\xe9", 1) + name(b".txt")
    assert read(source, fields, identifier) == RockRidge(b"caf\xe9.txt")


def test_a_name_that_continues_elsewhere(source: ByteSource) -> None:
    at = AREA + 20 * 2048
    found = read(source, name(b"here", 1) + more(at, 30))
    assert found.name == b"here-and-more"
    assert found.zisofs_offset == at + 14, "in the image, where it has to be patched"


def test_what_is_no_regular_file(source: ByteSource) -> None:
    assert not read(source, field(b"SL", bytes(8))).is_regular
    assert not read(source, field(b"PX", both(0o060644) + bytes(24))).is_regular
    assert read(source, field(b"CL", both(30))).child_lba == BASE + 30
    assert read(source, field(b"RE", b"")).is_relocated


@pytest.mark.parametrize("bad", [b"NM\x03\x01", b"NM\xff\x01abc"])
def test_malformed_fields_are_told_with_their_place(source: ByteSource, bad: bytes) -> None:
    with pytest.raises(ImageError, match=r"@0x40C: malformed Rock Ridge field") as told:
        read(source, bad)
    assert told.value.place is not None and told.value.place.offset == 1000 + 36


def test_continuations_without_an_end_are_told(source: ByteSource) -> None:
    at = AREA + 20 * 2048
    with pytest.raises(ImageError, match="continue without an end"):
        read(source, more(at + 30 + 100, 28))
