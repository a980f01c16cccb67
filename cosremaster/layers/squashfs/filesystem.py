"""A squashfs file system that is read on demand: inodes, directories and data, each when it is needed."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from itertools import accumulate, chain, islice
from operator import itemgetter

from cosremaster.errors import CorruptError, Place
from cosremaster.io.pieces import Piece, PieceTable, Range, Zeros
from cosremaster.layers.on_demand import MAX_LISTINGS, OnDemandFilesystem
from cosremaster.layers.squashfs.blocks import BlockCodec, BlockError, make_block_codec
from cosremaster.layers.squashfs.directories import EMPTY_SIZE, SquashfsEntry, parse_runs
from cosremaster.layers.squashfs.inodes import (
    DIRECTORY,
    NO_FRAGMENT,
    NO_XATTR,
    STORED_BLOCK,
    IncompleteInodeError,
    Inode,
    list_facts,
    parse_inode,
)
from cosremaster.layers.squashfs.metadata import (
    METADATA_SIZE,
    GrowingTable,
    MetadataReader,
    make_reference,
    split_reference,
)
from cosremaster.layers.squashfs.superblock import (
    ABSENT,
    SUPERBLOCK_SIZE,
    Flags,
    Superblock,
    read_superblock,
)
from cosremaster.records.tuples import NamedTuple
from cosremaster.tree.nodes import Facts, NodeKind, Xattrs

_FRAGMENT = struct.Struct("<QII")
XATTR_ID = struct.Struct("<QII")
"""Of the table of extended attributes: a reference, how many there are, and how many bytes. Its header is as long."""
XATTR_PREFIXES = {0: b"user.", 1: b"trusted.", 2: b"security."}
OUT_OF_LINE = 0x100
"""The bit of an extended attribute's class that tells that eight bytes lead to its value."""
MAX_XATTRS = 1024
"""Extended attributes of an inode that are believed."""
MAX_VALUE = 1 << 16
"""Bytes of an extended attribute at most: Linux' XATTR_SIZE_MAX."""
_REFERENCE, _TYPE = (itemgetter(SquashfsEntry._fields.index(field)) for field in ("reference", "type"))
_CACHED_BLOCKS = 8


class XattrPair(NamedTuple):
    """An extended attribute in its table: ``kind`` is its class and :data:`OUT_OF_LINE`, ``name`` what follows the
    prefix, ``place`` the reference at which the length of ``value`` stands.
    """

    kind: int
    name: bytes
    value: bytes
    place: int


