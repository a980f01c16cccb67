"""The rules of a squashfs file system, as the strictest of its readers have them.

Linux, unsquashfs and 7-Zip each refuse something that the others take: Linux a gap before the owners, unsquashfs
more fragments than inodes, 7-Zip inodes that are not counted. What passes here is read by all of them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress
from itertools import islice

from cosremaster.errors import CorruptError, Place, ProofError, printable
from cosremaster.io.pieces import PieceTable
from cosremaster.layers.squashfs.block_rules import dictionary_limit, find_block_fault
from cosremaster.layers.squashfs.check_inodes import (
    InodeScanner,
    find_index_faults,
    find_inode_faults,
    find_listing_faults,
    is_outside,
)
from cosremaster.layers.squashfs.check_tables import Breach, MetadataRegion, find_count_breaches, find_regions
from cosremaster.layers.squashfs.directories import SquashfsEntry
from cosremaster.layers.squashfs.filesystem import SquashfsFilesystem
from cosremaster.layers.squashfs.inodes import DIRECTORY, FILE, STORED_BLOCK, Inode
from cosremaster.layers.squashfs.metadata import METADATA_SIZE, split_reference
from cosremaster.layers.squashfs.superblock import SUPERBLOCK_SIZE
from cosremaster.records.tuples import NamedTuple

_INODES, _DIRECTORIES = "inodes", "directories"
_OF_PLACES = frozenset(("order", "gap", "index"))
_OF_BLOCKS = frozenset(("codec", "full-blocks", "inode-count", "inode-number", "inode-table"))
"""Rules about places of blocks, and those that nothing is said about where one of these is broken."""
_STORED_METADATA = 0x8000
_UNKEPT = "has data outside of those of the image, which would be other bytes after an edit"
_MAX_SHOWN = 100
"""So many breaches are shown of an image at most."""


def find_breaches(filesystem: SquashfsFilesystem, *, with_data: bool = False) -> Iterator[Breach]:
    """Yield the rules that ``filesystem`` breaks.

    :param with_data: look at each block of data too.
    :raises CorruptError: a part of it cannot be read.
    """
    yield from islice(_find_all(filesystem, with_data=with_data), _MAX_SHOWN)


def _find_all(filesystem: SquashfsFilesystem, *, with_data: bool) -> Iterator[Breach]:
    """Yield all that :func:`find_breaches` yields the first of."""
    is_sound = True
    checker = _Checker(filesystem)
    for breach in checker.find_table_breaches():
        is_sound = is_sound and breach.rule not in _OF_PLACES
        yield breach
    if is_sound:
        yield from checker.find_block_breaches()
        yield from InodeScanner(filesystem, checker.blocks_of(_INODES)).find_breaches()
        yield from checker.find_tree_breaches(0, with_data=with_data)
    else:
        with suppress(CorruptError):  # blocks may not be where they are looked for
            yield from checker.find_tree_breaches(0, with_data=with_data)


def check_kept_data(filesystem: SquashfsFilesystem) -> None:
    """Check that the data of all files stand where an edit leaves them, between the superblock and the inodes.

    :raises CorruptError: a file has data elsewhere, which would be other bytes afterwards, or an inode is damaged.
    """
    limit = filesystem.superblock.inode_table
    for number, (start, word) in enumerate(filesystem.fragments):
        if not SUPERBLOCK_SIZE <= start <= limit - (word & ~STORED_BLOCK):
            raise CorruptError(f"squashfs fragment {number:,} {_UNKEPT}", filesystem.place)
    blocks = _Checker(filesystem).blocks_of(_INODES)
    try:
        number = next(InodeScanner(filesystem, blocks).find_outside(), 0)
    except CorruptError:  # there may be gaps between inodes, as long as no entry leads there
        files = (entry for _, entry in filesystem.walk() if entry.type == FILE)
        number = next((entry.number for entry in files if is_outside(filesystem, filesystem.inode(entry.reference))), 0)
    if number:
        name = next((path for path, entry in filesystem.walk() if entry.number == number), b"")
        where = filesystem.place.inside(name[:255]) if name else filesystem.place
        raise CorruptError(f"squashfs inode {number:,} {_UNKEPT}", where)


class KeptMetadata(NamedTuple):
    """What of an edited image's metadata stayed as it was.

    ``inodes``: bytes of the table of inodes, ``listings``: of that of directories; ``blocks``: where metadata blocks of
    other tables begin in the new image.
    """

    inodes: int = 0
    listings: int = 0
    blocks: Collection[int] = frozenset()


_NOTHING = KeptMetadata()


def check_edit(table: PieceTable, place: Place, filesystem: SquashfsFilesystem, kept: KeptMetadata) -> None:
    """Check the rules of the image ``table``, an edit of ``filesystem``, before it is written.

    Looked at are the places of all tables, and what is in metadata blocks that are new, not ``kept``.

    :raises ProofError: a rule is broken that ``filesystem`` keeps.
    """
    checker = _Checker(SquashfsFilesystem(table, place), kept)
    breaches = [
        *checker.find_table_breaches(), *checker.find_block_breaches(),
        *checker.find_tree_breaches(kept.inodes, with_data=False),
    ]  # fmt: skip
    refuse_breaches(breaches, filesystem, place)


def check_whole(table: PieceTable, place: Place, filesystem: SquashfsFilesystem) -> None:
    """Check the rules of the image ``table``, which was made of ``filesystem`` with all tables new.

    :raises ProofError: a rule is broken that ``filesystem`` keeps.
    """
    refuse_breaches(list(find_breaches(SquashfsFilesystem(table, place))), filesystem, place)


def refuse_breaches(breaches: list[Breach], filesystem: SquashfsFilesystem, place: Place) -> None:
    """Check that all ``breaches`` of a new image were in ``filesystem``, of which it was made.

    :raises ProofError: one of them is new.
    """
    if not breaches:
        return
    old = set[str]()
    with suppress(CorruptError):
        for breach in _find_all(filesystem, with_data=False):
            old.add(breach.rule)
    if old & _OF_PLACES:
        old |= _OF_BLOCKS
    for breach in breaches:
        if breach.rule not in old:
            where = place if breach.position is None else place.at(breach.position)
            raise ProofError(f"the new squashfs breaks a rule of its readers: it {breach.message}", where)


class _Checker:
    """Finds what is wrong with a file system, part by part."""

    def __init__(self, filesystem: SquashfsFilesystem, kept: KeptMetadata = _NOTHING) -> None:
        """Find the metadata blocks of all tables, as :func:`find_regions` does; what is ``kept`` is not looked into."""
        self._filesystem = filesystem
        self._kept = kept.blocks
        self._regions, self._breaches = find_regions(filesystem, kept.inodes, kept.listings)
        superblock = filesystem.superblock
        self._compression = superblock.compression
        self._dictionary = dictionary_limit(self._compression, filesystem.read_options(), superblock.block_size)

    def find_table_breaches(self) -> Iterator[Breach]:
        """Yield what is wrong with counts, places and order of the tables."""
        yield from find_count_breaches(self._filesystem)
        yield from self._breaches

    def blocks_of(self, name: str) -> list[int]:
        """Return the places of the metadata blocks of the table ``name``."""
        return [block for region in self._regions if region.name == name for block in region.blocks]

    def find_block_breaches(self) -> Iterator[Breach]:
        """Yield what is wrong with metadata blocks."""
        for region in self._regions:
            for block in region.blocks:
                if block not in self._kept:
                    yield from self._check_block(region, block)

    def _check_block(self, region: MetadataRegion, block: int) -> Iterator[Breach]:
        """Yield what is wrong with the metadata ``block`` of ``region``."""
        if len(self._filesystem.metadata.block(block)[0]) != METADATA_SIZE and block != region.blocks[-1]:
            message = f"has a metadata block of its {region.name} that is not full, and is not the last"
            yield Breach("full-blocks", message, block)
        word = int.from_bytes(self._filesystem.table.read(block, 2), "little")
        if not word & _STORED_METADATA:
            fault = find_block_fault(self._compression, self._filesystem.table.read(block + 2, word), self._dictionary)
            if fault:
                yield Breach("codec", f"has a metadata block that {fault}", block)

    def find_tree_breaches(self, since: int, *, with_data: bool) -> Iterator[Breach]:
        """Yield what is wrong with inodes and directories from the root downwards.

        :param since: only those count whose inode is in a block so far from the start of the table, or behind it.
        """
        root = self._filesystem.superblock.root
        inode = self._filesystem.inode(root)
        yield from self._locate(root, b"", find_inode_faults(self._filesystem, inode))
        waiting: list[tuple[bytes, int, Inode]] = [(b"", root, inode)]
        seen = set[int]()
        while waiting:
            path, reference, directory = waiting.pop()
            if reference in seen:
                yield Breach("directory-names", f"has the directory {_name(path)} under two names")
                continue
            seen.add(reference)
            entries = self._filesystem.listing(directory)
            yield from self._locate(reference, path, find_listing_faults(self._filesystem, directory, entries))
            yield from self._locate(reference, path, find_index_faults(self._filesystem, reference, directory))
            for entry in entries:
                if split_reference(entry.reference)[0] < since:
                    continue
                child = path + b"/" + entry.name if path else entry.name
                inode = self._filesystem.inode(entry.reference)
                yield from self._locate(entry.reference, child, _find_entry_faults(entry, inode, directory))
                yield from self._locate(entry.reference, child, find_inode_faults(self._filesystem, inode))
                if inode.type == DIRECTORY:
                    waiting.append((child, entry.reference, inode))
                elif inode.type == FILE and with_data:
                    yield from self._check_data(child, inode)
        if with_data:
            for position, word in self._filesystem.fragments:
                yield from self._check_data_block("a fragment", position, word)

    def _locate(self, reference: int, path: bytes, faults: Iterable[tuple[str, str]]) -> Iterator[Breach]:
        """Yield ``faults`` of the inode at ``reference`` with its place."""
        position = self._filesystem.superblock.inode_table + split_reference(reference)[0]
        for rule, message in faults:
            yield Breach(rule, f"breaks a rule: {_name(path)} {message}", position)

    def _check_data(self, path: bytes, inode: Inode) -> Iterator[Breach]:
        """Yield what is wrong with the data blocks of the file ``inode``."""
        position = inode.start
        for word in inode.blocks:
            yield from self._check_data_block(_name(path), position, word)
            position += word & ~STORED_BLOCK

    def _check_data_block(self, name: str, position: int, word: int) -> Iterator[Breach]:
        """Yield what is wrong with the data block at byte ``position``."""
        size = word & ~STORED_BLOCK
        if not size or word & STORED_BLOCK or size > self._filesystem.superblock.block_size:
            return
        fault = find_block_fault(self._compression, self._filesystem.table.read(position, size), self._dictionary)
        if fault:
            yield Breach("codec", f"has a data block, of {name}, that {fault}", position)


def _find_entry_faults(entry: SquashfsEntry, inode: Inode, directory: Inode) -> Iterator[tuple[str, str]]:
    """Yield what a directory ``entry`` says otherwise than the ``inode`` that it leads to."""
    if entry.type != inode.type:
        yield "entry-type", f"is of type {entry.type} in its directory, and of type {inode.type} in its inode"
    if entry.number != inode.number:
        yield "entry-number", f"is inode {entry.number:,} in its directory, and {inode.number:,} in its inode"
    if inode.type == DIRECTORY and inode.parent != directory.number:
        yield "parent", f"names inode {inode.parent:,} as its parent, which is {directory.number:,}"


def _name(path: bytes) -> str:
    """Return ``path`` for people."""
    return printable(path) if path else "the root directory"
