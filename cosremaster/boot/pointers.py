"""Pointers that boot code carries inside itself: boot-info-table, grub2-boot-info, hybrid MBR pointers."""

from __future__ import annotations

import struct
import sys
from array import array
from collections.abc import Iterable

from msgspec import Struct

from cosremaster.units import SECTORS_PER_BLOCK, Lba

TABLE_OFFSET = 8
TABLE_END = 64
_TABLE = struct.Struct("<4I")

GRUB2_IMAGE_OFFSET = 2548
MBR_POINTER_OFFSET = 0x1B0


class BootInfoTable(Struct, frozen=True):
    """Byte 8 of a boot image (mkisofs(8), -boot-info-table): where it and the volume descriptor stand.

    ``length`` is the image's length in bytes; ``total`` the sum of its little-endian 32-bit words from byte
    64 on.
    """

    descriptor: Lba
    image: Lba
    length: int
    checksum: int

    @classmethod
    def parse(cls, head: bytes) -> BootInfoTable:
        """From the first 64 bytes of a boot image; whether they hold a table is for the caller to compare."""
        descriptor, image, length, total = _TABLE.unpack_from(head, TABLE_OFFSET)
        return cls(Lba(descriptor), Lba(image), length, total)

    def pack(self) -> bytes:
        """Sixteen bytes for byte 8 of the image."""
        return _TABLE.pack(self.descriptor, self.image, self.length, self.checksum)


def compute_boot_image_checksum(chunks: Iterable[bytes]) -> int:
    """The sum that a boot-info-table holds, over a whole boot image; a last partial word is zero-filled."""
    total, skip, rest = 0, TABLE_END, b""
    for chunk in chunks:
        data = rest + chunk[skip:]
        skip = max(0, skip - len(chunk))
        whole = len(data) - len(data) % 4
        total, rest = total + _words(data[:whole]), data[whole:]
    return (total + int.from_bytes(rest, "little")) & 0xFFFFFFFF


def _words(data: bytes) -> int:
    """The sum of little-endian 32-bit words."""
    words = array("I", data)
    if sys.byteorder == "big":
        words.byteswap()
    return sum(words)


def pack_grub2_image_pointer(lba: Lba) -> bytes:
    """grub2-boot-info: byte 2548 of an image at ``lba`` holds the sector behind its first (xorriso(1))."""
    return struct.pack("<Q", lba * SECTORS_PER_BLOCK + 5)


def pack_grub2_mbr_pointer(lba: Lba) -> bytes:
    """GRUB2 hybrid MBR: byte 0x1B0 holds the second sector of the boot image at ``lba`` (xorriso(1))."""
    return struct.pack("<Q", lba * SECTORS_PER_BLOCK + 4)


def pack_isolinux_mbr_pointer(lba: Lba) -> bytes:
    """ISOLINUX hybrid MBR (isohdpfx.bin): byte 432 holds the first sector of isolinux.bin at ``lba``."""
    return struct.pack("<I", lba * SECTORS_PER_BLOCK)


def identify_pointer(code: bytes, lba: Lba) -> str | None:
    """What an MBR with ``code`` is, in words, if it loads the boot image at ``lba``; None if it does not."""
    at = MBR_POINTER_OFFSET
    if code[at : at + 8] == pack_grub2_mbr_pointer(lba):
        return "GRUB2 hybrid MBR"
    return "ISOLINUX hybrid MBR" if code[at : at + 4] == pack_isolinux_mbr_pointer(lba) else None


def move_pointer(code: bytes, old: Lba, new: Lba) -> bytes:
    """An MBR's ``code`` that loaded the boot image at ``old``, now that it stands at ``new``."""
    pack = (
        pack_grub2_mbr_pointer
        if code[MBR_POINTER_OFFSET : MBR_POINTER_OFFSET + 8] == pack_grub2_mbr_pointer(old)
        else (pack_isolinux_mbr_pointer)
    )
    pointer = pack(new)
    return code[:MBR_POINTER_OFFSET] + pointer + code[MBR_POINTER_OFFSET + len(pointer) :]
