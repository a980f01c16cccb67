"""Inodes of squashfs, basic and extended (fs/squashfs/squashfs_fs.h)."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any, TypeAlias

from msgspec import Struct

from cosremaster.tree.nodes import NodeKind

NO_FRAGMENT = 0xFFFFFFFF
NO_XATTR = 0xFFFFFFFF
STORED_BLOCK = 1 << 24
"""The bit of a data block's size that tells that its bytes are not compressed."""

DIRECTORY, FILE, SYMLINK, BLOCK_DEVICE, CHAR_DEVICE, FIFO, SOCKET = range(1, 8)
_EXTENDED = 7
"""An extended type is the basic one plus so much."""

KINDS = {
    DIRECTORY: NodeKind.DIRECTORY, FILE: NodeKind.FILE, SYMLINK: NodeKind.SYMLINK, BLOCK_DEVICE: NodeKind.BLOCK,
    CHAR_DEVICE: NodeKind.CHAR, FIFO: NodeKind.FIFO, SOCKET: NodeKind.SOCKET,
}  # fmt: skip
TYPES = {kind: number for number, kind in KINDS.items()}

_HEAD = struct.Struct("<HHHHII")
_BASIC_DIRECTORY = struct.Struct("<IIHHI")
_LONG_DIRECTORY = struct.Struct("<IIIIHHI")
_BASIC_FILE = struct.Struct("<IIII")
_LONG_FILE = struct.Struct("<QQQIIII")
_MAX_BASIC_LISTING = 0xFFFF
_MAX_32 = 0xFFFFFFFF
_MAX_BLOCKS = 1 << 22
"""Blocks of a file that are believed: 512 GiB at the usual 128 KiB. An inode of more would fill the memory."""


class Inode(Struct, frozen=True, kw_only=True):
    """An inode; sizes are in bytes.

    ``type``: the basic type; ``uid`` and ``gid``: places in the table of ids; ``size``: of a file's data, or of a
    directory's listing and three. ``start``: of a file's data in the image, or of a listing's block in the directory
    table; ``offset``: of the tail in its fragment, or of the listing in its block. ``blocks``: the words of the data
    blocks. ``parent``: the number of a directory's parent; ``index``: of a directory that is written, for each point of
    its listing where a reader may begin: byte of the listing, start of its block in the table, first name there.
    """

    type: int
    mode: int
    uid: int
    gid: int
    mtime: int
    number: int
    nlink: int = 1
    size: int = 0
    start: int = 0
    offset: int = 0
    fragment: int = NO_FRAGMENT
    blocks: tuple[int, ...] = ()
    sparse: int = 0
    target: bytes = b""
    rdev: tuple[int, int] = (0, 0)
    parent: int = 0
    index: tuple[tuple[int, int, bytes], ...] = ()
    xattr: int = NO_XATTR

    @property
    def kind(self) -> NodeKind:
        """The file type."""
        return KINDS[self.type]

    def pack(self) -> bytes:
        """Return the inode's bytes, in the basic form where that holds it."""
        body, is_extended = _PACKERS[self.type](self)
        number = self.type + (_EXTENDED if is_extended else 0)
        return _HEAD.pack(number, self.mode, self.uid, self.gid, self.mtime, self.number) + body


def parse_inode(read: Callable[[int, int], bytes], block_log: int) -> Inode:
    """Read an inode.

    :param read: returns bytes, by start and count, from the inode's first byte on.
    :param block_log: the binary logarithm of the size of data blocks.
    :raises ValueError: it is of a type that does not exist, or claims an impossible length.
    """
    number, mode, uid, gid, mtime, inode = _HEAD.unpack(read(0, _HEAD.size))
    kind = number - _EXTENDED if number > _EXTENDED else number
    parse = _PARSERS.get(kind)
    if parse is None:
        raise ValueError(f"inode type {number} does not exist")
    fields = parse(read, number > _EXTENDED, block_log)
    return Inode(type=kind, mode=mode & 0o7777, uid=uid, gid=gid, mtime=mtime, number=inode, **fields)


Fields: TypeAlias = dict[str, Any]
"""Fields of :class:`Inode` by name."""


def _parse_directory(read: Callable[[int, int], bytes], is_extended: bool, block_log: int) -> Fields:
    """Return the fields of a directory."""
    if not is_extended:
        start, nlink, size, offset, parent = _BASIC_DIRECTORY.unpack(read(16, 16))
        return {"start": start, "nlink": nlink, "size": size, "offset": offset, "parent": parent}
    nlink, size, start, parent, _, offset, xattr = _LONG_DIRECTORY.unpack(read(16, 24))
    return {"start": start, "nlink": nlink, "size": size, "offset": offset, "parent": parent, "xattr": xattr}