class SquashfsFilesystem(OnDemandFilesystem[SquashfsEntry, Inode]):
    """The squashfs file system whose bytes are ``table``."""

    noun = "a squashfs"

    def __init__(self, table: PieceTable, place: Place) -> None:
        """Read the superblock and the compressor's options. Raises as ``read_superblock``."""
        self.table = table
        self.place = place
        self.superblock: Superblock = read_superblock(table.read(0, SUPERBLOCK_SIZE), table.length, place)
        self.codec: BlockCodec = make_block_codec(self.superblock, self.read_options(), place)
        self.metadata = MetadataReader(table, self.codec, place)
        self._inode_table, self._block_log = self.superblock.inode_table, self.superblock.block_log
        self._data_blocks: dict[int, bytes] = {}
        self._shared_xattrs: dict[int, Xattrs] = {}

    def read_options(self) -> bytes:
        """Return the compressor's options, which are one stored metadata block; empty where there are none."""
        if not self.superblock.flags & Flags.COMPRESSOR_OPTIONS:
            return b""
        head = self.table.read(SUPERBLOCK_SIZE, 66)
        return head[2 : 2 + (int.from_bytes(head[:2], "little") & 0x7FFF)]

    @property
    def root(self) -> Inode:
        """The inode of the root directory."""
        return self.inode(self.superblock.root)

    def inode(self, reference: int) -> Inode:
        """Return the inode at ``reference``. :raises CorruptError: it cannot be one."""
        position, offset = self._inode_table + (reference >> 16), reference & 0xFFFF
        if position >= self.superblock.directory_table:
            raise CorruptError("a reference leads out of the squashfs inode table", self.place.at(position))

        data, following = self.metadata.blocks.get(position) or self.metadata.block(position)
        missing = 1
        try:
            while True:
                try:
                    return parse_inode(data, offset, self._block_log)
                except IncompleteInodeError:
                    more, following = self._read_on(following, missing)
                    data += more
                    missing *= 2
        except ValueError as error:
            raise CorruptError(f"a squashfs inode is damaged: {error}", self.place.at(position)) from error

    def list_facts(self, entries: Sequence[SquashfsEntry]) -> list[Facts | None]:
        """Return what a listing shows of each of ``entries``, which are of one run: their inodes begin in one block.

        None for those whose inode has to be read whole.

        :raises CorruptError: the block is damaged, or not in the table of inodes.
        """
        position = self._inode_table + (entries[0].reference >> 16)
        if position >= self.superblock.directory_table:
            raise CorruptError("a reference leads out of the squashfs inode table", self.place.at(position))
        data, _ = self.metadata.blocks.get(position) or self.metadata.block(position)
        return list_facts(data, map(_REFERENCE, entries), self.ids, self._block_log)

    def read_metadata(self, position: int, offset: int, length: int) -> bytes:
        """Return ``length`` plain bytes from byte ``offset`` on, which may be behind the block at ``position``.

        :raises CorruptError: a block is damaged, or they are not there.
        """
        while offset >= METADATA_SIZE:
            position, offset = self.metadata.block(position)[1], offset - METADATA_SIZE
        return self.metadata.read(position, offset, length)

    @cached_property
    def xattr_count(self) -> int:
        """How many sets of extended attributes there are."""
        return self.xattr_header[1] if self.superblock.has_xattrs else 0

    def _read_on(self, position: int, count: int) -> tuple[bytes, int]:
        """Return the plain bytes of up to ``count`` blocks of the inode table from byte ``position`` on, and their end.

        :raises IncompleteInodeError: none is there.
        """
        parts: list[bytes] = []
        while len(parts) < count and position < self.superblock.directory_table:
            plain, position = self.metadata.block(position)
            parts.append(plain)
        if not any(parts):
            raise IncompleteInodeError("it goes beyond the table of inodes")
        return b"".join(parts), position

    def listing(self, directory: Inode) -> list[SquashfsEntry]:
        """Return the entries of ``directory``, in its order. :raises CorruptError: the listing is damaged."""
        return list(chain.from_iterable(self._stored_runs(directory)))

    def runs(self, directory: Inode) -> Iterator[Sequence[SquashfsEntry]]:
        """Yield the entries of ``directory`` in runs whose inodes begin in one block, a directory as the last of its.

        :raises CorruptError: the listing is damaged.
        """
        return _end_at_directories(self._stored_runs(directory))

    def _stored_runs(self, directory: Inode) -> Iterator[list[SquashfsEntry]]:
        """Yield the entries of ``directory`` in runs. :raises CorruptError: the listing is damaged."""
        length = directory.size - EMPTY_SIZE
        position = self.superblock.directory_table + directory.start
        if directory.type != DIRECTORY or length > MAX_LISTINGS:
            problem = "names an inode of another type" if directory.type != DIRECTORY else f"claims {length:,} bytes"
            raise CorruptError(f"a squashfs directory {problem}", self.place.at(position))
        if length <= 0:
            return
        try:
            yield from parse_runs(self.metadata.read(position, directory.offset, length))
        except ValueError as error:
            raise CorruptError(f"a squashfs directory is damaged: {error}", self.place.at(position)) from error

    @cached_property
    def ids(self) -> Sequence[int]:
        """The numbers of users and groups, by their place in the table."""
        data = self.metadata.read_indexed(self.superblock.id_table, 4 * self.superblock.ids)
        return struct.unpack(f"<{self.superblock.ids}I", data)

    def owner(self, place: int) -> int:
        """Return the user or group at ``place`` in the table of ids. :raises CorruptError: there is none."""
        try:
            return self.ids[place]
        except IndexError:
            raise CorruptError(f"a squashfs inode names id {place}, which is not there", self.place) from None

    @property
    def fragment_table(self) -> GrowingTable:
        """The table of fragment blocks, to be changed."""
        superblock = self.superblock
        count = superblock.fragments if superblock.has_fragments else 0
        return GrowingTable(self.metadata, superblock.fragment_table, _FRAGMENT.size, count)

    @cached_property
    def fragments(self) -> Sequence[tuple[int, int]]:
        """Place in the image and size word of each fragment block."""
        superblock = self.superblock
        if not superblock.has_fragments:
            return ()
        data = self.metadata.read_indexed(superblock.fragment_table, _FRAGMENT.size * superblock.fragments)
        return [(start, word) for start, word, _ in _FRAGMENT.iter_unpack(data)]

    def xattrs(self, number: int) -> dict[bytes, bytes]:
        """Return the extended attributes ``number`` by their full names. :raises CorruptError: they are damaged."""
        if number == NO_XATTR or not self.superblock.has_xattrs:
            return {}
        return name_xattrs(self.list_xattrs(number))

    def list_xattrs(self, number: int) -> Sequence[XattrPair]:
        """Return the extended attributes ``number`` in their order. :raises CorruptError: they are damaged."""
        place = self.place.at(self.superblock.xattr_table)
        if number >= self.xattr_count:
            raise CorruptError(f"squashfs has no extended attributes {number}", place)
        try:
            return list(islice(self.iterate_xattrs(number), MAX_XATTRS))
        except struct.error as error:
            raise CorruptError("the squashfs table of extended attributes is cut off", place) from error

    @cached_property
    def xattr_header(self) -> tuple[int, int]:
        """Where the names and values of extended attributes begin, and how many numbers there are.

        :raises CorruptError: the table does not fit into the image.
        """
        at = self.superblock.xattr_table
        head = self.table.read(at, XATTR_ID.size)
        start, count, _ = XATTR_ID.unpack(head) if len(head) == XATTR_ID.size else (at + 1, 0, 0)
        size = XATTR_ID.size + 8 * -(-XATTR_ID.size * count // METADATA_SIZE)
        if start > at or at + size > self.table.length:
            raise CorruptError("the squashfs table of extended attributes is cut off", self.place.at(at))
        return start, count

    def find_xattrs(self, number: int) -> tuple[int, int, int]:
        """Return the entry of the extended attributes ``number``: reference of the first, count, size.

        :raises struct.error: the table is cut off. :raises CorruptError: it is damaged.
        """
        block, offset = divmod(XATTR_ID.size * number, METADATA_SIZE)
        (position,) = struct.unpack("<Q", self.table.read(self.superblock.xattr_table + 16 + 8 * block, 8))
        reference, entries, size = XATTR_ID.unpack(self.metadata.read(position, offset, XATTR_ID.size))
        return reference, entries, size

    def iterate_xattrs(self, number: int) -> Iterator[XattrPair]:
        """Yield the extended attributes ``number`` as they stand in the table.

        :raises struct.error: the table is cut off. :raises CorruptError: it is damaged.
        """
        reference, entries, _ = self.find_xattrs(number)
        start = self.xattr_header[0]
        cursor = MetadataCursor(self.metadata, start, reference, self.place)
        for _ in range(entries):
            kind, size = struct.unpack("<HH", cursor.read(4))
            name = cursor.read(size)
            place = cursor.reference
            (length,) = struct.unpack("<I", cursor.read(4))
            value = cursor.read(length)
            if kind & OUT_OF_LINE:
                outside = MetadataCursor(self.metadata, start, int.from_bytes(value[:8], "little"), self.place)
                place = outside.reference
                value = outside.read(*struct.unpack("<I", outside.read(4)))
            yield XattrPair(kind, name, value, place)

    def inode_of(self, entry: SquashfsEntry) -> Inode:
        """Return the inode that ``entry`` leads to. :raises CorruptError: it cannot be one."""
        return self.inode(entry.reference)

    def find_directory(self, entry: SquashfsEntry) -> Inode | None:
        """Return the inode of the directory that ``entry`` leads to; None where it leads to something else."""
        return self.inode(entry.reference) if entry.type == DIRECTORY else None

    def kind_of(self, path: bytes, entry: SquashfsEntry, inode: Inode) -> NodeKind:
        """Return the type of ``inode``."""
        return inode.kind

    def owners_of(self, inode: Inode) -> tuple[int, int]:
        """Return the user and the group of ``inode``. :raises CorruptError: they are not in the table."""
        return self.owner(inode.uid), self.owner(inode.gid)

    def xattrs_of(self, inode: Inode) -> Xattrs:
        """Return the extended attributes of ``inode``; files that share them share the value."""
        number = inode.xattr
        if number == NO_XATTR:
            return ()
        if number not in self._shared_xattrs:
            self._shared_xattrs[number] = tuple(sorted(self.xattrs(number).items()))
        return self._shared_xattrs[number]

    def target(self, inode: Inode) -> bytes:
        """Return the text of the symlink ``inode``."""
        return inode.target

    def data(self, inode: Inode) -> PieceTable:
        """Return the data of the file ``inode``: stored blocks are ranges of the image, others are read when needed."""
        size, start = self.superblock.block_size, inode.start
        source = FileData(self, inode)
        pieces: list[Piece] = []
        for number, word in enumerate(inode.blocks):
            length = min(size, inode.size - number * size)
            packed = word & ~STORED_BLOCK
            if not packed:
                pieces.append(Zeros(length))
            elif word & STORED_BLOCK and packed == length and start + length <= self.table.length:
                pieces += self.table.cut(start, start + length).pieces
            else:
                pieces.append(Range(source, number * size, length))
            start += packed
        tail = inode.size - len(inode.blocks) * size
        if inode.fragment != NO_FRAGMENT and tail > 0:
            pieces.append(Range(source, len(inode.blocks) * size, tail))
        return PieceTable(pieces)

    def read_block(self, position: int, word: int, limit: int) -> bytes:
        """Return the plain bytes of the data or fragment block at byte ``position``.

        :param word: its size, with the bit of stored blocks. :param limit: plain bytes that it may have.
        :raises CorruptError: it is damaged.
        """
        cached = self._data_blocks.get(position)
        if cached is not None:
            return cached
        size = word & ~STORED_BLOCK
        data = self.table.read(position, size) if size <= self.superblock.block_size else b""
        if not data or len(data) < size:
            raise CorruptError("a squashfs data block is outside of the image", self.place.at(position))
        try:
            plain = data if word & STORED_BLOCK else self.codec.unpack(data, limit)
        except BlockError as error:
            raise CorruptError(f"a squashfs data block cannot be read: {error}", self.place.at(position)) from error
        while len(self._data_blocks) >= _CACHED_BLOCKS:
            self._data_blocks.pop(next(iter(self._data_blocks)), None)
        self._data_blocks[position] = plain
        return plain

    def list_table_starts(self) -> list[int]:
        """Return where the blocks of each table behind the directories begin, and ``bytes_used``, in rising order."""
        superblock = self.superblock
        indexes = [superblock.id_table]
        indexes += [superblock.fragment_table] if superblock.has_fragments else []
        indexes += [superblock.lookup_table] if superblock.has_lookup and superblock.inodes else []
        starts = [int.from_bytes(self.table.read(index, 8), "little") for index in indexes]
        if superblock.fragment_table != ABSENT and not superblock.fragments:
            starts.append(superblock.fragment_table)
        if superblock.has_xattrs:
            starts.append(int.from_bytes(self.table.read(superblock.xattr_table, 8), "little"))
        return sorted([*starts, superblock.bytes_used])


def _end_at_directories(runs: Iterable[Sequence[SquashfsEntry]]) -> Iterator[Sequence[SquashfsEntry]]:
    """Yield the entries of ``runs`` in parts, so that a directory is the last entry of its part."""
    for entries in runs:
        if DIRECTORY not in set(map(_TYPE, entries)):
            yield entries
            continue
        start = 0
        for end, entry in enumerate(entries, 1):
            if entry.type == DIRECTORY:
                yield entries[start:end]
                start = end
        if start < len(entries):
            yield entries[start:]


def name_xattrs(pairs: Iterable[XattrPair]) -> dict[bytes, bytes]:
    """Return the values of ``pairs`` by full names; those of a class that Linux does not know are left out as there."""
    return {
        XATTR_PREFIXES[pair.kind & 0xFF] + pair.name: pair.value for pair in pairs if pair.kind & 0xFF in XATTR_PREFIXES
    }


class MetadataCursor:
    """Reads metadata forward from a ``reference`` into the table that begins at byte ``start`` of the image."""

    def __init__(self, metadata: MetadataReader, start: int, reference: int, place: Place) -> None:
        """Stand at ``reference``; ``place``: of the image."""
        block, self._offset = split_reference(reference)
        self._place = place
        self._metadata, self._start, self._position = metadata, start, start + block

    @property
    def reference(self) -> int:
        """Where it stands."""
        return make_reference(self._position - self._start, self._offset)

    def read(self, length: int) -> bytes:
        """Return the next ``length`` bytes. :raises CorruptError: they are too many, or not there."""
        if length > MAX_VALUE:
            raise CorruptError("a squashfs extended attribute is too long", self._place.at(self._position))
        data = self._metadata.read(self._position, self._offset, length)
        self._offset += length
        while self._offset >= METADATA_SIZE:
            self._position, self._offset = self._metadata.block(self._position)[1], self._offset - METADATA_SIZE
        return data


class FileData:
    """The data of a file, block by block, as a source of pieces."""

    def __init__(self, filesystem: SquashfsFilesystem, inode: Inode) -> None:
        """Remember the file ``inode`` of ``filesystem``."""
        self._filesystem, self._inode = filesystem, inode

    @property
    def name(self) -> str:
        """The place of the file system."""
        return str(self._filesystem.place)

    @cached_property
    def _starts(self) -> Sequence[int]:
        """The byte of the image at which each block begins, and the end of the last."""
        sizes = (word & ~STORED_BLOCK for word in self._inode.blocks)
        return list(accumulate(sizes, initial=self._inode.start))

    def chunks(self, offset: int, length: int) -> Iterator[bytes]:
        """Yield ``length`` bytes from byte ``offset`` on. :raises CorruptError: a block is damaged."""
        size = self._filesystem.superblock.block_size
        end = offset + length
        number = offset // size
        while offset < end:
            start = self._starts[min(number, len(self._inode.blocks))]
            block = self._block(number, start)
            part = block[offset - number * size : end - number * size]
            if not part:
                raise CorruptError("a squashfs file is shorter than its inode tells", self._filesystem.place.at(start))
            yield part
            offset += len(part)
            number += 1

    def find_packed(self, offset: int, length: int) -> Iterator[tuple[int, PieceTable]]:
        """Yield how many of ``length`` bytes from ``offset`` on each block has, and its packed bytes: none of holes."""
        inode, filesystem = self._inode, self._filesystem
        size = filesystem.superblock.block_size
        for number in range(offset // size, -(-(offset + length) // size)):
            start, word = self._starts[min(number, len(inode.blocks))], 0
            if number < len(inode.blocks):
                word = inode.blocks[number]
            elif inode.fragment < len(filesystem.fragments):
                start, word = filesystem.fragments[inode.fragment]
            first, end = max(offset, number * size), min(offset + length, (number + 1) * size)
            yield end - first, filesystem.table.cut(start, start + (word & ~STORED_BLOCK))

    def _block(self, number: int, start: int) -> bytes:
        """Return the plain bytes of block ``number``, which begins at byte ``start`` of the image, or of the tail."""
        inode, filesystem = self._inode, self._filesystem
        size = filesystem.superblock.block_size
        length = min(size, inode.size - number * size)
        if number < len(inode.blocks):
            word = inode.blocks[number]
            if not word & ~STORED_BLOCK:
                return bytes(length)
            plain = filesystem.read_block(start, word, size)
            if len(plain) != length:
                raise CorruptError("a squashfs data block has another size than its file", filesystem.place.at(start))
            return plain
        try:
            position, word = filesystem.fragments[inode.fragment]
        except IndexError:
            raise CorruptError(f"squashfs has no fragment {inode.fragment}", filesystem.place) from None
        plain = filesystem.read_block(position, word, size)[inode.offset : inode.offset + length]
        if len(plain) != length:
            raise CorruptError("a squashfs fragment is shorter than a tail in it", filesystem.place.at(position))
        return plain
