"""Rock Ridge (RRIP 1.12) in the system use fields of directory records (SUSP 1.12): what of it we need.

:func:`read_fields` tells where things stand, :func:`read_attributes` what they are as files.
"""

from __future__ import annotations

from collections.abc import Iterator

from msgspec import Struct

from cosremaster.errors import ImageError
from cosremaster.io.source import ByteSource
from cosremaster.iso.ecma119.dates import parse_long_date, parse_short_date
from cosremaster.iso.model import Extent
from cosremaster.units import BLOCK, Lba, lba_offset

MAX_CONTINUATIONS = 32


class RockRidge(Struct, frozen=True):
    """What a record's fields say. ``child``: where a relocated directory stands (CL, RRIP 4.1.5.1).

    ``relocated``: the record is that of one (RE), its place in the tree is elsewhere. ``zisofs``: the byte
    offset of the field that calls the data compressed (ZF), 0 without. ``regular``: no symlink, no device.
    ``serial``: the file's serial number (PX, RRIP 4.1.1), 0 where it tells none.
    """

    name: bytes = b""
    child_lba: Lba | None = None
    is_relocated: bool = False
    is_regular: bool = True
    zisofs_offset: int = 0
    serial: int = 0


NO_ROCK_RIDGE = RockRidge()
"""A record without any of it."""


class PosixAttributes(Struct, frozen=True, kw_only=True):
    """What a record's fields say of it as a file. ``mode``: as st_mode, None where no PX tells it.

    ``links`` and ``serial``: names of the file and what they share, 0 where not told (RRIP 1.10 has no serial).
    ``mtime``: seconds since 1970, None where no TF tells it. ``target``: a symlink's text, None without SL.
    ``packed``: the data of the ZF field that calls the data compressed.
    """

    mode: int | None = None
    links: int = 0
    uid: int = 0
    gid: int = 0
    serial: int = 0
    rdev: tuple[int, int] = (0, 0)
    mtime: int | None = None
    target: bytes | None = None
    zisofs_field: bytes = b""


_PX, _PX_1_10, _PN = 44, 36, 20
"""Bytes of the fields; PX has had a serial number since RRIP 1.12 (4.1.1)."""
_MODIFIED, _LONG_FORM = 0x02, 0x80
_COMPONENT_GOES_ON, _CURRENT, _PARENT, _ROOT = 1, 2, 4, 8


def find_susp_skip(root: bytes) -> int | None:
    """Bytes before the fields in every system use area, from the root's first record; None without SUSP (5.3)."""
    at = root.find(b"SP\x07\x01\xbe\xef", 34)
    return root[at + 6] if at >= 0 and at + 7 <= len(root) else None


def has_susp(source: ByteSource, root: Extent) -> bool:
    """True when the directory's first record announces the carrier of Rock Ridge."""
    return find_susp_skip(source.read(lba_offset(root.lba), 255)) is not None


def read_rock_ridge(source: ByteSource, raw: bytes, offset: int, skip: int, base: Lba) -> RockRidge:
    """The fields of the record ``raw``, which stands at byte ``offset``; ``base``: whence its blocks count.

    :raises ImageError: a field is malformed, or continuations do not end.
    """
    name, child, relocated, regular, zisofs, serial = b"", None, False, True, 0, 0
    for at, field in walk_fields(source, raw, offset, skip, base, strict=False):
        match field[:2]:
            case b"NM" if len(field) > 5:
                name += field[5:]
            case b"CL" if len(field) >= 8:
                child = Lba(base + int.from_bytes(field[4:8], "little"))
            case b"RE":
                relocated = True
            case b"PX" if len(field) >= 8:
                regular = regular and int.from_bytes(field[4:8], "little") & 0o170000 in (0, 0o100000)
                serial = _number(field, 36) if len(field) >= _PX else 0
            case b"SL":
                regular = False
            case b"ZF":
                zisofs = at
    return RockRidge(name, child, relocated, regular, zisofs, serial)


