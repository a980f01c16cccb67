"""Decoding .xz chunk by chunk, and encoding it in independent blocks on several threads.

We walk the container ourselves and give liblzma the raw LZMA2 data, because only so are the offsets
known where damage lies and where a stream could be cut.
"""

from __future__ import annotations

import lzma
from collections.abc import Iterator
from dataclasses import dataclass

from cosremaster.codecs.base import Job
from cosremaster.codecs.checks import NAMES, SIZES, RunningCheck
from cosremaster.codecs.xz_container import (
    MAGIC,
    STREAM_HEADER_SIZE,
    BlockHeader,
    BlockRecord,
    Chunk,
    check_stream_footer,
    pack_index,
    pack_stream_footer,
    pack_stream_header,
    parse_stream_header,
)
from cosremaster.errors import CorruptError, Place, UnsupportedError
from cosremaster.parallel import Stop, ordered_map
from cosremaster.pieces import Literal, Piece, PieceTable
from cosremaster.streams import CHUNK, ByteReader
from cosremaster.units import human

PRESET = 6
PRESET_DICT = 8 << 20
"""The dictionary of preset 6 (xz(1)); a larger one would take more memory than promised."""

MIN_DICT = 4096
BLOCK_DICTS = 3
"""A block holds three dictionaries of plain bytes, as ``xz -T0`` makes them."""


@dataclass(frozen=True, slots=True)
class XzForm:
    """What packing anew must keep: the check type (an id of :mod:`checks`) and the largest dictionary."""

    check: int
    dict_size: int
    blocks: int
    streams: int
    name: str = "xz"

    def describe(self) -> str:
        """Check, dictionary, blocks and streams."""
        text = f"{NAMES[self.check]}, dictionary {human(self.dict_size)}, "
        text += "1 block" if self.blocks == 1 else f"{self.blocks} blocks"
        return text + (f", {self.streams} streams" if self.streams != 1 else "")

    def pack(self, job: Job) -> PieceTable:
        """One stream of independent blocks; the same bytes for any number of threads."""
        dict_size = max(MIN_DICT, min(self.dict_size or PRESET_DICT, PRESET_DICT))
        reader = ByteReader(job.plain.chunks(), Place())

        def blocks() -> Iterator[bytes]:
            while block := reader.upto(BLOCK_DICTS * dict_size):
                yield block

        def encode(block: bytes, stop: Stop) -> EncodedBlock:
            return encode_block(block, self.check, dict_size, stop)

        pieces: list[Piece] = [Literal(pack_stream_header(self.check))]
        records: list[BlockRecord] = []
        for done in ordered_map(encode, blocks(), job.threads):
            pieces.append(job.spool.append(done.parts, packed=True))
            records.append(done.record)
            job.advance(done.record.plain)
        index = pack_index(records)
        pieces.append(Literal(index + pack_stream_footer(self.check, len(index))))
        return PieceTable(pieces)


@dataclass(frozen=True, slots=True)
class EncodedBlock:
    """A block ready to be written, padding included, and its index record."""

    parts: tuple[bytes, ...]
    record: BlockRecord


def encode_block(plain: bytes, check: int, dict_size: int, stop: Stop) -> EncodedBlock:
    """``plain`` as one block with its sizes in the header. :raises CancelledError: ``stop`` was set."""
    filters = [{"id": lzma.FILTER_LZMA2, "preset": PRESET, "dict_size": dict_size}]
    maker = lzma.LZMACompressor(format=lzma.FORMAT_RAW, filters=filters)
    parts = []
    for start in range(0, len(plain), CHUNK):
        stop.check()
        parts.append(maker.compress(memoryview(plain)[start : start + CHUNK]))
    data = b"".join((*parts, maker.flush()))
    running = RunningCheck(check)
    running.update(plain)
    header = BlockHeader.make(len(data), len(plain), dict_size)
    record = BlockRecord(len(header.raw) + len(data) + SIZES[check], len(plain))
    return EncodedBlock((header.raw, data, bytes(-len(data) % 4), running.value()), record)


