"""The superblock of a squashfs file system: where its tables are, and the rules that they keep."""

from __future__ import annotations

import enum
import struct

from cosremaster.errors import CorruptError, Place, UnsupportedError
from cosremaster.records import Struct

_SUPERBLOCK = struct.Struct("<IIIIIHHHHHHQQQQQQQQ")
SUPERBLOCK_SIZE = _SUPERBLOCK.size
"""Bytes of the superblock, 96."""

ABSENT = 0xFFFFFFFFFFFFFFFF
"""The place of a table that an image does not have."""

_MIN_BLOCK_LOG, _MAX_BLOCK_LOG = 12, 20
_MIN_METADATA_BLOCK = 3
_MAX_INODES_OF_BLOCK = 8192 // 20 + 1
"""The smallest inode, that of a FIFO, has 20 bytes; a metadata block holds 8,192 plain ones in at least three."""
PADDING = 4096
"""An image is padded to a multiple of so many bytes: loop devices read whole pages."""


class Flags(enum.IntFlag):
    """The flags of a superblock; bits that are not defined stay as they are."""

    STORED_INODES = 0x001
    STORED_DATA = 0x002
    STORED_FRAGMENTS = 0x008
    NO_FRAGMENTS = 0x010
    ALWAYS_FRAGMENTS = 0x020
    DUPLICATES = 0x040
    EXPORTABLE = 0x080
    STORED_XATTRS = 0x100
    NO_XATTRS = 0x200
    COMPRESSOR_OPTIONS = 0x400
    STORED_IDS = 0x800


class Compression(enum.IntEnum):
    """The compressions that a superblock can name."""

    GZIP = 1
    LZMA = 2
    LZO = 3
    XZ = 4
    LZ4 = 5
    ZSTD = 6


class Superblock(Struct, frozen=True):
    """The fields of a superblock, in its order; places of tables are bytes from the image's start.

    ``bytes_used``: the end of the last table. ``root``: the reference of the root's inode. An absent table is at
    :data:`ABSENT`.
    """

    magic: int
    inodes: int
    made_at: int
    block_size: int
    fragments: int
    compression: int
    block_log: int
    flags: int
    ids: int
    major: int
    minor: int
    root: int
    bytes_used: int
    id_table: int
    xattr_table: int
    inode_table: int
    directory_table: int
    fragment_table: int
    lookup_table: int

    @property
    def has_fragments(self) -> bool:
        """Whether there is a table of fragment blocks."""
        return bool(self.fragments) and self.fragment_table != ABSENT

    @property
    def has_lookup(self) -> bool:
        """Whether there is a table of inodes for NFS."""
        return bool(self.flags & Flags.EXPORTABLE) and self.lookup_table != ABSENT

    @property
    def has_xattrs(self) -> bool:
        """Whether there is a table of extended attributes."""
        return self.xattr_table != ABSENT

    def pack(self) -> bytes:
        """Return the 96 bytes."""
        return _SUPERBLOCK.pack(*(getattr(self, name) for name in self.__struct_fields__))


def read_superblock(data: bytes, size: int, place: Place) -> Superblock:
    """Read the superblock in ``data``, the first bytes of an image of ``size`` bytes.

    :raises UnsupportedError: it is of a version or a compression that Linux does not read.
    :raises CorruptError: its fields contradict each other or the size.
    """
    if len(data) < SUPERBLOCK_SIZE:
        raise CorruptError("squashfs ends inside its superblock", place.at(len(data)))
    superblock = Superblock(*_SUPERBLOCK.unpack_from(data))
    if (superblock.major, superblock.minor) != (4, 0):
        raise UnsupportedError(
            f"is squashfs {superblock.major}.{superblock.minor}, and only 4.0 can be read", place.at(28)
        )
    if superblock.compression == Compression.LZMA:
        raise UnsupportedError("is squashfs under lzma, which no kernel reads", place.at(20))
    if superblock.compression not in list(Compression):
        raise CorruptError(f"squashfs names compression {superblock.compression}, which does not exist", place.at(20))
    is_power = superblock.block_size == 1 << superblock.block_log
    if not (is_power and _MIN_BLOCK_LOG <= superblock.block_log <= _MAX_BLOCK_LOG):
        raise CorruptError(f"squashfs has blocks of {superblock.block_size:,} bytes", place.at(12))
    if superblock.bytes_used > size:
        raise CorruptError(
            f"squashfs is cut off: it has {superblock.bytes_used:,} bytes, and {size:,} are there", place.at(40)
        )
    tables = (superblock.inode_table, superblock.directory_table, superblock.id_table)
    if not SUPERBLOCK_SIZE <= tables[0] <= tables[1] <= tables[2] < superblock.bytes_used:
        raise CorruptError("squashfs has its tables in another order than inodes, directories, ids", place.at(48))
    blocks = (tables[1] - tables[0]) // _MIN_METADATA_BLOCK + 1
    if superblock.inodes > blocks * _MAX_INODES_OF_BLOCK:
        message = f"squashfs claims {superblock.inodes:,} inodes, which its table of {tables[1] - tables[0]:,} bytes"
        raise CorruptError(f"{message} cannot hold", place.at(4))
    for table in (superblock.fragment_table, superblock.lookup_table, superblock.xattr_table):
        if table != ABSENT and not superblock.directory_table <= table < superblock.bytes_used:
            raise CorruptError("squashfs has a table outside of itself", place.at(48))
    return superblock
