"""The superblock of an EROFS file system (fs/erofs/erofs_fs.h)."""

from __future__ import annotations

import enum
import struct

from cosremaster.errors import CorruptError, Place, UnsupportedError
from cosremaster.layers.erofs.checksums import superblock_checksum
from cosremaster.records import Struct

OFFSET = 1024
"""The byte of the file system at which its superblock begins."""
SIZE = 144
"""Bytes that are read of it: 128, and the field behind them that names the inode with compressed metadata."""
MAGIC = b"\xe2\xe1\xf5\xe0"
CHECKSUM_AT, ROOT_AT, COUNT_AT, BLOCKS_AT = 4, 14, 16, 36
ROOT_8_AT = 112
SLOT = 32
"""Bytes from one number of an inode to the next."""

_FIELDS = struct.Struct("<4sIIBBHQqIIII16x16xIHHHBBIQBB2xIQ8xQ")


class ErofsFeature(enum.IntFlag):
    """Features that a reader has to know (``feature_incompat``)."""

    ZERO_PADDING = 0x1
    BIG_PCLUSTER = 0x2
    CHUNKED_FILE = 0x4
    DEVICE_TABLE = 0x8
    ZTAILPACKING = 0x10
    FRAGMENTS = 0x20
    XATTR_PREFIXES = 0x40
    BITS48 = 0x80
    METABOX = 0x100


class ErofsCompatible(enum.IntFlag):
    """Features that a reader may leave out (``feature_compat``), as far as they matter here."""

    CHECKSUM = 0x1
    XATTRS_IN_METABOX = 0x8
    PLAIN_XATTR_PREFIXES = 0x10


_KNOWN = sum(ErofsFeature)
_MIN_BLOCK_BITS, _MAX_BLOCK_BITS = 9, 16


class ErofsSuperblock(Struct, frozen=True):
    """What the superblock says.

    ``epoch`` and ``nanoseconds``: of inodes without a time of their own. ``metadata_start``: the byte from which
    numbers of inodes count; ``xattr_start`` and ``prefix_start``: of shared extended attributes and of long prefixes of
    names. ``packed`` and ``metabox``: the inodes that hold tails of files, and metadata; 0 for none.
    """

    compatible: int
    block_bits: int
    root: int
    inode_count: int
    epoch: int
    nanoseconds: int
    block_count: int
    metadata_start: int
    xattr_start: int
    features: int
    prefix_count: int
    prefix_start: int
    packed: int
    metabox: int

    @property
    def block_size(self) -> int:
        """Bytes of a block."""
        return 1 << self.block_bits

    def has(self, feature: ErofsFeature) -> bool:
        """Return whether the file system uses ``feature``."""
        return bool(self.features & int(feature))  # twice as fast as the operator of flags


def parse_superblock(raw: bytes, size: int, place: Place) -> ErofsSuperblock:
    """Parse a superblock; ``size``: bytes of the file system's file.

    :raises CorruptError: it cannot be one. :raises UnsupportedError: the file system needs what is not known here.
    """
    where = place.at(OFFSET)
    if len(raw) < SIZE or not raw.startswith(MAGIC):
        raise CorruptError("the EROFS superblock is cut off, or none", where)
    (
        _, _, compatible, block_bits, _, root, inode_count, epoch, nanoseconds, blocks, metadata, xattrs, features, _,
        devices, _, directory_bits, prefix_count, prefix_start, packed, _, _, _, root_8, metabox,
    ) = _FIELDS.unpack(raw[: _FIELDS.size])  # fmt: skip
    if features & ~_KNOWN:
        bits = features & ~_KNOWN
        raise UnsupportedError(f"is an EROFS file system with features that are not known (0x{bits:x})", place)
    if devices and features & ErofsFeature.DEVICE_TABLE:
        raise UnsupportedError(
            f"is an EROFS file system whose data are on {devices:,} more device{'s' * (devices > 1)} (mkfs.erofs"
            " --blobdev), which are not part of it; an image made without that option can be read", place,
        )  # fmt: skip
    if not _MIN_BLOCK_BITS <= block_bits <= _MAX_BLOCK_BITS:
        raise CorruptError(f"the block size 2^{block_bits} of the EROFS superblock is impossible", where)
    if directory_bits:
        raise UnsupportedError("is an EROFS file system with directory blocks of a size that no Linux reads", place)
    if features & ErofsFeature.BITS48 and root_8:
        root, blocks = root_8, blocks | root << 32
    superblock = ErofsSuperblock(
        compatible=compatible, block_bits=block_bits, root=root, inode_count=inode_count, epoch=epoch,
        nanoseconds=nanoseconds, block_count=blocks, metadata_start=metadata << block_bits,
        xattr_start=xattrs << block_bits, features=features, prefix_count=prefix_count,
        prefix_start=prefix_start * 4, packed=packed if features & ErofsFeature.FRAGMENTS else 0,
        metabox=metabox if features & ErofsFeature.METABOX else 0,
    )  # fmt: skip
    if blocks << block_bits > size:
        raise CorruptError(
            f"the EROFS file system is cut off: {(blocks << block_bits) - size:,} bytes are missing", place
        )
    return superblock


def check_checksum(superblock: ErofsSuperblock, head: bytes, place: Place) -> None:
    """Check the sum of the superblock and what follows it in its block; ``head``: the image up to that block's end.

    :raises CorruptError: it is wrong.
    """
    if not superblock.compatible & ErofsCompatible.CHECKSUM:
        return
    (stored,) = struct.unpack_from("<I", head, OFFSET + CHECKSUM_AT)
    if superblock_checksum(head[OFFSET:]) != stored:
        raise CorruptError("the checksum of the EROFS superblock is wrong", place.at(OFFSET))


def checked_length(block_size: int) -> int:
    """Return how many bytes of the image end where those that the superblock's checksum covers do.

    It covers the rest of the block that the superblock begins in; where blocks are smaller, one block from there on.
    """
    return block_size if block_size > OFFSET else OFFSET + block_size
