"""The rules of inodes and directories of a squashfs file system."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from itertools import pairwise

from cosremaster.errors import CorruptError, printable
from cosremaster.layers.squashfs.check_tables import Breach
from cosremaster.layers.squashfs.directories import EMPTY_SIZE, SquashfsEntry
from cosremaster.layers.squashfs.filesystem import SquashfsFilesystem
from cosremaster.layers.squashfs.inodes import (
    DIRECTORY,
    FILE,
    NO_FRAGMENT,
    NO_XATTR,
    STORED_BLOCK,
    SYMLINK,
    Inode,
    parse_inode,
)
from cosremaster.layers.squashfs.metadata import METADATA_SIZE, split_reference
from cosremaster.layers.squashfs.superblock import SUPERBLOCK_SIZE

_MAX_NAME, _MAX_TARGET = 255, 4095
_HEAD = 16
_LONG_DIRECTORY, _LONG_FILE, _LONG_SYMLINK = 8, 9, 10
_FIXED_SIZES = {DIRECTORY: 32, 4: 24, 5: 24, 6: 20, 7: 20, 11: 28, 12: 28, 13: 24, 14: 24}
"""Bytes of the inodes of a type whose length does not depend on what they hold."""
_BASIC = struct.Struct("<12xIIIII")
"""Of a basic file: number, where its data begin, fragment, place in that, size. A basic directory's number stands there
too."""


class InodeScanner:
    """Goes over the inodes in metadata blocks one after another, as 7-Zip does."""

    def __init__(self, filesystem: SquashfsFilesystem, blocks: Sequence[int]) -> None:
        """Begin before the first of ``blocks``."""
        self._filesystem = filesystem
        self._waiting = iter(blocks)
        self._data = bytearray()
        self._at = 0

    def _fill(self, size: int) -> bool:
        """Have ``size`` bytes of the inode at hand. Tell whether they are there."""
        while len(self._data) - self._at < size:
            block = next(self._waiting, None)
            if block is None:
                return False
            del self._data[: self._at]
            self._at = 0
            self._data += self._filesystem.metadata.block(block)[0]
        return True

    def _number(self, at: int, form: str = "<I") -> int:
        """Return the number at byte ``at`` of the inode, whose bytes are at hand up to there."""
        number: int = struct.unpack_from(form, self._data, self._at + at)[0]
        return number

    def _measure(self, kind: int) -> int:
        """Return the bytes of the inode, which is of type ``kind``; 0 where it is cut off or cannot be."""
        if kind in _FIXED_SIZES:
            return _FIXED_SIZES[kind]
        if kind in (SYMLINK, _LONG_SYMLINK) and self._fill(24):
            return (24 if kind == SYMLINK else 28) + self._number(20)
        if kind == FILE and self._fill(32):
            return 32 + self._measure_blocks(self._number(28), self._number(20))
        if kind == _LONG_FILE and self._fill(56):
            return 56 + self._measure_blocks(self._number(24, "<Q"), self._number(44))
        return self._measure_index() if kind == _LONG_DIRECTORY and self._fill(40) else 0

    def _measure_blocks(self, size: int, fragment: int) -> int:
        """Return the bytes of the words of the blocks of a file of ``size`` bytes with its tail in ``fragment``."""
        log = self._filesystem.superblock.block_log
        return 4 * (size >> log if fragment != NO_FRAGMENT else -(-size >> log))

    def _measure_index(self) -> int:
        """Return the bytes of an extended directory with its index; 0 where it is cut off."""
        total = 40
        for _ in range(self._number(32, "<H")):
            if not self._fill(total + 12):
                return 0
            total += 13 + self._number(total + 8)
        return total

    def _pass_usual(self) -> int:
        """Pass the sound inodes at hand that are basic ones of directories and of files with data; return how many.

        Nearly all are, so this is done in few steps. The next inode is another, damaged, or not whole at hand.
        """
        data, at, count = self._data, self._at, 0
        superblock = self._filesystem.superblock
        inodes, end, log = superblock.inodes, superblock.inode_table, superblock.block_log
        last, rest = len(data) - _BASIC.size, (1 << log) - 1
        while at <= last:
            number, start, fragment, _, size = _BASIC.unpack_from(data, at)
            step, kind = 32, data[at] | data[at + 1] << 8
            if kind == FILE:
                blocks = (size if fragment != NO_FRAGMENT else size + rest) >> log
                if blocks and not SUPERBLOCK_SIZE <= start <= end - size:
                    break
                step += 4 * blocks
            elif kind != DIRECTORY:
                break
            if not 1 <= number <= inodes or at + step > len(data):
                break
            at += step
            count += 1
        self._at = at
        return count

    def find_outside(self) -> Iterator[int]:
        """Yield the numbers of files whose data are outside of the data of the image.

        :raises CorruptError: the inodes do not follow each other.
        """
        superblock = self._filesystem.superblock
        while self._fill(_HEAD):
            self._pass_usual()
            if not self._fill(_HEAD):
                return
            kind, number = self._number(0, "<H"), self._number(12)
            size = self._measure(kind)
            if not size or not self._fill(size):
                raise CorruptError(f"squashfs inode {number:,} is of no known type, or cut off", self._filesystem.place)
            if kind in (FILE, _LONG_FILE):
                inode = parse_inode(bytes(self._data[self._at : self._at + size]), 0, superblock.block_log)
                if is_outside(self._filesystem, inode):
                    yield number
            self._at += size

    def find_breaches(self) -> Iterator[Breach]:
        """Yield what is wrong with the inodes; nothing can be said behind the first fault."""
        inodes, count = self._filesystem.superblock.inodes, 0
        while self._fill(_HEAD):
            count += self._pass_usual()
            if not self._fill(_HEAD):
                break
            kind, number = self._number(0, "<H"), self._number(12)
            if not 1 <= number <= inodes:
                message = f"has inode number {number:,} among {inodes:,} inodes, which unsquashfs and 7-Zip refuse"
                yield Breach("inode-number", message)
                return
            size = self._measure(kind)
            if not size or not self._fill(size):
                yield Breach("inode-table", f"has inode {number:,} of type {kind}, which cannot be or is cut off")
                return
            self._at += size
            count += 1
        if count != inodes or self._at != len(self._data):
            message = f"has {count:,} inodes in its table, and its superblock tells {inodes:,}, which 7-Zip refuses"
            yield Breach("inode-count", message, 4)


def is_outside(filesystem: SquashfsFilesystem, inode: Inode) -> bool:
    """Return whether the file ``inode`` has blocks that are not among the data, between superblock and inodes."""
    size = inode.stored_size
    return size > 0 and not SUPERBLOCK_SIZE <= inode.start <= filesystem.superblock.inode_table - size


def find_inode_faults(filesystem: SquashfsFilesystem, inode: Inode) -> Iterator[tuple[str, str]]:
    """Yield the rules that ``inode`` breaks, each with a sentence about it."""
    superblock = filesystem.superblock
    if not 1 <= inode.number <= superblock.inodes:
        yield "inode-number", f"has inode number {inode.number:,} among {superblock.inodes:,} inodes"
    if max(inode.uid, inode.gid) >= superblock.ids:
        yield "owner", f"names owner {max(inode.uid, inode.gid)}, and there are {superblock.ids:,}"
    if not inode.nlink:
        yield "link-count", "has a link count of 0"
    if inode.xattr != NO_XATTR and inode.xattr >= filesystem.xattr_count:
        yield "xattr", f"names extended attributes {inode.xattr:,}, which are not there"
    if inode.type == FILE:
        yield from _find_file_faults(filesystem, inode)
    if inode.type == SYMLINK and not 0 < len(inode.target) <= _MAX_TARGET:
        yield "symlink", f"is a symlink with a text of {len(inode.target):,} bytes"


def _find_file_faults(filesystem: SquashfsFilesystem, inode: Inode) -> Iterator[tuple[str, str]]:
    """Yield the rules that the regular file ``inode`` breaks: places of its data, holes, its tail."""
    superblock = filesystem.superblock
    size, holes = superblock.block_size, 0
    for number, word in enumerate(inode.blocks):
        length = min(size, inode.size - number * size)
        if word & ~(STORED_BLOCK | 0xFFFFFF) or word & ~STORED_BLOCK > size:
            yield "block-size", f"has a data block of {word & ~STORED_BLOCK:,} bytes"
        elif not word & ~STORED_BLOCK:
            holes += length
    if is_outside(filesystem, inode):
        end = inode.start + inode.stored_size
        yield "data-place", f"has its data at bytes {inode.start:,} to {end:,}, which are outside of the data"
    if inode.sparse > inode.size or (inode.sparse and not holes):  # 0 with holes: mksquashfs, of a file without any
        yield "sparse", f"has holes of {holes:,} bytes, and its inode tells {inode.sparse:,}"
    if inode.fragment != NO_FRAGMENT:
        tail = inode.size - len(inode.blocks) * size
        if inode.fragment >= superblock.fragments:
            yield "fragment", f"has its tail in fragment {inode.fragment:,} of {superblock.fragments:,}"
        elif inode.offset + tail > size:
            yield "fragment", "has its tail behind the end of a fragment"


def find_listing_faults(
    filesystem: SquashfsFilesystem, directory: Inode, entries: Sequence[SquashfsEntry]
) -> Iterator[tuple[str, str]]:
    """Yield the rules that the listing of ``directory`` with ``entries`` breaks, and those of its index."""
    for entry, following in pairwise(entries):
        if entry.name >= following.name:
            message = f"is not sorted: {printable(following.name)} stands behind {printable(entry.name)}"
            yield "sorting", f"{message}, so that Linux does not find what it lists"
            break
    long = next((entry.name for entry in entries if len(entry.name) > _MAX_NAME), None)
    if long is not None:
        yield "name", f"has a name of {len(long):,} bytes"
    if directory.size < EMPTY_SIZE:
        yield "listing-size", f"has a listing of {directory.size:,} bytes"


def find_index_faults(filesystem: SquashfsFilesystem, reference: int, directory: Inode) -> Iterator[tuple[str, str]]:
    """Yield what is wrong with the index of ``directory``, whose inode is at ``reference``: Linux looks names up so."""
    start, offset = split_reference(reference)
    position = filesystem.superblock.inode_table + start
    if int.from_bytes(filesystem.metadata.read(position, offset, 2), "little") != _LONG_DIRECTORY:
        return
    count = int.from_bytes(filesystem.read_metadata(position, offset + 32, 2), "little")
    table = filesystem.superblock.directory_table
    blocks = [table + directory.start]
    length = 40
    for _ in range(count):
        point = filesystem.read_metadata(position, offset + length, 12)
        at, block, name_size = struct.unpack("<III", point)
        name = filesystem.read_metadata(position, offset + length + 12, name_size + 1)
        length += 13 + name_size
        number, byte = divmod(directory.offset + at, METADATA_SIZE)
        try:
            while len(blocks) <= number <= directory.size // METADATA_SIZE + 1:
                blocks.append(filesystem.metadata.block(blocks[-1])[1])
            first = filesystem.metadata.read(blocks[number], byte, 20 + len(name))
        except (CorruptError, IndexError):
            yield "directory-index", "has an index that leads out of its listing"
            return
        if table + block != blocks[number] or first[20:] != name:
            yield "directory-index", f"has an index that does not lead to {printable(name)}"
            return
