"""An EROFS file system that is read on demand: inodes, directories, attributes and data, each when it is needed."""

from __future__ import annotations

import struct
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from itertools import chain, islice
from threading import Lock

from cosremaster.errors import CorruptError, Place, UnsupportedError
from cosremaster.io.pieces import Piece, PieceTable, Range, Zeros
from cosremaster.layers.erofs.chunks import NO_PLACE, ChunkMap, ChunkRun
from cosremaster.layers.erofs.directories import DIRECTORY_TYPE, ErofsEntry, parse_block
from cosremaster.layers.erofs.expand import ExtentError, expand_extent
from cosremaster.layers.erofs.extents import (
    FRAGMENT,
    HOLE,
    INTERLACED,
    IS_INLINE,
    IS_PARTIAL,
    MAX_PLAIN,
    MAX_STORED,
    SHIFTED,
    ErofsExtent,
    ExtentMap,
    list_extents,
)
from cosremaster.layers.erofs.inodes import EXTENDED, IN_METABOX, DataLayout, ErofsInode, parse_inode
from cosremaster.layers.erofs.inodes import HOLE as NO_BLOCK
from cosremaster.layers.erofs.metadata import MetadataBytes
from cosremaster.layers.erofs.superblock import (
    OFFSET,
    SIZE,
    SLOT,
    ErofsCompatible,
    ErofsFeature,
    ErofsSuperblock,
    check_checksum,
    checked_length,
    parse_superblock,
)
from cosremaster.layers.erofs.xattrs import parse_prefix, parse_xattrs
from cosremaster.layers.on_demand import MAX_LISTINGS, OnDemandFilesystem
from cosremaster.tree.nodes import NodeKind, Xattrs

_MAX_RUNS = 4096
"""Pieces of a file in chunks that are made before they are read."""
_MAX_TARGET = 1 << 16
_MAX_CACHED = 24 << 20
"""Plain bytes of extents that stay in memory: tails of many small files may be in one."""


