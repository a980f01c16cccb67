"""An ext2, ext3 or ext4 file system that is read on demand: inodes, directories, attributes and data."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from functools import lru_cache

from cosremaster.errors import CorruptError, Place, UnsupportedError
from cosremaster.io.pieces import Literal, Piece, PieceTable, Zeros
from cosremaster.layers.ext4.directories import Ext4Entry, parse_directory, parse_inline_directory
from cosremaster.layers.ext4.extents import DataRun, MapReader, list_runs
from cosremaster.layers.ext4.inodes import (
    BLOCK_FIELD,
    EA_INODE,
    ENCRYPTED,
    INDEXED,
    INLINE_DATA,
    Ext4Inode,
    has_valid_checksum,
    parse_inode,
)
from cosremaster.layers.ext4.journal import DamagedBlockError, list_replays
from cosremaster.layers.ext4.superblock import OFFSET, SIZE, Ext4Superblock, Incompatible, parse_superblock
from cosremaster.layers.ext4.xattrs import (
    INLINE_DATA as INLINE_ATTRIBUTE,
)
from cosremaster.layers.ext4.xattrs import (
    StoredXattr,
    collect_xattrs,
    has_valid_xattr_checksum,
    parse_block_xattrs,
    parse_inode_xattrs,
)
from cosremaster.layers.on_demand import OnDemandFilesystem
from cosremaster.tree.nodes import NodeKind, Xattrs

ROOT = 2
"""The number of the root directory's inode."""
_CLASSIC_INODE_SIZE = 128
_MAX_DIRECTORY = 1 << 30
_MAX_VALUE = 1 << 16
_MAX_LINK = 1 << 16
_CACHED_BLOCKS = 256
_CACHED_INODES = 16


