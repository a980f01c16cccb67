"""Boot headers of firmware other than a PC's, in the first sectors of the system area.

They are recognized and told, never rewritten: the layouts are those of libisofs' collection ("Collection of Boot
Sector Formats for ISO 9660 Images", boot_sectors.txt), checked against what xorriso writes.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from msgspec import Struct

from cosremaster.boot.mbr import Mbr
from cosremaster.errors import printable
from cosremaster.units import SECTOR

PREP, CHRP = 0x41, 0x96
"""MBR partition types of IBM's PowerPC firmware: a raw boot program, and the whole volume."""

_SUN_CYLINDER_SECTORS = struct.Struct(">HH")  # heads, sectors of a track


class FirmwareTarget(Struct, frozen=True):
    """What a header points at. ``field``: where in the image the pointer stands; all counts are bytes.

    ``length`` is 0 where the header tells none.
    """

    name: str
    pointer_offset: int
    start: int
    length: int


class FirmwareHeader(Struct, frozen=True):
    """A header that was found. ``sound``: its own sum holds; None for those that have none."""

    name: str
    targets: tuple[FirmwareTarget, ...]
    has_valid_checksum: bool | None = None


def find_firmware(area: bytes, mbr: Mbr | None) -> tuple[FirmwareHeader, ...]:
    """The headers in ``area``, the image's first bytes (2,048 or more); ``mbr`` is its MBR where it has one."""
    head = area[:SECTOR].ljust(SECTOR, b"\0")
    return tuple(
        found
        for found in (_mips(head), _mipsel(head), _sun(head), _palo(head), _alpha(head), _powerpc(mbr))
        if found is not None
    )


def _mips(head: bytes) -> FirmwareHeader | None:
    """MIPS volume header, for SGI: a volume directory of 15 names; all big-endian words add up to zero."""
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


def _mipsel(head: bytes) -> FirmwareHeader | None:
    """DEC boot block, for DECstations: a boot map of counts and starts in sectors, ended by an empty entry."""
    if head[8:12] != b"\x7a\x75\x02\x00":
        return None
    targets = []
    for at in range(24, SECTOR - 7, 8):
        count, start = struct.unpack_from("<II", head, at)
        if not start:
            break
        targets.append(FirmwareTarget("boot segment", at + 4, start * SECTOR, count * SECTOR))
    return FirmwareHeader("DEC boot block", tuple(targets))


def _sun(head: bytes) -> FirmwareHeader | None:
    """Sun disk label: eight slices that begin at cylinders; the exclusive or of all words is zero."""
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


def _palo(head: bytes) -> FirmwareHeader | None:
    """PALO header, for HP-PA: byte addresses and lengths."""
    if head[:6] != b"\x80\0PALO":
        return None
    fields = (("32-bit kernel", 8), ("ramdisk", 16), ("64-bit kernel", 232), ("boot loader", 240))
    found = ((what, at, *struct.unpack_from(">II", head, at)) for what, at in fields)
    return FirmwareHeader("HP-PA PALO header", tuple(FirmwareTarget(*one) for one in found if one[3]))


def _alpha(head: bytes) -> FirmwareHeader | None:
    """DEC Alpha SRM boot block: a count and a start in sectors; the last word is the sum of the 63 before it.

    It has no magic number: the sum and a loader that lies behind the system area tell it.
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


def _powerpc(mbr: Mbr | None) -> FirmwareHeader | None:
    """PReP and CHRP: partitions of the MBR."""
    return next((FirmwareHeader(name, tuple(found)) for name, found in _powerpc_partitions(mbr) if found), None)


def _powerpc_partitions(mbr: Mbr | None) -> Iterator[tuple[str, list[FirmwareTarget]]]:
    for name, kind in (("PReP", PREP), ("CHRP", CHRP)):
        yield (
            name,
            [
                FirmwareTarget(
                    f"MBR partition {number}", 446 + 16 * (number - 1) + 8, one.start * SECTOR, one.count * SECTOR
                )
                for number, one in (mbr.used_partitions if mbr else ())
                if one.type == kind
            ],
        )
