"""What of a squashfs file system its root directory leads to; everything else is dead, but can still be read."""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from itertools import accumulate

from cosremaster.errors import CorruptError
from cosremaster.layers.formats import DeadBytes
from cosremaster.layers.squashfs.check_inodes import is_outside
from cosremaster.layers.squashfs.directories import EMPTY_SIZE
from cosremaster.layers.squashfs.filesystem import SquashfsFilesystem
from cosremaster.layers.squashfs.inodes import DIRECTORY, FILE, NO_FRAGMENT, NO_XATTR, STORED_BLOCK, Inode
from cosremaster.layers.squashfs.metadata import METADATA_SIZE
from cosremaster.layers.squashfs.superblock import PADDING, SUPERBLOCK_SIZE, Flags
from cosremaster.records import Struct, field

MAX_COUNTED = 100_000
"""Inodes of an image whose dead bytes are counted only to be shown: that takes a second or two."""
_MAX_PENDING = 1 << 16
"""Ranges that wait before they are joined: it bounds the memory for the files of a large image."""


class ByteRanges:
    """A set of bytes, as ranges that do not touch each other, in rising order."""

    def __init__(self) -> None:
        """Begin empty."""
        self._pending: list[tuple[int, int]] = []
        self._joined: list[tuple[int, int]] = []

    def add(self, start: int, end: int) -> None:
        """Add bytes ``start`` to ``end``."""
        last = self._pending[-1] if self._pending else None
        if last is not None and last[1] == start:
            self._pending[-1] = (last[0], end)
        else:
            self._pending.append((start, end))
        if len(self._pending) >= _MAX_PENDING:
            self._join()

    def _join(self) -> None:
        """Join ranges that touch or share bytes."""
        if not self._pending:
            return
        joined: list[tuple[int, int]] = []
        for start, end in sorted([*self._joined, *self._pending]):
            if joined and start <= joined[-1][1]:
                joined[-1] = (joined[-1][0], max(joined[-1][1], end))
            else:
                joined.append((start, end))
        self._joined, self._pending = joined, []

    @property
    def ranges(self) -> Sequence[tuple[int, int]]:
        """Start and end of each range."""
        self._join()
        return self._joined

    @property
    def total(self) -> int:
        """How many bytes there are."""
        return sum(end - start for start, end in self.ranges)

    def count_outside(self, others: ByteRanges) -> int:
        """Return how many bytes there are that ``others`` has not."""
        total, ranges = self.total, others.ranges
        for start, end in self.ranges:
            for number in range(max(bisect_right(ranges, (start, start)) - 1, 0), len(ranges)):
                other, other_end = ranges[number]
                if other >= end:
                    break
                total -= max(min(end, other_end) - max(start, other), 0)
        return total


class FileBytes(Struct, frozen=True):
    """The data of files: ``blocks`` in the image, and ``tails`` in fragments, which stand one behind the other here."""

    block_size: int
    blocks: ByteRanges = field(default_factory=ByteRanges)
    tails: ByteRanges = field(default_factory=ByteRanges)

    def add(self, inode: Inode) -> None:
        """Add the data of ``inode``, if it is a file."""
        if inode.type != FILE:
            return
        length = inode.stored_size
        if length:
            self.blocks.add(inode.start, inode.start + length)
        tail = inode.size - len(inode.blocks) * self.block_size
        if inode.fragment != NO_FRAGMENT and tail > 0:
            start = inode.fragment * self.block_size + inode.offset
            self.tails.add(start, start + tail)

    def count_outside(self, others: FileBytes) -> int:
        """Return how many bytes there are that ``others`` has not; those of tails as if they were not packed."""
        return self.blocks.count_outside(others.blocks) + self.tails.count_outside(others.tails)


