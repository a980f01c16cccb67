""".lzma ("LZMA_alone"; lzma-file-format.txt of XZ Utils): one LZMA stream behind 13 bytes. Packed anew as a whole."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from cosremaster.codecs.base import Codec, PackedParameters, RepackJob, RepackResult
from cosremaster.codecs.frames import pack_one
from cosremaster.codecs.lzma_module import lzma
from cosremaster.codecs.rows import FrameDecoding, decode_frame, plain_from_frame
from cosremaster.errors import CorruptError, Place
from cosremaster.io.pieces import PieceTable
from cosremaster.io.streams import ByteReader

HEADER_SIZE = 13
PRESET = 6
MAX_PROPERTIES = 225  # (pb * 5 + lp) * 9 + lc, section 1.1.1


class LzmaParameters(PackedParameters, frozen=True):
    """``properties``: lc, lp and pb as the header's first byte has them; ``dictionary_size``: bytes."""

    properties: int
    dictionary_size: int

    name = "lzma"

    def describe(self) -> str:
        """Dictionary."""
        return f"dictionary {self.dictionary_size:,} bytes"

    def decode_from(self, packed: PieceTable, offset: int, place: Place) -> tuple[int, Iterator[bytes]]:
        """See :class:`~cosremaster.codecs.base.StreamParameters`: always from the beginning."""
        return plain_from_frame(packed, (), offset, place, LzmaDecoding)

    def dump(self) -> dict[str, Any]:
        """Properties and dictionary."""
        return {"properties": self.properties, "dict_size": self.dictionary_size}

    def repack(self, job: RepackJob) -> RepackResult:
        """One stream with the old properties and dictionary, of unknown size with an end marker, as xz writes it."""
        rest, lc = divmod(self.properties, 9)
        pb, lp = divmod(rest, 5)
        preset = PRESET if job.preset is None else job.preset
        dict_size = max(4096, min(self.dictionary_size, 1 << 30))
        filters = [{"id": lzma.FILTER_LZMA1, "preset": preset, "dict_size": dict_size, "lc": lc, "lp": lp, "pb": pb}]
        maker = lzma.LZMACompressor(lzma.FORMAT_ALONE, filters=filters)
        return pack_one(job, maker.compress, maker.flush)


class LzmaDecoding(FrameDecoding):
    """The stream."""

    def __init__(self, reader: ByteReader) -> None:
        super().__init__(reader, self._frame, "lzma")
        self._head = bytes(HEADER_SIZE)

    @property
    def parameters(self) -> LzmaParameters:
        """What the header says."""
        return LzmaParameters(self._head[0], int.from_bytes(self._head[1:5], "little"))

    def _frame(self, reader: ByteReader) -> Iterator[bytes]:
        head = reader.peek(HEADER_SIZE)
        if len(head) < HEADER_SIZE or head[0] >= MAX_PROPERTIES:
            raise CorruptError("bytes that are no lzma stream", reader.next_place)
        self._head = head
        try:
            decompressor = lzma.LZMADecompressor(lzma.FORMAT_ALONE)
        except lzma.LZMAError as error:  # pragma: no cover
            raise CorruptError(f"corrupt lzma data ({error})", reader.next_place) from error
        yield from decode_frame(reader, decompressor, "lzma", (lzma.LZMAError, EOFError))


class LzmaCodec(Codec):
    """.lzma."""

    name = "lzma"
    peek_size = 4096

    def sniff(self, head: bytes) -> bool:
        """It has no magic: the default properties, a dictionary of whole KiB, a size below 2**40 or unknown."""
        size = head[5:HEADER_SIZE]
        return head.startswith(b"\x5d\0") and len(size) == 8 and (size == b"\xff" * 8 or not any(size[5:]))

    def peek(self, head: bytes, count: int) -> bytes:
        """The first plain bytes; none where the head is damaged."""
        try:
            return lzma.LZMADecompressor(lzma.FORMAT_ALONE).decompress(head, count)
        except (lzma.LZMAError, EOFError):
            return b""

    def decode(self, reader: ByteReader) -> LzmaDecoding:
        """Begins to decode."""
        return LzmaDecoding(reader)

    def load(self, values: dict[str, Any]) -> LzmaParameters:
        """What ``dump`` wrote."""
        if values["properties"] not in range(MAX_PROPERTIES):
            raise ValueError("no such properties")
        return LzmaParameters(values["properties"], int(values["dict_size"]))
