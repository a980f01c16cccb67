"""The extended attributes of ext4, in the inode and in a block (Documentation/filesystems/ext4/attributes.rst)."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator

from cosremaster.layers.ext4.checksums import crc32c
from cosremaster.records.tuples import NamedTuple

_MAGIC = b"\x00\x00\x02\xea"
_BLOCK_HEADER = 32
_CHECKSUM_AT = 16
_ENTRY = struct.Struct("<BBHIII")
_ENCRYPTION = 9
"""The class of the attribute that says how an inode is encrypted. getxattr(2) does not show it."""

_PREFIXES = {
    0: b"", 1: b"user.", 2: b"system.posix_acl_access", 3: b"system.posix_acl_default", 4: b"trusted.",
    6: b"security.", 7: b"system.", 8: b"system.richacl", _ENCRYPTION: b"", 10: b"gnu.",
}  # fmt: skip
_ACLS = (b"system.posix_acl_access", b"system.posix_acl_default")
INLINE_DATA = b"system.data"
"""The attribute that holds the rest of a file in its inode."""
_USER, _GROUP = 0x02, 0x08
_NO_ID = 0xFFFFFFFF


class StoredXattr(NamedTuple):
    """An extended attribute. ``inode``: the one whose data are the value of ``size`` bytes; 0 where ``value`` is."""

    name: bytes
    value: bytes
    inode: int
    size: int


def parse_inode_xattrs(raw: bytes, start: int) -> Iterator[StoredXattr]:
    """Yield the attributes in the bytes ``raw`` of an inode, behind its fields, which end at ``start``.

    :raises ValueError: they are damaged.
    """
    if raw[start : start + 4] == _MAGIC:
        yield from _parse_entries(raw, start + 4, start + 4)


def parse_block_xattrs(block: bytes) -> Iterator[StoredXattr]:
    """Yield the attributes in the bytes of a ``block``. :raises ValueError: they are damaged."""
    if block[:4] != _MAGIC:
        raise ValueError("the block of extended attributes is none")
    yield from _parse_entries(block, _BLOCK_HEADER, 0)


def has_valid_xattr_checksum(block: bytes, number: int, seed: int) -> bool:
    """Return whether the checksum in the ``block`` of attributes with this ``number`` is right.

    ``seed``: the file system's. A block that holds no attributes passes: that is told where they are parsed.
    """
    if block[:4] != _MAGIC:
        return True
    checksum = int.from_bytes(block[_CHECKSUM_AT : _CHECKSUM_AT + 4], "little")
    rest = block[:_CHECKSUM_AT] + bytes(4) + block[_CHECKSUM_AT + 4 :]
    return crc32c(crc32c(seed, number.to_bytes(8, "little")), rest) == checksum


def _parse_entries(data: bytes, at: int, base: int) -> Iterator[StoredXattr]:
    """Yield the entries from byte ``at`` of ``data`` on, whose values count from ``base``."""
    while at + 4 <= len(data) and data[at : at + 4] != bytes(4):
        if at + _ENTRY.size > len(data):
            raise ValueError("an extended attribute is cut off")
        name_length, kind, offset, inode, size, _ = _ENTRY.unpack_from(data, at)
        name = data[at + _ENTRY.size : at + _ENTRY.size + name_length]
        if kind not in _PREFIXES or len(name) < name_length:
            raise ValueError("an extended attribute has an unknown class, or is cut off")
        value = b"" if inode else data[base + offset : base + offset + size]
        if not inode and len(value) < size:
            raise ValueError("the value of an extended attribute leads out of its place")
        if kind != _ENCRYPTION:
            yield StoredXattr(_PREFIXES[kind] + name, value, inode, size)
        at += _ENTRY.size + (name_length + 3) // 4 * 4


def collect_xattrs(
    stored: Iterator[StoredXattr], read_value: Callable[[StoredXattr], bytes]
) -> tuple[tuple[bytes, bytes], ...]:
    """Return ``stored`` as names with values, sorted, as getxattr(2) gives them; ``read_value``: of those in an inode.

    :raises ValueError: an access control list is damaged.
    """
    attributes: dict[bytes, bytes] = {}
    for attribute in stored:
        if attribute.name == INLINE_DATA:
            continue
        value = read_value(attribute) if attribute.inode else attribute.value
        attributes[attribute.name] = _convert_acl(value) if attribute.name in _ACLS else value
    return tuple(sorted(attributes.items()))


def _convert_acl(value: bytes) -> bytes:
    """Return an access control list in the form of acl(5) for its form on the disk, where short entries have no id.

    :raises ValueError: it is damaged.
    """
    if value[:4] != b"\x01\0\0\0":
        raise ValueError("an access control list has an unknown version")
    at, entries = 4, [b"\x02\0\0\0"]
    while at < len(value):
        if at + 4 > len(value):
            raise ValueError("an access control list is cut off")
        tag, permissions = struct.unpack_from("<HH", value, at)
        at += 4
        identity = _NO_ID
        if tag in (_USER, _GROUP):
            if at + 4 > len(value):
                raise ValueError("an access control list is cut off")
            (identity,) = struct.unpack_from("<I", value, at)
            at += 4
        entries.append(struct.pack("<HHI", tag, permissions, identity))
    return b"".join(entries)
