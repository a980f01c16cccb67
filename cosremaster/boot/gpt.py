"""The GUID partition table (UEFI specification 2.10, section 5.3): headers, partition entry arrays, and their CRCs."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterable

from cosremaster.errors import ImageError, Place
from cosremaster.records import Struct, astuple, replace
from cosremaster.units import SECTOR, Sector

SIGNATURE = b"EFI PART"
PRIMARY = Sector(1)
"""The sector of the primary header (5.3.1)."""

MAX_ARRAY = 1 << 20
"""The most bytes of an entry array that is read; the usual array has 16 KiB."""

_HEADER = struct.Struct("<8s4I4Q16sQ3I")  # table 5.5
_ENTRY = struct.Struct("<16s16s3Q72s")  # table 5.6

Read = Callable[[int, int], bytes]
"""Returns bytes of the image, by offset and length; fewer at the image's end."""


def format_guid(raw: bytes) -> str:
    """Return a GUID as text; its first three fields are little-endian (UEFI 2.10, appendix A)."""
    parts = (raw[3::-1], raw[5:3:-1], raw[7:5:-1], raw[8:10], raw[10:16])
    return "-".join(part.hex().upper() for part in parts)


class GptHeader(Struct, frozen=True):
    """A header (5.3.2); its fields in the order of table 5.5. LBAs count sectors of 512 bytes.

    ``my_lba``: the sector of this header; ``alternate_lba``: of the other one; ``entries_lba``: of the entry array.
    ``size``: the bytes that ``crc`` covers. ``rest``: the bytes of the sector behind the fields.
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
        """Parse a header of 512 bytes; return None where the signature is missing."""
        if len(raw) != SECTOR or not raw.startswith(SIGNATURE):
            return None
        fields = (*_HEADER.unpack_from(raw)[1:], raw[_HEADER.size :])
        return cls(*fields)

    def pack(self) -> bytes:
        """Return the header's 512 bytes, with its CRCs as they are."""
        return self._pack(self.crc)

    def _pack(self, crc: int) -> bytes:
        """Return the header's 512 bytes with ``crc`` as its CRC."""
        return _HEADER.pack(SIGNATURE, *astuple(replace(self, crc=crc))[:-1]) + self.rest

    @property
    def computed_crc(self) -> int:
        """The CRC that the header should have: over ``size`` bytes, with the CRC field zero."""
        return zlib.crc32(self._pack(0)[: self.size])

    @property
    def entries_size(self) -> int:
        """The bytes of the entry array."""
        return self.entry_count * self.entry_size

    @property
    def is_readable(self) -> bool:
        """Whether the sizes are such that the entry array can be read (5.3.2)."""
        return (
            _HEADER.size <= self.size <= SECTOR
            and self.entry_size >= _ENTRY.size
            and self.entry_size % 8 == 0
            and self.entries_size <= MAX_ARRAY
        )


class GptEntry(Struct, frozen=True):
    """A partition entry, its fields in the order of table 5.6.

    ``first`` and ``last``: its sectors, inclusive. ``name``: UTF-16LE, zero-filled.
    """

    type: bytes
    guid: bytes
    first: Sector
    last: Sector
    attributes: int
    name: bytes
    rest: bytes = b""

    @classmethod
    def parse(cls, raw: bytes) -> GptEntry:
        """Parse an entry of 128 bytes or more."""
        fields = (*_ENTRY.unpack_from(raw), raw[_ENTRY.size :])
        return cls(*fields)

    def pack(self) -> bytes:
        """Return as many bytes as were parsed."""
        return _ENTRY.pack(*astuple(self)[:-1]) + self.rest

    @property
    def is_used(self) -> bool:
        """Whether it describes a partition; the type of an unused entry is all zeros."""
        return any(self.type)

    @property
    def end(self) -> Sector:
        """The sector behind the last one."""
        return Sector(self.last + 1)

    @property
    def label(self) -> str:
        """The name as text."""
        return self.name.decode("utf-16-le", "replace").partition("\0")[0]


