"""Read Rock Ridge (RRIP 1.12) from the system use areas of directory records (SUSP 1.12).

:func:`read_rock_ridge` reads the fields that say where an entry is in the tree, :func:`read_attributes` the POSIX
attributes of the file.
"""

from __future__ import annotations

import contextlib
import struct
from collections import deque
from collections.abc import Iterable, Iterator

from cosremaster.errors import ImageError
from cosremaster.io.source import ByteSource
from cosremaster.iso.ecma119.dates import parse_long_date, parse_short_date
from cosremaster.records import Struct
from cosremaster.units import BLOCK, Lba, lba_offset

_MIN_RECORD = 34
"""Bytes of the shortest directory record (ECMA-119, 9.1); a shorter one has no fields."""
MAX_CONTINUATIONS = 32
CE_HEAD = b"CE\x1c\x01"
"""The first bytes of a CE field, which leads to a continuation area (SUSP 5.1)."""
_FILE_TYPE, _REGULAR_FILE = 0o170000, 0o100000


class RockRidge(Struct, frozen=True, checked=False):
    """The fields of a directory record that say where its entry is in the tree.

    ``name``: the alternate name (NM), empty without one. ``child_lba``: the block of the relocated directory that the
    record stands for (CL, RRIP 4.1.5.1). ``is_relocated``: the record is that of a relocated directory (RE), whose
    place in the tree is elsewhere. ``is_regular``: the file is neither a symlink nor a device. ``zisofs_offset``: the
    byte offset in the image of the field that says the data are compressed (ZF), 0 without one. ``serial``: the file
    serial number (PX, RRIP 4.1.1), 0 without one. ``areas``: byte offset and bytes of each continuation area (CE,
    SUSP 5.1).
    """

    name: bytes = b""
    child_lba: Lba | None = None
    is_relocated: bool = False
    is_regular: bool = True
    zisofs_offset: int = 0
    serial: int = 0
    areas: tuple[tuple[int, int], ...] = ()


NO_ROCK_RIDGE = RockRidge()
"""The value for records without Rock Ridge."""


