"""Boot headers for firmware other than a PC's, in the first sectors of the system area.

They are recognized and reported, never rewritten. The layouts are those of libisofs' collection ("Collection of Boot
Sector Formats for ISO 9660 Images", boot_sectors.txt), checked against what xorriso writes.
"""

from __future__ import annotations

import struct

from cosremaster.boot.mbr import ENTRY_SIZE, TABLE, Mbr
from cosremaster.errors import printable
from cosremaster.records import Struct
from cosremaster.units import SECTOR

PREP, CHRP = 0x41, 0x96
"""MBR partition types for IBM's PowerPC firmware: PReP is a raw boot program, CHRP the whole volume."""

_SUN_CYLINDER_SECTORS = struct.Struct(">HH")  # heads, sectors of a track


class FirmwareTarget(Struct, frozen=True):
    """What a boot header points at. Offsets and lengths count bytes.

    ``pointer_offset``: the pointer's offset in the image. ``length``: 0 where the header has none.
    """

    name: str
    pointer_offset: int
    start: int
    length: int


class FirmwareHeader(Struct, frozen=True):
    """A boot header. ``has_valid_checksum``: None for a header without a checksum."""

    name: str
    targets: tuple[FirmwareTarget, ...]
    has_valid_checksum: bool | None = None


def find_firmware(area: bytes, mbr: Mbr | None) -> tuple[FirmwareHeader, ...]:
    """Return the boot headers in ``area``, the image's first 2,048 bytes or more; ``mbr``: the image's MBR, if any."""
    head = area[:SECTOR].ljust(SECTOR, b"\0")
    headers = (
        _parse_mips(head), _parse_mipsel(head), _parse_sun(head), _parse_palo(head), _parse_alpha(head),
        _find_powerpc(mbr),
    )  # fmt: skip
    return tuple(header for header in headers if header is not None)


def _parse_mips(head: bytes) -> FirmwareHeader | None:
    """Parse a MIPS volume header, for SGI: a volume directory of 15 names; all big-endian words add up to zero."""
    if head[:4] != b"\x0b\xe5\xa9\x41":
        return None
    targets = []
    for at in range(72, 312, 16):
        name, block, length = struct.unpack_from(">8sII", head, at)
        if length:
            targets.append(
                FirmwareTarget(f"boot file {printable(name.rstrip(bytes(1)))}", at + 8, block * SECTOR, length)
            )
    for at in range(312, 504, 12):
        count, start, kind = struct.unpack_from(">III", head, at)
        if count:
            targets.append(FirmwareTarget(f"partition of type {kind}", at, start * SECTOR, count * SECTOR))
    return FirmwareHeader(
        "MIPS volume header", tuple(targets), sum(struct.unpack(">127I", head[:508])) & 0xFFFFFFFF == 0
    )


def _parse_mipsel(head: bytes) -> FirmwareHeader | None:
    """Parse a DEC boot block, for DECstations: a boot map of counts and starts in sectors, ended by an empty entry."""
    if head[8:12] != b"\x7a\x75\x02\x00":
        return None
    targets = []
    for at in range(24, SECTOR - 7, 8):
        count, start = struct.unpack_from("<II", head, at)
        if not start:
            break
        targets.append(FirmwareTarget("boot segment", at + 4, start * SECTOR, count * SECTOR))
    return FirmwareHeader("DEC boot block", tuple(targets))


def _parse_sun(head: bytes) -> FirmwareHeader | None:
    """Parse a Sun disk label: eight slices that begin at cylinders; the exclusive or of all words is zero."""
    if head[508:510] != b"\xda\xbe":
        return None
    heads, track = _SUN_CYLINDER_SECTORS.unpack_from(head, 436)
    targets = []
    for number, at in enumerate(range(444, 508, 8), 1):
        cylinder, count = struct.unpack_from(">II", head, at)
        if count:
            start = cylinder * heads * track * SECTOR
            targets.append(FirmwareTarget(f"slice {number}", at, start, count * SECTOR))
    total = 0
    for word in struct.unpack(">256H", head):
        total ^= word
    return FirmwareHeader("Sun disk label", tuple(targets), total == 0)


def _parse_palo(head: bytes) -> FirmwareHeader | None:
    """Parse a PALO header, for HP-PA: byte addresses and lengths."""
    if head[:6] != b"\x80\0PALO":
        return None
    fields = (("32-bit kernel", 8), ("ramdisk", 16), ("64-bit kernel", 232), ("boot loader", 240))
    targets = (FirmwareTarget(name, at, *struct.unpack_from(">II", head, at)) for name, at in fields)
    return FirmwareHeader("HP-PA PALO header", tuple(target for target in targets if target.length))


def _parse_alpha(head: bytes) -> FirmwareHeader | None:
    """Parse a DEC Alpha SRM boot block: a count and a start in sectors; the last word is the sum of the 63 before it.

    It has no magic number. It is recognized by aboot's text, or by a true sum over words that are not all zero.
    """
    words = struct.unpack("<64Q", head)
    count, start = words[60], words[61]
    marked = head.startswith(b"Linux/Alpha aboot")
    holds = sum(words[:63]) & 0xFFFFFFFFFFFFFFFF == words[63]
    if not (marked or (holds and any(head))) or not count or not start:
        return None
    return FirmwareHeader(
        "DEC Alpha boot block", (FirmwareTarget("boot loader", 488, start * SECTOR, count * SECTOR),), holds
    )


def _find_powerpc(mbr: Mbr | None) -> FirmwareHeader | None:
    """Return the PReP partitions of the MBR as a header, else its CHRP partitions, None without either."""
    for name, partition_type in (("PReP", PREP), ("CHRP", CHRP)):
        targets = [
            FirmwareTarget(
                f"MBR partition {number}", TABLE + ENTRY_SIZE * (number - 1) + 8,
                partition.start * SECTOR, partition.count * SECTOR,
            )
            for number, partition in (mbr.used_partitions if mbr else ())
            if partition.type == partition_type
        ]  # fmt: skip
        if targets:
            return FirmwareHeader(name, tuple(targets))
    return None