class Gpt(Struct, frozen=True):
    """A copy of the partition table, primary or backup: a header and its entry array.

    ``read_at``: the sector in which the header was found, where that is known.
    """

    header: GptHeader
    entries: tuple[GptEntry, ...]
    read_at: Sector | None = None

    @classmethod
    def parse(cls, header: GptHeader, array: bytes, read_at: Sector | None = None) -> Gpt:
        """Parse an entry ``array`` of ``header.entries_size`` bytes; the header has to be readable."""
        each = header.entry_size
        entries = (GptEntry.parse(array[at : at + each]) for at in range(0, header.entries_size, each))
        return cls(header, tuple(entries), read_at)

    @property
    def sector(self) -> Sector:
        """The sector of the header."""
        return self.header.my_lba if self.read_at is None else self.read_at

    @property
    def is_in_place(self) -> bool:
        """Whether the header stands where it says; systems ignore one that does not (5.3.2)."""
        return self.header.my_lba == self.sector

    @property
    def is_backup(self) -> bool:
        """Whether it is a backup: it stands elsewhere than the primary copy."""
        return self.sector != PRIMARY

    @property
    def entries_end(self) -> Sector:
        """The sector behind the entry array."""
        return Sector(self.header.entries_lba + -(-self.header.entries_size // SECTOR))

    def pack_array(self) -> bytes:
        """Return the bytes of the entry array."""
        return b"".join(entry.pack() for entry in self.entries)

    @property
    def used_entries(self) -> tuple[tuple[int, GptEntry], ...]:
        """The entries that describe a partition, each with its number from 1 on."""
        return tuple((number, entry) for number, entry in enumerate(self.entries, 1) if entry.is_used)

    @property
    def computed_entries_crc(self) -> int:
        """The CRC that the header should have for the entry array."""
        return zlib.crc32(self.pack_array())

    @property
    def valid_crcs(self) -> tuple[bool, bool]:
        """Whether the header's CRC is right, and whether that of the entry array is."""
        return self.header.crc == self.header.computed_crc, self.header.entries_crc == self.computed_entries_crc

    @property
    def has_valid_crcs(self) -> bool:
        """Whether both CRCs are right."""
        return all(self.valid_crcs)

    def moved_to(
        self,
        *,
        my_lba: Sector,
        alternate_lba: Sector,
        entries_lba: Sector,
        last_usable: Sector,
        entries: Iterable[GptEntry],
    ) -> Gpt:
        """Return this copy at other sectors and with other entries, and with new CRCs where they were right.

        A wrong CRC stays, and a sector of its own that the header had wrong: whoever checks them ignores this copy, and
        damage must not look sound. GUIDs, attributes, names, first usable sector and unknown bytes stay.
        """
        moved = Gpt(self.header, tuple(entries))
        has_valid_header, has_valid_array = self.valid_crcs
        header = replace(
            self.header,
            my_lba=my_lba if self.is_in_place else self.header.my_lba,
            alternate_lba=alternate_lba,
            entries_lba=entries_lba,
            last_usable=last_usable,
            entries_crc=moved.computed_entries_crc if has_valid_array else self.header.entries_crc,
        )
        return Gpt(replace(header, crc=header.computed_crc) if has_valid_header else header, moved.entries, my_lba)


def choose_copy(copies: Iterable[Gpt]) -> Gpt | None:
    """Return the copy that counts (5.3.2): the first one that is sound and where it says, else the first one."""
    copies = list(copies)
    return next((copy for copy in copies if copy.has_valid_crcs and copy.is_in_place), copies[0] if copies else None)


def read_gpt(read: Read, header_at: Sector, place: Place) -> Gpt | None:
    """Read the copy with its header in sector ``header_at``; return None where there is no header.

    CRCs are not checked, see :attr:`Gpt.has_valid_crcs`.

    :raises ImageError: when its sizes make no sense, or the image ends inside it.
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
    return Gpt.parse(header, array, header_at)


def read_last_gpt(read: Read, size: int, place: Place) -> Gpt | None:
    """Read the copy in the last sector of ``size`` bytes; return None where none is there that systems use (5.3.2)."""
    header_at = Sector(size // SECTOR - 1)
    try:
        copy = read_gpt(read, header_at, place) if header_at > PRIMARY else None
    except ImageError:
        return None
    return copy if copy is not None and copy.has_valid_crcs and copy.is_in_place else None
