"""Find the Rock Ridge names of ordinary files (RRIP 1.12), of the records of a directory together.

The fields of an ordinary file are a name, a mode and times. All records of an image mostly have them in one order, and
with one length but for the name's: such records are compared with one layout byte by byte, but all of them at once.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from operator import sub

from cosremaster.lazy_regex import lazy_regex
from cosremaster.records import Struct

_ORDINARY_FIELD = (
    rb"(?:RR\x05\x01.|PX\x24\x01.[\x00-\x0f\x80-\x8f].{30}|PX\x2c\x01.[\x00-\x0f\x80-\x8f].{38}"
    rb"|TF(?:\x0c\x01\x02.{7}|\x1a\x01[\x07\x0b\x0d\x0e].{21}|\x21\x01\x0f.{28}))*"
)
"""Any number of fields with the mode of a regular file, or with one, three or four short times (RRIP 4.1.1, 4.1.6)."""
_ORDINARY_FRONT = lazy_regex(_ORDINARY_FIELD + rb"NM[\x06-\xff]\x01\x00", re.DOTALL)
_ORDINARY_REST = lazy_regex(_ORDINARY_FIELD + rb"\x00?", re.DOTALL)
"""The fields of an ordinary file up to its name, in an NM field without flags (RRIP 4.1.4), and those behind it."""
_NM_LENGTH, _NM_HEAD = 3, 5
"""How far in front of the name an NM field has its length, and where it begins."""
_AREA = 34
"""Where the system use area of a record begins, but for the even number of bytes of its identifier (9.1.12)."""
_MODE_BYTE, _REGULAR_MODES = 5, bytes((*range(0x10), *range(0x80, 0x90)))
"""Where a PX field has the file type, and the bytes there that say that it is regular, or nothing."""
_FIXED = {b"RR": 4, b"PX": 4, b"TF": 5}
"""The bytes at the beginning of a field that are the same in all records: its head, and which times there are."""
_FEW = 4
"""So few records are not compared with a layout."""
_AT_ONCE = 1024
"""So many records are compared together."""

_Bytes = tuple[tuple[int, bytes], ...]
"""Offsets, and the bytes that may stand there."""


class _FieldLayout(Struct, frozen=True):
    """The order and the lengths of the fields of ordinary files.

    ``front_size``: bytes up to the name. ``rest_size``: bytes behind it, without padding. ``front`` and ``rest``: what
    may stand there.
    """

    front_size: int
    front: _Bytes
    rest_size: int
    rest: _Bytes

    @classmethod
    def of_area(cls, area: bytes) -> _FieldLayout | None:
        """Return the layout of the fields of a record, ``area``; None where they are not those of an ordinary file."""
        front = _ORDINARY_FRONT.match(area)
        if front is None:
            return None
        start = front.end()
        stop = start + area[start - _NM_LENGTH] - _NM_HEAD
        if stop > len(area) or _ORDINARY_REST.fullmatch(area, stop) is None:
            return None
        before, _ = _describe_fields(area[: start - _NM_HEAD])
        rest, rest_size = _describe_fields(area[stop:])
        name_head = ((-5, b"N"), (-4, b"M"), (-2, b"\1"), (-1, b"\0"))
        return cls(start, (*before, *((start + at, byte) for at, byte in name_head)), rest_size, rest)


def _describe_fields(raw: bytes) -> tuple[_Bytes, int]:
    """Return what may stand in the fields ``raw`` of an ordinary file, and their length without padding."""
    at, described = 0, list[tuple[int, bytes]]()
    while at + _NM_HEAD <= len(raw):
        signature = raw[at : at + 2]
        described += [(number, raw[number : number + 1]) for number in range(at, at + _FIXED[signature])]
        described += [(at + _MODE_BYTE, _REGULAR_MODES)] if signature == b"PX" else []
        at += raw[at + 2]
    return tuple(described), at


def _fits(joined: bytes, size: int, described: _Bytes) -> bool:
    """Return whether each ``size`` bytes of ``joined`` are as ``described``."""
    count = len(joined) // size if size else 0
    for at, allowed in described:
        column = joined[at::size]
        if column != allowed * count and column.strip(allowed):
            return False
    return True


class OrdinaryNames:
    """Finds the names of ordinary files in the records of one directory after the other."""

    def __init__(self, skip: int) -> None:
        """Begin without a layout; ``skip``: the bytes in front of each system use area (SUSP 5.3)."""
        self._area = _AREA + skip
        self._layout: _FieldLayout | None = None

    def find(self, data: bytes, offsets: Sequence[int]) -> list[bytes]:
        """Return, for the record of a regular file at each of ``offsets`` in ``data``, the name in its fields.

        It is that of ``parse_plain_fields``; empty where the fields are not the usual ones, whatever they say.
        """
        if len(offsets) <= _AT_ONCE:
            return self._find(data, offsets)
        parts = (offsets[first : first + _AT_ONCE] for first in range(0, len(offsets), _AT_ONCE))
        return list(chain.from_iterable(self._find(data, part) for part in parts))

    def _find(self, data: bytes, offsets: Sequence[int]) -> list[bytes]:
        """Return what :meth:`find` does, of not too many records."""
        names = self._compare(data, offsets) if len(offsets) > _FEW else None
        if names is None and len(offsets) > _FEW:
            first = offsets[0]
            layout = _FieldLayout.of_area(data[first + self._area + (data[first + 32] & 0xFE) : first + data[first]])
            if layout is not None and layout != self._layout:
                self._layout = layout
                names = self._compare(data, offsets)
        return list(self._match_each(data, offsets)) if names is None else names

    def _compare(self, data: bytes, offsets: Sequence[int]) -> list[bytes] | None:
        """Return what :meth:`find` does if all records have the layout of those before; else None."""
        layout = self._layout
        if layout is None:
            return None
        size, first = layout.front_size, self._area + layout.front_size
        starts = [at + first + (data[at + 32] & 0xFE) for at in offsets]
        fronts = b"".join([data[start - size : start] for start in starts])
        if len(fronts) != size * len(starts) or not _fits(fronts, size, layout.front):
            return None
        lengths = fronts[size - _NM_LENGTH :: size]
        stops = [start - _NM_HEAD + length for start, length in zip(starts, lengths, strict=True)]
        names = [data[start:stop] for start, stop in zip(starts, stops, strict=True)]
        if b"\0" in b"".join(names):
            return None
        size, ends = layout.rest_size, [at + data[at] for at in offsets]
        sizes = set(map(sub, ends, stops))
        if not sizes <= {size, size + 1}:
            return None
        padding = b"".join([data[end - 1 : end] for end in ends]) if size + 1 in sizes else b""
        if padding.strip(b"\0") and any(
            data[end - 1] for end, stop in zip(ends, stops, strict=True) if end - stop > size
        ):
            return None
        return names if _fits(b"".join([data[stop : stop + size] for stop in stops]), size, layout.rest) else None

    def _match_each(self, data: bytes, offsets: Iterable[int]) -> Iterator[bytes]:
        """Yield what :meth:`find` returns, each record by itself."""
        match_front, match_rest = _ORDINARY_FRONT.match, _ORDINARY_REST.fullmatch
        for at in offsets:
            end = at + data[at]
            front = match_front(data, at + self._area + (data[at + 32] & 0xFE), end)
            if front is not None:
                start = front.end()
                stop = start + data[start - _NM_LENGTH] - _NM_HEAD
                name = data[start:stop]
                if stop <= end and b"\0" not in name and match_rest(data, stop, end) is not None:
                    yield name
                    continue
            yield b""
