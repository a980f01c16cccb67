"""Pointers inside boot code: boot-info-table, grub2-boot-info, and the pointers of hybrid MBRs."""

from __future__ import annotations

import struct
import sys
from array import array
from collections.abc import Iterable

from cosremaster.records import Struct
from cosremaster.units import SECTORS_PER_BLOCK, Lba

TABLE_OFFSET = 8
TABLE_END = 64
_TABLE = struct.Struct("<4I")

GRUB2_IMAGE_OFFSET = 2548
MBR_POINTER_OFFSET = 0x1B0
GRUB2, ISOLINUX = "GRUB2 hybrid MBR", "ISOLINUX hybrid MBR"
_CODE_MARKS = ((b"isolinux.bin missing", ISOLINUX), (b"GRUB \0", GRUB2))
"""Texts in an MBR's code by which its kind is known (isohdpfx.bin of SYSLINUX, boot_hybrid.img of GRUB)."""


class BootInfoTable(Struct, frozen=True):
    """The table at byte 8 of a boot image (mkisofs(8), -boot-info-table).

    ``descriptor``: the primary volume descriptor's block. ``image``: the boot image's block; ``length``: its bytes;
    ``checksum``: the sum of its little-endian 32-bit words from byte 64 on.
    """

    descriptor: Lba
    image: Lba
    length: int
    checksum: int

    @classmethod
    def parse(cls, head: bytes) -> BootInfoTable:
        """Parse the first 64 bytes of a boot image; the caller has to compare whether they hold a table."""
        descriptor, image, length, total = _TABLE.unpack_from(head, TABLE_OFFSET)
        return cls(Lba(descriptor), Lba(image), length, total)

    def pack(self) -> bytes:
        """Return the table's 16 bytes."""
        return _TABLE.pack(self.descriptor, self.image, self.length, self.checksum)


def compute_boot_image_checksum(chunks: Iterable[bytes]) -> int:
    """Compute a boot-info-table's checksum over the boot image in ``chunks``; a partial last word is zero-filled."""
    total, skip, rest = 0, TABLE_END, b""
    for chunk in chunks:
        data = rest + chunk[skip:]
        skip = max(0, skip - len(chunk))
        whole = len(data) - len(data) % 4
        total, rest = total + _sum_words(data[:whole]), data[whole:]
    return (total + int.from_bytes(rest, "little")) & 0xFFFFFFFF


def _sum_words(data: bytes) -> int:
    """Return the sum of little-endian 32-bit words."""
    words = array("I", data)
    if sys.byteorder == "big":
        words.byteswap()
    return sum(words)


def pack_grub2_image_pointer(lba: Lba) -> bytes:
    """Return grub2-boot-info, for byte 2548 of a boot image at ``lba``: its sixth 512-byte sector (xorriso(1))."""
    return struct.pack("<Q", lba * SECTORS_PER_BLOCK + 5)


def pack_grub2_mbr_pointer(lba: Lba) -> bytes:
    """Return the pointer at byte 0x1B0 of a GRUB2 hybrid MBR: the fifth sector of the boot image (xorriso(1))."""
    return struct.pack("<Q", lba * SECTORS_PER_BLOCK + 4)


def pack_isolinux_mbr_pointer(lba: Lba) -> bytes:
    """Return the pointer at byte 432 of an ISOLINUX hybrid MBR (isohdpfx.bin): the first sector of isolinux.bin."""
    return struct.pack("<I", lba * SECTORS_PER_BLOCK)


def identify_code(code: bytes) -> str | None:
    """Return the kind of an MBR by the texts in its ``code``; None where they say nothing."""
    return next((kind for mark, kind in _CODE_MARKS if mark in code), None)


def list_pointers(code: bytes, lbas: Iterable[Lba]) -> list[tuple[str, Lba]]:
    """Return how the pointer in an MBR's ``code`` can be read: the kind of the MBR, and the block that it loads.

    ISOLINUX's sector of one block may be GRUB2's of the block before. Where the code says of which kind it is, only
    that reading counts.

    :param lbas: the first blocks of boot images.
    """
    kind, at = identify_code(code), MBR_POINTER_OFFSET
    readings: dict[tuple[str, Lba], None] = {}
    for lba in lbas:
        if kind != ISOLINUX and code[at : at + 8] == pack_grub2_mbr_pointer(lba):
            readings[GRUB2, lba] = None
        elif kind != GRUB2 and code[at : at + 4] == pack_isolinux_mbr_pointer(lba):
            readings[ISOLINUX, lba] = None
    return list(readings)


def move_pointer(code: bytes, kind: str, new: Lba) -> bytes:
    """Return an MBR's ``code`` of ``kind`` that loads the boot image at ``new``."""
    pointer = pack_grub2_mbr_pointer(new) if kind == GRUB2 else pack_isolinux_mbr_pointer(new)
    return code[:MBR_POINTER_OFFSET] + pointer + code[MBR_POINTER_OFFSET + len(pointer) :]
