"""The directories of ext4 (Documentation/filesystems/ext4/directory.rst). Indexes of hashes look like empty entries."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from cosremaster.layers.ext4.checksums import crc32c
from cosremaster.records.tuples import NamedTuple

_ENTRY = struct.Struct("<IHBB")
_TAIL_SIZE, _TAIL_TYPE = 12, 0xDE
_ROOT_COUNT, _NODE_COUNT = 32, 8
"""Where the first block of an index of hashes, and where others, say how many entries they have room for and have."""
_INLINE_START = 4
"""Bytes before the entries of a directory in its inode: the number of the parent."""


class Ext4Entry(NamedTuple):
    """A name in a directory, and the number of its inode."""

    name: bytes
    inode: int


def parse_directory(data: bytes, block_size: int, seed: int | None, *, is_indexed: bool) -> Iterator[Ext4Entry]:
    """Yield the entries of a directory with the bytes ``data``, without ``.`` and ``..``.

    ``seed``: of the checksum that each block ends with; None without checksums. ``is_indexed``: there are blocks of an
    index of hashes, the first and perhaps others.
    :raises ValueError: it is damaged.
    """
    for start in range(0, len(data), block_size):
        block = data[start : start + block_size]
        if seed is not None:
            if is_indexed and (not start or _begins_index_node(block)):
                _check_index_node(block, seed, at=_ROOT_COUNT if not start else _NODE_COUNT)
            else:
                _check_tail(block, seed)
        yield from _parse_entries(block)


def parse_inline_directory(field: bytes, rest: bytes) -> Iterator[Ext4Entry]:
    """Yield the entries of a directory in its inode: in its ``field`` of 60 bytes, and in the ``rest`` of it.

    :raises ValueError: it is damaged.
    """
    yield from _parse_entries(field[_INLINE_START:])
    yield from _parse_entries(rest)


def _begins_index_node(block: bytes) -> bool:
    """Return whether ``block``, not the first one, belongs to an index of hashes: one empty entry fills it."""
    inode, length, _, _ = _ENTRY.unpack_from(block, 0)
    return not inode and _full_length(length, len(block)) == len(block)


def _check_index_node(block: bytes, seed: int, at: int) -> None:
    """Check the checksum of a node of the index, whose entries are counted at byte ``at``; it stands behind the last
    place for one (struct dx_tail). :raises ValueError: it is wrong.

    Bytes of the block's time as a block of names may stand between, its old checksum too.
    """
    limit, count = struct.unpack_from("<HH", block, at)
    tail, end = at + 8 * limit, at + 8 * count
    if count > limit or tail + 8 > len(block):
        raise ValueError("a block of the directory's index is damaged")
    (checksum,) = struct.unpack_from("<I", block, tail + 4)
    if crc32c(crc32c(crc32c(seed, block[:end]), block[tail : tail + 4]), bytes(4)) != checksum:
        raise ValueError("the checksum of a block of the directory's index is wrong")


def _check_tail(block: bytes, seed: int) -> None:
    """Check the checksum that a block of names ends with. :raises ValueError: it is wrong, or missing."""
    (checksum,) = struct.unpack_from("<I", block, len(block) - 4)
    if (
        _ENTRY.unpack_from(block, len(block) - _TAIL_SIZE) != (0, _TAIL_SIZE, 0, _TAIL_TYPE)
        or crc32c(seed, block[:-_TAIL_SIZE]) != checksum
    ):
        raise ValueError("the checksum of a block of the directory is wrong")


def _full_length(length: int, block_size: int) -> int:
    """Return the length of an entry, of which those of 65,536 bytes and more have no place in 16 bits."""
    if block_size < 1 << 16:
        return length
    return block_size if length in (0, 0xFFFF) else length & 0xFFFC | (length & 3) << 16


def _parse_entries(block: bytes) -> Iterator[Ext4Entry]:
    """Yield the entries of ``block`` that are in use. :raises ValueError: one is damaged."""
    at = 0
    while at + _ENTRY.size <= len(block):
        inode, length, name_length, _ = _ENTRY.unpack_from(block, at)
        length = _full_length(length, len(block))
        if length < _ENTRY.size or length % 4 or at + length > len(block) or _ENTRY.size + name_length > length:
            raise ValueError("an entry of the directory has an impossible length")
        name = block[at + _ENTRY.size : at + _ENTRY.size + name_length]
        if inode and name not in (b".", b".."):
            if not name or b"/" in name or b"\0" in name:
                raise ValueError(f"an entry has the impossible name {name!r}")
            yield Ext4Entry(name, inode)
        at += length
