"""The superblock of an ext2, ext3 or ext4 file system (Documentation/filesystems/ext4/super.rst)."""

from __future__ import annotations

import enum
import struct

from cosremaster.errors import CorruptError, Place, UnsupportedError
from cosremaster.layers.ext4.checksums import INITIAL_SEED, crc32c
from cosremaster.records import Struct

OFFSET = 1024
"""The byte of the file system at which its superblock begins."""
SIZE = 1024

_MAGIC = 0xEF53
_CHECKSUM = 0x3FC
_CLASSIC_INODE_SIZE = 128
_MIN_DESCRIPTOR = 32
_COMPRESSED, _JOURNAL_DEVICE, _DIRECTORY_DATA = 0x1, 0x8, 0x1000


class Incompatible(enum.IntFlag):
    """Features that a reader has to know (``s_feature_incompat``)."""

    FILETYPE = 0x2
    RECOVER = 0x4
    META_BG = 0x10
    EXTENTS = 0x40
    BITS64 = 0x80
    MMP = 0x100
    FLEX_BG = 0x200
    EA_INODE = 0x400
    CSUM_SEED = 0x2000
    LARGEDIR = 0x4000
    INLINE_DATA = 0x8000
    ENCRYPT = 0x10000
    CASEFOLD = 0x20000


_UNREADABLE = (
    (_COMPRESSED, "compressed files"),
    (_JOURNAL_DEVICE, "nothing but a journal"),
    (_DIRECTORY_DATA, "data in its directories"),
)
_KNOWN = sum(Incompatible) | _COMPRESSED | _JOURNAL_DEVICE | _DIRECTORY_DATA
_SPARSE_SUPER, _METADATA_CHECKSUMS = 0x1, 0x400


class Ext4Superblock(Struct, frozen=True):
    """What the superblock says. ``block_size`` and ``inode_size`` in bytes; ``seed``: of the checksums."""

    inode_count: int
    block_count: int
    block_size: int
    first_block: int
    blocks_per_group: int
    inodes_per_group: int
    inode_size: int
    descriptor_size: int
    first_meta_group: int
    journal_inode: int
    incompatible: int
    has_sparse_backups: bool
    has_checksums: bool
    seed: int

    @property
    def group_count(self) -> int:
        """How many groups of blocks there are."""
        return -(-(self.block_count - self.first_block) // self.blocks_per_group)

    def has(self, feature: Incompatible) -> bool:
        """Return whether the file system uses ``feature``."""
        return bool(self.incompatible & feature)


def parse_superblock(raw: bytes, size: int, place: Place) -> Ext4Superblock:
    """Parse the 1,024 bytes of a superblock; ``size``: bytes of the file system's file.

    :raises CorruptError: they cannot be one, or the checksum is wrong. :raises UnsupportedError: the file system needs
        a feature that is not known here.
    """
    where = place.at(OFFSET)
    if len(raw) < SIZE or raw[56:58] != _MAGIC.to_bytes(2, "little"):
        raise CorruptError("the ext4 superblock is cut off, or none", where)
    inode_count, blocks_low = struct.unpack_from("<II", raw, 0)
    first_block, log_block_size = struct.unpack_from("<II", raw, 20)
    (blocks_per_group, inodes_per_group) = struct.unpack_from("<I4xI", raw, 32)
    (revision,) = struct.unpack_from("<I", raw, 76)
    inode_size, incompatible, read_only = _CLASSIC_INODE_SIZE, 0, 0
    if revision:
        (inode_size,) = struct.unpack_from("<H", raw, 88)
        incompatible, read_only = struct.unpack_from("<II", raw, 96)
    _check_features(incompatible, place)
    has_64_bits = bool(incompatible & Incompatible.BITS64)
    descriptor_size = struct.unpack_from("<H", raw, 0xFE)[0] if has_64_bits else _MIN_DESCRIPTOR
    block_count = blocks_low | (struct.unpack_from("<I", raw, 0x150)[0] << 32 if has_64_bits else 0)
    has_checksums = bool(read_only & _METADATA_CHECKSUMS)
    seed = crc32c(INITIAL_SEED, raw[104:120])
    if incompatible & Incompatible.CSUM_SEED:
        (seed,) = struct.unpack_from("<I", raw, 0x270)
    if has_checksums and crc32c(INITIAL_SEED, raw[:_CHECKSUM]) != struct.unpack_from("<I", raw, _CHECKSUM)[0]:
        raise CorruptError("the checksum of the ext4 superblock is wrong", where)
    superblock = Ext4Superblock(
        inode_count=inode_count, block_count=block_count, block_size=1024 << min(log_block_size, 32),
        first_block=first_block, blocks_per_group=blocks_per_group, inodes_per_group=inodes_per_group,
        inode_size=inode_size, descriptor_size=descriptor_size,
        first_meta_group=struct.unpack_from("<I", raw, 0x104)[0], journal_inode=struct.unpack_from("<I", raw, 0xE0)[0],
        incompatible=incompatible, has_sparse_backups=bool(read_only & _SPARSE_SUPER), has_checksums=has_checksums,
        seed=seed,
    )  # fmt: skip
    _check_sizes(superblock, size, where)
    return superblock


def _check_features(incompatible: int, place: Place) -> None:
    """Check that every feature is one that is read. :raises UnsupportedError: one is not."""
    for bit, noun in _UNREADABLE:
        if incompatible & bit:
            raise UnsupportedError(f"is an ext file system with {noun}, which cannot be read", place)
    if incompatible & ~_KNOWN:
        bits = incompatible & ~_KNOWN
        raise UnsupportedError(f"is an ext4 file system with features that are not known (0x{bits:x})", place)


def _check_sizes(superblock: Ext4Superblock, size: int, place: Place) -> None:
    """Check that the sizes can be true of a file of ``size`` bytes. :raises CorruptError: they cannot."""
    inode_size, block_size = superblock.inode_size, superblock.block_size
    if block_size > 1 << 16:
        raise CorruptError("the block size of the ext4 superblock is impossible", place)
    if inode_size < _CLASSIC_INODE_SIZE or inode_size > block_size or inode_size & (inode_size - 1):
        raise CorruptError(f"the inode size {inode_size} of the ext4 superblock is impossible", place)
    if not superblock.blocks_per_group or not superblock.inodes_per_group or superblock.first_block > 1:
        raise CorruptError("the ext4 superblock has groups without blocks or inodes", place)
    if not _MIN_DESCRIPTOR <= superblock.descriptor_size <= block_size:
        raise CorruptError("the size of group descriptors in the ext4 superblock is impossible", place)
    if superblock.block_count * block_size > size:
        missing = superblock.block_count * block_size - size
        raise CorruptError(f"the ext4 file system is cut off: {missing:,} bytes are missing", place)
    if superblock.inode_count > superblock.group_count * superblock.inodes_per_group:
        raise CorruptError("the ext4 superblock counts more inodes than its groups have", place)
