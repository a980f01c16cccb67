"""Decoding .xz chunk by chunk.

The container is read here and liblzma gets the raw LZMA2 data: only then are the offsets of damage known, and those at
which a stream can be cut.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

from cosremaster.codecs.base import Codec, SharedFront, StreamParameters
from cosremaster.codecs.lzma_module import lzma
from cosremaster.codecs.peek import peek_streams
from cosremaster.codecs.xz.blocks import XzBlock
from cosremaster.codecs.xz.container import (
    MAGIC,
    STREAM_HEADER_SIZE,
    IndexRecord,
    check_stream_footer,
    pack_index,
    parse_stream_header,
)
from cosremaster.codecs.xz.read_block import read_block, whole_blocks
from cosremaster.codecs.xz.repack import XzParameters
from cosremaster.codecs.xz.shared import XzFront, find_shared_front
from cosremaster.errors import CorruptError
from cosremaster.io.ordered_streams import ordered_streams
from cosremaster.io.parallel import cpu_count
from cosremaster.io.pieces import PieceTable
from cosremaster.io.streams import ByteReader

WHOLE_LIMIT = 1 << 25
"""The most packed bytes, and the most plain ones, of a block that is decoded beside others; those of ``xz -T0 -6`` have
fewer."""

ROOM, THREADS = 24 << 20, 3
"""The bytes that may be in memory for that, for each thread; and the most threads."""


class XzDecoding:
    """Decodes all streams of an .xz file as one stream."""

    def __init__(self, reader: ByteReader, front: XzFront | None = None) -> None:
        """Begin where ``reader`` stands: behind ``front``, which is known already, or at a stream header."""
        self._reader = reader
        self._front = front
        self._check = front.check if front is not None else -1
        self._blocks: list[XzBlock] = list(front.blocks) if front is not None else []
        self._streams = 0
        self._plain = front.plain if front is not None else 0
        self._position = reader.position

    @property
    def position(self) -> int:
        """The packed offset up to which everything was decoded; the reader may be further."""
        return self._position

    @property
    def parameters(self) -> XzParameters:
        """The first stream's check, and all blocks with their chunk borders."""
        return XzParameters(self._check, tuple(self._blocks), self._streams)

    def chunks(self) -> Iterator[bytes]:
        """Yield the plain bytes. :raises CorruptError: damage, or bytes that belong to no stream."""
        reader = self._reader
        while True:
            yield from self.next_stream()
            while reader.peek(4) == bytes(4):  # stream padding, section 2.2
                reader.skip(4)
            if not reader.peek(1):
                return

    def next_stream(self) -> Iterator[bytes]:
        """Yield the plain bytes of the next stream. :raises CorruptError: damage, or there is no stream."""
        if self._front is not None:
            self._front, self._streams = None, 1
            yield from self._decode_blocks(self._check, 0)
            return
        check = parse_stream_header(self._reader.read_exactly(STREAM_HEADER_SIZE), self._reader.next_place)
        if not self._streams:
            self._check = check
        self._streams += 1
        yield from self._decode_blocks(check, len(self._blocks))

    def _decode_blocks(self, check: int, first: int) -> Iterator[bytes]:
        """Yield the plain bytes of a stream behind its header, and check its index and footer.

        Small blocks are decoded at the same time. ``first``: the number of the stream's first block.
        """
        reader = self._reader
        while True:
            if cpu_count() > 1:
                yield from self._decode_beside(check)
            if reader.peek(1) == b"\0":
                reader.skip(1)
                break
            yield from read_block(
                reader, check, self._plain, self._add_block, self._set_position, on_threads=cpu_count() > 1
            )
        self._end_stream(check, [block.record for block in self._blocks[first:]])

    def _decode_beside(self, check: int) -> Iterator[bytes]:
        """Yield the plain bytes of the next blocks, as many as can be decoded at the same time."""
        threads = min(cpu_count(), THREADS)
        blocks = whole_blocks(self._reader, check, self._plain, WHOLE_LIMIT)
        for chunks, block in ordered_streams(blocks, threads, threads * ROOM):
            for offset, chunk in chunks:
                self._set_position(offset)
                yield chunk
            if block is not None:
                self._add_block(block)

    def _add_block(self, block: XzBlock) -> None:
        """Record a block that was decoded to its end."""
        self._blocks.append(block)
        self._plain = block.plain_end
        self._set_position(block.end)

    def _set_position(self, position: int) -> None:
        """Record the packed offset up to which everything was decoded."""
        self._position = position

    def _end_stream(self, check: int, records: list[IndexRecord]) -> None:
        """Check the index, whose first byte was read, and the footer."""
        reader = self._reader
        start = reader.place_at(reader.position - 1)
        index = pack_index(records)
        if b"\0" + reader.read_upto(len(index) - 1) != index:
            raise CorruptError("xz index disagrees with the blocks before it", start)
        place = reader.next_place
        check_stream_footer(reader.read_exactly(STREAM_HEADER_SIZE), check, len(index), place)


class XzCodec(Codec):
    """The .xz format."""

    name = "xz"
    peek_size = 4096

    def sniff(self, head: bytes) -> bool:
        """Return whether there is the magic of section 2.1.1.1."""
        return head.startswith(MAGIC)

    def peek(self, head: bytes, count: int) -> bytes:
        """Return the first plain bytes, fewer where the head is damaged."""
        return peek_streams(partial(lzma.LZMADecompressor, lzma.FORMAT_XZ), (lzma.LZMAError,), head, count)

    def decode(self, reader: ByteReader) -> XzDecoding:
        """Begin to decode."""
        return XzDecoding(reader)

    def shared_front(self, parameters: StreamParameters, packed: PieceTable, other: PieceTable) -> SharedFront | None:
        """Return the blocks that both streams begin with, the last of them perhaps cut at a chunk border."""
        assert isinstance(parameters, XzParameters)
        front = find_shared_front(parameters, packed, other)
        return SharedFront(front.end, front.plain, lambda reader: XzDecoding(reader, front)) if front else None

    def load(self, values: dict[str, Any]) -> XzParameters:
        """Return the parameters that ``dump`` made ``values`` of."""
        return XzParameters.load(values)