class Ext4Filesystem(OnDemandFilesystem[Ext4Entry, Ext4Inode]):
    """The file system whose bytes are ``table``. ``is_replayed``: its journal had something that was not in place."""

    noun = "an ext4"

    def __init__(self, table: PieceTable, place: Place) -> None:
        """Read the superblock and the journal. Raises as ``parse_superblock``."""
        self.place = place
        self.superblock: Ext4Superblock = parse_superblock(table.read(OFFSET, SIZE), table.length, place)
        self.table = table.cut(0, self.superblock.block_count * self.superblock.block_size)
        self.max_listings = self.table.length  # no block is of two directories
        self.block = lru_cache(_CACHED_BLOCKS)(self._read_block)
        self._inode = lru_cache(_CACHED_INODES)(self._read_inode)
        self._reader = MapReader(
            self.block, self.superblock.block_size, self.superblock.block_count, self.superblock.has_checksums
        )
        self.is_replayed = False
        if self.superblock.has(Incompatible.RECOVER):
            self._apply_journal()

    def _apply_journal(self) -> None:
        """Lay the journal's blocks over those of the file system. :raises UnsupportedError: the journal is not known.

        :raises CorruptError: it is damaged.
        """
        size = self.superblock.block_size
        if not self.superblock.journal_inode:
            raise UnsupportedError(
                "the ext4 file system was not unmounted, and its journal is on another device", self.place
            )
        inode = self.inode(self.superblock.journal_inode)
        journal = self.data(inode)

        def read(number: int) -> bytes:
            """Return block ``number`` of the journal."""
            return journal.read(number * size, size)

        try:
            replays = list_replays(read, size, journal.length // size)
        except DamagedBlockError as error:
            offsets = (
                (run.block + error.block - run.logical) * size
                for run in self.data_runs(inode)
                if run.logical <= error.block < run.logical + run.length
            )
            where = self.place.at(next(offsets, 0))
            raise CorruptError(f"the journal of the ext4 file system is damaged: {error}", where) from error
        except (ValueError, struct.error) as error:
            raise UnsupportedError(
                f"the journal of the ext4 file system cannot be read: {error}", self.place
            ) from error
        patches: list[tuple[int, bytes | PieceTable]] = []
        for replay in sorted(replays, key=lambda replay: replay.block):
            if replay.block >= self.superblock.block_count:
                raise CorruptError("the journal of the ext4 file system leads out of it", self.place)
            data = journal.cut(replay.journal_block * size, (replay.journal_block + 1) * size)
            patches.append((replay.block * size, b"\xc0\x3b\x39\x98" + data.read(4) if replay.is_escaped else data))
        if patches:
            self.table = self.table.patched(patches)
            self.block.cache_clear()
            self._inode.cache_clear()
            self.is_replayed = True

    def _read_block(self, number: int) -> bytes:
        """Return the bytes of block ``number``. :raises ValueError: there is none."""
        if not 0 < number < self.superblock.block_count:
            raise ValueError(f"block {number} is outside of the file system")
        size = self.superblock.block_size
        return self.table.read(number * size, size)

    def _inode_table(self, group: int) -> int:
        """Return the block at which the inodes of ``group`` begin. :raises ValueError: it is outside."""
        superblock = self.superblock
        per_block = superblock.block_size // superblock.descriptor_size
        meta_group, place = divmod(group, per_block)
        own_block = OFFSET // superblock.block_size  # that of the superblock; not always the first one
        block = own_block + 1 + meta_group
        if superblock.has(Incompatible.META_BG) and meta_group >= superblock.first_meta_group:
            first_group = meta_group * per_block
            block = superblock.first_block + first_group * superblock.blocks_per_group
            block += _has_superblock(superblock, first_group) + (own_block > superblock.first_block and not meta_group)
        descriptor = self.block(block)[place * superblock.descriptor_size :][: superblock.descriptor_size]
        (low,) = struct.unpack_from("<I", descriptor, 8)
        high = struct.unpack_from("<I", descriptor, 0x28)[0] if len(descriptor) >= 64 else 0
        return int(low | high << 32)

    def inode(self, number: int) -> Ext4Inode:
        """Return the inode ``number``. :raises CorruptError: there is none, or it is damaged."""
        return self._inode(number)

    def _read_inode(self, number: int) -> Ext4Inode:
        """Return the inode ``number``. :raises CorruptError: there is none, or it is damaged."""
        superblock = self.superblock
        if not 0 < number <= superblock.inode_count:
            raise CorruptError(f"ext4 has no inode {number}", self.place)
        group, place = divmod(number - 1, superblock.inodes_per_group)
        block, offset = divmod(place * superblock.inode_size, superblock.block_size)
        try:
            first = self._inode_table(group)
            raw = self.block(first + block)[offset : offset + superblock.inode_size]
        except ValueError as error:
            raise CorruptError(f"the table of inodes of ext4 group {group} is damaged: {error}", self.place) from error
        inode = parse_inode(number, raw, superblock.seed)
        if superblock.has_checksums and any(raw) and not has_valid_checksum(inode):
            at = (first + block) * superblock.block_size + offset
            raise CorruptError(f"the checksum of ext4 inode {number} is wrong", self.place.at(at))
        return inode

    def _damage(self, inode: Ext4Inode, what: str, error: Exception) -> CorruptError:
        """Return the error for ``what`` of ``inode``."""
        return CorruptError(f"{what} of ext4 inode {inode.number} is damaged: {error}", self.place)

    def data_runs(self, inode: Ext4Inode) -> list[DataRun]:
        """Return where the data of ``inode`` stand. :raises CorruptError: the map is damaged."""
        try:
            return list_runs(inode, self._reader)
        except (ValueError, struct.error) as error:
            raise self._damage(inode, "the map of blocks", error) from error

    def data(self, inode: Ext4Inode) -> PieceTable:
        """Return the data of ``inode``: ranges of the file system, and zeros for what was never written.

        :raises CorruptError: the map of blocks is damaged. :raises UnsupportedError: the file is encrypted.
        """
        if inode.flags & ENCRYPTED:
            raise UnsupportedError(f"ext4 inode {inode.number} is encrypted", self.place)
        if inode.flags & INLINE_DATA:
            inline = self._inline(inode)  # behind it the kernel reads zeros: mke2fs -d so makes files that are one hole
            return PieceTable([Literal(inline), Zeros(inode.size - len(inline))])
        size, end, pieces = self.superblock.block_size, 0, list[Piece]()
        for run in self.data_runs(inode):
            start, stop = run.logical * size, min((run.logical + run.length) * size, inode.size)
            if start >= stop:  # blocks that were allocated behind the end
                continue
            if start > end:
                pieces.append(Zeros(start - end))
            if run.block:
                pieces += self.table.cut(run.block * size, run.block * size + stop - start).pieces
            else:
                pieces.append(Zeros(stop - start))
            end = stop
        if inode.size > end:
            pieces.append(Zeros(inode.size - end))
        return PieceTable(pieces)

    def _inline(self, inode: Ext4Inode) -> bytes:
        """Return the data that stand in ``inode`` itself. :raises CorruptError: an attribute is damaged."""
        field = inode.raw[BLOCK_FIELD]
        if inode.size <= len(field):
            return field[: inode.size]
        try:
            return (field + self._inline_rest(inode))[: inode.size]
        except (ValueError, struct.error) as error:
            raise self._damage(inode, "an extended attribute", error) from error

    def _inline_rest(self, inode: Ext4Inode) -> bytes:
        """Return the data in ``inode`` behind the first 60 bytes, which are an attribute."""
        stored = self._stored_xattrs(inode)
        return next((attribute.value for attribute in stored if attribute.name == INLINE_ATTRIBUTE), b"")

    def listing(self, inode: Ext4Inode) -> list[Ext4Entry]:
        """Return the entries of the directory ``inode``, sorted by name. :raises CorruptError: it is damaged.

        :raises UnsupportedError: it is encrypted.
        """
        if inode.flags & ENCRYPTED:
            raise UnsupportedError(f"the directory with ext4 inode {inode.number} is encrypted", self.place)
        if inode.size > _MAX_DIRECTORY:
            raise CorruptError(f"the directory with ext4 inode {inode.number} is too large", self.place)
        seed = inode.seed if self.superblock.has_checksums else None
        try:
            if inode.flags & INLINE_DATA:
                return sorted(parse_inline_directory(inode.raw[BLOCK_FIELD], self._inline_rest(inode)))
            data, is_indexed = self.data(inode).read(), bool(inode.flags & INDEXED)
            return sorted(parse_directory(data, self.superblock.block_size, seed, is_indexed=is_indexed))
        except (ValueError, struct.error) as error:
            raise self._damage(inode, "the directory", error) from error

    def target(self, inode: Ext4Inode) -> bytes:
        """Return the text of the symlink ``inode``. :raises CorruptError: it is damaged."""
        if inode.size > _MAX_LINK:
            raise CorruptError(f"the symlink with ext4 inode {inode.number} is too long", self.place)
        if inode.is_short_symlink:
            return inode.raw[BLOCK_FIELD][: inode.size]
        return self.data(inode).read()

    def xattrs_of(self, inode: Ext4Inode) -> Xattrs:
        """Return the extended attributes of ``inode``. :raises CorruptError: they are damaged."""
        if not inode.acl and len(inode.raw) <= _CLASSIC_INODE_SIZE:
            return ()
        try:
            return collect_xattrs(self._stored_xattrs(inode), self._read_value)
        except (ValueError, struct.error) as error:
            raise self._damage(inode, "an extended attribute", error) from error

    def _stored_xattrs(self, inode: Ext4Inode) -> Iterator[StoredXattr]:
        """Yield the attributes in ``inode`` and in its block. :raises ValueError: they are damaged."""
        if len(inode.raw) > _CLASSIC_INODE_SIZE:
            yield from parse_inode_xattrs(inode.raw, _CLASSIC_INODE_SIZE + inode.extra_size)
        if inode.acl:
            block = self.block(inode.acl)
            if self.superblock.has_checksums and not has_valid_xattr_checksum(block, inode.acl, self.superblock.seed):
                raise ValueError("the checksum of their block is wrong")
            yield from parse_block_xattrs(block)

    def _read_value(self, attribute: StoredXattr) -> bytes:
        """Return the value of ``attribute``, which is the data of another inode.

        :raises ValueError: there is no such inode.
        """
        holder = self.inode(attribute.inode)
        if not holder.flags & EA_INODE or holder.size != attribute.size or attribute.size > _MAX_VALUE:
            raise ValueError(f"its value is not in inode {attribute.inode}")
        return self.data(holder).read()

    @property
    def root(self) -> Ext4Inode:
        """The inode of the root directory."""
        return self.inode(ROOT)

    def inode_of(self, entry: Ext4Entry) -> Ext4Inode:
        """Return the inode that ``entry`` leads to. :raises CorruptError: it is damaged."""
        return self.inode(entry.inode)

    def find_directory(self, entry: Ext4Entry) -> Ext4Inode | None:
        """Return the inode of the directory that ``entry`` leads to; None where it leads to something else."""
        inode = self.inode(entry.inode)
        return inode if inode.mode & 0o170000 == NodeKind.DIRECTORY else None

    def kind_of(self, path: bytes, entry: Ext4Entry, inode: Ext4Inode) -> NodeKind:
        """Return the type of ``inode``. :raises CorruptError: it has no known type."""
        try:
            return inode.kind
        except ValueError as error:
            message = f"ext4 inode {inode.number} has no type of a file"
            raise CorruptError(message, self.place.inside(path[:255])) from error

    def owners_of(self, inode: Ext4Inode) -> tuple[int, int]:
        """Return the user and the group of ``inode``."""
        return inode.uid, inode.gid


def _has_superblock(superblock: Ext4Superblock, group: int) -> bool:
    """Return whether ``group`` begins with a copy of the superblock."""
    if not superblock.has_sparse_backups or group <= 1:
        return True
    return any(_is_power(group, base) for base in (3, 5, 7))


def _is_power(number: int, base: int) -> bool:
    """Return whether ``number`` is a power of ``base``."""
    while number % base == 0:
        number //= base
    return number == 1
