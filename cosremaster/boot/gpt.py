"""The GUID partition table (UEFI specification 2.10, section 5.3): headers, entry arrays, their sums."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterable

from msgspec import Struct
from msgspec.structs import replace

from cosremaster.errors import ImageError, Place
from cosremaster.units import SECTOR, Sector

SIGNATURE = b"EFI PART"
PRIMARY = Sector(1)
"""Where the primary header stands (5.3.1)."""

MAX_ARRAY = 1 << 20
"""Bytes of an entry array that are taken for sound; the usual one has 16 KiB."""

_HEADER = struct.Struct("<8s4I4Q16sQ3I")  # table 5.5
_ENTRY = struct.Struct("<16s16s3Q72s")  # table 5.6
_CRC_AT = 16

Read = Callable[[int, int], bytes]
"""Bytes of the image from an offset on, fewer at its end."""


def format_guid(raw: bytes) -> str:
    """A GUID as people write it: the first three fields are little-endian (UEFI 2.10, appendix A)."""
    parts = (raw[3::-1], raw[5:3:-1], raw[7:5:-1], raw[8:10], raw[10:16])
    return "-".join(part.hex().upper() for part in parts)


class GptHeader(Struct, frozen=True, kw_only=True):
    """A header. Places are sectors of 512 bytes; ``other`` is the second header's, ``array`` the entries'.

    ``size``: bytes that ``crc`` covers; ``rest``: what follows the fields in its sector.
    """

    revision: int
    size: int
    crc: int
    reserved: int
    my_lba: Sector
    alternate_lba: Sector
    first_usable: Sector
    last_usable: Sector
    guid: bytes
    entries_lba: Sector
    entry_count: int
    entry_size: int
    entries_crc: int
    rest: bytes

    @classmethod
    def parse(cls, raw: bytes) -> GptHeader | None:
        """The header in 512 bytes; None where the signature is missing."""
        if len(raw) != SECTOR or not raw.startswith(SIGNATURE):
            return None
        _, revision, size, crc, reserved, own, other, first, last, guid, array, count, each, array_crc = (
            _HEADER.unpack_from(raw)
        )
        return cls(
            revision=revision,
            size=size,
            crc=crc,
            reserved=reserved,
            my_lba=Sector(own),
            alternate_lba=Sector(other),
            first_usable=Sector(first),
            last_usable=Sector(last),
            guid=guid,
            entries_lba=Sector(array),
            entry_count=count,
            entry_size=each,
            entries_crc=array_crc,
            rest=raw[_HEADER.size :],
        )

    def pack(self) -> bytes:
        """512 bytes, with the sums as they stand."""
        return self._pack(self.crc)

    def _pack(self, crc: int) -> bytes:
        return (
            _HEADER.pack(
                SIGNATURE,
                self.revision,
                self.size,
                crc,
                self.reserved,
                self.my_lba,
                self.alternate_lba,
                self.first_usable,
                self.last_usable,
                self.guid,
                self.entries_lba,
                self.entry_count,
                self.entry_size,
                self.entries_crc,
            )
            + self.rest
        )

    @property
    def computed_crc(self) -> int:
        """The sum that ``crc`` should be: over ``size`` bytes, with itself zero."""
        return zlib.crc32(self._pack(0)[: self.size])

    @property
    def entries_size(self) -> int:
        """Bytes of the entry array."""
        return self.entry_count * self.entry_size

    @property
    def is_readable(self) -> bool:
        """Sizes are such that the rest can be read (5.3.2)."""
        return (
            _HEADER.size <= self.size <= SECTOR
            and self.entry_size >= _ENTRY.size
            and self.entry_size % 8 == 0
            and self.entries_size <= MAX_ARRAY
        )


class GptEntry(Struct, frozen=True):
    """A partition. ``first`` and ``last`` are sectors, both inside it; ``name`` UTF-16LE, zero-filled."""

    type: bytes
    guid: bytes
    first: Sector
    last: Sector
    attributes: int
    name: bytes
    rest: bytes = b""

    @classmethod
    def parse(cls, raw: bytes) -> GptEntry:
        """An entry of 128 bytes or more."""
        kind, guid, first, last, attributes, name = _ENTRY.unpack_from(raw)
        return cls(kind, guid, Sector(first), Sector(last), attributes, name, raw[_ENTRY.size :])

    def pack(self) -> bytes:
        """As many bytes as were parsed."""
        packed = _ENTRY.pack(self.type, self.guid, self.first, self.last, self.attributes, self.name)
        return packed + self.rest

    @property
    def is_used(self) -> bool:
        """False for an empty slot, whose type is all zeros."""
        return any(self.type)

    @property
    def end(self) -> Sector:
        """The sector behind the last."""
        return Sector(self.last + 1)

    @property
    def label(self) -> str:
        """The name as text."""
        return self.name.decode("utf-16-le", "replace").partition("\0")[0]


class Gpt(Struct, frozen=True):
    """One of the two copies: a header and its entry array."""

    header: GptHeader
    entries: tuple[GptEntry, ...]

    @classmethod
    def parse(cls, header: GptHeader, array: bytes) -> Gpt:
        """``array`` holds ``header.array_bytes`` bytes; the header is ``sound``."""
        each = header.entry_size
        return cls(header, tuple(GptEntry.parse(array[at : at + each]) for at in range(0, header.entries_size, each)))

    def pack_array(self) -> bytes:
        """The entry array's bytes."""
        return b"".join(entry.pack() for entry in self.entries)

    @property
    def used_entries(self) -> tuple[tuple[int, GptEntry], ...]:
        """The partitions that are there, each with its number from 1 on."""
        return tuple((number, one) for number, one in enumerate(self.entries, 1) if one.is_used)

    @property
    def computed_entries_crc(self) -> int:
        """The sum that the header's ``array_crc`` should be."""
        return zlib.crc32(self.pack_array())

    @property
    def has_valid_crcs(self) -> bool:
        """Both sums are true."""
        return (self.header.crc, self.header.entries_crc) == (self.header.computed_crc, self.computed_entries_crc)

    def moved_to(
        self, *, own: Sector, other: Sector, array: Sector, last_usable: Sector, entries: Iterable[GptEntry]
    ) -> Gpt:
        """This copy at other places and over other partitions, with its sums made anew.

        GUIDs, attributes, names, first usable sector and unknown bytes stay.
        """
        moved = Gpt(self.header, tuple(entries))
        header = replace(
            self.header,
            my_lba=own,
            alternate_lba=other,
            entries_lba=array,
            last_usable=last_usable,
            entries_crc=moved.computed_entries_crc,
        )
        return Gpt(replace(header, crc=header.computed_crc), moved.entries)


def read_gpt(read: Read, header_at: Sector, place: Place) -> Gpt | None:
    """The copy whose header stands at sector ``header_at``; None where there is no header.

    Wrong sums are the caller's to compare. :raises ImageError: its sizes make no sense, or it is cut off.
    """
    at = header_at * SECTOR
    header = GptHeader.parse(read(at, SECTOR))
    if header is None:
        return None
    if not header.is_readable:
        raise ImageError("GPT header has impossible sizes", place.at(at))
    array = read(header.entries_lba * SECTOR, header.entries_size)
    if len(array) != header.entries_size:
        raise ImageError("GPT entry array lies outside the image", place.at(at))
    return Gpt.parse(header, array)
