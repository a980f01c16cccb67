"""Make Rock Ridge fields for new names, and spread them over a directory record and its continuation areas.

RRIP 1.12 and SUSP 1.12; section numbers without a name are those of RRIP. Nothing here reads or writes an image.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from cosremaster.iso.ecma119.dates import pack_long_date, pack_short_date
from cosremaster.iso.ecma119.records import pack_both_endian
from cosremaster.records import Struct
from cosremaster.tree.nodes import Node, NodeKind
from cosremaster.units import BLOCK, Lba

CE_SIZE = 28
"""Bytes of a CE field (SUSP 5.1)."""
_NM_HEAD, _SL_HEAD, _COMPONENT_HEAD = 5, 5, 2
MAX_FIELD = 255
_CONTINUE, _CURRENT, _PARENT, _ROOT = 1, 2, 4, 8
_LONG_FORM = 0x80
_PX_1_10 = 36
"""Bytes of a PX field without a file serial number."""
_RR_BITS = {b"PX": 1, b"PN": 2, b"SL": 4, b"NM": 8, b"CL": 16, b"PL": 32, b"RE": 64, b"TF": 128}


class RockRidgeProfile(Struct, frozen=True):
    """The way in which a volume writes Rock Ridge.

    ``skip``: bytes before the fields of each system use area (SUSP 5.3); ``px_size``: bytes of a PX field;
    ``tf_flags``: the flags of a TF field; ``has_rr``: records have the RR field of RRIP 1.09.
    """

    skip: int = 0
    px_size: int = 44
    tf_flags: int = 0x0E
    has_rr: bool = False

    @property
    def has_serials(self) -> bool:
        """Whether PX fields have a file serial number, as they have since RRIP 1.12."""
        return self.px_size > _PX_1_10

    @classmethod
    def from_fields(cls, fields: Iterable[bytes], skip: int) -> RockRidgeProfile:
        """Return the profile that the ``fields`` of a record show."""
        by_signature = {field[:2]: field for field in fields}
        px, tf = by_signature.get(b"PX", b""), by_signature.get(b"TF", b"")
        px_size = len(px) if len(px) in (36, 44) else 44
        return cls(skip, px_size, tf[4] if len(tf) > 4 else 0x0E, b"RR" in by_signature)

    def encode_node(self, node: Node, nlink: int, serial: int) -> list[bytes]:
        """Return the fields of ``node`` except its name (4.1.1 to 4.1.3, 4.1.6)."""
        numbers = (node.kind | node.mode, nlink, node.uid, node.gid, serial)
        fields = [_make_field(b"PX", b"".join(map(pack_both_endian, numbers))[: self.px_size - 4])]
        if node.kind in (NodeKind.CHAR, NodeKind.BLOCK):
            fields.append(_make_field(b"PN", b"".join(map(pack_both_endian, _split_device(*node.rdev)))))
        if node.kind is NodeKind.SYMLINK:
            fields += _make_sl(node.target)
        count = (self.tf_flags & 0x7F).bit_count()
        stamp = pack_long_date(node.mtime) if self.tf_flags & _LONG_FORM else pack_short_date(node.mtime)
        return [*fields, _make_field(b"TF", bytes((self.tf_flags,)) + stamp * count)]

    def with_name(self, fields: Sequence[bytes], name: bytes) -> list[bytes]:
        """Return ``fields`` with ``name`` in place of their own, and with an RR field that agrees."""
        others = [field for field in fields if field[:2] not in (b"NM", b"SL")]
        return self.with_rr_field([*others, *_make_nm(name), *(field for field in fields if field[:2] == b"SL")])

    def with_rr_field(self, fields: Sequence[bytes]) -> list[bytes]:
        """Return ``fields`` with an RR field that lists them, where the volume has RR fields; else without one."""
        others = [field for field in fields if field[:2] != b"RR"]
        bits = sum(_RR_BITS.get(signature, 0) for signature in {field[:2] for field in others})
        return [_make_field(b"RR", bytes((bits,))), *others] if self.has_rr else others


def _split_device(major: int, minor: int) -> tuple[int, int]:
    """Return the high and the low half of a device number for a PN field (4.1.2).

    Other writers put a number into the low half alone, as glibc's makedev makes it. Linux takes both parts from the low
    half's bytes then, which is right for small numbers only; so large numbers go into the two halves.
    """
    return (0, major << 8 | minor) if major < 256 and minor < 256 else (major, minor)


def _make_field(signature: bytes, data: bytes) -> bytes:
    """Return a system use field (SUSP 4.1) of version 1."""
    return signature + bytes((4 + len(data), 1)) + data


def _make_nm(name: bytes) -> Iterator[bytes]:
    """Yield as many NM fields (4.1.4) as ``name`` needs."""
    room = MAX_FIELD - _NM_HEAD
    for start in range(0, len(name), room):
        flags = _CONTINUE if start + room < len(name) else 0
        yield _make_field(b"NM", bytes((flags,)) + name[start : start + room])


def _make_sl(target: bytes) -> Iterator[bytes]:
    """Yield as many SL fields (4.1.3) as the components of ``target`` need.

    A field that is continued ends inside a component, because libarchive leaves out the slash between whole components
    of two fields.
    """
    area, components = b"", _split_target(target)[::-1]
    while components:
        flags, text = components.pop()
        room = MAX_FIELD - _SL_HEAD - len(area) - _COMPONENT_HEAD
        if len(text) * (not flags) <= room - (_COMPONENT_HEAD if components else 0):
            area += bytes((flags, 0)) if flags else bytes((0, len(text))) + text
            continue
        count = min(max(len(text) - 1, 0), room)
        yield _make_field(b"SL", bytes((_CONTINUE,)) + area + bytes((_CONTINUE, count)) + text[:count])
        area = b""
        components.append((0, text[count:]))
    yield _make_field(b"SL", b"\0" + area)


def _split_target(target: bytes) -> list[tuple[int, bytes]]:
    """Return flags and text of each component record (4.1.3.1) of a symlink's target; repeated slashes are left out."""
    flags = {b".": _CURRENT, b"..": _PARENT}
    components = [(flags.get(part, 0), part) for part in target.split(b"/") if part]
    return [(_ROOT, b""), *components] if target.startswith(b"/") else components