def walk_fields(
    source: ByteSource, raw: bytes, offset: int, skip: int, base: Lba, *, strict: bool = True
) -> Iterator[tuple[int, bytes]]:
    """Byte offset and bytes of each field, continuation areas included (SUSP 5.1).

    Unless ``strict``, a malformed field behind an SL ends its area, as it does in the kernel and in libarchive:
    genisoimage writes an SL of more than 255 bytes with what one byte holds of its length, and its rest is no field.
    :raises ImageError: a field is malformed, or continuations do not end.
    """
    start = 33 + raw[32] + (1 - raw[32] % 2) + skip
    area, where = raw[start:], offset + start
    behind_link = False
    for _ in range(MAX_CONTINUATIONS):
        following: tuple[int, int] | None = None
        at = 0
        while at + 4 <= len(area) and area[at + 2]:
            length = area[at + 2]
            field = area[at : at + length]
            if length < 4 or len(field) < length:
                if behind_link and not strict:
                    break
                raise ImageError("malformed Rock Ridge field", source.place.at(where + at))
            if field[:2] == b"ST":
                break
            if field[:2] == b"CE" and length >= 28:
                block, inside, size = (int.from_bytes(field[i : i + 4], "little") for i in (4, 12, 20))
                following = (base + block) * BLOCK + inside, min(size, BLOCK)
            else:
                behind_link = behind_link or field[:2] == b"SL"
                yield where + at, field
            at += length
        if following is None:
            return
        where, size = following
        area = source.read(where, size)
    raise ImageError("Rock Ridge fields continue without an end", source.place.at(offset))


def read_attributes(source: ByteSource, raw: bytes, offset: int, skip: int, base: Lba) -> PosixAttributes:
    """What the fields of the record ``raw`` say of it as a file; the arguments are :func:`read_fields`'.

    Of fields that are there twice the last counts, as in the kernel. Of a symlink that is not whole there is what
    can be read; ``verify`` tells of it. :raises ImageError: a field is too short, or continuations do not end.
    """
    mode, links, uid, gid, serial, rdev, mtime, packed = None, 0, 0, 0, 0, (0, 0), None, b""
    links_to: list[bytes] = []
    for at, field in walk_fields(source, raw, offset, skip, base, strict=False):
        match field[:2]:
            case b"PX":
                _long_enough(source, at, field, _PX_1_10)
                mode, links, uid, gid = (_number(field, start) for start in (4, 12, 20, 28))
                serial = _number(field, 36) if len(field) >= _PX else 0
            case b"PN":
                _long_enough(source, at, field, _PN)
                rdev = _device(_number(field, 4), _number(field, 12))
            case b"TF":
                mtime = _modified(source, at, field, mtime)
            case b"SL":
                _long_enough(source, at, field, 5)
                links_to.append(cut_components(field))
            case b"ZF":
                packed = field[4:]
    target = _target(b"".join(links_to)) if links_to else None
    return PosixAttributes(
        mode=mode,
        links=links,
        uid=uid,
        gid=gid,
        serial=serial,
        rdev=rdev,
        mtime=mtime,
        target=target,
        zisofs_field=packed,
    )


def _long_enough(source: ByteSource, at: int, field: bytes, length: int) -> None:
    if len(field) < length:
        raise ImageError(f"Rock Ridge field {field[:2].decode()} of {len(field)} bytes", source.place.at(at))


def _number(field: bytes, at: int) -> int:
    """A 32-bit number in both byte orders (ECMA-119, 7.3.3)."""
    return int.from_bytes(field[at : at + 4], "little")


def _device(high: int, low: int) -> tuple[int, int]:
    """Major and minor of a PN field (RRIP 4.1.2); libisofs has both in the low half, as glibc's makedev puts them."""
    if high or low <= 0xFF:
        return high, low
    return low >> 8 & 0xFFF, low & 0xFF | low >> 12 & 0xFFF00


def _modified(source: ByteSource, at: int, field: bytes, before: int | None) -> int | None:
    """The time of modification in a TF field (RRIP 4.1.6), ``before`` where it holds none."""
    _long_enough(source, at, field, 5)
    flags = field[4]
    size = 17 if flags & _LONG_FORM else 7
    _long_enough(source, at, field, 5 + size * (flags & 0x7F).bit_count())
    if not flags & _MODIFIED:
        return before
    start = 5 + size * (flags & (_MODIFIED - 1)).bit_count()
    stamp = field[start : start + size]
    return parse_long_date(stamp) if flags & _LONG_FORM else parse_short_date(stamp)


def cut_components(field: bytes) -> bytes:
    """The components of an SL field (RRIP 4.1.3.1), without one that would end behind it."""
    position = 5
    while position + 2 <= len(field) and position + 2 + field[position + 1] <= len(field):
        position += 2 + field[position + 1]
    return field[5:position]


def _target(components: bytes) -> bytes:
    """The text of a symlink from its component records (RRIP 4.1.3.1); one may continue in the next."""
    text, at, joined = b"", 0, True
    while at < len(components):
        flags, length = components[at : at + 2]
        text += b"" if joined else b"/"
        if flags & _ROOT:
            text += b"/"
        elif flags & _PARENT:
            text += b".."
        elif flags & _CURRENT:
            text += b"."
        text += components[at + 2 : at + 2 + length]
        joined = bool(flags & (_COMPONENT_GOES_ON | _ROOT))
        at += 2 + length
    return text
