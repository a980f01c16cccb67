"""Decoding .xz chunk by chunk.

We walk the container ourselves and give liblzma the raw LZMA2 data, because only so are the offsets
known where damage lies and where a stream can be cut.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from cosremaster.codecs.base import Codec, SharedFront, StreamParameters
from cosremaster.codecs.lzma_module import lzma
from cosremaster.codecs.xz.blocks import XzBlock
from cosremaster.codecs.xz.container import (
    MAGIC,
    STREAM_HEADER_SIZE,
    IndexRecord,
    check_stream_footer,
    pack_index,
    parse_stream_header,
)
from cosremaster.codecs.xz.read_block import in_turn, read_block, whole_blocks
from cosremaster.codecs.xz.repack import XzParameters
from cosremaster.codecs.xz.shared import XzFront, find_shared_front
from cosremaster.errors import CorruptError
from cosremaster.io.parallel import cpu_count, ordered_map
from cosremaster.io.pieces import PieceTable
from cosremaster.io.streams import ByteReader

WHOLE_LIMIT = 1 << 25
"""Packed and plain bytes of a block that is decoded beside others; those of ``xz -T0 -6`` are below."""

IN_FLIGHT = 3 * WHOLE_LIMIT
"""So many bytes at once are held for that."""


class XzDecoding:
    """All streams of an .xz file as one plain stream.

    ``front``: what is known of the first one already; ``reader`` then stands behind it.
    """

    def __init__(self, reader: ByteReader, front: XzFront | None = None) -> None:
        self._reader = reader
        self._front = front
        self._check = front.check if front is not None else -1
        self._blocks: list[XzBlock] = list(front.blocks) if front is not None else []
        self._streams = 0
        self._plain = front.plain if front is not None else 0
        self._reached = reader.position

    @property
    def position(self) -> int:
        """What was decoded up to here; the reader may be further."""
        return self._reached

    @property
    def parameters(self) -> XzParameters:
        """The first stream's check, and every block with the places where it can be cut."""
        return XzParameters(self._check, tuple(self._blocks), self._streams)

    def chunks(self) -> Iterator[bytes]:
        """The plain bytes. :raises CorruptError: damage, or bytes that belong to no stream."""
        reader = self._reader
        while True:
            yield from self.next_stream()
            while reader.peek(4) == bytes(4):  # stream padding, section 2.2
                reader.skip(4)
            if not reader.peek(1):
                return

    def next_stream(self) -> Iterator[bytes]:
        """The plain bytes of the next stream. :raises CorruptError: damage, or no stream is there."""
        if self._front is not None:
            self._front, self._streams = None, 1
            yield from self._stream(self._check, 0)
            return
        check = parse_stream_header(self._reader.read_exactly(STREAM_HEADER_SIZE), self._reader.next_place)
        if not self._streams:
            self._check = check
        self._streams += 1
        yield from self._stream(check, len(self._blocks))

    def _stream(self, check: int, first: int) -> Iterator[bytes]:
        """One stream behind its header: blocks, of which it has those from ``first`` on already, index, footer.

        Small blocks are decoded side by side.
        """
        reader = self._reader
        while True:
            if cpu_count() > 1:
                whole = whole_blocks(reader, check, self._plain, WHOLE_LIMIT)
                most = IN_FLIGHT // WHOLE_LIMIT
                blocks = ordered_map(lambda one, stop: one.decoded(stop), in_turn(whole), min(cpu_count(), most), most)
                for block, chunks in blocks:
                    self._ended(block)
                    yield from chunks
            if reader.peek(1) == b"\0":
                reader.skip(1)
                break
            yield from read_block(reader, check, self._plain, self._ended, self._reach, aside=cpu_count() > 1)
        self._end_stream(check, [block.record for block in self._blocks[first:]])

    def _ended(self, block: XzBlock) -> None:
        self._blocks.append(block)
        self._plain = block.plain_end
        self._reach(block.end)

    def _reach(self, position: int) -> None:
        self._reached = position

    def _end_stream(self, check: int, records: list[IndexRecord]) -> None:
        """The index, whose first byte was read, and the footer."""
        reader = self._reader
        start = reader.place_at(reader.position - 1)
        index = pack_index(records)
        if b"\0" + reader.read_upto(len(index) - 1) != index:
            raise CorruptError("xz index disagrees with the blocks before it", start)
        where = reader.next_place
        check_stream_footer(reader.read_exactly(STREAM_HEADER_SIZE), check, len(index), where)


class XzCodec(Codec):
    """xz."""

    name = "xz"
    peek_size = 4096

    def sniff(self, head: bytes) -> bool:
        """The magic of section 2.1.1.1."""
        return head.startswith(MAGIC)

    def peek(self, head: bytes, count: int) -> bytes:
        """The first plain bytes; none where the head is damaged."""
        try:
            return lzma.LZMADecompressor(lzma.FORMAT_XZ).decompress(head, count)
        except lzma.LZMAError:
            return b""

    def decode(self, reader: ByteReader) -> XzDecoding:
        """Begins to decode."""
        return XzDecoding(reader)

    def shared_front(self, parameters: StreamParameters, packed: PieceTable, other: PieceTable) -> SharedFront | None:
        """Return the blocks that both streams begin with, the last of them perhaps cut at a chunk border."""
        assert isinstance(parameters, XzParameters)
        front = find_shared_front(parameters, packed, other)
        return SharedFront(front.end, front.plain, lambda reader: XzDecoding(reader, front)) if front else None

    def load(self, values: dict[str, Any]) -> XzParameters:
        """What ``dump`` wrote."""
        return XzParameters.load(values)
