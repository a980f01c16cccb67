"""A file in several sections: how long each is, and the directory records that more of them need (ECMA-119, 6.5.1)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from cosremaster.errors import Place, UnsupportedError
from cosremaster.iso.model import MULTI_EXTENT
from cosremaster.iso.records import both_endian
from cosremaster.units import BLOCK, Lba, blocks_for

MAX_EXTENT = 0xFFFFFFFF
"""Bytes of a file in one directory record (9.1.4)."""
MAX_SECTION = MAX_EXTENT // BLOCK * BLOCK
"""Bytes of a file section that another follows: whole blocks."""

_RECORD_LBA, _RECORD_LENGTH, _RECORD_FLAGS = 2, 10, 25


def section_lengths(length: int, least: int) -> tuple[int, ...]:
    """``length`` bytes as sections, whole blocks in all but the last: as few as can be, but ``least`` of them."""
    needed = 1 if length <= MAX_EXTENT else 1 + -(-(length - MAX_EXTENT) // MAX_SECTION)
    each = MAX_SECTION if needed >= least else max(1, blocks_for(length) // least) * BLOCK
    sections, left = [], length
    for _ in range(max(needed, least) - 1):
        sections.append(min(each, left // BLOCK * BLOCK))
        left -= sections[-1]
    return (*sections, left)


def with_records(data: bytes, more: Mapping[int, Sequence[tuple[Lba, int]]], place: Place) -> bytes:
    """A directory's bytes with records inserted, laid out anew: none crosses a block (6.8.1.1).

    ``more``: the byte offset of a file's last record -> block and bytes of each section that follows it, whose record
    is a copy of that one. :raises UnsupportedError: the directory's blocks have no room for them.
    """
    laid, room = bytearray(), 0
    for record in _inserted(data, more):
        if len(record) > room:
            laid += bytes(room)
            room = BLOCK
        laid += record
        room -= len(record)
    if len(laid) > len(data):
        count = sum(len(sections) for sections in more.values())
        raise UnsupportedError(f"its directory has no room for {count} more records, which its size needs", place)
    return bytes(laid).ljust(len(data), b"\0")


def _inserted(data: bytes, more: Mapping[int, Sequence[tuple[Lba, int]]]) -> Iterator[bytes]:
    """All records in order, the new ones among them; what another section follows says so in its flags."""
    for at, record in _records(data):
        sections = more.get(at, ())
        yield _flagged(record, bool(sections) or bool(record[_RECORD_FLAGS] & MULTI_EXTENT))
        for index, (lba, length) in enumerate(sections, 1):
            new = bytearray(record)
            new[_RECORD_LBA : _RECORD_LBA + 8] = both_endian(lba)
            new[_RECORD_LENGTH : _RECORD_LENGTH + 8] = both_endian(length)
            yield _flagged(bytes(new), index < len(sections))


def _flagged(record: bytes, another: bool) -> bytes:
    flags = record[_RECORD_FLAGS] & ~MULTI_EXTENT | (MULTI_EXTENT if another else 0)
    return record[:_RECORD_FLAGS] + bytes((flags,)) + record[_RECORD_FLAGS + 1 :]


def _records(data: bytes) -> Iterator[tuple[int, bytes]]:
    for block in range(0, len(data), BLOCK):
        at = block
        while at < min(block + BLOCK, len(data)) and data[at]:
            yield at, data[at : at + data[at]]
            at += data[at]