class PosixAttributes(Struct, frozen=True, kw_only=True, checked=False):
    """The POSIX attributes in the fields of a directory record.

    ``mode``: st_mode, None without a PX field. ``links`` and ``serial``: number of links and file serial number, 0
    without one (RRIP 1.10 has no serial number). ``mtime``: seconds since 1970, None without a modification time in a
    TF field. ``target``: the target of a symlink, None without an SL field. ``zisofs_field``: the data of the ZF field,
    empty without one.
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


ROCK_RIDGE_EXTENSIONS = frozenset((b"RRIP_1991A", b"IEEE_P1282", b"IEEE_1282"))
"""The identifiers of Rock Ridge in an ER field: RRIP 1.09 and 1.10, 1.12, and its draft."""
_ER_HEAD = 8
_unpack_px = struct.Struct("<L4xL4xL4xL4x").unpack_from
"""Of a PX field (RRIP 4.1.1): mode, links, user and group, each in both byte orders."""
_PX, _PX_1_10, _PN = 44, 36, 20
"""Bytes of the fields; PX has a serial number since RRIP 1.12 (4.1.1)."""
_MODIFIED, _LONG_FORM = 0x02, 0x80
_TF_HEAD, _STAMP = 5, (7, 17)
"""Bytes of a TF field in front of its time stamps, and of a stamp, short or long (RRIP 4.1.6)."""
_CONTINUE, _CURRENT, _PARENT, _ROOT = 1, 2, 4, 8
_PLACING_FIELDS = frozenset((b"CE", b"ST", b"CL", b"RE", b"SL", b"ZF", b"PN"))
"""The fields that say more of an entry than its name, its mode and its times, or lead elsewhere."""


def find_susp_skip(root: bytes) -> int | None:
    """Return the number of bytes to skip in front of each system use area (LEN_SKP, SUSP 5.3); None without SUSP.

    :param root: the first record of the root directory, which holds the SP field.
    """
    at = root.find(b"SP\x07\x01\xbe\xef", 34)
    return root[at + 6] if at >= 0 and at + 7 <= len(root) else None


def read_rock_ridge(source: ByteSource, raw: bytes, offset: int, skip: int, base: Lba) -> RockRidge:
    """Read the fields that say where the entry of a directory record is in the tree.

    :param raw: the directory record.
    :param offset: the byte offset of the record in the image.
    :param skip: see :func:`find_susp_skip`.
    :param base: the block from which the tree counts its blocks.
    :raises ImageError: when a field is malformed, or continuation areas do not end.
    """
    plain = _read_plain_fields(raw, skip)
    if plain is not None:
        return plain
    name, child, relocated, regular, zisofs, serial = b"", None, False, True, 0, 0
    areas: list[tuple[int, int]] = []
    for at, field in walk_fields(source, raw, offset, skip, base, strict=False, areas=areas):
        match field[:2]:
            case b"NM" if len(field) > 5:
                name += field[5:]
            case b"CL" if len(field) >= 8:
                child = Lba(base + _get_number(field, 4))
            case b"RE":
                relocated = True
            case b"PX" if len(field) >= 8:
                regular = regular and _get_number(field, 4) & _FILE_TYPE in (0, _REGULAR_FILE)
                serial = _get_number(field, 36) if len(field) >= _PX else 0
            case b"SL":
                regular = False
            case b"ZF":
                zisofs = at
    name = name.partition(b"\0")[0]  # where it ends for programs in C
    return RockRidge(name, child, relocated, regular, zisofs, serial, tuple(areas))


def _read_plain_fields(raw: bytes, skip: int) -> RockRidge | None:
    """Return what :func:`read_rock_ridge` does for the record of an ordinary file or directory, None for others."""
    if len(raw) < _MIN_RECORD:
        return None
    plain = parse_plain_fields(raw, 33 + raw[32] + (1 - raw[32] % 2) + skip, len(raw))
    return None if plain is None else RockRidge(plain[0], None, False, plain[1], 0, plain[2])


def parse_plain_fields(data: bytes, at: int, end: int) -> tuple[bytes, bool, int] | None:
    """Return name, whether it is a regular file, and serial number of the record of an ordinary file or directory.

    None for others. Such a record is whole, and has a name, a mode and times alone; an image may have very many of
    them. Its fields are in ``data`` from ``at`` to ``end``.
    """
    name, regular, serial = b"", True, 0
    while at + 4 <= end and data[at + 2]:
        signature, length = data[at : at + 2], data[at + 2]
        if length < 4 or at + length > end or signature in _PLACING_FIELDS:
            return None
        if signature == b"NM":
            name += data[at + 5 : at + length]
        elif signature == b"PX":
            if length < _PX_1_10:
                return None
            regular = regular and data[at + 5] & 0xF0 in (0, 0x80)
            serial = int.from_bytes(data[at + 36 : at + 40], "little") if length >= _PX else 0
        elif signature == b"TF" and _is_short_stamp(data[at : at + length]):
            return None
        at += length
    return name.partition(b"\0")[0] if b"\0" in name else name, regular, serial


def _is_short_stamp(field: bytes) -> bool:
    """Return whether a TF field is too short for the times that it says it has (RRIP 4.1.6)."""
    if len(field) < _TF_HEAD:
        return True
    return len(field) < _TF_HEAD + _STAMP[field[4] >> 7] * (field[4] & 0x7F).bit_count()


def find_areas(source: ByteSource, raw: bytes, offset: int, skip: int, base: Lba) -> tuple[tuple[int, int], ...]:
    """Return byte offset and bytes of the continuation areas of a directory record, as far as they can be read.

    The arguments are those of :func:`read_rock_ridge`.
    """
    areas: list[tuple[int, int]] = []
    with contextlib.suppress(ImageError):  # the fields of . and .. say nothing that a tree needs
        deque(walk_fields(source, raw, offset, skip, base, strict=False, areas=areas), maxlen=0)
    return tuple(areas)


def read_root_fields(source: ByteSource, root: Lba, skip: int, base: Lba) -> list[bytes]:
    """Return the fields of the ``.`` of the root directory at block ``root``, as far as they can be read.

    :param skip: see :func:`find_susp_skip`.
    :param base: the block from which the tree counts its blocks.
    """
    start, fields = lba_offset(root), list[bytes]()
    raw = source.read(start, 255)
    with contextlib.suppress(ImageError):
        record = raw[: raw[0]] if raw else b""
        fields += (field for _, field in walk_fields(source, record, start, skip, base, strict=False))
    return fields


def find_extensions(fields: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the identifier of each extension that the ``fields`` of a root's ``.`` name (ER, SUSP 5.5)."""
    for raw in fields:
        if raw[:2] == b"ER" and len(raw) > _ER_HEAD:
            yield raw[_ER_HEAD : _ER_HEAD + raw[4]]