class ErofsFilesystem(OnDemandFilesystem[ErofsEntry, ErofsInode]):
    """The EROFS file system whose bytes are ``table``."""

    noun = "an EROFS"

    def __init__(self, table: PieceTable, place: Place) -> None:
        """Read the superblock. Raises as ``parse_superblock``."""
        self.table, self.place = table, place
        self.superblock: ErofsSuperblock = parse_superblock(table.read(OFFSET, SIZE), table.length, place)
        check_checksum(self.superblock, table.read(0, checked_length(self.superblock.block_size)), place)
        self._image = MetadataBytes(table)
        self._cache = _ExtentCache()

    @property
    def root(self) -> ErofsInode:
        """The inode of the root directory."""
        return self.inode(self.superblock.root)

    @cached_property
    def _metabox(self) -> MetadataBytes:
        """The metadata that an inode holds. :raises CorruptError: there is none."""
        number = self.superblock.metabox
        if not number or number & IN_METABOX:
            raise CorruptError("EROFS metadata stand in an inode that is not there", self.place)
        return MetadataBytes(self._data(self.inode(number), may_share=False))

    @cached_property
    def _packed(self) -> PieceTable:
        """The bytes of the inode that holds the tails of files. :raises CorruptError: there is none."""
        if not self.superblock.packed:
            raise CorruptError("an EROFS file has its tail in an inode that is not there", self.place)
        return self._data(self.inode(self.superblock.packed), may_share=False)

    def metadata(self, is_in_metabox: bool) -> MetadataBytes:
        """Return the metadata in an inode, or those in the image."""
        return self._metabox if is_in_metabox else self._image

    def inode(self, nid: int) -> ErofsInode:
        """Return inode ``nid``. :raises CorruptError: it cannot be one."""
        is_in_metabox = bool(nid & IN_METABOX)
        position = (nid & ~IN_METABOX) * SLOT + (0 if is_in_metabox else self.superblock.metadata_start)
        try:
            raw = self.metadata(is_in_metabox).read_up_to(position, EXTENDED.size)
            return parse_inode(raw, nid, position, self.superblock)
        except (ValueError, struct.error) as error:
            raise CorruptError(f"EROFS inode {nid} is damaged: {error}", self._at(is_in_metabox, position)) from error

    def inode_of(self, entry: ErofsEntry) -> ErofsInode:
        """Return the inode that ``entry`` leads to. :raises CorruptError: it cannot be one."""
        return self.inode(entry.nid)

    def find_directory(self, entry: ErofsEntry) -> ErofsInode | None:
        """Return the inode of the directory that ``entry`` leads to; None where it leads to something else."""
        return self.inode(entry.nid) if entry.type == DIRECTORY_TYPE else None

    def kind_of(self, path: bytes, entry: ErofsEntry, inode: ErofsInode) -> NodeKind:
        """Return the type of ``inode``, to which ``entry`` at ``path`` leads.

        :raises CorruptError: it has no known type, or the entry lies about it: then a directory would seem empty.
        """
        where = self.place.inside(path[:255])
        try:
            kind = inode.kind
        except ValueError as error:
            raise CorruptError(f"EROFS inode {inode.nid} has no type of a file", where) from error
        if (kind is NodeKind.DIRECTORY) != (entry.type == DIRECTORY_TYPE):
            message = f"EROFS inode {inode.nid} and its name do not agree whether it is a directory"
            raise CorruptError(message, where)
        return kind

    def owners_of(self, inode: ErofsInode) -> tuple[int, int]:
        """Return the user and the group of ``inode``."""
        return inode.uid, inode.gid

    def _at(self, is_in_metabox: bool, position: int) -> Place:
        """Return the place of byte ``position`` of the metadata."""
        return self.place if is_in_metabox else self.place.at(position)

    def _damage(self, inode: ErofsInode, what: str, error: object) -> CorruptError:
        """Return the error for ``what`` of ``inode``."""
        where = self._at(inode.is_in_metabox, inode.position)
        return CorruptError(f"{what} of EROFS inode {inode.nid} is damaged: {error}", where)

    def data(self, inode: ErofsInode) -> PieceTable:
        """Return the data of ``inode``: plain ones are ranges of the image, others are read when needed.

        :raises CorruptError: what leads to them is damaged.
        """
        return self._data(inode, may_share=True)

    def _data(self, inode: ErofsInode, *, may_share: bool) -> PieceTable:
        """Return the data of ``inode``; ``may_share``: its tail may stand among those of others."""
        if inode.layout.is_compressed:
            source = ExtentData(self, inode, may_share=may_share)
            return PieceTable([Range(source, 0, inode.size)])
        try:
            if inode.layout is DataLayout.CHUNK_BASED:
                return PieceTable(self._chunk_pieces(inode))
            return PieceTable(self._flat(inode))
        except (ValueError, struct.error) as error:
            raise self._damage(inode, "the map of blocks", error) from error

    def _flat(self, inode: ErofsInode) -> Iterator[Piece]:
        """Yield the data of ``inode``, which are in one run. :raises ValueError: they are not in the image."""
        if inode.start == NO_BLOCK and inode.layout is DataLayout.FLAT_PLAIN:
            yield Zeros(inode.size)
            return
        whole, tail = self._flat_ranges(inode)
        if whole:
            yield from self.table.cut(whole.start, whole.stop).pieces
        if tail:
            yield from self.metadata(inode.is_in_metabox).table.cut(tail.start, tail.stop).pieces

    def _flat_ranges(self, inode: ErofsInode) -> tuple[range, range]:
        """Return the bytes of the blocks of ``inode``, and those behind it, its tail. :raises ValueError: damage."""
        size = self.superblock.block_size
        tail = (inode.size - 1) % size + 1 if inode.layout is DataLayout.FLAT_INLINE and inode.size else 0
        if tail and inode.body % size + tail > size:
            raise ValueError("data behind the inode cross the border of a block")
        start = inode.start * size
        return range(start, start + inode.size - tail), range(inode.body, inode.body + tail)

    def _chunks(self, inode: ErofsInode) -> ChunkMap:
        """Return where the data of ``inode`` stand, which are in chunks. :raises ValueError: that is damaged."""
        read = self.metadata(inode.is_in_metabox).read
        return ChunkMap(inode, self.superblock, read, self.table.length)

    def _chunk_pieces(self, inode: ErofsInode) -> Iterable[Piece]:
        """Return the data of ``inode``, which are in chunks; where these are many, pieces are made when they are read.

        :raises ValueError: they are not in the image.
        """
        chunks = self._chunks(inode)
        runs = list(islice(chunks.runs(0, inode.size), _MAX_RUNS + 1))
        if len(runs) > _MAX_RUNS:
            return (Range(ChunkData(self, inode, chunks), 0, inode.size),)
        return chain.from_iterable(self._run_pieces(run) for run in runs)

    def _run_pieces(self, run: ChunkRun) -> Iterable[Piece]:
        """Return the bytes of ``run``."""
        if run.position == NO_PLACE:
            return (Zeros(run.length),)
        return self.table.cut(run.position, run.position + run.length).pieces

    def read_chunks(self, inode: ErofsInode, chunks: ChunkMap, offset: int, length: int) -> Iterator[bytes]:
        """Yield ``length`` bytes of ``inode``, whose data are in ``chunks``, from byte ``offset`` on.

        :raises CorruptError: they are not in the image.
        """
        try:
            for run in chunks.runs(offset, offset + length):
                for piece in self._run_pieces(run):
                    yield from piece.chunks()
        except ValueError as error:
            raise self._damage(inode, "the map of blocks", error) from error

    def listing(self, inode: ErofsInode) -> Iterator[ErofsEntry]:
        """Yield the entries of the directory ``inode``, sorted by name. :raises CorruptError: it is damaged."""
        return (entry for entry in self.full_listing(inode) if entry.name not in (b".", b".."))

    def full_listing(self, inode: ErofsInode) -> Iterator[ErofsEntry]:
        """Yield the entries of the directory ``inode``, those of itself and its parent too.

        :raises CorruptError: it is damaged.
        """
        if inode.mode & 0o170000 != NodeKind.DIRECTORY or inode.size > MAX_LISTINGS:
            problem = f"claims {inode.size:,} bytes" if inode.size > MAX_LISTINGS else "is none"
            raise CorruptError(
                f"an EROFS directory (inode {inode.nid}) {problem}", self._at(inode.is_in_metabox, inode.position)
            )
        table, size = self.data(inode), self.superblock.block_size
        try:
            for start in range(0, inode.size, size):
                yield from parse_block(table.read(start, size))
        except (ValueError, struct.error) as error:
            raise self._damage(inode, "the directory", error) from error

    def target(self, inode: ErofsInode) -> bytes:
        """Return the text of the symlink ``inode``. :raises CorruptError: it is damaged."""
        if inode.size > _MAX_TARGET:
            raise self._damage(inode, "the symlink", f"its text has {inode.size:,} bytes")
        return self.data(inode).read()

    @cached_property
    def _prefixes(self) -> Sequence[bytes | None]:
        """The long prefixes of names of attributes. :raises ValueError: they are damaged."""
        superblock = self.superblock
        if not superblock.has(ErofsFeature.XATTR_PREFIXES):
            return ()
        if superblock.compatible & ErofsCompatible.PLAIN_XATTR_PREFIXES:
            source = self._image
        elif superblock.metabox:
            source = self._metabox
        else:
            source = MetadataBytes(self._packed) if superblock.packed else self._image
        prefixes, at = [], superblock.prefix_start
        for _ in range(superblock.prefix_count):
            (length,) = struct.unpack("<H", source.read(at, 2))
            prefixes.append(parse_prefix(source.read(at + 2, length)))
            at += 2 + length
            at += -at % 4
        return prefixes

    def xattrs_of(self, inode: ErofsInode) -> Xattrs:
        """Return the extended attributes of ``inode``. :raises CorruptError: they are damaged."""
        if not inode.xattr_size:
            return ()
        superblock = self.superblock
        shared_in_metabox = bool(superblock.metabox and superblock.compatible & ErofsCompatible.XATTRS_IN_METABOX)

        def read_shared(at: int, length: int) -> bytes:
            """Return bytes of the shared attributes."""
            return self.metadata(shared_in_metabox).read(superblock.xattr_start + at, length)

        try:
            position = inode.position + inode.head_size
            raw = self.metadata(inode.is_in_metabox).read(position, inode.xattr_size)
            return parse_xattrs(raw, read_shared, lambda: self._prefixes)
        except (ValueError, struct.error) as error:
            raise self._damage(inode, "an extended attribute", error) from error

    def data_ranges(self, inode: ErofsInode) -> Iterator[tuple[int, int]]:
        """Yield start and end of the bytes of the image that hold data of ``inode``, and read none of them.

        Data among the tails of others, and among metadata in another inode, are not in the image so.

        :raises CorruptError: what leads to them is damaged.
        """
        if inode.layout.is_compressed:
            for extent in self.extents(inode):
                if extent.form < FRAGMENT and not (extent.kind & IS_INLINE and inode.is_in_metabox):
                    yield extent.position, extent.position + extent.length
            return
        try:
            if inode.layout is DataLayout.CHUNK_BASED:
                for run in self._chunks(inode).runs(0, inode.size):
                    if run.position != NO_PLACE:
                        yield run.position, run.position + run.length
            elif inode.start != NO_BLOCK or inode.layout is not DataLayout.FLAT_PLAIN:
                whole, tail = self._flat_ranges(inode)
                for part in (whole, tail) if not inode.is_in_metabox else (whole,):
                    if part and part.stop > self.table.length:
                        raise ValueError("they are outside of the image")
                    if part:
                        yield part.start, part.stop
        except (ValueError, struct.error) as error:
            raise self._damage(inode, "the map of blocks", error) from error

    def extents(self, inode: ErofsInode) -> ExtentMap:
        """Return where the compressed data of ``inode`` stand. :raises CorruptError: the map is damaged."""
        try:
            return list_extents(inode, self.superblock, self.metadata(inode.is_in_metabox).read)
        except (ValueError, struct.error) as error:
            raise self._damage(inode, "the map of blocks", error) from error

    def expand(self, inode: ErofsInode, extent: ErofsExtent) -> bytes:
        """Return the plain bytes of ``extent``, which are not a fragment. :raises CorruptError: they are damaged.

        :raises UnsupportedError: a library that they need is not installed.
        """
        length = extent.end - extent.start
        offset = extent.start % self.superblock.block_size if extent.form == INTERLACED else 0
        key = (extent.position, extent.kind, length, offset)
        cached = self._cache.get(key)
        if cached is not None:
            return cached
        in_metabox = bool(extent.kind & IS_INLINE) and inode.is_in_metabox
        where = self._at(in_metabox, extent.position)
        if length > MAX_PLAIN or extent.length > MAX_STORED:
            raise CorruptError(f"a compressed EROFS extent claims {length:,} bytes", where)
        try:
            source = self.metadata(in_metabox)
            stored = source.read(extent.position, extent.length) if in_metabox else self._stored(extent)
            plain = self._expand_stored(stored, extent, length, offset)
        except ImportError as error:
            raise UnsupportedError(
                f"is an EROFS file system whose compression needs a library: {error}", where
            ) from error
        except ValueError as error:
            raise CorruptError(f"data of EROFS inode {inode.nid} cannot be read: {error}", where) from error
        if not extent.kind & IS_INLINE:
            self._cache.put(key, plain)
        return plain

    def _stored(self, extent: ErofsExtent) -> bytes:
        """Return the stored bytes of ``extent``. :raises ValueError: they are not in the image."""
        if extent.position + extent.length > self.table.length:
            raise ValueError("they are outside of the image")
        return self.table.read(extent.position, extent.length)

    def _expand_stored(self, stored: bytes, extent: ErofsExtent, length: int, offset: int) -> bytes:
        """Return the ``length`` plain bytes of ``stored``; ``offset``: where they begin in a block of the file.

        :raises ExtentError: damage.
        """
        superblock = self.superblock
        if extent.form not in (SHIFTED, INTERLACED) and superblock.has(ErofsFeature.ZERO_PADDING):
            stored = stored.lstrip(b"\0")
        if not stored:
            raise ExtentError("there are none")
        is_partial = bool(extent.kind & IS_PARTIAL)
        return expand_extent(
            stored, extent.form, length, is_partial=is_partial, block_offset=offset, block_size=superblock.block_size
        )

    def read_packed(self, position: int, length: int) -> Iterator[bytes]:
        """Yield bytes of the inode that holds the tails of files. :raises CorruptError: they are not there."""
        if position + length > self._packed.length:
            raise CorruptError("the tail of an EROFS file is outside of the inode that holds it", self.place)
        return self._packed.cut(position, position + length).chunks()


