"""Directory blocks of an EROFS file system: entries sorted by name, with the names behind them in each block."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator

from cosremaster.records.tuples import NamedTuple

DIRENT = struct.Struct("<QHBx")
DIRECTORY_TYPE = 2
"""The type of a directory in an entry, by which none has to read the inode (include/linux/fs_types.h)."""


class ErofsEntry(NamedTuple):
    """A name in a directory: the number of its inode, and the type of that."""

    name: bytes
    nid: int
    type: int


def parse_block(block: bytes) -> Iterator[ErofsEntry]:
    """Yield the entries of a directory's ``block``, those of itself and its parent too. :raises ValueError: damage."""
    if len(block) < DIRENT.size:
        raise ValueError("a block is cut off")
    (first,) = struct.unpack_from("<H", block, 8)
    if first % DIRENT.size or not DIRENT.size <= first < len(block):
        raise ValueError("a block has an impossible number of entries")
    entries = list(DIRENT.iter_unpack(block[:first]))
    ends = [offset for _, offset, _ in entries[1:]]
    for (nid, start, kind), end in zip(entries, [*ends, len(block)], strict=True):
        name = block[start:end]
        if end == len(block):
            name = name.partition(b"\0")[0]
        if not first <= start < end <= len(block) or not name or len(name) > 255 or b"/" in name or b"\0" in name:
            raise ValueError("a name is outside of its block, or none")
        yield ErofsEntry(name, nid, kind)


def pack_blocks(entries: Iterable[ErofsEntry], block_size: int) -> bytes:
    """Return the listing of ``entries``, which are sorted by name; its last block ends with the last name."""
    blocks: list[bytes] = []
    waiting: list[ErofsEntry] = []
    room = block_size
    for entry in entries:
        need = DIRENT.size + len(entry.name)
        if need > room:
            blocks.append(_pack_block(waiting).ljust(block_size, b"\0"))
            waiting, room = [], block_size
        waiting.append(entry)
        room -= need
    return b"".join([*blocks, _pack_block(waiting)])


def _pack_block(entries: Iterable[ErofsEntry]) -> bytes:
    """Return one block of ``entries``, as long as they need."""
    listed = list(entries)
    heads, names, at = [], [], DIRENT.size * len(listed)
    for entry in listed:
        heads.append(DIRENT.pack(entry.nid, at, entry.type))
        names.append(entry.name)
        at += len(entry.name)
    return b"".join([*heads, *names])