def walk_fields(
    source: ByteSource, raw: bytes, offset: int, skip: int, base: Lba, *, strict: bool = True,
    areas: list[tuple[int, int]] | None = None,
) -> Iterator[tuple[int, bytes]]:  # fmt: skip
    """Yield the byte offset and the bytes of each field, those in continuation areas included (SUSP 5.1).

    Unless ``strict``, a malformed field after an SL field ends its area, as in the kernel and in libarchive:
    genisoimage writes an SL field of more than 255 bytes with the low byte of its length, and the bytes after that
    length are not a field. Byte offset and bytes of each continuation area are appended to ``areas``. The other
    arguments are those of :func:`read_rock_ridge`.

    :raises ImageError: when a field is malformed, or continuation areas do not end.
    """
    if len(raw) < _MIN_RECORD:
        return
    start = 33 + raw[32] + (1 - raw[32] % 2) + skip
    area, area_offset = raw[start:], offset + start
    after_link = False
    for _ in range(MAX_CONTINUATIONS):
        continuation: tuple[int, int] | None = None
        at = 0
        while at + 4 <= len(area) and area[at + 2]:
            length = area[at + 2]
            field = area[at : at + length]
            if length < 4 or len(field) < length:
                if after_link and not strict:
                    break
                raise ImageError("malformed Rock Ridge field", source.place.at(area_offset + at))
            if field[:2] == b"ST":
                break
            if field[:2] == b"CE" and length >= 28:
                block, inside, size = (_get_number(field, index) for index in (4, 12, 20))
                continuation = (base + block) * BLOCK + inside, min(size, BLOCK)
            else:
                after_link = after_link or field[:2] == b"SL"
                yield area_offset + at, field
            at += length
        if continuation is None:
            return
        area_offset, size = continuation
        if areas is not None:
            areas.append(continuation)
        area = source.read(area_offset, size)
    raise ImageError("Rock Ridge fields continue without an end", source.place.at(offset))


def _split_fields(raw: bytes, offset: int, skip: int) -> list[tuple[int, bytes]] | None:
    """Return what :func:`walk_fields` yields for a whole record without continuation areas; None for others."""
    end = len(raw)
    if end < _MIN_RECORD:
        return None
    at, fields = 33 + raw[32] + (1 - raw[32] % 2) + skip, list[tuple[int, bytes]]()
    while at + 4 <= end and raw[at + 2]:
        length = raw[at + 2]
        field = raw[at : at + length]
        if length < 4 or at + length > end or field[:2] in (b"CE", b"ST"):
            return None
        fields.append((offset + at, field))
        at += length
    return fields