class _ExtentCache:
    """Plain bytes of extents by their key, those of the last ones."""

    def __init__(self) -> None:
        """Begin without any."""
        self._extents: OrderedDict[tuple[int, int, int, int], bytes] = OrderedDict()
        self._size = 0
        self._lock = Lock()

    def get(self, key: tuple[int, int, int, int]) -> bytes | None:
        """Return the bytes of ``key``, None where they are not there."""
        with self._lock:
            plain = self._extents.get(key)
            if plain is not None:
                self._extents.move_to_end(key)
            return plain

    def put(self, key: tuple[int, int, int, int], plain: bytes) -> None:
        """Keep ``plain`` under ``key``, and fewer of the others."""
        with self._lock:
            if key not in self._extents:
                self._extents[key] = plain
                self._size += len(plain)
            while self._size > _MAX_CACHED:
                self._size -= len(self._extents.popitem(last=False)[1])


class ChunkData:
    """The data of a file in very many chunks, as a source of pieces."""

    def __init__(self, filesystem: ErofsFilesystem, inode: ErofsInode, chunks: ChunkMap) -> None:
        """Remember the file ``inode`` of ``filesystem``, and where its data stand."""
        self._filesystem, self._inode, self._chunks = filesystem, inode, chunks

    @property
    def name(self) -> str:
        """The place of the file system."""
        return str(self._filesystem.place)

    def chunks(self, offset: int, length: int) -> Iterator[bytes]:
        """Yield ``length`` bytes from byte ``offset`` on. :raises CorruptError: the map of blocks is damaged."""
        return self._filesystem.read_chunks(self._inode, self._chunks, offset, length)


