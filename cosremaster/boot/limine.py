"""Limine's stage 2 on a BIOS disk: two halves that its MBR names by byte offset (Limine, limine.c and bootsect.asm).

With a GPT, ``limine bios-install`` puts one half behind the entries of each of both partition arrays, the second one so
at the end of the image. With an MBR alone both halves follow the MBR. Stage 2 looks for its files by their names.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

from cosremaster.records import Struct
from cosremaster.units import SECTOR

STAGE2_OFFSET = 0x1A4
"""The byte of the MBR at which the sizes and the places of both halves stand."""
STAGE2_END = 0x1B8
_STAGE2 = struct.Struct("<HHQQ")
_SIGNATURE = b"\x55\xaa"


class LimineStage2(Struct, frozen=True):
    """The halves of stage 2. ``halves``: byte offset and bytes of each."""

    halves: tuple[tuple[int, int], tuple[int, int]]

    @classmethod
    def parse(cls, sector: bytes, read: Callable[[int, int], bytes], size: int) -> LimineStage2 | None:
        """Parse the first ``sector`` of an image of ``size`` bytes; return None if it is not Limine's.

        :param read: returns bytes of the image, by offset and length.
        """
        if len(sector) < SECTOR or sector[SECTOR - 2 :] != _SIGNATURE:
            return None
        first_size, second_size, first, second = _STAGE2.unpack_from(sector, STAGE2_OFFSET)
        halves = ((first, first_size), (second, second_size))
        if first_size - second_size not in (0, SECTOR):
            return None
        for start, length in halves:
            is_inside = start >= SECTOR and start + length <= size
            if not (length and is_inside and start % SECTOR == length % SECTOR == 0):
                return None
            if not read(start, length).strip(b"\0"):
                return None
        return cls(halves)

    def pack(self) -> bytes:
        """Return the bytes of the MBR that name the halves."""
        (first, first_size), (second, second_size) = self.halves
        return _STAGE2.pack(first_size, second_size, first, second)
