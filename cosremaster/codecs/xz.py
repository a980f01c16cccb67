"""Decoding .xz chunk by chunk.

We walk the container ourselves and give liblzma the raw LZMA2 data, because only so are the offsets
known where damage lies and where a stream can be cut.
"""

from __future__ import annotations

import lzma
from collections.abc import Iterator
from typing import Any

from cosremaster.codecs.checks import SIZES, RunningCheck
from cosremaster.codecs.xz_blocks import OldBlock
from cosremaster.codecs.xz_container import (
    MAGIC,
    STREAM_HEADER_SIZE,
    BlockHeader,
    BlockRecord,
    Chunk,
    check_stream_footer,
    pack_index,
    parse_stream_header,
)
from cosremaster.codecs.xz_form import XzForm
from cosremaster.errors import CorruptError, Place, UnsupportedError
from cosremaster.streams import ByteReader


class XzDecoding:
    """All streams of an .xz file as one plain stream."""

    def __init__(self, reader: ByteReader) -> None:
        self._reader = reader
        self._base = reader.position  # blocks count from where these streams begin, not the file
        self._check = -1
        self._blocks: list[OldBlock] = []
        self._streams = 0
        self._plain = 0

    @property
    def form(self) -> XzForm:
        """The first stream's check, and every block with the places where it can be cut."""
        return XzForm(self._check, tuple(self._blocks), self._streams)

    def chunks(self) -> Iterator[bytes]:
        """The plain bytes. :raises CorruptError: damage, or bytes that belong to no stream."""
        reader = self._reader
        while True:
            yield from self.stream()
            while reader.peek(4) == bytes(4):  # stream padding, section 2.2
                reader.skip(4)
            if not reader.peek(1):
                return

    def stream(self) -> Iterator[bytes]:
        """The plain bytes of the next stream. :raises CorruptError: damage, or no stream is there."""
        check = parse_stream_header(self._reader.exactly(STREAM_HEADER_SIZE), self._reader.here)
        if not self._streams:
            self._check = check
        self._streams += 1
        yield from self._stream(check)

    def _stream(self, check: int) -> Iterator[bytes]:
        """One stream behind its header: blocks, index, footer."""
        reader, records = self._reader, list[BlockRecord]()
        while (size := reader.exactly(1))[0]:
            start = reader.position - 1
            where = reader.place.at(start)
            header = BlockHeader.parse(size + reader.exactly(size[0] * 4 + 3), where)
            block = OldBlock(header, check, start - self._base, reader.position - self._base, self._plain)
            running = RunningCheck(check)
            for chunk in self._block(header, where, block, running):
                running.update(chunk)
                self._plain += len(chunk)
                yield chunk
            packed = reader.position - self._base - block.data
            plain = self._plain - block.plain
            self._end_block(header, where, packed, plain, running.value())
            records.append(BlockRecord(len(header.raw) + packed + SIZES[check], plain))
            self._blocks.append(block.ended(reader.position - self._base, records[-1]))
        self._end_stream(check, records)

    def _block(self, header: BlockHeader, where: Place, block: OldBlock, running: RunningCheck) -> Iterator[bytes]:
        """The plain bytes of one block, LZMA2 chunk by chunk; each chunk's place is noted in ``block``."""
        reader = self._reader
        filters = header.decoder_filters(where)
        try:
            decoder = lzma.LZMADecompressor(format=lzma.FORMAT_RAW, filters=filters)
        except lzma.LZMAError as error:
            raise UnsupportedError(f"xz filter chain is not supported ({error})", where) from error
        while True:
            at = reader.here
            block.cuts.note(reader.position - self._base, self._plain, running)
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
    reach = 4096

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

    def load(self, values: dict[str, Any]) -> XzForm:
        """What ``dump`` wrote."""
        return XzForm.load(values)