class ExtentData:
    """The data of a compressed file, extent by extent, as a source of pieces."""

    def __init__(self, filesystem: ErofsFilesystem, inode: ErofsInode, *, may_share: bool) -> None:
        """Remember the file ``inode`` of ``filesystem``; ``may_share``: its tail may stand among those of others."""
        self._filesystem, self._inode, self._may_share = filesystem, inode, may_share

    @property
    def name(self) -> str:
        """The place of the file system."""
        return str(self._filesystem.place)

    @cached_property
    def _map(self) -> ExtentMap:
        """The extents of the file."""
        return self._filesystem.extents(self._inode)

    def chunks(self, offset: int, length: int) -> Iterator[bytes]:
        """Yield ``length`` bytes from byte ``offset`` on. :raises CorruptError: an extent is damaged."""
        end = offset + length
        number = bisect_right(self._map.starts, offset) - 1
        while offset < end:
            if number < 0:
                raise CorruptError(f"EROFS inode {self._inode.nid} has no extents", self._filesystem.place)
            extent = self._map.extent(number)
            yield from self._read_extent(extent, offset - extent.start, min(end, extent.end) - offset)
            offset = extent.end
            number += 1

    def _read_extent(self, extent: ErofsExtent, start: int, count: int) -> Iterator[bytes]:
        """Yield ``count`` bytes of ``extent`` from its byte ``start`` on."""
        if extent.form == FRAGMENT:
            if not self._may_share:
                raise CorruptError(
                    "the EROFS inode that holds tails of files has its own in it", self._filesystem.place
                )
            yield from self._filesystem.read_packed(extent.position + start, count)
        elif extent.form == HOLE:
            yield from Zeros(count).chunks()
        else:
            yield self._filesystem.expand(self._inode, extent)[start : start + count]
