"""Rock Ridge fields for new names (RRIP 1.12; SUSP 1.12), and how they are spread over a record and what continues it.

Pure: nodes in, bytes out.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence

from msgspec import Struct

from cosremaster.iso.ecma119.records import pack_both_endian
from cosremaster.tree.nodes import Node, NodeKind
from cosremaster.units import BLOCK, Lba

CE_SIZE = 28
_NAME_HEAD, _SL_HEAD, _COMPONENT_HEAD = 5, 5, 2
MAX_FIELD = 255
_CONTINUE, _CURRENT, _PARENT, _ROOT = 1, 2, 4, 8
_LONG_TIMES = 0x80
_YEAR_1900, _YEAR_2156 = -2208988800, 5869584000
YEAR_1, YEAR_10000 = -62135596800, 253402300800
"""Seconds since 1970 of what dates can tell."""
_RR_BITS = {b"PX": 1, b"PN": 2, b"SL": 4, b"NM": 8, b"CL": 16, b"PL": 32, b"RE": 64, b"TF": 128}


class RockRidgeProfile(Struct, frozen=True):
    """How a volume writes Rock Ridge. ``skip``: bytes before the fields (SUSP 5.3); ``px``: bytes of its PX field;
    ``times``: the flags of its TF field; ``rr``: it has the RR field of RRIP 1.09."""

    skip: int = 0
    px_size: int = 44
    tf_flags: int = 0x0E
    has_rr: bool = False

    @classmethod
    def from_fields(cls, fields: Iterable[bytes], skip: int) -> RockRidgeProfile:
        """The dialect of a record with these fields."""
        found = {field[:2]: field for field in fields}
        px, tf = found.get(b"PX", b""), found.get(b"TF", b"")
        return cls(skip, len(px) if len(px) in (36, 44) else 44, tf[4] if len(tf) > 4 else 0x0E, b"RR" in found)

    def encode_node(self, node: Node, nlink: int, serial: int) -> list[bytes]:
        """The fields of ``node`` but its name (4.1.1 to 4.1.3, 4.1.6)."""
        numbers = (node.kind | node.mode, nlink, node.uid, node.gid, serial)
        fields = [_field(b"PX", b"".join(map(pack_both_endian, numbers))[: self.px_size - 4])]
        if node.kind in (NodeKind.CHAR, NodeKind.BLOCK):
            fields.append(_field(b"PN", b"".join(map(pack_both_endian, _device(*node.rdev)))))
        if node.kind is NodeKind.SYMLINK:
            fields += _symlink(node.target)
        count = (self.tf_flags & 0x7F).bit_count()
        stamp = pack_long_date(node.mtime) if self.tf_flags & _LONG_TIMES else pack_short_date(node.mtime)
        return [*fields, _field(b"TF", bytes((self.tf_flags,)) + stamp * count)]

    def with_name(self, fields: Sequence[bytes], name: bytes) -> list[bytes]:
        """``fields`` with ``name``, and what tells which there are."""
        others = [field for field in fields if field[:2] != b"NM"]
        first = [field for field in others if field[:2] != b"SL"]
        return self.with_rr_field([*first, *_name(name), *(field for field in others if field[:2] == b"SL")])

    def with_rr_field(self, fields: Sequence[bytes]) -> list[bytes]:
        """``fields`` with what tells which there are, where the volume has that."""
        kept = [field for field in fields if field[:2] != b"RR"]
        bits = sum(_RR_BITS.get(sign, 0) for sign in {field[:2] for field in kept})
        return [_field(b"RR", bytes((bits,))), *kept] if self.has_rr else kept


def _device(major: int, minor: int) -> tuple[int, int]:
    """The halves of a device number (4.1.2). Makers write it as glibc's makedev has it, with which Linux, who takes
    the low half's bytes for both, agrees on small numbers; large ones it has from the two halves."""
    return (0, major << 8 | minor) if major < 256 and minor < 256 else (major, minor)


def _field(sign: bytes, data: bytes) -> bytes:
    return sign + bytes((4 + len(data), 1)) + data


def _name(name: bytes) -> Iterator[bytes]:
    """NM (4.1.4): as many as the name needs."""
    room = MAX_FIELD - 5
    for start in range(0, len(name), room):
        more = start + room < len(name)
        yield _field(b"NM", bytes((_CONTINUE if more else 0,)) + name[start : start + room])


