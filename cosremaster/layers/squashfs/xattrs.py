"""The table of extended attributes of a squashfs file system, with new ones behind those that it has.

Behind the names and values stands the table of ids: each leads to the attributes of the inodes that have its number.
Names and values that are there stay as they are; where nothing is new, all of the table's bytes do.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

from cosremaster.layers.squashfs.filesystem import (
    MAX_VALUE,
    MAX_XATTRS,
    OUT_OF_LINE,
    XATTR_ID,
    XATTR_PREFIXES,
    SquashfsFilesystem,
    name_xattrs,
)
from cosremaster.layers.squashfs.inodes import NO_XATTR
from cosremaster.layers.squashfs.metadata import METADATA_SIZE, MetadataWriter, pack_table, reopen_table, store_block
from cosremaster.layers.squashfs.superblock import ABSENT, Flags
from cosremaster.tree.nodes import Xattrs

_MAX_COMPARED = 4096
"""Numbers whose attributes are read, to give equal ones the same number. An image with more gets further numbers."""

_REFERENCE_SIZE = 8
"""Bytes that lead to a value which stands elsewhere. A value that is no shorter is written once: mksquashfs does so,
and in append mode it crashes where it finds such a value twice (check_value_dupl in its xattr.c)."""


class XattrTable:
    """The extended attributes of ``filesystem``, and new ones."""

    def __init__(self, filesystem: SquashfsFilesystem) -> None:
        """Begin without new ones. :raises CorruptError: the table does not fit into the image."""
        self._filesystem = filesystem
        self._numbers: dict[Xattrs, int] | None = None
        self._new: list[Xattrs] = []
        self._places: dict[bytes, int] = {}
        """The reference of each value that a further attribute can share."""
        self._start, self._count = filesystem.xattr_header if filesystem.superblock.has_xattrs else (0, 0)

    @property
    def is_changed(self) -> bool:
        """Whether there are new ones."""
        return bool(self._new)

    def number(self, xattrs: Xattrs) -> int:
        """Return the number of ``xattrs``, which become new ones where no inode has such. Raises as reading them."""
        if not xattrs:
            return NO_XATTR
        if self._numbers is None:
            self._numbers = self._read_numbers()
        if xattrs not in self._numbers:
            self._numbers[xattrs] = self._count + len(self._new)
            self._new.append(xattrs)
        return self._numbers[xattrs]

    def _read_numbers(self) -> dict[Xattrs, int]:
        """Return the numbers of the attributes that are there, and note where their values stand."""
        numbers: dict[Xattrs, int] = {}
        for number in range(min(self._count, _MAX_COMPARED)):
            pairs = self._filesystem.list_xattrs(number)
            numbers.setdefault(tuple(sorted(name_xattrs(pairs).items())), number)
            for pair in pairs:
                if len(pair.value) >= _REFERENCE_SIZE:
                    self._places.setdefault(pair.value, pair.place)
        return numbers

    def pack(self, position: int) -> tuple[bytes, int]:
        """Return the whole table for byte ``position`` of the image, and the place of its header; b"" for none."""
        superblock = self._filesystem.superblock
        if not self._new and not superblock.has_xattrs:
            return b"", ABSENT
        if not self._new:
            return self._move(position)
        is_stored = superblock.flags & Flags.STORED_XATTRS
        pack: Callable[[bytes], bytes | None] = store_block if is_stored else self._filesystem.codec.pack
        values, references = self._pack_values(pack)
        plain = self._read_ids() + b"".join(references)
        ids, index = pack_table(plain, pack, position + len(values))
        at = index - position - len(values)
        head = XATTR_ID.pack(position, self._count + len(self._new), 0)
        return values + ids[:at] + head + ids[at:], index

    def _read_ids(self) -> bytes:
        """Return the plain table of the ids that are there: their references count from the table's start."""
        index = self._filesystem.superblock.xattr_table + XATTR_ID.size
        return self._filesystem.metadata.read_indexed(index, XATTR_ID.size * self._count) if self._count else b""

    def _pack_values(self, pack: Callable[[bytes], bytes | None]) -> tuple[bytes, list[bytes]]:
        """Return all names and values, new ones behind the old, and the new ids."""
        table, superblock = self._filesystem.table, self._filesystem.superblock
        kept, writer = 0, MetadataWriter(pack)
        if superblock.has_xattrs:
            end = superblock.xattr_table
            if self._count:
                end = int.from_bytes(table.read(superblock.xattr_table + XATTR_ID.size, 8), "little")
            kept, writer = reopen_table(self._filesystem.metadata, (self._start, end), pack)
        ids = [_pack_list(xattrs, writer, self._places) for xattrs in self._new]
        return table.read(self._start, kept) + writer.finish(), ids

    def _move(self, position: int) -> tuple[bytes, int]:
        """Return the table as it is for byte ``position``, and the place of its header."""
        old, table = self._filesystem.superblock.xattr_table, self._filesystem.table
        shift = position - self._start
        blocks = table.read(self._start, old - self._start)
        size = 8 * -(-XATTR_ID.size * self._count // METADATA_SIZE)
        places = struct.iter_unpack("<Q", table.read(old + XATTR_ID.size, size))
        head = table.read(old, XATTR_ID.size)
        index = b"".join(struct.pack("<Q", place + shift) for (place,) in places)
        return blocks + struct.pack("<Q", position) + head[8:] + index, position + len(blocks)


def _pack_list(xattrs: Xattrs, writer: MetadataWriter, places: dict[bytes, int]) -> bytes:
    """Write the attributes of a number and return its id; ``places``: where values stand that were written before."""
    start = writer.reference
    size = sum(len(name) + 1 + len(value) for name, value in xattrs)  # as mksquashfs counts
    for name, value in xattrs:
        kind, suffix = _split_name(name)
        place = places.get(value) if len(value) >= _REFERENCE_SIZE else None
        if place is not None:
            value, kind = struct.pack("<Q", place), kind | OUT_OF_LINE  # noqa: PLW2901
        head = struct.pack("<HH", kind, len(suffix)) + suffix
        writer.add(head)
        reference = writer.add(struct.pack("<I", len(value)) + value)
        if place is None:
            places.setdefault(value, reference)
    return XATTR_ID.pack(start, len(xattrs), size)


def _split_name(name: bytes) -> tuple[int, bytes]:
    """Return the number of the class of ``name``, and the rest of it."""
    for kind, prefix in XATTR_PREFIXES.items():
        if name.startswith(prefix):
            return kind, name[len(prefix) :]
    raise ValueError(name)


def can_hold(xattrs: Xattrs) -> bool:
    """Return whether an inode can have ``xattrs``: so many, and with values that readers take."""
    return len(xattrs) <= MAX_XATTRS and all(len(value) <= MAX_VALUE for _, value in xattrs)
