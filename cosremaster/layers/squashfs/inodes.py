"""Inodes of squashfs, basic and extended (fs/squashfs/squashfs_fs.h)."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Sequence

from cosremaster.records import Struct
from cosremaster.tree.nodes import Facts, NodeKind

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
_BASIC_DIRECTORY = struct.Struct("<HHHHIIIIHHI")
_LONG_DIRECTORY = struct.Struct("<HHHHIIIIIIHHI")
_BASIC_FILE = struct.Struct("<HHHHIIIIII")
_LONG_FILE = struct.Struct("<HHHHIIQQQIIII")
_LISTED = struct.Struct("<HHHHI8xI4xI")
"""What a listing needs of a basic file: as long as :data:`_BASIC_FILE`."""
_TWO_FIELDS = struct.Struct("<HHHHIIII")
_ONE_FIELD = struct.Struct("<HHHHIII")
_NUMBER = struct.Struct("<I")
_MODE = 0o7777
_FILE_BITS, _DIRECTORY_BITS, _SYMLINK_BITS = int(NodeKind.FILE), int(NodeKind.DIRECTORY), int(NodeKind.SYMLINK)
_NO_DEVICE = (0, 0)
_MAX_TEXT = 65536
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

    @property
    def stored_size(self) -> int:
        """Bytes of the data blocks of a file, as they are stored."""
        return sum(word & ~STORED_BLOCK for word in self.blocks)

    def pack(self) -> bytes:
        """Return the inode's bytes, in the basic form where that holds it."""
        body, is_extended = _PACKERS[self.type](self)
        number = self.type + (_EXTENDED if is_extended else 0)
        return _HEAD.pack(number, self.mode, self.uid, self.gid, self.mtime, self.number) + body


class IncompleteInodeError(ValueError):
    """The bytes of an inode are not all there."""


def parse_inode(data: bytes, at: int, block_log: int) -> Inode:
    """Return the inode that begins at byte ``at`` of ``data``.

    :param block_log: the binary logarithm of the size of data blocks.
    :raises IncompleteInodeError: it does not end in ``data``.
    :raises ValueError: it is of a type that does not exist, or claims an impossible length.
    """
    try:
        number = data[at] | data[at + 1] << 8
        parse = _PARSERS.get(number)
        if parse is None:
            raise ValueError(f"inode type {number} does not exist")
        return parse(data, at, block_log)
    except (struct.error, IndexError) as error:
        raise IncompleteInodeError("its last bytes are missing") from error


def list_facts(data: bytes, references: Iterable[int], ids: Sequence[int], block_log: int) -> list[Facts | None]:
    """Return what a listing shows of the inodes at ``references``, which all begin in the metadata block ``data``.

    None for one that :func:`parse_inode` has to look at: of an extended form or another type than file, directory and
    symlink, not all in ``data``, or with an owner that is not in the table ``ids``.
    """
    facts: list[Facts | None] = []
    unpack, blocks_at, text_at, count_of_ids = _LISTED.unpack_from, _LISTED.size, _TWO_FIELDS.size, len(ids)
    end = len(data)
    for reference in references:
        row, at = None, reference & 0xFFFF
        if at + blocks_at <= end:
            # The last fields are those of a file; a symlink has its length where a file names its fragment.
            kind, mode, uid, gid, mtime, length, size = unpack(data, at)
            if uid >= count_of_ids or gid >= count_of_ids:
                pass
            elif kind == FILE:
                count = size >> block_log if length != NO_FRAGMENT else -(-size >> block_log)
                if not count or at + blocks_at + 4 * count <= end:
                    row = _FILE_BITS | mode & _MODE, ids[uid], ids[gid], mtime, size, b"", _NO_DEVICE, False
            elif kind == DIRECTORY:
                row = _DIRECTORY_BITS | mode & _MODE, ids[uid], ids[gid], mtime, 0, b"", _NO_DEVICE, False
            elif kind == SYMLINK and length <= _MAX_TEXT and at + text_at + length <= end:
                text = data[at + text_at : at + text_at + length]
                if 0 not in text:
                    row = _SYMLINK_BITS | mode & _MODE, ids[uid], ids[gid], mtime, length, text, _NO_DEVICE, False
        facts.append(row)
    return facts


