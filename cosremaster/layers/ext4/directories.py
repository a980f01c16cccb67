"""The directories of ext4 (Documentation/filesystems/ext4/directory.rst). Indexes of hashes look like empty entries."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from cosremaster.layers.ext4.checksums import crc32c
from cosremaster.records.tuples import NamedTuple

_ENTRY = struct.Struct("<IHBB")
_TAIL_SIZE, _TAIL_TYPE = 12, 0xDE
_INLINE_START = 4
"""Bytes before the entries of a directory in its inode: the number of the parent."""


class Ext4Entry(NamedTuple):
    """A name in a directory, and the number of its inode."""

    name: bytes
    inode: int


def parse_directory(data: bytes, block_size: int, seed: int | None) -> Iterator[Ext4Entry]:
    """Yield the entries of a directory with the bytes ``data``, without ``.`` and ``..``.

    ``seed``: of the checksum that each block of entries ends with; None without checksums.
    :raises ValueError: it is damaged.
    """
    for start in range(0, len(data), block_size):
        block = data[start : start + block_size]
        if seed is not None and _has_tail(block):
            (checksum,) = struct.unpack_from("<I", block, len(block) - 4)
            if crc32c(seed, block[:-_TAIL_SIZE]) != checksum:
                raise ValueError("the checksum of a block of the directory is wrong")
        yield from _parse_entries(block)


def parse_inline_directory(field: bytes, rest: bytes) -> Iterator[Ext4Entry]:
    """Yield the entries of a directory in its inode: in its ``field`` of 60 bytes, and in the ``rest`` of it.

    :raises ValueError: it is damaged.
    """
    yield from _parse_entries(field[_INLINE_START:])
    yield from _parse_entries(rest)


def _has_tail(block: bytes) -> bool:
    """Return whether ``block`` ends with a checksum; blocks of an index of hashes do not."""
    inode, length, name_length, kind = _ENTRY.unpack_from(block, len(block) - _TAIL_SIZE)
    return (inode, length, name_length, kind) == (0, _TAIL_SIZE, 0, _TAIL_TYPE)


def _parse_entries(block: bytes) -> Iterator[Ext4Entry]:
    """Yield the entries of ``block`` that are in use. :raises ValueError: one is damaged."""
    at = 0
    while at + _ENTRY.size <= len(block):
        inode, length, name_length, _ = _ENTRY.unpack_from(block, at)
        if length in (0, 0xFFFF) and len(block) >= 1 << 16:  # a length of 65,536 has no place in 16 bits
            length = len(block)
        elif len(block) >= 1 << 16:
            length = length & 0xFFFC | (length & 3) << 16
        if length < _ENTRY.size or length % 4 or at + length > len(block) or _ENTRY.size + name_length > length:
            raise ValueError("an entry of the directory has an impossible length")
        name = block[at + _ENTRY.size : at + _ENTRY.size + name_length]
        if inode and name not in (b".", b".."):
            if not name or b"/" in name or b"\0" in name:
                raise ValueError(f"an entry has the impossible name {name!r}")
            yield Ext4Entry(name, inode)
        at += length
