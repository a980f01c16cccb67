"""Inodes of an EROFS file system: compact ones of 32 bytes and extended ones of 64 (fs/erofs/erofs_fs.h)."""

from __future__ import annotations

import enum
import struct

from cosremaster.layers.erofs.superblock import ErofsFeature, ErofsSuperblock
from cosremaster.records import Struct
from cosremaster.tree.nodes import NodeKind

COMPACT = struct.Struct("<HHHHIIIIHH4x")
EXTENDED = struct.Struct("<HHHHQIIIIqII16x")
IS_EXTENDED = 1
LAYOUT_BIT = 1
HOLE = -1
"""The first block of a file that is all zeros and has none."""
IN_METABOX = 1 << 63
"""The bit of an inode's number that says that it stands among the data of another inode."""

MIN_TIME, MAX_TIME = -62_135_596_800, 253_402_300_799
"""Times that are believed: those that Python can write as a date."""
_FORMAT_BITS = 0x1F
_LAYOUT_MASK = 0x7
_SINGLE_NAME = 0x10
"""Of a compact inode that is no directory: it has one name, and the field of that number another sense. Of a directory:
it has no entry for itself."""


class DataLayout(enum.IntEnum):
    """How an inode leads to its data."""

    FLAT_PLAIN = 0
    COMPRESSED_FULL = 1
    FLAT_INLINE = 2
    COMPRESSED_COMPACT = 3
    CHUNK_BASED = 4

    @property
    def is_compressed(self) -> bool:
        """Whether the data are compressed."""
        return self in (DataLayout.COMPRESSED_FULL, DataLayout.COMPRESSED_COMPACT)


_LAYOUTS = tuple(DataLayout)
_DIRECTORY, _DEVICES = int(NodeKind.DIRECTORY), (int(NodeKind.CHAR), int(NodeKind.BLOCK))
"""Plain numbers, which are compared faster than members are looked up."""


class ErofsInode(Struct, frozen=True, checked=False):
    """An inode.

    ``position``: its byte in the image, or in the metadata that another inode holds (``is_in_metabox``); ``head_size``:
    its own bytes, behind which ``xattr_size`` bytes of extended attributes stand. ``start``: the first block of flat
    data (:data:`HOLE` for none), or the format of chunks.
    """

    nid: int
    position: int
    is_in_metabox: bool
    head_size: int
    xattr_size: int
    layout: DataLayout
    mode: int
    nlink: int
    size: int
    start: int
    uid: int
    gid: int
    mtime: int
    nanoseconds: int
    rdev: tuple[int, int]
    omits_dot: bool

    @property
    def number(self) -> int:
        """Its number."""
        return self.nid

    @property
    def kind(self) -> NodeKind:
        """The type of file. :raises ValueError: it is none."""
        return NodeKind(self.mode & 0o170000)

    @property
    def body(self) -> int:
        """The byte behind its extended attributes."""
        return self.position + self.head_size + self.xattr_size

    @property
    def is_extended(self) -> bool:
        """Whether it is of the long form."""
        return self.head_size == EXTENDED.size


def parse_inode(raw: bytes, nid: int, position: int, superblock: ErofsSuperblock) -> ErofsInode:
    """Parse ``raw``, the bytes of inode ``nid`` at byte ``position`` (64 of them, or as many as are there).

    :raises ValueError: they are none. :raises struct.error: they are too few.
    """
    (form,) = struct.unpack_from("<H", raw)
    layout = form >> LAYOUT_BIT & _LAYOUT_MASK
    if form & ~_FORMAT_BITS or layout > DataLayout.CHUNK_BASED:
        raise ValueError(f"format 0x{form:x} is not known")
    if form & IS_EXTENDED:
        _, count, mode, high, size, place, _, uid, gid, mtime, nanoseconds, nlink = EXTENDED.unpack_from(raw)
        head_size = EXTENDED.size
    else:
        _, count, mode, high, size, mtime, place, _, uid, gid = COMPACT.unpack_from(raw)
        mtime, nanoseconds, head_size = superblock.epoch + mtime, superblock.nanoseconds, COMPACT.size
        nlink, high = (1, high) if _is_single(form, mode) else (high, None)
    if not MIN_TIME <= mtime <= MAX_TIME:
        raise ValueError(f"its time, {mtime:,} seconds from 1970, is in no year from 1 to 9999")
    is_special = mode & 0o170000 in _DEVICES
    return ErofsInode(
        nid=nid, position=position, is_in_metabox=nid >= IN_METABOX, head_size=head_size,
        xattr_size=12 + 4 * (count - 1) if count else 0, layout=_LAYOUTS[layout], mode=mode, nlink=nlink, size=size,
        start=_start(layout, place, high, superblock), uid=uid, gid=gid, mtime=mtime, nanoseconds=nanoseconds,
        rdev=((place & 0xFFF00) >> 8, place & 0xFF | place >> 12 & 0xFFF00) if is_special else (0, 0),
        omits_dot=bool(form & _SINGLE_NAME) and mode & 0o170000 == _DIRECTORY,
    )  # fmt: skip


def _is_single(form: int, mode: int) -> bool:
    """Return whether a compact inode has one name and no field for their number."""
    return bool(form & _SINGLE_NAME) and mode & 0o170000 != _DIRECTORY


def _start(layout: int, low: int, high: int | None, superblock: ErofsSuperblock) -> int:
    """Return what the inode's fields say where its data begin; ``high``: None where it has 32 bits for that."""
    if layout == DataLayout.CHUNK_BASED:
        return low & 0xFFFF
    bits = 48 if high is not None and superblock.has(ErofsFeature.BITS48) else 32
    start = (low | (high or 0) << 32) & (1 << bits) - 1
    return HOLE if layout == DataLayout.FLAT_PLAIN and start == (1 << bits) - 1 else start