def _parse_directory(data: bytes, at: int, block_log: int) -> Inode:
    """Return a directory of the basic form."""
    _, mode, uid, gid, mtime, number, start, nlink, size, offset, parent = _BASIC_DIRECTORY.unpack_from(data, at)
    return Inode(
        type=DIRECTORY, mode=mode & _MODE, uid=uid, gid=gid, mtime=mtime, number=number, nlink=nlink, size=size,
        start=start, offset=offset, parent=parent,
    )  # fmt: skip


def _parse_long_directory(data: bytes, at: int, block_log: int) -> Inode:
    """Return a directory of the extended form."""
    _, mode, uid, gid, mtime, number, nlink, size, start, parent, _, offset, xattr = _LONG_DIRECTORY.unpack_from(
        data, at
    )
    return Inode(
        type=DIRECTORY, mode=mode & _MODE, uid=uid, gid=gid, mtime=mtime, number=number, nlink=nlink, size=size,
        start=start, offset=offset, parent=parent, xattr=xattr,
    )  # fmt: skip


def _parse_file(data: bytes, at: int, block_log: int) -> Inode:
    """Return a file of the basic form. :raises ValueError: it has more blocks than an image can hold."""
    _, mode, uid, gid, mtime, number, start, fragment, offset, size = _BASIC_FILE.unpack_from(data, at)
    return Inode(
        type=FILE, mode=mode & _MODE, uid=uid, gid=gid, mtime=mtime, number=number, size=size, start=start,
        offset=offset, fragment=fragment,
        blocks=_parse_blocks(data, at + _BASIC_FILE.size, size, block_log, has_tail=fragment != NO_FRAGMENT)
        if size >> block_log or fragment == NO_FRAGMENT else (),
    )  # fmt: skip


def _parse_long_file(data: bytes, at: int, block_log: int) -> Inode:
    """Return a file of the extended form. :raises ValueError: it has more blocks than an image can hold."""
    _, mode, uid, gid, mtime, number, start, size, sparse, nlink, fragment, offset, xattr = _LONG_FILE.unpack_from(
        data, at
    )
    return Inode(
        type=FILE, mode=mode & _MODE, uid=uid, gid=gid, mtime=mtime, number=number, nlink=nlink, size=size,
        start=start, offset=offset, fragment=fragment, sparse=sparse, xattr=xattr,
        blocks=_parse_blocks(data, at + _LONG_FILE.size, size, block_log, has_tail=fragment != NO_FRAGMENT),
    )  # fmt: skip


def _parse_blocks(data: bytes, at: int, size: int, block_log: int, *, has_tail: bool) -> tuple[int, ...]:
    """Return the words of the blocks of a file of ``size`` bytes, whose tail is in a fragment if ``has_tail``.

    :raises ValueError: they are too many.
    """
    count = size >> block_log if has_tail else -(-size >> block_log)
    if not count:
        return ()
    if count > _MAX_BLOCKS:
        raise ValueError(f"a file claims {size:,} bytes")
    if at + 4 * count > len(data):
        raise IncompleteInodeError("the sizes of its blocks are missing")
    return struct.unpack_from(f"<{count}I", data, at)