class ContinuationAreas:
    """Continuation areas (SUSP 5.1) that follow each other on the volume."""

    def __init__(self, first_block: Lba) -> None:
        """Begin the areas in ``first_block``, counted as the tree's records count."""
        self.first_block = first_block
        self.data = bytearray()

    def split_fields(self, fields: Sequence[bytes], room: int) -> bytes:
        """Return the fields that fit into ``room`` bytes of a record, and store the others in a continuation area.

        Where not all ``fields`` fit, the result ends with the CE field that leads to the others; an NM field is cut in
        two, so that as much as possible of a name is in the record.
        """
        if sum(map(len, fields)) <= room:
            return b"".join(fields)
        inside, waiting, free = list[bytes](), list(fields), room - CE_SIZE
        while len(waiting[0]) <= free:
            inside.append(waiting.pop(0))
            free -= len(inside[-1])
        if waiting[0][:2] == b"NM" and free > _NM_HEAD:
            text = waiting[0][_NM_HEAD:]
            inside.append(_make_field(b"NM", bytes((_CONTINUE,)) + text[: free - _NM_HEAD]))
            waiting[0] = _make_field(b"NM", waiting[0][4:_NM_HEAD] + text[free - _NM_HEAD :])
        return b"".join(inside) + self._store_fields(waiting)

    def _store_fields(self, fields: Sequence[bytes]) -> bytes:
        """Store ``fields`` in new areas and return the CE field that leads to the first one.

        No area crosses a block. An area that continues another one follows it on the volume, because libarchive reads
        them in that order only.
        """
        parts, waiting = list[list[bytes]](), list(fields)
        while waiting:
            room, part = BLOCK - (CE_SIZE if sum(map(len, waiting)) > BLOCK else 0), list[bytes]()
            while waiting and len(waiting[0]) <= room:
                room -= len(waiting[0])
                part.append(waiting.pop(0))
            parts.append(part)
        places, at = list[tuple[int, int]](), len(self.data)
        for index, part in enumerate(parts, 1):
            length = sum(map(len, part)) + (CE_SIZE if index < len(parts) else 0)
            at += -at % BLOCK if at % BLOCK + length > BLOCK else 0
            places.append((at, length))
            at += length
        for index, (part, (at, _)) in enumerate(zip(parts, places, strict=True), 1):
            self.data += bytes(at - len(self.data)) + b"".join(part)
            self.data += self._make_ce(*places[index]) if index < len(parts) else b""
        return self._make_ce(*places[0])

    def _make_ce(self, at: int, length: int) -> bytes:
        """Return the CE field for an area of ``length`` bytes that begins at byte ``at`` of all areas."""
        block, offset = divmod(at, BLOCK)
        return _make_field(b"CE", b"".join(map(pack_both_endian, (self.first_block + block, offset, length))))
