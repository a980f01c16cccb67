"""The entries of an archive as columns: an archive may have a million, and an object for each takes 500 bytes."""

from __future__ import annotations

import binascii
import struct
from array import array
from collections.abc import Iterator, Sequence
from functools import partial
from typing import TypeAlias, overload

from cosremaster.layers.cpio import newc as cpio
from cosremaster.records.tuples import NamedTuple

DIGEST_SIZE = 32
NO_DIGEST = bytes(DIGEST_SIZE)

_AT_ONCE = 4096  # headers that are decoded together
_MAGIC_SIZE = 6
FIELDS_SIZE = 52
"""Bytes of the 13 fields of a header as numbers."""

_TYPE_AT = 6  # the byte of the fields whose upper half is the file type
_FILE_TYPES = tuple((value & 0xF0) << 8 for value in range(256))  # one object for all entries of a type
_DIGITS = b"0123456789ABCDEF"
_unpack_all = struct.Struct(">13I").iter_unpack


Column: TypeAlias = bytearray | memoryview


class Member(NamedTuple):
    """An entry with what its data told: a symlink's target, a regular file's SHA-256 (empty: not taken)."""

    entry: cpio.NewcEntry
    target: bytes
    digest: bytes


# Each makes a named tuple of a tuple without a call of a Python function.
_header = partial(tuple.__new__, cpio.Header)
_entry = partial(tuple.__new__, cpio.NewcEntry)
_member = partial(tuple.__new__, Member)


class HeaderStyle:
    """How the headers of an archive are written, so that numbers give the same bytes again.

    ``magic``: of the first; ``is_upper``: digits are capital letters; ``others``: by number, those written otherwise.
    """

    __slots__ = ("_is_sure", "is_upper", "magic", "others")

    def __init__(self, magic: bytes = b"", others: dict[int, bytes] | None = None, *, is_upper: bool = True) -> None:
        """Begin without headers, or with what is known of them."""
        self.magic, self.is_upper, self.others = magic, is_upper, others or {}
        self._is_sure = False

    def add(self, number: int, raw: bytes) -> bytes:
        """Add the header ``raw`` of member ``number`` and return its fields as numbers."""
        fields = binascii.unhexlify(raw[_MAGIC_SIZE:])
        digits = binascii.hexlify(fields)
        if not self._is_sure and digits.upper() != digits:  # the first with letters
            self._is_sure = True
            self.is_upper = raw.endswith(digits.upper())
        self.magic = self.magic or raw[:_MAGIC_SIZE]
        if raw != self.magic + (digits.upper() if self.is_upper else digits):
            self.others[number] = raw
        return fields

    def pack(self, fields: Column, start: int, end: int) -> list[bytes]:
        """Return the headers of the members ``start`` to ``end``; ``fields``: those of all."""
        digits = binascii.hexlify(fields[start * FIELDS_SIZE : end * FIELDS_SIZE])
        if self.is_upper:
            digits = digits.upper()
        size = 2 * FIELDS_SIZE
        raw = [self.magic + digits[at : at + size] for at in range(0, len(digits), size)]
        if self.others:
            raw = [self.others.get(number, header) for number, header in enumerate(raw, start)]
        return raw

    def cut(self, start: int, end: int) -> HeaderStyle:
        """Return the style of the members ``start`` to ``end``."""
        others = {number - start: raw for number, raw in self.others.items() if start <= number < end}
        return HeaderStyle(self.magic, others, is_upper=self.is_upper)


class DottedNames(Sequence[bytes]):
    """The names ``./path`` of ``paths``, the root's ``.``: made when they are read, as they take 80 bytes each."""

    __slots__ = ("paths",)

    def __init__(self, paths: Sequence[bytes]) -> None:
        """Begin with the normal paths."""
        self.paths = paths

    def __len__(self) -> int:
        """Return how many names there are."""
        return len(self.paths)

    @overload
    def __getitem__(self, index: int) -> bytes:
        """Return a name."""

    @overload
    def __getitem__(self, index: slice) -> list[bytes]:
        """Return the names of a slice."""

    def __getitem__(self, index: int | slice) -> bytes | list[bytes]:
        """Return a name, or those of a slice."""
        if isinstance(index, slice):
            return [b"./" + path if path else b"." for path in self.paths[index]]
        return b"./" + self.paths[index] if self.paths[index] else b"."

    def __iter__(self) -> Iterator[bytes]:
        """Yield each name."""
        return (b"./" + path if path else b"." for path in self.paths)


