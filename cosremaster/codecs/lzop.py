"""lzop: concatenated members, each a header and blocks of LZO1X.

The container has no specification but lzop's own source (1.04, ``lzop.c`` and ``conf.h``) and its reader in the kernel
(lib/decompress_unlzo.c). Numbers are big-endian.
"""

from __future__ import annotations

import struct
import zlib
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from cosremaster.codecs.base import Codec, Count, PackedParameters, RepackJob, RepackResult
from cosremaster.codecs.frames import Frame, parts_of, repack_frames
from cosremaster.codecs.lzo import LzoError, compress, expand
from cosremaster.errors import CorruptError, Place, UnsupportedError
from cosremaster.io.pieces import Literal, PieceTable
from cosremaster.io.streams import ByteReader
from cosremaster.records import Struct, replace
from cosremaster.records.json import convert

MAGIC = b"\x89LZO\x00\r\n\x1a\n"
MAX_BLOCK = 64 << 20
"""The largest block of lzop, in plain bytes."""

NEW_BLOCK = 256 << 10
"""Plain bytes of a new block: those of lzop's own, and the most that kernels take (lib/decompress_unlzo.c)."""
HEADER_MAX = 4096
"""Bytes that hold any header: the longest name has 255."""

_NUMBER = struct.Struct(">I")

ADLER_PLAIN, ADLER_PACKED, CRC_PLAIN, CRC_PACKED = 0x1, 0x2, 0x100, 0x200
EXTRA, MULTIPART, FILTER, HEADER_CRC = 0x40, 0x400, 0x800, 0x1000
CHECKS = ADLER_PLAIN | ADLER_PACKED | CRC_PLAIN | CRC_PACKED
_LEVELS = 0x0940  # the first version whose headers have the level, the required version and the upper half of the time
_METHODS = (1, 2, 3)  # LZO1X-1, LZO1X-1(15), LZO1X-999: one format


class LzopBlock(Struct, frozen=True):
    """A block of a member.

    :ivar start: the packed offset of its sizes, which are before its data; ``end``: that behind its data.
    :ivar plain: the offset of its plain bytes; ``size``: how many.
    :ivar flags: those of the member.
    """

    start: int
    end: int
    plain: int
    size: int
    flags: int


class LzopParameters(PackedParameters, frozen=True):
    """The blocks of all members; decoding can begin at each.

    :ivar header: the magic and the header of the first member, with its check.
    :ivar flags: those of the first member.
    """

    header: bytes
    flags: int
    blocks: tuple[LzopBlock, ...]

    name = "lzop"

    @property
    def parts(self) -> Sequence[tuple[int, int]]:
        """The blocks."""
        return parts_of(self._find_frames())

    def cut_refusal(self, *, by_kernel: bool) -> str | None:
        """Return None: kernels too read a short block anywhere."""
        return None

    def describe(self) -> str:
        """Return the number of blocks."""
        return f"{len(self.blocks):,} blocks"

    def decode_from(self, packed: PieceTable, offset: int, place: Place) -> tuple[int, Iterator[bytes]]:
        """Begin to decode at the beginning of a block."""
        number = bisect_right(self.blocks, offset, key=lambda block: block.plain) - 1
        block = self.blocks[number] if number > 0 else None
        start = block.start if block is not None else 0
        reader = ByteReader(packed.cut(start, packed.length).chunks(), place)
        reader.origin = start
        return block.plain if block is not None else 0, LzopDecoding(reader, block).chunks()

    def dump(self) -> dict[str, Any]:
        """Return the first header and all blocks as JSON values."""
        rows = [[block.start, block.end, block.plain, block.size, block.flags] for block in self.blocks]
        return {"header": self.header.hex(), "flags": self.flags, "blocks": rows}

    def check_sizes(self, packed: int, plain: int | None) -> None:
        """Check that the blocks follow one another. :raises ValueError: they do not, or are those of another stream."""
        end = offset = 0
        for block in self.blocks:
            if not end <= block.start < block.end or block.plain != offset:
                raise ValueError("blocks do not follow one another")
            end, offset = block.end, block.plain + block.size
        if end > packed or plain not in (None, offset):
            raise ValueError("blocks of another stream")

    def _find_frames(self) -> tuple[Frame, ...]:
        """Return the blocks that can stand behind the first header: those with the checks that it announces."""
        return tuple(
            Frame(block.start, block.end, block.plain, block.size)
            for block in self.blocks
            if block.flags & CHECKS == self.flags & CHECKS
        )

    def repack(self, job: RepackJob) -> RepackResult:
        """Pack one member behind the first header: blocks stay where their plain bytes do."""
        if job.cutting is not None and job.cutting.size > NEW_BLOCK:
            job = replace(job, cutting=replace(job.cutting, size=NEW_BLOCK))
        blocks = repack_frames(job, self._find_frames(), NEW_BLOCK, lambda plain: _encode_block(plain, self.flags))
        return replace(blocks, table=PieceTable([Literal(self.header), *blocks.table.pieces, Literal(bytes(4))]))