def _symlink(target: bytes) -> Iterator[bytes]:
    """SL (4.1.3): as many as the components need. One ends inside a component, which the next continues: between whole
    ones libarchive would leave out the slash."""
    area, left = b"", _components(target)[::-1]
    while left:
        flags, text = left.pop()
        room = MAX_FIELD - _SL_HEAD - len(area) - _COMPONENT_HEAD
        if len(text) * (not flags) <= room - (_COMPONENT_HEAD if left else 0):
            area += bytes((flags, 0)) if flags else bytes((0, len(text))) + text
            continue
        some = min(max(len(text) - 1, 0), room)
        yield _field(b"SL", bytes((_CONTINUE,)) + area + bytes((_CONTINUE, some)) + text[:some])
        area = b""
        left.append((0, text[some:]))
    yield _field(b"SL", b"\0" + area)


def _components(target: bytes) -> list[tuple[int, bytes]]:
    """The component records (4.1.3.1), flags and text. Slashes that mean nothing are left out."""
    parts = [part for part in target.split(b"/") if part]
    known = {b".": _CURRENT, b"..": _PARENT}
    found = [(known.get(part, 0), part) for part in parts]
    return [(_ROOT, b""), *found] if target.startswith(b"/") else found


def pack_short_date(seconds: int) -> bytes:
    """Seven bytes (ECMA-119, 9.1.5): UTC, the nearest that they can tell."""
    at = time.gmtime(min(max(seconds, _YEAR_1900), _YEAR_2156 - 1))
    return bytes((at.tm_year - 1900, at.tm_mon, at.tm_mday, at.tm_hour, at.tm_min, at.tm_sec, 0))


def pack_long_date(seconds: int) -> bytes:
    """Seventeen bytes (ECMA-119, 8.4.26.1): UTC, the nearest that they can tell."""
    at = time.gmtime(min(max(seconds, YEAR_1), YEAR_10000 - 1))
    return b"%04d%02d%02d%02d%02d%02d00\0" % at[:6]


class ContinuationAreas:
    """The areas that continue records, block after block; ``first`` counts as the tree does."""

    def __init__(self, first: Lba) -> None:
        self.first_block = first
        self.data = bytearray()

    def split_fields(self, fields: Sequence[bytes], room: int) -> bytes:
        """What of ``fields`` goes into ``room`` bytes: all, or as many as fit with the CE that leads to the others
        (SUSP 5.1). Of a name as much as fits is there."""
        if sum(map(len, fields)) <= room:
            return b"".join(fields)
        kept, left, free = list[bytes](), list(fields), room - CE_SIZE
        while len(left[0]) <= free:
            kept.append(left.pop(0))
            free -= len(kept[-1])
        if left[0][:2] == b"NM" and free > _NAME_HEAD:
            text = left[0][_NAME_HEAD:]
            kept.append(_field(b"NM", bytes((_CONTINUE,)) + text[: free - _NAME_HEAD]))
            left[0] = _field(b"NM", left[0][4:_NAME_HEAD] + text[free - _NAME_HEAD :])
        return b"".join(kept) + self._area(left)

    def _area(self, fields: Sequence[bytes]) -> bytes:
        """Stores ``fields`` and returns the CE that leads there. No area crosses a block; one that continues another
        stands behind it, where libarchive still comes by."""
        parts, left = list[list[bytes]](), list(fields)
        while left:
            room, part = BLOCK - (CE_SIZE if sum(map(len, left)) > BLOCK else 0), list[bytes]()
            while left and len(left[0]) <= room:
                room -= len(left[0])
                part.append(left.pop(0))
            parts.append(part)
        places, at = list[tuple[int, int]](), len(self.data)
        for index, part in enumerate(parts, 1):
            length = sum(map(len, part)) + (CE_SIZE if index < len(parts) else 0)
            at += -at % BLOCK if at % BLOCK + length > BLOCK else 0
            places.append((at, length))
            at += length
        for index, (part, (at, _)) in enumerate(zip(parts, places, strict=True), 1):
            self.data += bytes(at - len(self.data)) + b"".join(part)
            self.data += self._lead(*places[index]) if index < len(parts) else b""
        return self._lead(*places[0])

    def _lead(self, at: int, length: int) -> bytes:
        """The CE for an area that begins at byte ``at``."""
        block, offset = divmod(at, BLOCK)
        return _field(b"CE", b"".join(map(pack_both_endian, (self.first_block + block, offset, length))))
