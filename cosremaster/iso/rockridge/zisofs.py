"""Files that are compressed on an image as Linux reads them: zisofs, marked by Rock Ridge's ZF field.

Specification: libisofs, doc/zisofs_format.txt. Its second version, which only xorriso reads (algorithm "PZ"), is
left as the bytes that stand there.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator

from msgspec import Struct

from cosremaster.errors import CorruptError, Place
from cosremaster.io.pieces import PieceTable, Range
from cosremaster.io.streams import sha256_of

MAGIC = bytes.fromhex("37E45396C9DBD607")
ALGORITHM = b"pz"
HEADER_SIZE = 16
BLOCK_BITS = range(15, 18)
"""What readers handle; writers make no others."""
POINTER = 4


class ZisofsFile(Struct, frozen=True):
    """The plain bytes of one compressed file, ``size`` of them in blocks of ``1 << bits``.

    ``packed``: the bytes on the image; ``place``: the file, whose offsets in errors count in those.
    """

    packed: PieceTable
    size: int
    bits: int
    place: Place

    @property
    def name(self) -> str:
        """The file's place."""
        return str(self.place)

    def table(self) -> PieceTable:
        """The plain bytes."""
        return PieceTable([Range(self, 0, self.size)])

    def digest(self) -> bytes:
        """SHA-256 of the plain bytes."""
        return sha256_of(self.table().chunks())

    def head(self, count: int) -> bytes:
        """The first ``count`` plain bytes, or all when there are fewer."""
        return b"".join(self.chunks(0, min(count, self.size)))

    def chunks(self, offset: int, length: int) -> Iterator[bytes]:
        """``length`` plain bytes from ``offset``. :raises CorruptError: the file is damaged, with the place."""
        pointers = self._pointers()
        end = offset + length
        while offset < end:
            number, inside = offset >> self.bits, offset & ((1 << self.bits) - 1)
            block = self._block(number, pointers[number], pointers[number + 1])
            part = block[inside : inside + end - offset]
            offset += len(part)
            yield part

    def _pointers(self) -> list[int]:
        """Where each block begins in the packed bytes, and where the last one ends."""
        header = MAGIC + self.size.to_bytes(4, "little") + bytes((HEADER_SIZE >> 2, self.bits))
        if self._at(0, len(header)) != header:
            raise CorruptError("zisofs header is not what the ZF field says", self.place.at(0))
        count = -(-self.size >> self.bits) + 1
        raw = self._at(HEADER_SIZE, count * POINTER)
        pointers = [int.from_bytes(raw[at : at + POINTER], "little") for at in range(0, len(raw), POINTER)]
        reached = HEADER_SIZE + count * POINTER
        for number, pointer in enumerate(pointers):
            if not reached <= pointer <= self.packed.length:
                where = self.place.at(HEADER_SIZE + number * POINTER)
                raise CorruptError(f"zisofs block pointer leads to byte {pointer:,}", where)
            reached = pointer
        return pointers

    def _at(self, start: int, length: int) -> bytes:
        if start + length > self.packed.length:
            raise CorruptError("zisofs file ends inside its block pointers", self.place.at(self.packed.length))
        return self.packed.read(start, length)

    def _block(self, number: int, start: int, end: int) -> bytes:
        """One plain block; an empty one is zeros."""
        length = min(1 << self.bits, self.size - (number << self.bits))
        if start == end:
            return bytes(length)
        inflate = zlib.decompressobj()
        try:
            plain = inflate.decompress(self._at(start, end - start), length + 1)
        except zlib.error as error:
            raise CorruptError(f"zisofs block {number} is damaged ({error})", self.place.at(start)) from error
        if len(plain) != length or not inflate.eof:
            raise CorruptError(f"zisofs block {number} does not hold {length:,} bytes", self.place.at(start))
        return plain


def parse_zisofs(field: bytes, packed: PieceTable, place: Place) -> ZisofsFile | None:
    """The file whose ZF field holds ``field`` behind its four first bytes; None if it is of a kind not known here."""
    if len(field) < 12 or field[:2] != ALGORITHM or field[2] != HEADER_SIZE >> 2 or field[3] not in BLOCK_BITS:
        return None
    return ZisofsFile(packed, int.from_bytes(field[4:8], "little"), field[3], place)