def read_attributes(source: ByteSource, raw: bytes, offset: int, skip: int, base: Lba) -> PosixAttributes:
    """Read the POSIX attributes in the fields of a directory record.

    The arguments are those of :func:`read_rock_ridge`. Where a field occurs twice the last one counts, as in the
    kernel. A symlink that is cut off has the readable part of its target; ``verify`` reports such symlinks.

    :raises ImageError: when a field is too short, or continuation areas do not end.
    """
    mode, links, uid, gid, serial, rdev, mtime, zisofs = None, 0, 0, 0, 0, (0, 0), None, b""
    links_to: list[bytes] = []
    fields = _split_fields(raw, offset, skip)
    for at, field in walk_fields(source, raw, offset, skip, base, strict=False) if fields is None else fields:
        match field[:2]:
            case b"PX":
                _check_length(source, at, field, _PX_1_10)
                mode, links, uid, gid = _unpack_px(field, 4)
                serial = _get_number(field, 36) if len(field) >= _PX else 0
            case b"PN":
                _check_length(source, at, field, _PN)
                rdev = _join_device(_get_number(field, 4), _get_number(field, 12))
            case b"TF":
                mtime = _parse_mtime(source, at, field, mtime)
            case b"SL":
                _check_length(source, at, field, 5)
                links_to.append(cut_components(field))
            case b"ZF":
                zisofs = field[4:]
    target = _join_target(b"".join(links_to)).partition(b"\0")[0] if links_to else None
    return PosixAttributes(
        mode=mode, links=links, uid=uid, gid=gid, serial=serial, rdev=rdev, mtime=mtime, target=target,
        zisofs_field=zisofs,
    )  # fmt: skip


def _check_length(source: ByteSource, at: int, field: bytes, length: int) -> None:
    """Check that the field at byte ``at`` of the image has ``length`` bytes. :raises ImageError: when it is shorter."""
    if len(field) < length:
        raise ImageError(f"Rock Ridge field {field[:2].decode()} of {len(field)} bytes", source.place.at(at))


def _get_number(field: bytes, at: int) -> int:
    """Return the 32-bit number in both byte orders (ECMA-119, 7.3.3) at byte ``at`` of ``field``."""
    return int.from_bytes(field[at : at + 4], "little")


def _join_device(high: int, low: int) -> tuple[int, int]:
    """Return the major and minor number of a PN field (RRIP 4.1.2).

    libisofs puts both into the low half, as glibc's makedev makes them.
    """
    if high or low <= 0xFF:
        return high, low
    return low >> 8 & 0xFFF, low & 0xFF | low >> 12 & 0xFFF00


def _parse_mtime(source: ByteSource, at: int, field: bytes, previous: int | None) -> int | None:
    """Return the modification time in a TF field (RRIP 4.1.6), ``previous`` if the field holds none."""
    _check_length(source, at, field, 5)
    flags = field[4]
    size = 17 if flags & _LONG_FORM else 7
    _check_length(source, at, field, 5 + size * (flags & 0x7F).bit_count())
    if not flags & _MODIFIED:
        return previous
    start = 5 + size * (flags & (_MODIFIED - 1)).bit_count()
    stamp = field[start : start + size]
    return parse_long_date(stamp) if flags & _LONG_FORM else parse_short_date(stamp)


def cut_components(field: bytes) -> bytes:
    """Return the component records of an SL field (RRIP 4.1.3.1), without one that passes the end of the field."""
    position = 5
    while position + 2 <= len(field) and position + 2 + field[position + 1] <= len(field):
        position += 2 + field[position + 1]
    return field[5:position]


def _join_target(components: bytes) -> bytes:
    """Return the target of a symlink from its component records (RRIP 4.1.3.1); a component may have several."""
    target, at, joined = b"", 0, True
    while at < len(components):
        flags, length = components[at : at + 2]
        target += b"" if joined else b"/"
        if flags & _ROOT:
            target += b"/"
        elif flags & _PARENT:
            target += b".."
        elif flags & _CURRENT:
            target += b"."
        target += components[at + 2 : at + 2 + length]
        joined = bool(flags & (_CONTINUE | _ROOT))
        at += 2 + length
    return target