def _parse_symlink(data: bytes, at: int, block_log: int) -> Inode:
    """Return a symlink. :raises ValueError: its text is longer than Linux allows."""
    kind, mode, uid, gid, mtime, number, nlink, size = _TWO_FIELDS.unpack_from(data, at)
    start = at + _TWO_FIELDS.size
    if size > _MAX_TEXT:
        raise ValueError(f"a symlink claims {size:,} bytes")
    if start + size > len(data):
        raise IncompleteInodeError("its text is missing")
    return Inode(
        type=SYMLINK, mode=mode & _MODE, uid=uid, gid=gid, mtime=mtime, number=number, nlink=nlink, size=size,
        target=data[start : start + size],
        xattr=_NUMBER.unpack_from(data, start + size)[0] if kind > _EXTENDED else NO_XATTR,
    )  # fmt: skip


def _parse_device(data: bytes, at: int, block_log: int) -> Inode:
    """Return a device."""
    kind, mode, uid, gid, mtime, number, nlink, device = _TWO_FIELDS.unpack_from(data, at)
    xattr = _NUMBER.unpack_from(data, at + _TWO_FIELDS.size)[0] if kind > _EXTENDED else NO_XATTR
    return Inode(
        type=kind - _EXTENDED if kind > _EXTENDED else kind, mode=mode & _MODE, uid=uid, gid=gid, mtime=mtime,
        number=number, nlink=nlink, rdev=((device >> 8) & 0xFFF, device & 0xFF | (device >> 12) & 0xFFF00),
        xattr=xattr,
    )  # fmt: skip


def _parse_other(data: bytes, at: int, block_log: int) -> Inode:
    """Return a FIFO or a socket."""
    kind, mode, uid, gid, mtime, number, nlink = _ONE_FIELD.unpack_from(data, at)
    xattr = _NUMBER.unpack_from(data, at + _ONE_FIELD.size)[0] if kind > _EXTENDED else NO_XATTR
    return Inode(
        type=kind - _EXTENDED if kind > _EXTENDED else kind, mode=mode & _MODE, uid=uid, gid=gid, mtime=mtime,
        number=number, nlink=nlink, xattr=xattr,
    )  # fmt: skip


_PARSERS: dict[int, Callable[[bytes, int, int], Inode]] = {
    DIRECTORY: _parse_directory, FILE: _parse_file, SYMLINK: _parse_symlink, BLOCK_DEVICE: _parse_device,
    CHAR_DEVICE: _parse_device, FIFO: _parse_other, SOCKET: _parse_other,
    _EXTENDED + DIRECTORY: _parse_long_directory, _EXTENDED + FILE: _parse_long_file,
    _EXTENDED + SYMLINK: _parse_symlink, _EXTENDED + BLOCK_DEVICE: _parse_device,
    _EXTENDED + CHAR_DEVICE: _parse_device, _EXTENDED + FIFO: _parse_other, _EXTENDED + SOCKET: _parse_other,
}  # fmt: skip


def _pack_directory(inode: Inode) -> tuple[bytes, bool]:
    """Return the body of a directory, and whether it is of the extended form."""
    if inode.size <= _MAX_BASIC_LISTING and inode.xattr == NO_XATTR and not inode.index:
        return struct.pack("<IIHHI", inode.start, inode.nlink, inode.size, inode.offset, inode.parent), False
    head = struct.pack(
        "<IIIIHHI", inode.nlink, inode.size, inode.start, inode.parent, len(inode.index), inode.offset, inode.xattr
    )
    index = [struct.pack("<III", at, block, len(name) - 1) + name for at, block, name in inode.index]
    return head + b"".join(index), True


def _pack_file(inode: Inode) -> tuple[bytes, bool]:
    """Return the body of a file, and whether it is of the extended form."""
    blocks = struct.pack(f"<{len(inode.blocks)}I", *inode.blocks)
    is_basic = inode.nlink == 1 and inode.xattr == NO_XATTR and not inode.sparse
    if is_basic and inode.size <= _MAX_32 and inode.start <= _MAX_32:
        return struct.pack("<IIII", inode.start, inode.fragment, inode.offset, inode.size) + blocks, False
    head = struct.pack(
        "<QQQIIII", inode.start, inode.size, inode.sparse, inode.nlink, inode.fragment, inode.offset, inode.xattr
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
