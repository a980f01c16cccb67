"""Read files that are compressed on an image by zisofs, which a ZF field of Rock Ridge marks and Linux uncompresses.

Specification: libisofs, doc/zisofs_format.txt. Files of its second version (algorithm "PZ"), which only xorriso reads,
keep the bytes that are on the image.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator

from cosremaster.errors import CorruptError, Place
from cosremaster.io.pieces import PieceTable
from cosremaster.records import Struct

MAGIC = bytes.fromhex("37E45396C9DBD607")
ALGORITHM = b"pz"
HEADER_SIZE = 16
BLOCK_BITS = range(15, 18)
"""The block sizes, as powers of two, that readers handle; writers make no others."""
POINTER = 4


class ZisofsFile(Struct, frozen=True):
    """A compressed file, as a source of its ``size`` uncompressed bytes in blocks of ``1 << bits``.

    ``packed``: the bytes on the image; ``place``: the file's place. Offsets in errors count the bytes on the image.
    """

    packed: PieceTable
    size: int
    bits: int
    place: Place

    @property
    def name(self) -> str:
        """The file's place."""
        return str(self.place)

    def chunks(self, offset: int, length: int) -> Iterator[bytes]:
        """Yield ``length`` uncompressed bytes from ``offset`` on. :raises CorruptError: when the file is damaged."""
        pointers = self._read_pointers()
        end = offset + length
        while offset < end:
            number, inside = offset >> self.bits, offset & ((1 << self.bits) - 1)
            block = self._read_block(number, pointers[number], pointers[number + 1])
            part = block[inside : inside + end - offset]
            offset += len(part)
            yield part

    def _read_pointers(self) -> list[int]:
        """Return the offset of each block in the compressed bytes, and the end of the last one."""
        header = MAGIC + self.size.to_bytes(4, "little") + bytes((HEADER_SIZE >> 2, self.bits))
        if self._read_packed(0, len(header)) != header:
            raise CorruptError("zisofs header is not what the ZF field says", self.place.at(0))
        count = -(-self.size >> self.bits) + 1
        raw = self._read_packed(HEADER_SIZE, count * POINTER)
        pointers = [int.from_bytes(raw[at : at + POINTER], "little") for at in range(0, len(raw), POINTER)]
        reached = HEADER_SIZE + count * POINTER
        for number, pointer in enumerate(pointers):
            if not reached <= pointer <= self.packed.length:
                place = self.place.at(HEADER_SIZE + number * POINTER)
                raise CorruptError(f"zisofs block pointer leads to byte {pointer:,}", place)
            reached = pointer
        return pointers

    def _read_packed(self, start: int, length: int) -> bytes:
        """Return ``length`` compressed bytes from ``start`` on. :raises CorruptError: when the file ends before."""
        if start + length > self.packed.length:
            raise CorruptError("zisofs file ends inside its block pointers", self.place.at(self.packed.length))
        return self.packed.read(start, length)

    def _read_block(self, number: int, start: int, end: int) -> bytes:
        """Return an uncompressed block; a block without compressed bytes is zeros."""
        length = min(1 << self.bits, self.size - (number << self.bits))
        if start == end:
            return bytes(length)
        inflate = zlib.decompressobj()
        try:
            plain = inflate.decompress(self._read_packed(start, end - start), length + 1)
        except zlib.error as error:
            raise CorruptError(f"zisofs block {number} is damaged ({error})", self.place.at(start)) from error
        if len(plain) != length or not inflate.eof:
            raise CorruptError(f"zisofs block {number} does not hold {length:,} bytes", self.place.at(start))
        return plain


def parse_zisofs(field: bytes, packed: PieceTable, place: Place) -> ZisofsFile | None:
    """Return a compressed file by the data of its ZF field; None for an algorithm that Linux does not read."""
    if len(field) < 12 or field[:2] != ALGORITHM or field[2] != HEADER_SIZE >> 2 or field[3] not in BLOCK_BITS:
        return None
    return ZisofsFile(packed, int.from_bytes(field[4:8], "little"), field[3], place)
