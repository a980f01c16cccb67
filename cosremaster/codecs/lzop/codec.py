"""lzop: members in a row, each a header and blocks of LZO1X. Read only: nothing but lzop itself writes it.

The container has no specification but lzop's own source (1.04, ``lzop.c`` and ``conf.h``) and its reader in the kernel
(lib/decompress_unlzo.c). Numbers are big-endian.
"""

from __future__ import annotations

import zlib
from bisect import bisect_right
from collections.abc import Callable, Iterator
from typing import Any

from msgspec import Struct

from cosremaster.codecs.base import Codec, PackedParameters, RepackJob, RepackResult
from cosremaster.codecs.lzop.lzo1x import LzoError, expand, expand_some
from cosremaster.errors import CorruptError, Place, UnsupportedError
from cosremaster.io.pieces import PieceTable
from cosremaster.io.streams import ByteReader

MAGIC = b"\x89LZO\x00\r\n\x1a\n"
MAX_BLOCK = 64 << 20
"""Plain bytes of a block, as lzop bounds them."""

ADLER_PLAIN, ADLER_PACKED, CRC_PLAIN, CRC_PACKED = 0x1, 0x2, 0x100, 0x200
EXTRA, MULTIPART, FILTER, HEADER_CRC = 0x40, 0x400, 0x800, 0x1000
_LEVELS = 0x0940  # the version from which on headers tell level, needed version and the time's upper half
_METHODS = (1, 2, 3)  # LZO1X-1, LZO1X-1(15), LZO1X-999: one format


class LzopBlock(Struct, frozen=True):
    """A block of ``start`` (bytes of the packed stream, at its sizes) and the plain bytes from ``plain`` on; ``flags``
    are its member's."""

    start: int
    plain: int
    flags: int


class LzopParameters(PackedParameters, frozen=True):
    """All blocks, so that decoding can begin at any."""

    blocks: tuple[LzopBlock, ...]

    name = "lzop"
    refusal = "is packed by lzop, which is read and not written; pack it again as gzip, xz or zstd first"

    def describe(self) -> str:
        """That it cannot be written."""
        return "read only"

    def decode_from(self, packed: PieceTable, offset: int, place: Place) -> tuple[int, Iterator[bytes]]:
        """See :class:`~cosremaster.codecs.base.StreamParameters`: from the beginning of a block."""
        number = bisect_right(self.blocks, offset, key=lambda block: block.plain) - 1
        block = self.blocks[number] if number > 0 else None
        start = block.start if block is not None else 0
        reader = ByteReader(packed.cut(start, packed.length).chunks(), place)
        reader.origin = start
        return block.plain if block is not None else 0, LzopDecoding(reader, block).chunks()

    def dump(self) -> dict[str, Any]:
        """All blocks."""
        return {"blocks": [[block.start, block.plain, block.flags] for block in self.blocks]}

    def repack(self, job: RepackJob) -> RepackResult:
        """:raises UnsupportedError: always."""
        raise UnsupportedError(self.refusal)


class LzopDecoding:
    """All members as one plain stream; ``inside``: the block that ``reader`` stands at, when it is no header."""

    def __init__(self, reader: ByteReader, inside: LzopBlock | None = None) -> None:
        self._reader = reader
        self._base = reader.position
        self._plain = 0
        self._blocks: list[LzopBlock] = []
        self._inside = inside

    @property
    def position(self) -> int:
        """What was decoded up to here."""
        return self._reader.position

    @property
    def parameters(self) -> LzopParameters:
        """The blocks."""
        return LzopParameters(tuple(self._blocks))

    def next_stream(self) -> Iterator[bytes]:
        """The plain bytes of the next member. :raises CorruptError: damage. :raises UnsupportedError: a filter."""
        reader = self._reader
        flags = _header(reader) if self._inside is None else self._inside.flags
        self._inside = None
        while True:
            start = reader.position
            size = _number(reader)
            if not size:
                return
            self._blocks.append(LzopBlock(start - self._base, self._plain, flags))
            plain = _block(reader, size, flags, start)
            self._plain += size
            yield plain

    def chunks(self) -> Iterator[bytes]:
        """The plain bytes of all members. :raises CorruptError: damage, or bytes that belong to no member."""
        while True:
            yield from self.next_stream()
            for chunk in self._reader.read_rest():
                rest = chunk.lstrip(b"\0")
                if rest:
                    self._reader.unread(rest)
                    break
            if not self._reader.peek(1):
                return


