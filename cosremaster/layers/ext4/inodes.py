"""The inodes of ext4 (Documentation/filesystems/ext4/inodes.rst)."""

from __future__ import annotations

import struct

from cosremaster.layers.ext4.checksums import crc32c
from cosremaster.records import Struct
from cosremaster.tree.nodes import NodeKind

EXTENTS, EA_INODE, INLINE_DATA = 0x80000, 0x200000, 0x10000000
ENCRYPTED, INDEXED = 0x800, 0x1000
BLOCK_FIELD = slice(0x28, 0x64)
"""The 60 bytes that hold extents, block numbers, short symlinks or short files."""

_CLASSIC_SIZE = 128
_CHECKSUM_LOW, _CHECKSUM_HIGH = slice(0x7C, 0x7E), slice(0x82, 0x84)
_HAS_CHECKSUM_HIGH = 4  # bytes of the extra fields up to i_checksum_hi
_HAS_MTIME_EXTRA = 12


class Ext4Inode(Struct, frozen=True):
    """An inode. ``raw``: its bytes; ``seed``: of the checksums of what belongs to it.

    ``acl``: the block with further extended attributes, 0 for none.
    """

    number: int
    mode: int
    uid: int
    gid: int
    size: int
    mtime: int
    nlink: int
    flags: int
    acl: int
    raw: bytes
    seed: int

    @property
    def kind(self) -> NodeKind:
        """Its file type. :raises ValueError: there is no such type."""
        return NodeKind(self.mode & 0o170000)

    @property
    def extra_size(self) -> int:
        """Bytes of the fields behind the classic 128."""
        return int.from_bytes(self.raw[0x80:0x82], "little") if len(self.raw) > _CLASSIC_SIZE else 0

    @property
    def rdev(self) -> tuple[int, int]:
        """Major and minor number of a device (fs/ext4/inode.c: the old form first); zeros for all else."""
        if self.mode & 0o170000 not in (NodeKind.BLOCK, NodeKind.CHAR):
            return 0, 0
        old, new = struct.unpack_from("<II", self.raw, BLOCK_FIELD.start)
        if old:
            return old >> 8 & 0xFF, old & 0xFF
        return new >> 8 & 0xFFF, new & 0xFF | new >> 12 & 0xFFF00

    @property
    def is_short_symlink(self) -> bool:
        """Whether the text of the symlink stands in the inode."""
        field = BLOCK_FIELD.stop - BLOCK_FIELD.start
        return self.size < field and not self.flags & (EXTENTS | INLINE_DATA)


def parse_inode(number: int, raw: bytes, seed: int) -> Ext4Inode:
    """Parse the bytes ``raw`` of inode ``number``; ``seed``: the file system's."""
    mode, uid, size = struct.unpack_from("<HHI", raw, 0)
    mtime, _, gid, links = struct.unpack_from("<iIHH", raw, 0x10)
    (flags,) = struct.unpack_from("<I", raw, 0x20)
    generation, acl, size_high = struct.unpack_from("<4sII", raw, 0x64)
    acl_high, uid_high, gid_high = struct.unpack_from("<HHH", raw, 0x76)
    extra = int.from_bytes(raw[0x80:0x82], "little") if len(raw) > _CLASSIC_SIZE else 0
    if extra >= _HAS_MTIME_EXTRA:
        mtime += (int.from_bytes(raw[0x88:0x8C], "little") & 3) << 32  # two bits prolong the epoch
    return Ext4Inode(
        number=number, mode=mode, uid=uid | uid_high << 16, gid=gid | gid_high << 16, size=size | size_high << 32,
        mtime=mtime, nlink=links, flags=flags, acl=acl | acl_high << 32, raw=raw,
        seed=crc32c(seed, number.to_bytes(4, "little") + generation),
    )  # fmt: skip


def has_valid_checksum(inode: Ext4Inode) -> bool:
    """Return whether the checksum of ``inode`` is right."""
    raw = bytearray(inode.raw)
    low, high = bytes(raw[_CHECKSUM_LOW]), b""
    raw[_CHECKSUM_LOW] = bytes(2)
    if inode.extra_size >= _HAS_CHECKSUM_HIGH:
        high = bytes(raw[_CHECKSUM_HIGH])
        raw[_CHECKSUM_HIGH] = bytes(2)
    return crc32c(inode.seed, bytes(raw)).to_bytes(4, "little").startswith(low + high)