class Members(Sequence[Member]):
    """Members that are made when they are read.

    ``headers``: how their headers are written; ``fields``: 52 bytes each, the fields of their headers as numbers;
    ``names`` and ``offsets``: of each; ``targets``: of symlinks, by number; ``digests``: 32 bytes each, zeros where
    none was taken.
    """

    __slots__ = ("digests", "fields", "headers", "names", "offsets", "targets")

    def __init__(
        self, headers: HeaderStyle, fields: Column, names: Sequence[bytes], offsets: array[int],
        targets: dict[int, bytes], digests: Column,
    ) -> None:  # fmt: skip
        """Make members of their columns."""
        self.headers, self.fields, self.names, self.offsets, self.targets = headers, fields, names, offsets, targets
        self.digests = digests

    @classmethod
    def empty(cls) -> Members:
        """Return no members, to which :meth:`add` adds."""
        return cls(HeaderStyle(), bytearray(), [], array("Q"), {}, bytearray())

    def add(self, entry: cpio.NewcEntry, target: bytes = b"", digest: bytes = b"") -> None:
        """Add a member behind all others."""
        assert isinstance(self.fields, bytearray)
        assert isinstance(self.digests, bytearray)
        assert isinstance(self.names, list)
        if target:
            self.targets[len(self.names)] = target
        self.fields += self.headers.add(len(self.names), entry.header.raw)
        self.names.append(entry.name)
        self.offsets.append(entry.offset)
        self.digests += digest or NO_DIGEST

    def __len__(self) -> int:
        """Return how many members there are."""
        return len(self.names)

    @overload
    def __getitem__(self, index: int) -> Member:
        """Return a member."""

    @overload
    def __getitem__(self, index: slice) -> Members:
        """Return the members of a slice without a step."""

    def __getitem__(self, index: int | slice) -> Member | Members:
        """Return a member, or those of a slice without a step."""
        if isinstance(index, slice):
            start, end, _ = index.indices(len(self))
            names: Sequence[bytes]
            if isinstance(self.names, DottedNames):
                names = DottedNames(self.names.paths[start:end])
            else:
                names = self.names[start:end]
            return Members(
                self.headers.cut(start, end),
                memoryview(self.fields)[start * FIELDS_SIZE : end * FIELDS_SIZE],
                names,
                self.offsets[start:end],
                {number - start: target for number, target in self.targets.items() if start <= number < end},
                memoryview(self.digests)[start * DIGEST_SIZE : end * DIGEST_SIZE],
            )
        number = range(len(self))[index]
        (raw,) = self.headers.pack(self.fields, number, number + 1)
        entry = cpio.NewcEntry(cpio.Header(raw), self.names[number], self.offsets[number])
        digest = bytes(self.digests[number * DIGEST_SIZE : (number + 1) * DIGEST_SIZE])
        return Member(entry, self.targets.get(number, b""), b"" if digest == NO_DIGEST else digest)

    def __iter__(self) -> Iterator[Member]:
        """Yield each member."""
        count, targets = len(self), self.targets
        for start in range(0, count, _AT_ONCE):
            end = min(start + _AT_ONCE, count)
            headers = map(_header, zip(self.headers.pack(self.fields, start, end)))
            entries = map(_entry, zip(headers, self.names[start:end], self.offsets[start:end], strict=True))
            digests = [b"" if raw == NO_DIGEST else raw for raw in _split(self.digests, DIGEST_SIZE, start, end)]
            texts = (targets.get(number, b"") for number in range(start, end))
            yield from map(_member, zip(entries, texts, digests, strict=True))

    __hash__ = None  # type: ignore[assignment]

    def __eq__(self, other: object) -> bool:
        """Return whether both have the same members."""
        return isinstance(other, Members) and list(self) == list(other)

    def __add__(self, other: Members) -> Members:
        """Return these members with those of ``other`` behind them."""
        mine, others = self.headers, other.headers
        if (mine.magic, mine.is_upper) == (others.magic, others.is_upper):
            count = len(self)
            raw = mine.others | {number + count: header for number, header in others.others.items()}
            return Members(
                HeaderStyle(mine.magic, raw, is_upper=mine.is_upper),
                bytearray(self.fields) + other.fields,
                _join_names(self.names, other.names),
                self.offsets + other.offsets,
                self.targets | {number + count: target for number, target in other.targets.items()},
                bytearray(self.digests) + other.digests,
            )
        joined = Members.empty()
        for members in (self, other):
            for member in members:
                joined.add(*member)
        return joined

    def type_digits(self) -> bytes:
        """Return the digit of each file type (:attr:`~cosremaster.layers.cpio.newc.Header.type_digit`)."""
        return bytes(_DIGITS[value >> 4] for value in bytes(self.fields[_TYPE_AT::FIELDS_SIZE]))

    def file_types(self) -> list[int]:
        """Return the file type of each, as in st_mode."""
        return [_FILE_TYPES[value] for value in bytes(self.fields[_TYPE_AT::FIELDS_SIZE])]

    def all_fields(self) -> Iterator[tuple[int, ...]]:
        """Yield the 13 fields of each header."""
        return _unpack_all(self.fields)


def _join_names(first: Sequence[bytes], second: Sequence[bytes]) -> Sequence[bytes]:
    """Return the names of both; where both are made when they are read, so are these."""
    if isinstance(first, DottedNames) and isinstance(second, DottedNames):
        return DottedNames([*first.paths, *second.paths])
    return [*first, *second]


def _split(column: Column, size: int, start: int, end: int) -> list[bytes]:
    """Return the values ``start`` to ``end`` of a column of values of ``size`` bytes."""
    data = bytes(column[start * size : end * size])
    return [data[at : at + size] for at in range(0, len(data), size)]