def _number(reader: ByteReader, size: int = 4) -> int:
    return int.from_bytes(reader.read_exactly(size), "big")


def _header(reader: ByteReader) -> int:
    """The flags of the member whose header begins where ``reader`` stands; that is then at its first block."""
    start = reader.position
    if reader.read_upto(len(MAGIC)) != MAGIC:
        raise CorruptError("bytes that are no lzop stream", reader.place_at(start))
    seen = bytearray()

    def number(size: int) -> int:
        seen.extend(reader.read_exactly(size))
        return int.from_bytes(seen[-size:], "big")

    version = number(2)
    number(2)  # of the library
    newer = version >= _LEVELS
    if newer:
        number(2)  # the version needed
    method = number(1)
    if newer:
        number(1)  # level
    flags = number(4)
    if flags & FILTER:
        number(4)
    number(8)  # mode, time
    if newer:
        number(4)
    if length := number(1):
        number(length)
    check = zlib.crc32 if flags & HEADER_CRC else zlib.adler32
    if _number(reader) != check(bytes(seen)):
        raise CorruptError("lzop header check does not fit", reader.place_at(start))
    if method not in _METHODS:
        raise UnsupportedError(f"lzop method {method} is not supported", reader.place_at(start))
    if flags & (FILTER | MULTIPART):
        what = "under a filter" if flags & FILTER else "in several parts"
        raise UnsupportedError(f"lzop data {what} is not supported", reader.place_at(start))
    if flags & EXTRA:
        reader.skip(_number(reader) + 4)  # and its check; lzop never wrote any
    return flags


def _block(reader: ByteReader, size: int, flags: int, start: int) -> bytes:
    """The ``size`` plain bytes of the block whose first four bytes, at ``start``, were just read."""
    packed_size = _number(reader)
    if size > MAX_BLOCK or not 0 < packed_size <= size:
        raise CorruptError(f"lzop block of {packed_size:,} bytes for {size:,}", reader.place_at(start))
    on_plain = _sums(reader, flags & ADLER_PLAIN, flags & CRC_PLAIN)
    on_packed = _sums(reader, flags & ADLER_PACKED, flags & CRC_PACKED) if packed_size < size else []
    begin = reader.position
    packed = reader.read_exactly(packed_size)
    if any(check(packed) != value for check, value in on_packed):
        raise CorruptError("check of an lzop block's packed bytes does not fit", reader.place_at(start))
    try:
        plain = expand(packed, size) if packed_size < size else packed
    except LzoError as error:
        raise CorruptError(f"corrupt lzop data: the block {error}", reader.place_at(begin + error.at)) from error
    if any(check(plain) != value for check, value in on_plain):
        raise CorruptError("check of an lzop block does not fit", reader.place_at(start))
    return plain


def _sums(reader: ByteReader, adler: int, crc: int) -> list[tuple[Callable[[bytes], int], int]]:
    """The checks that stand where ``reader`` does: Adler-32, then CRC32, each if its flag is set."""
    found: list[tuple[Callable[[bytes], int], int]] = []
    if adler:
        found.append((zlib.adler32, _number(reader)))
    if crc:
        found.append((zlib.crc32, _number(reader)))
    return found


class LzopCodec(Codec):
    """lzop."""

    name = "lzop"
    peek_size = 4096

    def sniff(self, head: bytes) -> bool:
        """The magic."""
        return head.startswith(MAGIC)

    def peek(self, head: bytes, count: int) -> bytes:
        """The first plain bytes of the first block; none where the header is damaged."""
        reader = ByteReader([head], Place())
        try:
            flags = _header(reader)
            size, packed_size = _number(reader), _number(reader)
            _sums(reader, flags & ADLER_PLAIN, flags & CRC_PLAIN)
            if packed_size >= size:
                return reader.read_upto(count)
            _sums(reader, flags & ADLER_PACKED, flags & CRC_PACKED)
        except (CorruptError, UnsupportedError):
            return b""
        return expand_some(reader.read_upto(packed_size), min(size, MAX_BLOCK), count)

    def decode(self, reader: ByteReader) -> LzopDecoding:
        """Begins to decode."""
        return LzopDecoding(reader)

    def load(self, values: dict[str, Any]) -> LzopParameters:
        """What ``dump`` wrote."""
        return LzopParameters(
            tuple(LzopBlock(int(start), int(plain), int(flags)) for start, plain, flags in values["blocks"])
        )
