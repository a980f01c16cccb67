"""ACLs as tar has them, in text, and as the attributes of Linux are (acl(5), include/uapi/linux/posix_acl_xattr.h)."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator

from cosremaster.archives.owner_numbers import OwnerNumbers
from cosremaster.layers.tar import pax
from cosremaster.layers.tar.entries import Xattrs
from cosremaster.lazy_regex import lazy_regex

ACCESS, DEFAULT = b"system.posix_acl_access", b"system.posix_acl_default"
KEYWORDS = {b"SCHILY.acl.access": ACCESS, b"SCHILY.acl.default": DEFAULT}
_NAMES = {attribute: keyword for keyword, attribute in KEYWORDS.items()}
_VERSION = 2
_NO_ID = 0xFFFFFFFF
_TAGS = {b"user": (0x01, 0x02), b"group": (0x04, 0x08), b"mask": (0x10, 0x10), b"other": (0x20, 0x20)}
"""Of each word the tag without and with a number."""

_MODE_TAGS = (0x01, 0x04, 0x20)
_SHORT = {b"u": b"user", b"g": b"group", b"m": b"mask", b"o": b"other"}
_ENTRY = struct.Struct("<HHI")
_SELINUX = b"security.selinux"
_ENCODED = lazy_regex(rb"%(3D|25)")


_NOBODY: OwnerNumbers = {b"user": {}, b"group": {}}


def parse_acl(text: bytes, numbers: OwnerNumbers = _NOBODY) -> bytes | None:
    """Return the ACL ``text`` as an attribute has it; None where it is none, or ``numbers`` lack a name in it."""
    entries = []
    for line in re.split(rb"[,\n]", text):
        parts = [part.strip() for part in line.partition(b"#")[0].split(b":")]
        if parts == [b""]:
            continue
        word = _SHORT.get(parts[0], parts[0])
        tags = _TAGS.get(word)
        if tags is None or not 2 <= len(parts) <= 4:
            return None
        number = parts[1] if len(parts) > 2 else b""
        if len(parts) == 4 and parts[3].isdigit():
            number = parts[3]
        if number and not number.isdigit() and number in numbers.get(word, {}):
            number = b"%d" % numbers[word][number]
        rights = _parse_rights(parts[2] if len(parts) > 2 else parts[1])
        if rights is None or (number and not number.isdigit()) or len(number) > 10:
            return None
        owner = int(number) if number else _NO_ID
        if owner > _NO_ID:
            return None
        entries.append((tags[bool(number)], rights, owner))
    if not entries:
        return None
    return struct.pack("<I", _VERSION) + b"".join(_ENTRY.pack(*entry) for entry in sorted(entries))


def _parse_rights(text: bytes) -> int | None:
    """Return the bits of rights as in ``r-x``; None where they are none."""
    if not re.fullmatch(rb"[r-][w-][x-]", text):
        return None
    return sum(bit for bit, letter in zip((4, 2, 1), text, strict=True) if letter != ord("-"))


def format_acl(value: bytes) -> bytes | None:
    """Return the ACL of an attribute as text with numbers; None where it is none."""
    words = {tag: (word, tag == tags[1] != tags[0]) for word, tags in _TAGS.items() for tag in tags}
    if len(value) < 4 or (len(value) - 4) % _ENTRY.size or int.from_bytes(value[:4], "little") != _VERSION:
        return None
    lines = []
    for tag, rights, owner in _ENTRY.iter_unpack(value[4:]):
        if tag not in words or rights > 7:
            return None
        word, is_numbered = words[tag]
        letters = bytes(letter if rights & bit else ord("-") for bit, letter in zip((4, 2, 1), b"rwx", strict=True))
        lines.append(b"%b:%b:%b" % (word, b"%d" % owner if is_numbered else b"", letters))
    return b",".join(lines)


def _is_mode(acl: bytes) -> bool:
    """Return whether ``acl`` says no more than the mode: Linux keeps no attribute for it (posix_acl_equiv_mode)."""
    return all(tag in _MODE_TAGS for tag, _, _ in _ENTRY.iter_unpack(acl[4:]))


def decode_attributes(name: bytes, value: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield the extended attribute that the pax record ``name`` means, if it means one for sure.

    An ACL that names users without numbers stays as it is, under the name of its record: see :func:`resolve_acls`.
    """
    if name in KEYWORDS:
        acl = parse_acl(value)
        if acl is None:
            yield name, value
        elif not (KEYWORDS[name] == ACCESS and _is_mode(acl)):
            yield KEYWORDS[name], acl
    elif name == pax.SELINUX and value:
        yield _SELINUX, value.rstrip(b"\0") + b"\0"


def resolve_acls(attributes: Xattrs, numbers: OwnerNumbers) -> Xattrs:
    """Return ``attributes`` with their ACLs as Linux has them; without those in which ``numbers`` lack a name."""
    resolved = {name: value for name, value in attributes if name not in KEYWORDS}
    for name, value in attributes:
        acl = parse_acl(value, numbers) if name in KEYWORDS else None
        if acl is not None:
            resolved[KEYWORDS[name]] = acl
    return tuple(sorted(resolved.items()))


def has_named_acl(attributes: Xattrs) -> bool:
    """Return whether an ACL among ``attributes`` names users without numbers."""
    return any(name in KEYWORDS for name, _ in attributes)


def encode_attribute(name: bytes, value: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield the pax records of an extended attribute, under the keywords by which programs look for it.

    GNU tar looks for a label of SELinux at the first with ``--selinux``, and at the other with ``--xattrs``.
    """
    acl = format_acl(value) if name in _NAMES else None
    if acl is not None:
        yield _NAMES[name], acl
        return
    if name == _SELINUX:
        yield pax.SELINUX, value.rstrip(b"\0")
    yield pax.SCHILY_XATTR + name.replace(b"%", b"%25").replace(b"=", b"%3D"), value


def decode_keyword(name: bytes) -> bytes:
    """Return the name of an attribute as a keyword has it, in which GNU tar encodes two signs."""
    return _ENCODED.sub(lambda match: bytes.fromhex(match[1].decode()), name)
