"""The blocks of a tar archive: header fields, numbers, checksums (POSIX.1-2001 pax, "ustar Interchange Format").

GNU's own fields: the manual of GNU tar, "Basic Tar Format". Values only; nothing is read here.
"""

from __future__ import annotations

import re
import struct
from functools import lru_cache

from cosremaster.lazy_regex import lazy_regex
from cosremaster.records.tuples import NamedTuple

BLOCK = 512
RECORD = 10240
"""Bytes of a record of 20 blocks, to which programs pad an archive by default."""

USTAR_MAGIC, GNU_MAGIC = b"ustar\x0000", b"ustar  \0"
"""Magic and version together; other writers have other versions."""

REGULAR, OLD_REGULAR, HARD_LINK, SYMLINK, CHAR, BLOCK_DEVICE, DIRECTORY, FIFO, CONTIGUOUS = (
    b"0", b"\0", b"1", b"2", b"3", b"4", b"5", b"6", b"7"
)  # fmt: skip
PAX, PAX_GLOBAL, SUN_PAX = b"x", b"g", b"X"
GNU_NAME, GNU_LINK, GNU_SPARSE = b"L", b"K", b"S"
GNU_DUMPDIR, GNU_OLD_NAMES, GNU_VOLUME, GNU_CONTINUATION = b"D", b"N", b"V", b"M"
SUN_ACL, SUN_ATTRIBUTES = b"A", b"E"
NO_END = "has no blocks of zeros at its end, so it may be cut off"

CHECKSUM = slice(148, 156)
SPARSE_SLOTS = 4
"""Segments of a sparse file in the header of old GNU form; a block behind it holds 21."""
EXTENSION_SLOTS = 21
_SPARSE_AT, _IS_EXTENDED, _REAL_SIZE = 386, 482, slice(483, 495)
_EXTENSION_IS_EXTENDED = 504

_FIELDS = struct.Struct("100s8s8s8s12s12s8s1s100s8s32s32s8s8s155s12x")
_OCTAL = lazy_regex(rb"[ \0]*([0-7]*)(?:[ \0].*)?", re.DOTALL)
_LARGEST = 1 << 63


class HeaderError(ValueError):
    """A block is no header; the message says why."""


class TarHeader(NamedTuple):
    """The fields of a header; numbers of mode, owner and so on are parsed when they are needed."""

    name: bytes
    mode: bytes
    uid: bytes
    gid: bytes
    size: bytes
    mtime: bytes
    checksum: bytes
    type: bytes
    link_name: bytes
    magic: bytes
    user: bytes
    group: bytes
    major: bytes
    minor: bytes
    prefix: bytes

    @property
    def is_gnu(self) -> bool:
        """Whether GNU's fields stand where ustar has the prefix."""
        return self.magic == GNU_MAGIC

    @property
    def is_ustar(self) -> bool:
        """Whether it has ustar's fields behind the name of a link, whatever the version."""
        return self.magic[:5] == b"ustar" and not self.is_gnu

    @property
    def full_name(self) -> bytes:
        """The name, with ustar's prefix before it."""
        name = self.name.partition(b"\0")[0]
        prefix = self.prefix.partition(b"\0")[0] if self.is_ustar else b""
        return prefix + b"/" + name if prefix else name


def parse_header(block: bytes) -> TarHeader:
    """Return the fields of the header ``block``. :raises HeaderError: its checksum is another."""
    header = TarHeader._make(_FIELDS.unpack(block))
    stated = parse_number(header.checksum, "the checksum")
    # Most bytes are zeros, which add nothing: leaving them out takes less time than adding them.
    total = sum(block.translate(None, b"\0")) - sum(block[CHECKSUM]) + 8 * 32
    if total != stated and stated != _signed_sum(block):
        raise HeaderError(f"the checksum of its header is {stated:o}, and its bytes come to {total:o}")
    return header


def _signed_sum(block: bytes) -> int:
    """Return the sum of the bytes of ``block`` as signed ones, as some old programs took it."""
    total: int = sum(struct.unpack("512b", block)) - sum(struct.unpack("8b", block[CHECKSUM]))
    return total + 8 * 32


@lru_cache(1 << 12)  # owners and modes are few
def parse_number(field: bytes, noun: str) -> int:
    """Return the number in ``field``: octal digits, or base 256 where the first bit is set.

    :raises HeaderError: it is none; the message calls it ``noun``.
    """
    if field[0] & 0x80:
        bits = 8 * len(field) - 1
        value = int.from_bytes(field, "big") & ((1 << bits) - 1)
        if field[0] & 0x40:  # negative, in two's complement
            value -= 1 << bits
        if not -_LARGEST <= value < _LARGEST:
            raise HeaderError(f"{noun} in its header has more than 63 bits")
        return value
    digits = field.rstrip(b" \0")
    if digits.isdigit() and not (b"8" in digits or b"9" in digits):  # the usual case
        return int(digits, 8)
    match = _OCTAL.fullmatch(field)
    if match is None:
        raise HeaderError(f"{noun} in its header is no octal number")
    return int(match[1], 8) if match[1] else 0


@lru_cache(1 << 12)
def parse_owner(mode: bytes, uid: bytes, gid: bytes) -> tuple[int, int, int]:
    """Return permissions and owners of these fields. :raises HeaderError: one is no number, or no system has it."""
    permissions = parse_number(mode, "the mode") & 0o7777
    owners = parse_number(uid, "an owner"), parse_number(gid, "an owner")
    if min(owners) < 0:
        raise HeaderError(f"no system has an owner {min(owners)}")
    return permissions, *owners


def is_zero(block: bytes) -> bool:
    """Return whether ``block`` is full of zeros: the end of an archive."""
    return not any(block)


def padding_size(size: int) -> int:
    """Return how many bytes fill ``size`` bytes up to whole blocks."""
    return -size % BLOCK


class SparseSlots(NamedTuple):
    """Segments of a sparse file from a header of old GNU form or a block behind it; offset and size of each."""

    segments: tuple[tuple[int, int], ...]
    is_extended: bool


def parse_sparse_slots(block: bytes, *, is_extension: bool) -> SparseSlots:
    """Return the segments in a header, or in a block behind it. :raises HeaderError: a number is none."""
    start, count = (0, EXTENSION_SLOTS) if is_extension else (_SPARSE_AT, SPARSE_SLOTS)
    segments = []
    for at in range(start, start + count * 24, 24):
        if not block[at]:
            break
        segments.append(
            (parse_number(block[at : at + 12], "an offset"), parse_number(block[at + 12 : at + 24], "a size"))
        )
    flag = block[_EXTENSION_IS_EXTENDED if is_extension else _IS_EXTENDED]
    return SparseSlots(tuple(segments), bool(flag))


def parse_real_size(block: bytes) -> int:
    """Return the size of a sparse file, holes included, from its header of old GNU form."""
    return parse_number(block[_REAL_SIZE], "the size with holes")


def with_checksum(block: bytes) -> bytes:
    """Return the header ``block`` with its own checksum: six octal digits, a NUL and a space."""
    total = sum(block) - sum(block[CHECKSUM]) + 8 * 32
    return block[:148] + b"%06o\0 " % total + block[156:]


def looks_like_header(block: bytes) -> bool:
    """Return whether ``block`` is a header by its checksum, and has a name."""
    if len(block) < BLOCK or (not block[0] and block[156:157] not in b"xgLKVX"):
        return False
    try:
        parse_header(block)
    except HeaderError:
        return False
    return True
