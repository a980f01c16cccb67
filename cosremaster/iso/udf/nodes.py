"""The file entries of UDF as file-system nodes, with permissions, owners, times, symlinks and devices (ECMA-167, 4)."""

from __future__ import annotations

import calendar
import struct
from collections.abc import Iterator

from cosremaster.errors import ImageError
from cosremaster.io.pieces import PieceTable, Range
from cosremaster.io.source import ByteSource
from cosremaster.iso.udf.read import (
    DIRECTORY_TYPE,
    EXTENDED_ENTRY,
    SYMLINK_TYPE,
    UdfFile,
    decode_identifier,
    encode_path,
)
from cosremaster.tree.content import PieceContent
from cosremaster.tree.nodes import Node, NodeKind
from cosremaster.units import BLOCK

_KINDS = {
    DIRECTORY_TYPE: NodeKind.DIRECTORY, 6: NodeKind.BLOCK, 7: NodeKind.CHAR, 9: NodeKind.FIFO, 10: NodeKind.SOCKET,
    SYMLINK_TYPE: NodeKind.SYMLINK,
}  # fmt: skip
"""By file type (4/14.6.6); all others are files."""
_NO_OWNER = 0xFFFFFFFF  # UDF 1.02, 2.3.4.1
_SPECIAL_MODES = ((0x40, 0o4000), (0x80, 0o2000), (0x100, 0o1000))
"""Setuid, setgid and sticky: the bit of the flags (4/14.6.8), and that of POSIX."""
_DEVICE_ATTRIBUTE = 12  # 4/14.10.7
_ATTRIBUTES_HEADER = 24  # 4/14.10.1
_ROOT, _PARENT, _SELF, _NAME = 2, 3, 4, 5
"""Kinds of path components (4/14.16.1)."""
_MAX_TARGET = 1 << 16
"""Bytes of a symlink's data that are read."""
_MINUTES_UNKNOWN = -2047  # 1/7.3.1


def read_udf_node(source: ByteSource, file: UdfFile, path: bytes) -> Node:
    """Return the node at ``path`` of a file entry on the image in ``source``.

    Its ``link`` is that of its file entry where it counts several names.
    """
    return make_udf_node(source.read(file.entry_offset, BLOCK), path, find_data(source, file), file.entry_offset)


def make_udf_node(raw: bytes, path: bytes, table: PieceTable, entry_offset: int) -> Node:
    """Return the node at ``path`` of the file entry ``raw`` at byte ``entry_offset``, with the data ``table``."""
    kind = _KINDS.get(raw[27], NodeKind.FILE)
    is_extended = int.from_bytes(raw[:2], "little") == EXTENDED_ENTRY
    uid, gid, permissions, links = struct.unpack_from("<IIIH", raw, 36)
    is_linked = kind is not NodeKind.DIRECTORY and links > 1
    return Node(
        path=path, kind=kind, mode=_decode_permissions(permissions, int.from_bytes(raw[34:36], "little")),
        uid=0 if uid == _NO_OWNER else uid, gid=0 if gid == _NO_OWNER else gid,
        mtime=_decode_timestamp(raw[92:104] if is_extended else raw[84:96]),
        target=decode_target(table.read(0, min(table.length, _MAX_TARGET))) if kind is NodeKind.SYMLINK else b"",
        rdev=_read_device(raw, is_extended) if kind in (NodeKind.CHAR, NodeKind.BLOCK) else (0, 0),
        content=PieceContent(table.pieces) if kind is NodeKind.FILE else None,
        link=("UDF", entry_offset) if is_linked else None,
    )  # fmt: skip


def find_data(source: ByteSource, file: UdfFile) -> PieceTable:
    """Return the data of ``file``, as far as its size goes. :raises ImageError: when they lie outside the image."""
    if any(offset + length > source.size for offset, length in file.ranges):
        place = source.place.inside(encode_path(file.path)).at(file.entry_offset)
        raise ImageError("its data lie outside the image", place)
    return PieceTable(Range(source, offset, length) for offset, length in file.ranges)


