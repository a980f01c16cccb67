"""Pax records: the keywords and values of an extended header (POSIX.1-2001 pax, "pax Extended Header")."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Iterator, Mapping
from urllib.parse import unquote_to_bytes

from cosremaster.layers.tar.blocks import HeaderError
from cosremaster.lazy_regex import lazy_regex

PATH, LINK_PATH, SIZE, UID, GID, MTIME = b"path", b"linkpath", b"size", b"uid", b"gid", b"mtime"
USER, GROUP, CHARSET = b"uname", b"gname", b"hdrcharset"
_EFFECTIVE = frozenset((PATH, LINK_PATH, SIZE, UID, GID, MTIME, USER, GROUP, CHARSET))
DEVICE_MAJOR, DEVICE_MINOR = b"SCHILY.devmajor", b"SCHILY.devminor"
SCHILY_XATTR, LIBARCHIVE_XATTR = b"SCHILY.xattr.", b"LIBARCHIVE.xattr."
SELINUX, SCHILY_ACL = b"RHT.security.selinux", b"SCHILY.acl."
SPARSE = b"GNU.sparse."
SPARSE_MAJOR, SPARSE_MINOR, SPARSE_NAME, SPARSE_REAL_SIZE, SPARSE_SIZE = (
    SPARSE + name for name in (b"major", b"minor", b"name", b"realsize", b"size")
)
SPARSE_COUNT, SPARSE_OFFSET, SPARSE_BYTES, SPARSE_MAP = (
    SPARSE + name for name in (b"numblocks", b"offset", b"numbytes", b"map")
)

_DECIMAL = lazy_regex(rb"[0-9]{1,20}")
_TIME = lazy_regex(rb"(-?)([0-9]{1,18})(?:\.([0-9]*))?")
_LENGTH = lazy_regex(rb"([0-9]{1,10}) ")
_SEGMENTS_AT_ONCE = 1 << 22

Records = list[tuple[bytes, bytes]]


def parse_records(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield keyword and value of each record in ``data``, in order. :raises HeaderError: a record is damaged."""
    at = 0
    while at < len(data):
        match = _LENGTH.match(data, at, at + 11)
        if match is None:
            if not any(data[at:]):
                return  # some writers fill the header with zeros
            raise HeaderError("a record of its pax header does not begin with its length")
        end = at + int(match[1])
        keyword, equals, value = data[match.end() : end - 1].partition(b"=")
        if end > len(data) or end <= match.end() or data[end - 1 : end] != b"\n" or not equals or not keyword:
            raise HeaderError("a record of its pax header has another length than it says")
        yield keyword, value
        at = end


def encode_records(records: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Return ``records`` as the data of a pax header."""
    return b"".join(_encode_record(b"%s=%s\n" % record) for record in records)


def _encode_record(text: bytes) -> bytes:
    """Return ``text``, as in ``path=a`` and a newline, with its length, which counts its own digits, before it."""
    size = len(text) + 2
    while len(b"%d " % size) + len(text) != size:
        size = len(b"%d " % size) + len(text)
    return b"%d %s" % (size, text)


def parse_decimal(value: bytes, noun: str) -> int:
    """Return the number ``value``. :raises HeaderError: it is none; the message calls it ``noun``."""
    if not _DECIMAL.fullmatch(value) or (number := int(value)) >= 1 << 63:
        raise HeaderError(f"{noun} in its pax header is no number")
    return number


def parse_time(value: bytes) -> int:
    """Return the seconds, rounded down, of a time with a fraction. :raises HeaderError: it is none."""
    match = _TIME.fullmatch(value)
    if match is None:
        raise HeaderError("the time in its pax header is no number")
    seconds = int(match[2])
    if match[1]:
        return -seconds - (1 if (match[3] or b"").strip(b"0") else 0)
    return seconds


def is_effective(keyword: bytes) -> bool:
    """Return whether a record changes what an entry is, and is no mere comment."""
    return keyword in _EFFECTIVE or keyword.startswith((b"SCHILY.", b"LIBARCHIVE.xattr", b"RHT.", SPARSE))


def collect_xattrs(records: Mapping[bytes, bytes]) -> tuple[tuple[bytes, bytes], ...]:
    """Return the extended attributes among ``records``, sorted by name.

    libarchive writes each under both of its keywords; the plain one counts, which holds any byte.
    """
    from cosremaster.layers.tar.acl import decode_attributes, decode_keyword  # noqa: PLC0415 - few entries have some

    attributes: dict[bytes, bytes] = {}
    for keyword, value in records.items():
        if keyword.startswith(LIBARCHIVE_XATTR):
            name = unquote_to_bytes(keyword[len(LIBARCHIVE_XATTR) :])
            attributes.setdefault(name, _decode_base64(value))
        elif keyword.startswith(SCHILY_XATTR):
            attributes[decode_keyword(keyword[len(SCHILY_XATTR) :])] = value
        elif keyword == SELINUX or keyword.startswith(SCHILY_ACL):
            for name, text in decode_attributes(keyword, value):
                attributes.setdefault(name, text)
    return tuple(sorted(attributes.items()))


def _decode_base64(value: bytes) -> bytes:
    """Return what ``value`` means, whose padding libarchive leaves out. :raises HeaderError: it is no base 64."""
    try:
        return base64.b64decode(value + b"=" * (-len(value) % 4), validate=True)
    except binascii.Error:
        raise HeaderError("an extended attribute in its pax header is no base 64") from None


def parse_map(value: bytes) -> list[int]:
    """Return the numbers of ``GNU.sparse.map`` (form 0.1), which commas separate. :raises HeaderError: one is none."""
    if value.count(b",") > _SEGMENTS_AT_ONCE:
        raise HeaderError("its sparse map has too many segments")
    return [parse_decimal(number, "a number of the sparse map") for number in value.split(b",")] if value else []
