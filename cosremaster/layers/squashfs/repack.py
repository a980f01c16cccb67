"""A squashfs file system without what nothing leads to: all tables new, and with ``DATA`` the live data moved together.

Data stay as compressed bytes. Only a fragment block that holds the tail of a removed file is unpacked, and what is left
of it is packed again: otherwise that tail could still be read.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import accumulate
from typing import TYPE_CHECKING

from cosremaster.errors import CorruptError, Place
from cosremaster.io.parallel import StopFlag, ordered_map
from cosremaster.io.pieces import Literal, Piece, PieceTable, Zeros
from cosremaster.layers.formats import EditResources, Repacking
from cosremaster.layers.squashfs.block_rules import dictionary_limit
from cosremaster.layers.squashfs.blocks import BlockError
from cosremaster.layers.squashfs.check import check_whole
from cosremaster.layers.squashfs.directories import SquashfsEntry, add_listing
from cosremaster.layers.squashfs.filesystem import SquashfsFilesystem
from cosremaster.layers.squashfs.inodes import DIRECTORY, FILE, NO_FRAGMENT, NO_XATTR, STORED_BLOCK, Inode
from cosremaster.layers.squashfs.live import (
    CompactedRanges,
    LiveParts,
    find_data_start,
    find_live_data,
    find_live_parts,
    has_rest,
    join_tails,
)
from cosremaster.layers.squashfs.metadata import MetadataWriter, pack_table
from cosremaster.layers.squashfs.pack_data import pack_block
from cosremaster.layers.squashfs.repack_xattrs import pack_xattrs
from cosremaster.layers.squashfs.superblock import ABSENT, PADDING, SUPERBLOCK_SIZE, Flags, Superblock
from cosremaster.progress import ENCODE, SilentProgress, begin_work
from cosremaster.records import Struct, field, replace

if TYPE_CHECKING:
    from cosremaster.codecs.part_memory import PartMemory


class MovedFragment(Struct, frozen=True):
    """The fragment that an old one became: its new number, and where the tails of the old one are in it."""

    number: int
    tails: CompactedRanges | None = None


class MovedData(Struct):
    """The data of the new image: their ``pieces`` behind the superblock, up to byte ``end``.

    ``ranges``: where data blocks are now; None where they stay. ``fragments``: start and size word of each new one;
    ``moved``: what became of the old ones, by number.
    """

    pieces: list[Piece]
    end: int
    fragments: list[tuple[int, int]]
    moved: dict[int, MovedFragment]
    ranges: CompactedRanges | None = None

    @property
    def is_kept(self) -> bool:
        """Whether no tail is packed again: a block without some tails may be as long as it was with them."""
        return all(moved.tails is None for moved in self.moved.values())

    def move(self, inode: Inode, block_size: int) -> Inode:
        """Return the file ``inode`` with its data at their new places."""
        start, fragment, offset = 0, NO_FRAGMENT, 0
        if inode.stored_size:
            start = inode.start if self.ranges is None else self.ranges.move(inode.start)
        if inode.fragment != NO_FRAGMENT and inode.size > len(inode.blocks) * block_size:
            moved = self.moved[inode.fragment]
            fragment, offset = moved.number, inode.offset if moved.tails is None else moved.tails.move(inode.offset)
        return replace(inode, start=start, fragment=fragment, offset=offset)


class _NewFragment(Struct):
    """A fragment of tails that stay: its bytes, and where those of each old fragment begin."""

    plain: bytearray = field(default_factory=bytearray)
    members: dict[int, int] = field(default_factory=dict)


def repack(
    table: PieceTable, place: Place, original: SquashfsFilesystem, resources: EditResources
) -> PieceTable:  # fmt: skip
    """Return the image ``table`` without what nothing leads to; ``table`` itself where everything is in use.

    :param original: the file system that ``table`` is an edit of; its own breaches of rules do not count.
    :raises CorruptError: a part of it is damaged. :raises ProofError: the result would break a rule.
    """
    filesystem = SquashfsFilesystem(table, place)
    live = find_live_parts(filesystem)
    if resources.repacking >= Repacking.DATA:
        data = _DataMover(filesystem, live, resources).move()
        is_same = data.is_kept and data.end == filesystem.superblock.inode_table
        is_same = is_same and len(data.fragments) == len(filesystem.fragments)
    else:
        data, is_same = _keep_data(filesystem, live), True
    if is_same and not _has_dead_metadata(filesystem, live):
        return table
    new = _TableWriter(filesystem, live, data).write()
    check_whole(new, place, original)
    return new


def _has_dead_metadata(filesystem: SquashfsFilesystem, live: LiveParts) -> bool:
    """Return whether there is an inode, fragment, owner or set of extended attributes that nothing names."""
    superblock = filesystem.superblock
    return (
        live.inode_count < superblock.inodes
        or len(live.tails) < len(filesystem.fragments)
        or not all(live.ids)
        or len(live.xattrs) < filesystem.xattr_count
        or has_rest(filesystem)
    )


def _keep_data(filesystem: SquashfsFilesystem, live: LiveParts) -> MovedData:
    """Return all data as they are, with those fragments that are in use."""
    numbers = sorted(live.tails)
    end = filesystem.superblock.inode_table
    return MovedData(
        pieces=list(filesystem.table.cut(SUPERBLOCK_SIZE, end).pieces), end=end,
        fragments=[filesystem.fragments[number] for number in numbers],
        moved={number: MovedFragment(new) for new, number in enumerate(numbers)},
    )  # fmt: skip


class _DataMover:
    """Moves live data together."""

    def __init__(self, filesystem: SquashfsFilesystem, live: LiveParts, resources: EditResources) -> None:
        """Begin with nothing moved."""
        self._filesystem, self._live, self._resources = filesystem, live, resources
        self._size = filesystem.superblock.block_size
        compression = filesystem.superblock.compression
        self._dictionary = dictionary_limit(compression, filesystem.read_options(), self._size)
        self._whole: list[int] = []
        self._tails: dict[int, Sequence[tuple[int, int]]] = {}

    def move(self) -> MovedData:
        """Return the data without dead bytes."""
        filesystem, table = self._filesystem, self._filesystem.table
        packed: list[tuple[_NewFragment, Piece, int]] = []
        threads = self._resources.threads
        progress = self._resources.progress or SilentProgress()
        parts, method = self._resources.parts, "squashfs tails"
        pack = partial(self._pack, None if parts is None else parts.for_work(method, threads))
        with begin_work(progress, "pack tails of files", None, ENCODE, method) as advance:
            for fragment, block in ordered_map(pack, self._gather(), threads):
                word = len(block or fragment.plain) | (0 if block else STORED_BLOCK)
                written = self._resources.spool.append([block or bytes(fragment.plain)], packed=True)
                packed.append((fragment, written, word))
                advance(len(fragment.plain))
        live = find_live_data(filesystem, self._live, self._whole)
        start = find_data_start(filesystem)
        ranges = CompactedRanges(live.ranges, start)
        pieces = list(table.cut(SUPERBLOCK_SIZE, start).pieces)
        for old, end in live.ranges:
            pieces += table.cut(old, end).pieces
        old_fragments = [filesystem.fragments[number] for number in self._whole]
        fragments = [(ranges.move(position), word) for position, word in old_fragments]
        moved = {number: MovedFragment(new) for new, number in enumerate(self._whole)}
        position = ranges.end
        for fragment, piece, word in packed:
            for number, base in fragment.members.items():
                moved[number] = MovedFragment(len(fragments), CompactedRanges(self._tails[number], base))
            fragments.append((position, word))
            pieces.append(piece)
            position += piece.length
        return MovedData(pieces, position, fragments, moved, ranges)

    def _gather(self) -> Iterator[_NewFragment]:
        """Yield new fragments with the tails that stay of those fragments that have others too."""
        fragment = _NewFragment()
        for number, plain in ordered_map(self._read_tails, sorted(self._live.tails), self._resources.threads):
            if plain is None:
                self._whole.append(number)
                continue
            if len(fragment.plain) + len(plain) > self._size:
                yield fragment
                fragment = _NewFragment()
            fragment.members[number] = len(fragment.plain)
            fragment.plain += plain
        if fragment.members:
            yield fragment

    def _read_tails(self, number: int, stop: StopFlag) -> tuple[int, bytes | None]:
        """Return the tails that stay of fragment ``number``; None where it has no others."""
        position, word = self._filesystem.fragments[number]
        data = self._filesystem.table.read(position, word & ~STORED_BLOCK)
        try:
            plain = data if word & STORED_BLOCK else self._filesystem.codec.unpack(data, self._size)
        except BlockError as error:
            place = self._filesystem.place.at(position)
            raise CorruptError(f"a squashfs fragment cannot be read: {error}", place) from error
        tails = join_tails(self._live.tails[number])
        if tails[-1][1] > len(plain):
            place = self._filesystem.place.at(position)
            raise CorruptError("a squashfs fragment is shorter than a tail in it", place)
        if tails == [(0, len(plain))]:
            return number, None
        self._tails[number] = tails
        return number, b"".join(plain[start:end] for start, end in tails)

    def _pack(
        self, memory: PartMemory | None, fragment: _NewFragment, stop: StopFlag
    ) -> tuple[_NewFragment, bytes | None]:
        """Return ``fragment`` with its packed bytes; None where it is stored."""
        if self._filesystem.superblock.flags & Flags.STORED_FRAGMENTS:
            return fragment, None
        packed = pack_block(self._filesystem, bytes(fragment.plain), self._dictionary, memory).data
        return fragment, packed if len(packed) < len(fragment.plain) else None


class _OpenDirectory(Struct):
    """A directory whose subdirectories are written before it."""

    inode: Inode
    name: bytes
    entries: list[SquashfsEntry]
    waiting: Iterator[SquashfsEntry]
    written: dict[bytes, SquashfsEntry] = field(default_factory=dict)


class _TableWriter:
    """Writes all tables of an image anew, with the data that stay."""

    def __init__(self, filesystem: SquashfsFilesystem, live: LiveParts, data: MovedData) -> None:
        """Number the inodes, owners and extended attributes that stay, in their old order."""
        self._filesystem, self._live, self._data = filesystem, live, data
        self._old = filesystem.superblock
        flags = self._old.flags
        pack = filesystem.codec.pack
        self._pack_inodes = _store if flags & Flags.STORED_INODES else pack
        self._pack_ids = _store if flags & (Flags.STORED_IDS | Flags.STORED_INODES) else pack
        self._pack_fragments = _store if flags & Flags.STORED_FRAGMENTS else pack
        self._pack_xattrs = _store if flags & Flags.STORED_XATTRS else pack
        self._inodes, self._listings = MetadataWriter(self._pack_inodes), MetadataWriter(self._pack_inodes)
        self._numbers = array("I", accumulate(live.inodes))
        self._ids = list(accumulate(live.ids, initial=0))
        self._xattrs = {number: new for new, number in enumerate(sorted(live.xattrs))}
        self._references = array("Q", bytes(8 * live.inode_count))
        self._linked: dict[int, int] = {}

    def write(self) -> PieceTable:
        """Return the whole image."""
        root = self._write_directories()
        inodes, listings = self._inodes.finish(), self._listings.finish()
        directory_table = self._data.end + len(inodes)
        position = directory_table + len(listings)
        tables, superblock = self._pack_tables(position)
        superblock = replace(
            superblock, inodes=self._live.inode_count, root=root, inode_table=self._data.end,
            directory_table=directory_table, bytes_used=position + len(tables),
        )  # fmt: skip
        body = PieceTable([
            Literal(superblock.pack()), *self._data.pieces, Literal(inodes), Literal(listings), Literal(tables)
        ])  # fmt: skip
        return PieceTable([*body.pieces, Zeros(-body.length % PADDING)])

    def _open(self, reference: int, name: bytes) -> _OpenDirectory:
        """Return the directory at ``reference``, called ``name``."""
        inode = self._filesystem.inode(reference)
        entries = sorted(self._filesystem.listing(inode))
        return _OpenDirectory(inode, name, entries, (entry for entry in entries if entry.type == DIRECTORY))

    def _write_directories(self) -> int:
        """Write all directories, those below before those above, and return the reference of the root."""
        opened = [self._open(self._old.root, b"")]
        while True:
            directory = opened[-1]
            entry = next(directory.waiting, None)
            if entry is not None:
                opened.append(self._open(entry.reference, entry.name))
                continue
            opened.pop()
            parent = self._numbers[opened[-1].inode.number] if opened else self._live.inode_count + 1
            written = self._write_directory(directory, parent)
            if not opened:
                return written.reference
            opened[-1].written[directory.name] = written

    def _write_directory(self, directory: _OpenDirectory, parent: int) -> SquashfsEntry:
        """Write the files of ``directory``, its listing and its inode; return its entry."""
        entries = [
            directory.written[entry.name] if entry.type == DIRECTORY else self._write_file(entry)
            for entry in directory.entries
        ]
        inode = replace(add_listing(self._listings, entries, self._renumber(directory.inode, 0)), parent=parent)
        return SquashfsEntry(directory.name, self._add_inode(inode), inode.number, DIRECTORY)

    def _write_file(self, entry: SquashfsEntry) -> SquashfsEntry:
        """Write the inode that ``entry`` names, unless another name has done so; return the new entry."""
        number = self._numbers[entry.number]
        reference = self._linked.get(number)
        if reference is None:
            names = self._live.names.get(entry.number, 1)
            inode = self._renumber(self._filesystem.inode(entry.reference), names)
            if inode.type == FILE:
                inode = self._data.move(inode, self._old.block_size)
            reference = self._add_inode(inode)
            if names > 1:
                self._linked[number] = reference
        return SquashfsEntry(entry.name, reference, number, entry.type)

    def _renumber(self, inode: Inode, names: int) -> Inode:
        """Return ``inode`` with ``names`` names, and new numbers for itself, its owners and attributes."""
        xattr = NO_XATTR if inode.xattr == NO_XATTR else self._xattrs[inode.xattr]
        return replace(
            inode, number=self._numbers[inode.number], nlink=names, uid=self._ids[inode.uid], gid=self._ids[inode.gid],
            xattr=xattr,
        )  # fmt: skip

    def _add_inode(self, inode: Inode) -> int:
        """Write ``inode`` and return its reference."""
        reference = self._inodes.add(inode.pack())
        self._references[inode.number - 1] = reference
        return reference

    def _pack_tables(self, position: int) -> tuple[bytes, Superblock]:
        """Return the tables behind the directories, which begin at ``position``, and a superblock with their places."""
        old, parts = self._old, bytearray()
        places = {"fragment_table": old.fragment_table, "lookup_table": old.lookup_table, "xattr_table": ABSENT}
        if self._data.fragments or old.fragment_table != ABSENT:
            plain = b"".join(struct.pack("<QII", start, word, 0) for start, word in self._data.fragments)
            blocks, places["fragment_table"] = pack_table(plain, self._pack_fragments, position)
            parts += blocks
        if old.has_lookup:
            plain = struct.pack(f"<{len(self._references)}Q", *self._references)
            blocks, places["lookup_table"] = pack_table(plain, self._pack_inodes, position + len(parts))
            parts += blocks
        ids = [number for number, is_live in zip(self._filesystem.ids, self._live.ids, strict=True) if is_live]
        blocks, places["id_table"] = pack_table(
            struct.pack(f"<{len(ids)}I", *ids), self._pack_ids, position + len(parts)
        )
        parts += blocks
        if self._xattrs:
            blocks, places["xattr_table"] = pack_xattrs(
                self._filesystem, list(self._xattrs), self._pack_xattrs, position + len(parts)
            )
            parts += blocks
        return bytes(parts), replace(old, fragments=len(self._data.fragments), ids=len(ids), **places)


def _store(plain: bytes) -> None:
    """Return None: the block is stored."""
    return