def _encode_block(plain: bytes, flags: int) -> bytes:
    """Return a block that holds ``plain``, with the checks of ``flags``; what does not shrink is stored."""
    packed = compress(plain)
    is_stored = len(packed) >= len(plain)
    block = _NUMBER.pack(len(plain)) + _NUMBER.pack(len(plain) if is_stored else len(packed))
    block += _make_checks(plain, flags & ADLER_PLAIN, flags & CRC_PLAIN)
    if is_stored:
        return block + plain
    return block + _make_checks(packed, flags & ADLER_PACKED, flags & CRC_PACKED) + packed


def _make_checks(data: bytes, adler: int, crc: int) -> bytes:
    """Return the checks of ``data``, Adler-32 and CRC32, each if its flag is set."""
    checks = (zlib.adler32,) * bool(adler) + (zlib.crc32,) * bool(crc)
    return b"".join(_NUMBER.pack(check(data)) for check in checks)


class LzopDecoding:
    """Decodes all members as one stream."""

    def __init__(self, reader: ByteReader, first: LzopBlock | None = None) -> None:
        """Begin where ``reader`` stands: at block ``first``, or at a header where that is None."""
        self._reader = reader
        self._base = reader.position
        self._plain = 0
        self._blocks: list[LzopBlock] = []
        self._first = first
        self._header, self._flags = b"", 0

    @property
    def position(self) -> int:
        """The packed offset up to which everything was decoded."""
        return self._reader.position

    @property
    def parameters(self) -> LzopParameters:
        """The blocks so far."""
        return LzopParameters(self._header, self._flags, tuple(self._blocks))

    def next_stream(self) -> Iterator[bytes]:
        """Yield the plain bytes of the next member.

        :raises CorruptError: it is damaged.
        :raises UnsupportedError: it is under a filter or one of several parts.
        """
        reader = self._reader
        if self._first is None:
            header, flags = _read_header(reader)
            if not self._header:
                self._header, self._flags = header, flags
        else:
            flags, self._first = self._first.flags, None
        while True:
            start = reader.position
            size = _read_number(reader)
            if not size:
                return
            plain = _read_block(reader, size, flags, start)
            end = reader.position - self._base
            self._blocks.append(LzopBlock(start - self._base, end, self._plain, size, flags))
            self._plain += size
            yield plain

    def chunks(self) -> Iterator[bytes]:
        """Yield the plain bytes of all members. :raises CorruptError: damage, or bytes that belong to no member."""
        while True:
            yield from self.next_stream()
            self._reader.skip_zeros()
            if not self._reader.peek(1):
                return


def _read_number(reader: ByteReader, size: int = 4) -> int:
    """Return the next number, which is big-endian."""
    return int.from_bytes(reader.read_exactly(size), "big")