def decode_target(data: bytes) -> bytes:
    """Return the text of a symlink from its path components (4/14.16.1)."""
    parts, at = list[bytes](), 0
    is_absolute = False
    while at + 4 <= len(data):
        kind, length = data[at], data[at + 1]
        if kind == _ROOT:
            is_absolute, parts = True, []
        elif kind in (_PARENT, _SELF):
            parts.append(b".." if kind == _PARENT else b".")
        elif kind == _NAME:
            parts.append(decode_identifier(data[at + 4 : at + 4 + length]).encode("utf-8", "surrogatepass"))
        at += 4 + length
    return (b"/" if is_absolute else b"") + b"/".join(parts)


def encode_target(target: bytes) -> bytes:
    """Return the path components (4/14.16.1) of the text of a symlink."""
    components = [struct.pack("<BBH", _ROOT, 0, 0)] if target.startswith(b"/") else []
    components += [_encode_component(part) for part in target.split(b"/") if part]
    return b"".join(components)


def _encode_component(part: bytes) -> bytes:
    """Return one path component."""
    if part in (b".", b".."):
        return struct.pack("<BBH", _SELF if part == b"." else _PARENT, 0, 0)
    text = part.decode("utf-8", "replace")
    narrow = all(ord(letter) < 256 for letter in text)
    name = b"\x08" + text.encode("latin-1") if narrow else b"\x10" + text.encode("utf-16-be", "surrogatepass")
    return struct.pack("<BBH", _NAME, len(name), 0) + name


def encode_mode_flags(mode: int) -> int:
    """Return the flags (4/14.6.8) for the setuid, setgid and sticky bits of ``mode``."""
    return sum(flag for flag, bit in _SPECIAL_MODES if mode & bit)


def _decode_permissions(permissions: int, flags: int) -> int:
    """Return POSIX permissions from the permissions (4/14.9.5) and the flags (4/14.6.8) of a file entry."""
    mode = sum(bit for flag, bit in _SPECIAL_MODES if flags & flag)
    for index in range(3):
        bits = permissions >> 5 * index
        mode |= ((bits >> 2 & 1) << 2 | (bits >> 1 & 1) << 1 | bits & 1) << 3 * index
    return mode


def _decode_timestamp(raw: bytes) -> int:
    """Return the seconds since 1970 of a timestamp (1/7.3), 0 if it is no date."""
    zone, year, month, day, hour, minute, second = struct.unpack_from("<HHBBBBB", raw)
    offset = (zone & 0xFFF) - (0x1000 if zone & 0x800 else 0)
    if not (1 <= month <= 12 and 1 <= day <= 31 and hour < 24 and minute < 60 and 1 <= year <= 9999):
        return 0
    return calendar.timegm((year, month, day, hour, minute, min(second, 59))) - (
        0 if offset == _MINUTES_UNKNOWN or zone >> 12 != 1 else 60 * offset
    )


def _read_device(raw: bytes, is_extended: bool) -> tuple[int, int]:
    """Return major and minor number from the device specification attribute (4/14.10.7), zeros without one."""
    start = 216 if is_extended else 176
    length = int.from_bytes(raw[start - 8 : start - 4], "little")
    for attribute in _walk_attributes(raw[start : start + length]):
        if int.from_bytes(attribute[:4], "little") == _DEVICE_ATTRIBUTE and len(attribute) >= 24:
            major, minor = struct.unpack_from("<II", attribute, 16)
            return major, minor
    return 0, 0


def _walk_attributes(space: bytes) -> Iterator[bytes]:
    """Yield the extended attributes in the extended attribute space of a file entry (4/14.10)."""
    at = _ATTRIBUTES_HEADER
    while at + 12 <= len(space):
        length = int.from_bytes(space[at + 8 : at + 12], "little")
        yield space[at : at + length]
        at += max(12, length)