class CompactedRanges:
    """Where bytes of ``ranges`` are when these stand one behind the other from byte ``start`` on."""

    def __init__(self, ranges: Sequence[tuple[int, int]], start: int) -> None:
        """Give each range its new place."""
        self._old = [old for old, _ in ranges]
        self._new = list(accumulate((end - old for old, end in ranges), initial=start))

    @property
    def end(self) -> int:
        """The byte behind the last range."""
        return self._new[-1]

    def move(self, position: int) -> int:
        """Return the new place of the byte at ``position``, which is in a range."""
        number = bisect_right(self._old, position) - 1
        return self._new[number] + position - self._old[number]


class LiveParts(Struct):
    """The parts that the root directory leads to.

    ``inodes``: for each number whether it is in use; ``names``: how many names a number has that has several;
    ``references``: of each number the reference of its inode. ``ids``, ``xattrs``: those that inodes name.
    ``data``: the data blocks of files; ``tails``: by the number of a fragment, start and end of each tail in it.
    ``listing_bytes``: of all directories.
    """

    inodes: bytearray
    references: array[int]
    ids: bytearray
    names: dict[int, int] = field(default_factory=dict)
    xattrs: set[int] = field(default_factory=set)
    data: ByteRanges = field(default_factory=ByteRanges)
    tails: dict[int, array[int]] = field(default_factory=dict)
    listing_bytes: int = 0

    def add(self, inode: Inode, block_size: int) -> None:
        """Note all that ``inode`` names."""
        self.ids[inode.uid] = self.ids[inode.gid] = 1
        if inode.xattr != NO_XATTR:
            self.xattrs.add(inode.xattr)
        if inode.type == DIRECTORY:
            self.listing_bytes += inode.size - EMPTY_SIZE
        if inode.type != FILE:
            return
        length = inode.stored_size
        if length:
            self.data.add(inode.start, inode.start + length)
        tail = inode.size - len(inode.blocks) * block_size
        if inode.fragment != NO_FRAGMENT and tail:
            tails = self.tails.setdefault(inode.fragment, array("I"))
            tails.append(inode.offset)
            tails.append(inode.offset + tail)

    @property
    def inode_count(self) -> int:
        """How many inodes are in use."""
        return sum(self.inodes)


def join_tails(tails: Iterable[int]) -> Sequence[tuple[int, int]]:
    """Return the bytes of a fragment that are in ``tails``, pairs of start and end, as ranges."""
    numbers, ranges = iter(tails), ByteRanges()
    for start, end in zip(numbers, numbers, strict=True):
        ranges.add(start, end)
    return ranges.ranges


def find_live_parts(filesystem: SquashfsFilesystem) -> LiveParts:
    """Go over all directories and return what they lead to.

    It takes 13 bytes for each inode, and memory for each fragment, hard link and gap between data.

    :raises CorruptError: a directory or an inode is damaged, they disagree about a number, or two inodes have one.
    """
    superblock = filesystem.superblock
    live = LiveParts(
        bytearray(superblock.inodes + 1), array("Q", bytes(8 * (superblock.inodes + 1))), bytearray(superblock.ids)
    )
    root = _number_of(filesystem, filesystem.root)
    live.inodes[root], live.references[root] = 1, superblock.root
    live.add(filesystem.root, superblock.block_size)
    for path, entry in filesystem.walk():
        inode = filesystem.inode(entry.reference)
        number = _number_of(filesystem, inode)
        if entry.number != number:
            message = f"squashfs has inode {number:,} where its directory names inode {entry.number:,}"
            raise CorruptError(message, filesystem.place.inside(path))
        if not live.inodes[number]:
            live.inodes[number] = 1
            live.references[number] = entry.reference
            live.add(inode, superblock.block_size)
        elif live.references[number] == entry.reference and inode.type != DIRECTORY:
            live.names[number] = live.names.get(number, 1) + 1
        else:
            raise CorruptError(f"two squashfs inodes have number {number:,}", filesystem.place.inside(path))
    return live


