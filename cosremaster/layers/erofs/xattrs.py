"""Extended attributes of an EROFS file system: in the inode, shared by inodes, and with long prefixes of names."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence

from cosremaster.errors import printable
from cosremaster.tree.nodes import Xattrs

HEADER_SIZE = 12
_LONG_PREFIX = 0x80
MAX_XATTRS = 1024
"""Extended attributes of an inode that are believed."""
XATTR_PREFIXES = {
    1: b"user.", 2: b"system.posix_acl_access", 3: b"system.posix_acl_default", 4: b"trusted.", 6: b"security.",
}  # fmt: skip
"""By the number of a class in an entry; those of others no Linux shows."""
_MAX_NAME, _MAX_VALUE, _MAX_COUNT = 255, 0xFFFF, 0xFFFF


def parse_xattrs(
    raw: bytes, read_shared: Callable[[int, int], bytes], find_prefixes: Callable[[], Sequence[bytes | None]]
) -> Xattrs:
    """Return the attributes of an inode whose attribute bytes are ``raw``.

    :param read_shared: returns bytes of the shared attributes, from a place on. :param find_prefixes: returns the long
        prefixes by number; None for one that Linux does not show.
    :raises ValueError, struct.error: they are damaged.
    """
    if len(raw) <= HEADER_SIZE:
        return ()
    inline = HEADER_SIZE + 4 * raw[4]
    if inline > len(raw):
        raise ValueError("there are more shared ones than fit")
    attributes: dict[bytes, bytes] = {}
    at = inline
    for _ in range(MAX_XATTRS):
        if at >= len(raw):
            break
        size = _entry_size(*struct.unpack_from("<BxH", raw, at))
        _take_entry(raw[at : at + size], find_prefixes, attributes)
        at += size
    if at != len(raw):
        raise ValueError("one is cut off, or there are too many")
    for (number,) in struct.iter_unpack("<I", raw[HEADER_SIZE:inline]):
        name_size, value_size = struct.unpack("<BxH", read_shared(4 * number, 4))
        _take_entry(read_shared(4 * number, _entry_size(name_size, value_size)), find_prefixes, attributes)
    return tuple(sorted(attributes.items()))


def _entry_size(name_size: int, value_size: int) -> int:
    """Return the bytes of an entry with such a name and value."""
    return 4 + (name_size + value_size + 3) // 4 * 4


def _take_entry(
    raw: bytes, find_prefixes: Callable[[], Sequence[bytes | None]], attributes: dict[bytes, bytes]
) -> None:
    """Take the entry that begins ``raw`` into ``attributes`` if its name is new. :raises ValueError: damage."""
    name_size, index, value_size = struct.unpack_from("<BBH", raw)
    end = 4 + name_size + value_size
    if end > len(raw):
        raise ValueError("one is cut off")
    if index & _LONG_PREFIX:
        prefixes = find_prefixes()
        if index & ~_LONG_PREFIX >= len(prefixes):
            raise ValueError("one has a prefix that is not there")
        prefix = prefixes[index & ~_LONG_PREFIX]
    else:
        prefix = XATTR_PREFIXES.get(index)
    if prefix is not None:
        attributes.setdefault(prefix + raw[4 : 4 + name_size], raw[4 + name_size : end])


def parse_prefix(raw: bytes) -> bytes | None:
    """Return the long prefix ``raw``: the number of a class and what follows its prefix; None for a strange class."""
    base = XATTR_PREFIXES.get(raw[0]) if raw else None
    return None if base is None else base + raw[1:]


def _split_name(name: bytes) -> tuple[int, bytes] | None:
    """Return the number of the class of ``name`` and the rest of it; None for a class that EROFS has not."""
    for index, prefix in XATTR_PREFIXES.items():
        if name == prefix or (prefix.endswith(b".") and name.startswith(prefix)):
            return index, name[len(prefix) :]
    return None


def find_xattr_problem(xattrs: Xattrs) -> str:
    """Return why no inode can have ``xattrs``, as a sentence's end; empty where one can."""
    for name, value in xattrs:
        parts = _split_name(name)
        if parts is None or len(parts[1]) > _MAX_NAME or len(value) > _MAX_VALUE:
            return f"EROFS cannot hold its extended attribute {printable(name)}"
    if len(xattrs) > MAX_XATTRS or len(pack_xattrs(xattrs)) > HEADER_SIZE + 4 * (_MAX_COUNT - 1):
        return "it has too many extended attributes"
    return ""


def pack_xattrs(xattrs: Xattrs) -> bytes:
    """Return the attribute bytes of an inode with ``xattrs``, none of them shared; empty for none.

    The filter of names stays empty, so that every name is looked for.
    """
    if not xattrs:
        return b""
    packed = bytearray(HEADER_SIZE)
    for name, value in xattrs:
        index, rest = _split_name(name) or (0, name)
        packed += struct.pack("<BBH", len(rest), index, len(value)) + rest + value
        packed += bytes(-len(packed) % 4)
    return bytes(packed)
