"""The El Torito boot catalog ("El Torito" Bootable CD-ROM Format Specification 1.0, section 2)."""

from __future__ import annotations

import struct

from cosremaster.errors import ImageError, Place
from cosremaster.records import Struct
from cosremaster.units import SECTOR, Lba

ENTRY_SIZE = 32
BOOT_SYSTEM = b"EL TORITO SPECIFICATION"
PLATFORMS = {0x00: "BIOS", 0x01: "PowerPC", 0x02: "Mac", 0xEF: "UEFI"}
UEFI = 0xEF
"""The platform of EFI programs (UEFI 2.10, 13.3.2.1)."""
MEDIA = {0: "no emulation", 1: "1.2 MB floppy", 2: "1.44 MB floppy", 3: "2.88 MB floppy", 4: "hard disk"}

_FLOPPY_BYTES = {1: 1_228_800, 2: 1_474_560, 3: 2_949_120}
_ENTRY = struct.Struct("<BBHBxHI20s")  # figures 3 and 5: initial and section entry


class BootEntry(Struct, frozen=True):
    """An initial entry or a section entry (figures 3 and 5).

    ``raw``: its 32 bytes. ``offset``: its byte offset in the image. ``platform``: a key of :data:`PLATFORMS`.
    """

    raw: bytes
    offset: int
    platform: int

    @property
    def is_bootable(self) -> bool:
        """Whether the boot indicator is 0x88."""
        return self.raw[0] == 0x88

    @property
    def media(self) -> int:
        """The emulated medium, a key of :data:`MEDIA`."""
        return self.raw[1] & 0x0F

    @property
    def load_sectors(self) -> int:
        """The number of 512-byte sectors that firmware loads."""
        return int(_ENTRY.unpack(self.raw)[4])

    @property
    def lba(self) -> Lba:
        """The boot image's first block."""
        return Lba(int(_ENTRY.unpack(self.raw)[5]))

    @property
    def minimum_size(self) -> int:
        """The least bytes of the boot image: the sectors to load, or the emulated floppy disk."""
        return max(self.load_sectors * SECTOR, _FLOPPY_BYTES.get(self.media, 0))

    @property
    def has_no_load_size(self) -> bool:
        """Whether the entry says nothing of its image's size to UEFI firmware.

        16 bits hold the sectors of less than 32 MiB; xorriso writes 0 for a larger image. EDK2 (OVMF) takes the rest of
        the volume then, in which an appended partition does not lie.
        """
        return self.platform == UEFI and self.media == 0 and self.load_sectors == 0

    def describe(self) -> str:
        """Return platform, emulation and load size in words."""
        platform = PLATFORMS.get(self.platform, f"platform 0x{self.platform:02X}")
        media = MEDIA.get(self.media, f"media {self.media}")
        load = f"loads {self.load_sectors} sectors"
        if self.has_no_load_size:
            load = "load size 0, with which firmware such as OVMF may not boot"
        return f"{platform}, {media}, {load}{'' if self.is_bootable else ', not bootable'}"


class BootCatalog(Struct, frozen=True):
    """A boot catalog. ``length``: its bytes from block ``lba`` on. ``entries``: all boot entries, the initial first."""

    lba: Lba
    length: int
    entries: tuple[BootEntry, ...]


def find_catalog(descriptor: bytes) -> Lba | None:
    """Return the catalog's block from a boot record volume descriptor (figure 7); None if it is not El Torito's."""
    if descriptor[0] != 0 or not descriptor[7:39].startswith(BOOT_SYSTEM):
        return None
    return Lba(int.from_bytes(descriptor[71:75], "little"))


def _is_lone_entry(record: bytes) -> bool:
    """Return whether ``record`` is a boot entry that stands where a section header should (Mageia 4's media).

    EDK2 boots each bootable entry, whatever stands before it.
    """
    return record[0] == 0x88 and record[1] & 0x0F in MEDIA and not record[5] and any(record[8:12])


def parse_catalog(raw: bytes, lba: Lba, start: int, place: Place) -> BootCatalog:
    """Parse the boot catalog in ``raw``, which begins at block ``lba`` and byte ``start`` of the image.

    :raises ImageError: when its validation entry is wrong, or it does not end inside ``raw``.
    """
    validation = raw[:ENTRY_SIZE]
    words = struct.unpack("<16H", validation) if len(validation) == ENTRY_SIZE else (1,)
    if validation[:1] != b"\1" or validation[30:32] != b"\x55\xaa" or sum(words) & 0xFFFF:
        raise ImageError("El Torito boot catalog has no sound validation entry", place.at(start))

    def record(index: int) -> bytes:
        """Return the 32 bytes of record ``index``."""
        entry_bytes = raw[index * ENTRY_SIZE : (index + 1) * ENTRY_SIZE]
        if len(entry_bytes) < ENTRY_SIZE:
            raise ImageError("El Torito boot catalog does not end", place.at(start))
        return entry_bytes

    def entry(index: int, platform: int) -> BootEntry:
        """Return the boot entry in record ``index``."""
        return BootEntry(record(index), start + index * ENTRY_SIZE, platform)

    entries = [entry(1, validation[1])]
    index, more, platform = 2, True, validation[1]
    while more and (record(index)[0] in (0x90, 0x91) or _is_lone_entry(record(index))):
        header = record(index)
        if header[0] == 0x88:
            entries.append(entry(index, platform))
            index += 1
            continue
        more, platform, count = header[0] == 0x90, header[1], int.from_bytes(header[2:4], "little")
        index += 1
        for _ in range(count):
            entries.append(entry(index, platform))
            index += 1
            while record(index)[0] == 0x44:
                index += 1  # section entry extension, figure 6
    return BootCatalog(lba, (index + 1) * ENTRY_SIZE, tuple(entries))