def _number_of(filesystem: SquashfsFilesystem, inode: Inode) -> int:
    """Return the number of ``inode``. :raises CorruptError: it, or what it names, cannot be."""
    superblock = filesystem.superblock
    if not 1 <= inode.number <= superblock.inodes:
        raise CorruptError(f"squashfs has inode {inode.number:,} among {superblock.inodes:,}", filesystem.place)
    if max(inode.uid, inode.gid) >= superblock.ids:
        raise CorruptError(f"inode {inode.number:,} names an owner that is not there", filesystem.place)
    if inode.fragment != NO_FRAGMENT and inode.fragment >= len(filesystem.fragments):
        raise CorruptError(f"squashfs has no fragment {inode.fragment:,}", filesystem.place)
    if inode.type == FILE and is_outside(filesystem, inode):
        raise CorruptError(f"inode {inode.number:,} has its data outside of the image", filesystem.place)
    tail = inode.size - len(inode.blocks) * superblock.block_size if inode.fragment != NO_FRAGMENT else 0
    if not 0 <= tail <= superblock.block_size or (tail and inode.offset + tail > superblock.block_size):
        raise CorruptError(f"inode {inode.number:,} has its tail outside of a fragment", filesystem.place)
    return inode.number


def find_data_start(filesystem: SquashfsFilesystem) -> int:
    """Return the byte at which data begin: behind the superblock and the compressor's options."""
    if not filesystem.superblock.flags & Flags.COMPRESSOR_OPTIONS:
        return SUPERBLOCK_SIZE
    head = int.from_bytes(filesystem.table.read(SUPERBLOCK_SIZE, 2), "little")
    return SUPERBLOCK_SIZE + 2 + (head & 0x7FFF)


def find_live_data(filesystem: SquashfsFilesystem, live: LiveParts, fragments: Iterable[int]) -> ByteRanges:
    """Return the bytes of data blocks that are in use, and of ``fragments``.

    :raises CorruptError: a fragment is outside of the image.
    """
    ranges = ByteRanges()
    for start, end in live.data.ranges:
        ranges.add(start, end)
    for number in fragments:
        start, word = filesystem.fragments[number]
        end = start + (word & ~STORED_BLOCK)
        if not SUPERBLOCK_SIZE <= start <= end <= filesystem.superblock.inode_table:
            raise CorruptError(f"squashfs has fragment {number:,} outside of its data", filesystem.place.at(start))
        ranges.add(start, end)
    return ranges


def count_dead_bytes(filesystem: SquashfsFilesystem) -> DeadBytes | None:
    """Return how many bytes of ``filesystem`` are dead; None where it has too many inodes to go over all.

    Raises as :func:`find_live_parts`.
    """
    if filesystem.superblock.inodes > MAX_COUNTED:
        return None
    live, superblock = find_live_parts(filesystem), filesystem.superblock
    data = superblock.inode_table - find_data_start(filesystem) - find_live_data(filesystem, live, live.tails).total
    inodes, listings = superblock.directory_table - superblock.inode_table, 0
    end = next(start for start in filesystem.list_table_starts() if start >= superblock.directory_table)
    at, plain = superblock.directory_table, 0
    while at < end:
        block, following = filesystem.metadata.block(at)
        plain += len(block) if following >= end else METADATA_SIZE
        at = following
    if plain:
        listings = (end - superblock.directory_table) * max(plain - live.listing_bytes, 0) // plain
    dead = superblock.inodes - live.inode_count
    fragments = 16 * (len(filesystem.fragments) - len(live.tails))
    return DeadBytes(data, inodes * dead // max(superblock.inodes, 1) + listings + fragments if dead else fragments)


def has_rest(filesystem: SquashfsFilesystem) -> bool:
    """Return whether something else than zeros stands behind the tables."""
    table, used = filesystem.table, filesystem.superblock.bytes_used
    if table.length > used + PADDING:
        return True
    return any(table.read(used, table.length - used))
