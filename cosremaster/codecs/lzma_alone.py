"""The .lzma format ("LZMA_alone"; lzma-file-format.txt of XZ Utils): a header of 13 bytes and an LZMA stream.

It is packed again as a whole.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

from cosremaster.codecs.base import Codec, PackedParameters, RepackJob, RepackResult
from cosremaster.codecs.frames import (
    FrameDecoding,
    FrameMethod,
    decode_frame,
    decode_from_frame,
    decode_single,
    repack_whole,
)
from cosremaster.codecs.lzma_module import lzma
from cosremaster.codecs.part_memory import describe_library
from cosremaster.errors import CorruptError, Place
from cosremaster.io.pieces import PieceTable
from cosremaster.io.streams import ByteReader
from cosremaster.records import NumberRange
from cosremaster.records.json import convert

HEADER_SIZE = 13
PRESET = 6
MAX_PROPERTIES = 225  # (pb * 5 + lp) * 9 + lc, section 1.1.1
MAX_BITS = 4  # of lc and lp together, for liblzma


class LzmaParameters(PackedParameters, frozen=True):
    """The parameters of an .lzma stream.

    :ivar properties: lc, lp and pb, encoded as in the header's first byte.
    :ivar dictionary_size: bytes.
    """

    properties: int
    dictionary_size: int

    name = "lzma"

    def describe(self) -> str:
        """Return the size of the dictionary."""
        return f"dictionary {self.dictionary_size:,} bytes"

    def decode_from(self, packed: PieceTable, offset: int, place: Place) -> tuple[int, Iterator[bytes]]:
        """Begin to decode at the beginning: there is no other place."""
        return decode_from_frame(packed, (), offset, place, LzmaDecoding)

    def dump(self) -> dict[str, Any]:
        """Return properties and dictionary as JSON values."""
        return {"properties": self.properties, "dict_size": self.dictionary_size}

    def repack(self, job: RepackJob) -> RepackResult:
        """Pack a stream with the old properties and dictionary, of unknown size with an end marker, as xz does."""
        rest, lc = divmod(self.properties, 9)
        pb, lp = divmod(rest, 5)
        preset = PRESET if job.preset is None else job.preset
        dict_size = max(4096, min(self.dictionary_size, 1 << 30))
        filters = [{"id": lzma.FILTER_LZMA1, "preset": preset, "dict_size": dict_size, "lc": lc, "lp": lp, "pb": pb}]
        compressor = lzma.LZMACompressor(lzma.FORMAT_ALONE, filters=filters)
        method = FrameMethod(f"lzma, {filters}; {describe_library('lzma')}", _decode_single)
        return repack_whole(job, compressor.compress, compressor.flush, method)


def _decode_single(reader: ByteReader) -> Iterator[bytes]:
    """Yield the plain bytes of a single stream. :raises CorruptError: it is damaged, or not alone."""
    return decode_single(reader, lzma.LZMADecompressor(lzma.FORMAT_ALONE), "lzma", (lzma.LZMAError, EOFError))


class LzmaDecoding(FrameDecoding):
    """Decodes the stream."""

    def __init__(self, reader: ByteReader) -> None:
        """Begin where ``reader`` stands."""
        super().__init__(reader, self._decode_stream)
        self._header = bytes(HEADER_SIZE)

    @property
    def parameters(self) -> LzmaParameters:
        """The values of the header."""
        return LzmaParameters(self._header[0], int.from_bytes(self._header[1:5], "little"))

    def _decode_stream(self, reader: ByteReader) -> Iterator[bytes]:
        """Yield the plain bytes."""
        header = reader.peek(HEADER_SIZE)
        if len(header) < HEADER_SIZE or header[0] >= MAX_PROPERTIES:
            raise CorruptError("bytes that are no lzma stream", reader.next_place)
        self._header = header
        try:
            decompressor = lzma.LZMADecompressor(lzma.FORMAT_ALONE)
        except lzma.LZMAError as error:  # pragma: no cover
            raise CorruptError(f"corrupt lzma data ({error})", reader.next_place) from error
        yield from decode_frame(reader, decompressor, "lzma", (lzma.LZMAError, EOFError))


class LzmaCodec(Codec):
    """The .lzma format."""

    name = "lzma"
    peek_size = 4096

    def sniff(self, head: bytes) -> bool:
        """Return whether ``head`` has the default properties, a dictionary of whole KiB, and a possible size.

        The format has no magic. A possible size is below 2**40 bytes or unknown.
        """
        size = head[5:HEADER_SIZE]
        return head.startswith(b"\x5d\0") and len(size) == 8 and (size == b"\xff" * 8 or not any(size[5:]))

    def peek(self, head: bytes, count: int) -> bytes:
        """Return the first plain bytes, or none where the head is damaged."""
        try:
            return lzma.LZMADecompressor(lzma.FORMAT_ALONE).decompress(head, count)
        except (lzma.LZMAError, EOFError):
            return b""

    def decode(self, reader: ByteReader) -> LzmaDecoding:
        """Begin to decode."""
        return LzmaDecoding(reader)

    def load(self, values: dict[str, Any]) -> LzmaParameters:
        """Return the parameters that ``dump`` made ``values`` of."""
        properties = convert(values["properties"], Annotated[int, NumberRange(ge=0, lt=MAX_PROPERTIES)])
        if properties % 9 + properties // 9 % 5 > MAX_BITS:
            raise ValueError("no such properties")
        return LzmaParameters(properties, convert(values["dict_size"], Annotated[int, NumberRange(ge=0, lt=1 << 32)]))