def _parse_file(read: Callable[[int, int], bytes], is_extended: bool, block_log: int) -> Fields:
    """Return the fields of a file. :raises ValueError: it has more blocks than an image can hold."""
    fields: Fields = {}
    if is_extended:
        start, size, sparse, nlink, fragment, offset, xattr = _LONG_FILE.unpack(read(16, 40))
        fields = {"nlink": nlink, "xattr": xattr, "sparse": sparse}
        head = 56
    else:
        start, fragment, offset, size = _BASIC_FILE.unpack(read(16, 16))
        head = 32
    count = size >> block_log if fragment != NO_FRAGMENT else -(-size >> block_log)
    if count > _MAX_BLOCKS:
        raise ValueError(f"a file claims {size:,} bytes")
    blocks = struct.unpack(f"<{count}I", read(head, 4 * count))
    return fields | {"start": start, "size": size, "fragment": fragment, "offset": offset, "blocks": blocks}


def _parse_symlink(read: Callable[[int, int], bytes], is_extended: bool, block_log: int) -> Fields:
    """Return the fields of a symlink. :raises ValueError: its text is longer than Linux allows."""
    nlink, size = struct.unpack("<II", read(16, 8))
    if size > 65536:
        raise ValueError(f"a symlink claims {size:,} bytes")
    target = read(24, size)
    xattr = struct.unpack("<I", read(24 + size, 4))[0] if is_extended else NO_XATTR
    return {"nlink": nlink, "size": size, "target": target, "xattr": xattr}


def _parse_device(read: Callable[[int, int], bytes], is_extended: bool, block_log: int) -> Fields:
    """Return the fields of a device."""
    nlink, device = struct.unpack("<II", read(16, 8))
    xattr = struct.unpack("<I", read(24, 4))[0] if is_extended else NO_XATTR
    return {"nlink": nlink, "rdev": ((device >> 8) & 0xFFF, device & 0xFF | (device >> 12) & 0xFFF00), "xattr": xattr}


def _parse_other(read: Callable[[int, int], bytes], is_extended: bool, block_log: int) -> Fields:
    """Return the fields of a FIFO or a socket."""
    (nlink,) = struct.unpack("<I", read(16, 4))
    return {"nlink": nlink, "xattr": struct.unpack("<I", read(20, 4))[0] if is_extended else NO_XATTR}


_PARSERS: dict[int, Callable[[Callable[[int, int], bytes], bool, int], Fields]] = {
    DIRECTORY: _parse_directory, FILE: _parse_file, SYMLINK: _parse_symlink, BLOCK_DEVICE: _parse_device,
    CHAR_DEVICE: _parse_device, FIFO: _parse_other, SOCKET: _parse_other,
}  # fmt: skip


def _pack_directory(inode: Inode) -> tuple[bytes, bool]:
    """Return the body of a directory, and whether it is of the extended form."""
    if inode.size <= _MAX_BASIC_LISTING and inode.xattr == NO_XATTR and not inode.index:
        return _BASIC_DIRECTORY.pack(inode.start, inode.nlink, inode.size, inode.offset, inode.parent), False
    head = _LONG_DIRECTORY.pack(
        inode.nlink, inode.size, inode.start, inode.parent, len(inode.index), inode.offset, inode.xattr
    )
    index = [struct.pack("<III", at, block, len(name) - 1) + name for at, block, name in inode.index]
    return head + b"".join(index), True


def _pack_file(inode: Inode) -> tuple[bytes, bool]:
    """Return the body of a file, and whether it is of the extended form."""
    blocks = struct.pack(f"<{len(inode.blocks)}I", *inode.blocks)
    is_basic = inode.nlink == 1 and inode.xattr == NO_XATTR and not inode.sparse
    if is_basic and inode.size <= _MAX_32 and inode.start <= _MAX_32:
        return _BASIC_FILE.pack(inode.start, inode.fragment, inode.offset, inode.size) + blocks, False
    head = _LONG_FILE.pack(
        inode.start, inode.size, inode.sparse, inode.nlink, inode.fragment, inode.offset, inode.xattr
    )
    return head + blocks, True


def _pack_symlink(inode: Inode) -> tuple[bytes, bool]:
    """Return the body of a symlink, and whether it is of the extended form."""
    body = struct.pack("<II", inode.nlink, len(inode.target)) + inode.target
    return _with_xattr(inode, body)


def _pack_device(inode: Inode) -> tuple[bytes, bool]:
    """Return the body of a device, and whether it is of the extended form."""
    major, minor = inode.rdev
    device = minor & 0xFF | major << 8 | (minor & 0xFFF00) << 12
    return _with_xattr(inode, struct.pack("<II", inode.nlink, device))


def _pack_other(inode: Inode) -> tuple[bytes, bool]:
    """Return the body of a FIFO or a socket, and whether it is of the extended form."""
    return _with_xattr(inode, struct.pack("<I", inode.nlink))


def _with_xattr(inode: Inode, body: bytes) -> tuple[bytes, bool]:
    """Return ``body`` with the number of the extended attributes, if there are any, and whether there are."""
    if inode.xattr == NO_XATTR:
        return body, False
    return body + struct.pack("<I", inode.xattr), True


_PACKERS: dict[int, Callable[[Inode], tuple[bytes, bool]]] = {
    DIRECTORY: _pack_directory, FILE: _pack_file, SYMLINK: _pack_symlink, BLOCK_DEVICE: _pack_device,
    CHAR_DEVICE: _pack_device, FIFO: _pack_other, SOCKET: _pack_other,
}  # fmt: skip