class XzDecoding:
    """All streams of an .xz file as one plain stream."""

    def __init__(self, reader: ByteReader) -> None:
        self._reader = reader
        self._check = -1
        self._dict_size = 0
        self._blocks = 0
        self._streams = 0

    @property
    def form(self) -> XzForm:
        """The first stream's check, the largest dictionary of all blocks, and how many there were."""
        return XzForm(self._check, self._dict_size, self._blocks, self._streams)

    def chunks(self) -> Iterator[bytes]:
        """The plain bytes. :raises CorruptError: damage, or bytes that belong to no stream."""
        reader = self._reader
        while True:
            check = parse_stream_header(reader.exactly(STREAM_HEADER_SIZE), reader.here)
            if not self._streams:
                self._check = check
            self._streams += 1
            yield from self._stream(check)
            while reader.peek(4) == bytes(4):  # stream padding, section 2.2
                reader.skip(4)
            if not reader.peek(1):
                return

    def _stream(self, check: int) -> Iterator[bytes]:
        """One stream behind its header: blocks, index, footer."""
        reader, records = self._reader, list[BlockRecord]()
        while (size := reader.exactly(1))[0]:
            where = reader.place.at(reader.position - 1)
            header = BlockHeader.parse(size + reader.exactly(size[0] * 4 + 3), where)
            self._blocks += 1
            packed = plain = 0
            running = RunningCheck(check)
            start = reader.position
            for chunk in self._block(header, where):
                running.update(chunk)
                plain += len(chunk)
                yield chunk
            packed = reader.position - start
            self._end_block(header, where, packed, plain, running.value())
            records.append(BlockRecord(len(header.raw) + packed + SIZES[check], plain))
        self._end_stream(check, records)

    def _block(self, header: BlockHeader, where: Place) -> Iterator[bytes]:
        """The plain bytes of one block, LZMA2 chunk by chunk."""
        reader = self._reader
        filters = header.decoder_filters(where)
        self._dict_size = max(self._dict_size, header.dict_size)
        try:
            decoder = lzma.LZMADecompressor(format=lzma.FORMAT_RAW, filters=filters)
        except lzma.LZMAError as error:
            raise UnsupportedError(f"xz filter chain is not supported ({error})", where) from error
        while True:
            at = reader.here
            control = reader.exactly(1)
            data = control
            if control[0]:
                head = control + reader.exactly(Chunk.header_size(control[0], at) - 1)
                data = head + reader.exactly(Chunk.parse(head).size)
            try:
                plain = decoder.decompress(data)
            except lzma.LZMAError as error:
                raise CorruptError(f"corrupt xz data in the LZMA2 chunk here ({error})", at) from error
            if plain:
                yield plain
            if not control[0]:
                if not decoder.eof:
                    raise CorruptError("xz block ends inside its data", at)
                return

    def _end_block(self, header: BlockHeader, where: Place, packed: int, plain: int, value: bytes) -> None:
        """Block padding and check (sections 3.3, 3.4), and the sizes the header promised."""
        reader = self._reader
        if header.packed not in (None, packed) or header.plain not in (None, plain):
            raise CorruptError("xz block header tells other sizes than the block has", where)
        if any(reader.exactly(-packed % 4)):
            raise CorruptError("xz block is not padded with zeros", reader.here)
        at = reader.here
        if reader.exactly(len(value)) != value:
            raise CorruptError("xz block check does not fit the data", at)

    def _end_stream(self, check: int, records: list[BlockRecord]) -> None:
        """The index, whose first byte was read, and the footer."""
        reader = self._reader
        start = reader.place.at(reader.position - 1)
        index = pack_index(records)
        if b"\0" + reader.upto(len(index) - 1) != index:
            raise CorruptError("xz index disagrees with the blocks before it", start)
        where = reader.here
        check_stream_footer(reader.exactly(STREAM_HEADER_SIZE), check, len(index), where)


class XzCodec:
    """xz."""

    name = "xz"

    def sniff(self, head: bytes) -> bool:
        """The magic of section 2.1.1.1."""
        return head.startswith(MAGIC)

    def first(self, head: bytes, count: int) -> bytes:
        """The first plain bytes; none where the head is damaged."""
        try:
            return lzma.LZMADecompressor(lzma.FORMAT_XZ).decompress(head, count)
        except lzma.LZMAError:
            return b""

    def decode(self, reader: ByteReader) -> XzDecoding:
        """Begins to decode."""
        return XzDecoding(reader)
