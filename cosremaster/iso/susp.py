"""Rock Ridge (RRIP 1.12) in the system use fields of directory records (SUSP 1.12): what of it we need."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from cosremaster.errors import ImageError
from cosremaster.files import FileSource
from cosremaster.iso.model import Directory
from cosremaster.units import BLOCK, Lba, lba_bytes

MAX_CONTINUATIONS = 32


@dataclass(frozen=True, slots=True)
class RockRidge:
    """What a record's fields say. ``child``: where a relocated directory stands (CL, RRIP 4.1.5.1).

    ``relocated``: the record is that of one (RE), its place in the tree is elsewhere. ``zisofs``: the byte
    offset of the field that calls the data compressed (ZF), 0 without. ``regular``: no symlink, no device.
    """

    name: bytes = b""
    child: Lba | None = None
    relocated: bool = False
    regular: bool = True
    zisofs: int = 0


PLAIN = RockRidge()
"""A record without any of it."""


def skip_of(root: bytes) -> int | None:
    """Bytes before the fields in every system use area, from the root's first record; None without SUSP (5.3)."""
    at = root.find(b"SP\x07\x01\xbe\xef", 34)
    return root[at + 6] if at >= 0 and at + 7 <= len(root) else None


def has_susp(source: FileSource, root: Directory) -> bool:
    """True when the directory's first record announces the carrier of Rock Ridge."""
    return skip_of(source.at(lba_bytes(root.lba), 255)) is not None


def read_fields(source: FileSource, raw: bytes, offset: int, skip: int, base: Lba) -> RockRidge:
    """The fields of the record ``raw``, which stands at byte ``offset``; ``base``: whence its blocks count.

    :raises ImageError: a field is malformed, or continuations do not end.
    """
    name, child, relocated, regular, zisofs = b"", None, False, True, 0
    for at, field in fields(source, raw, offset, skip, base):
        match field[:2]:
            case b"NM" if len(field) > 5:
                name += field[5:]
            case b"CL" if len(field) >= 8:
                child = Lba(base + int.from_bytes(field[4:8], "little"))
            case b"RE":
                relocated = True
            case b"PX" if len(field) >= 8:
                regular = regular and int.from_bytes(field[4:8], "little") & 0o170000 in (0, 0o100000)
            case b"SL":
                regular = False
            case b"ZF":
                zisofs = at
    return RockRidge(name, child, relocated, regular, zisofs)


def fields(source: FileSource, raw: bytes, offset: int, skip: int, base: Lba) -> Iterator[tuple[int, bytes]]:
    """Byte offset and bytes of each field, continuation areas included (SUSP 5.1).

    :raises ImageError: a field is malformed, or continuations do not end.
    """
    start = 33 + raw[32] + (1 - raw[32] % 2) + skip
    area, where = raw[start:], offset + start
    for _ in range(MAX_CONTINUATIONS):
        following: tuple[int, int] | None = None
        at = 0
        while at + 4 <= len(area) and area[at + 2]:
            length = area[at + 2]
            field = area[at : at + length]
            if length < 4 or len(field) < length:
                raise ImageError("malformed Rock Ridge field", source.place.at(where + at))
            if field[:2] == b"ST":
                break
            if field[:2] == b"CE" and length >= 28:
                block, inside, size = (int.from_bytes(field[i : i + 4], "little") for i in (4, 12, 20))
                following = (base + block) * BLOCK + inside, min(size, BLOCK)
            else:
                yield where + at, field
            at += length
        if following is None:
            return
        where, size = following
        area = source.at(where, size)
    raise ImageError("Rock Ridge fields continue without an end", source.place.at(offset))