def _read_header(reader: ByteReader) -> tuple[bytes, int]:
    """Read a member's header and return it, with magic and check, and its flags; ``reader`` is then at the first block.

    A header that announces an extra field is returned without it, and does not announce it then.
    """
    start = reader.position
    if reader.read_upto(len(MAGIC)) != MAGIC:
        raise CorruptError("bytes that are no lzop stream", reader.place_at(start))
    header = bytearray()

    def number(size: int) -> int:
        """Return the next number of the header."""
        header.extend(reader.read_exactly(size))
        return int.from_bytes(header[-size:], "big")

    version = number(2)
    number(2)  # of the library
    has_level = version >= _LEVELS
    if has_level:
        number(2)  # the required version
    method = number(1)
    if has_level:
        number(1)  # level
    flags_at, flags = len(header), number(4)
    if flags & FILTER:
        number(4)
    number(8)  # mode, time
    if has_level:
        number(4)
    if length := number(1):
        number(length)
    check = zlib.crc32 if flags & HEADER_CRC else zlib.adler32
    if _read_number(reader) != check(bytes(header)):
        raise CorruptError("lzop header check does not fit", reader.place_at(start))
    if method not in _METHODS:
        raise UnsupportedError(f"lzop method {method} is not supported", reader.place_at(start))
    if flags & (FILTER | MULTIPART):
        kind = "under a filter" if flags & FILTER else "in several parts"
        raise UnsupportedError(f"lzop data {kind} is not supported", reader.place_at(start))
    if flags & EXTRA:
        reader.skip(_read_number(reader) + 4)  # the extra field and its check; lzop never wrote one
        flags &= ~EXTRA
        header[flags_at : flags_at + 4] = _NUMBER.pack(flags)
    return MAGIC + header + _NUMBER.pack(check(bytes(header))), flags


def _read_block(reader: ByteReader, size: int, flags: int, start: int) -> bytes:
    """Return the ``size`` plain bytes of the block whose first four bytes, at ``start``, were just read."""
    packed_size = _read_number(reader)
    if size > MAX_BLOCK or not 0 < packed_size <= size:
        raise CorruptError(f"lzop block of {packed_size:,} bytes for {size:,}", reader.place_at(start))
    plain_checks = _read_checks(reader, flags & ADLER_PLAIN, flags & CRC_PLAIN)
    packed_checks = _read_checks(reader, flags & ADLER_PACKED, flags & CRC_PACKED) if packed_size < size else []
    begin = reader.position
    packed = reader.read_exactly(packed_size)
    if any(check(packed) != value for check, value in packed_checks):
        raise CorruptError("check of an lzop block's packed bytes does not fit", reader.place_at(start))
    try:
        plain = expand(packed, size) if packed_size < size else packed
    except LzoError as error:
        raise CorruptError(f"corrupt lzop data: the block {error}", reader.place_at(begin)) from error
    if any(check(plain) != value for check, value in plain_checks):
        raise CorruptError("check of an lzop block does not fit", reader.place_at(start))
    return plain


def _read_checks(reader: ByteReader, adler: int, crc: int) -> list[tuple[Callable[[bytes], int], int]]:
    """Read the checks at ``reader``, Adler-32 and CRC32, each if its flag is set; return functions and values."""
    checks: list[tuple[Callable[[bytes], int], int]] = []
    if adler:
        checks.append((zlib.adler32, _read_number(reader)))
    if crc:
        checks.append((zlib.crc32, _read_number(reader)))
    return checks


class LzopCodec(Codec):
    """The lzop format."""

    name = "lzop"
    peek_size = HEADER_MAX + NEW_BLOCK

    def sniff(self, head: bytes) -> bool:
        """Return whether there is the magic."""
        return head.startswith(MAGIC)

    def peek(self, head: bytes, count: int) -> bytes:
        """Return the first plain bytes of the first block, or none where the head does not hold it whole."""
        reader = ByteReader([head], Place())
        try:
            _, flags = _read_header(reader)
            size, packed_size = _read_number(reader), _read_number(reader)
            _read_checks(reader, flags & ADLER_PLAIN, flags & CRC_PLAIN)
            if packed_size >= size:
                return reader.read_upto(count)
            _read_checks(reader, flags & ADLER_PACKED, flags & CRC_PACKED)
            return expand(reader.read_exactly(packed_size), min(size, MAX_BLOCK))[:count]
        except (CorruptError, UnsupportedError, LzoError):
            return b""

    def decode(self, reader: ByteReader) -> LzopDecoding:
        """Begin to decode."""
        return LzopDecoding(reader)

    def load(self, values: dict[str, Any]) -> LzopParameters:
        """Return the parameters that ``dump`` made ``values`` of."""
        rows = convert(values["blocks"], tuple[tuple[Count, Count, Count, Count, Count], ...])
        blocks = tuple(LzopBlock(*row) for row in rows)
        return LzopParameters(bytes.fromhex(convert(values["header"], str)), convert(values["flags"], Count), blocks)
