"""gzip (RFC 1952) around deflate (RFC 1951): members decoded in a row, written as one member."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from cosremaster.codecs.gzip.read import MAGIC, GzipMembers
from cosremaster.errors import Place
from cosremaster.io.pieces import PieceTable
from cosremaster.io.streams import ByteReader

if TYPE_CHECKING:
    from cosremaster.codecs.base import RepackJob, RepackResult, StreamParameters
    from cosremaster.codecs.gzip.repack import GzipParameters

GZIP = "gzip"


class GzipDecoding(GzipMembers):
    """All members as one plain stream, the stored blocks in them noted."""

    def __init__(self, reader: ByteReader) -> None:
        from cosremaster.codecs.gzip.stored import StoredBlockFinder  # noqa: PLC0415 - who only reads needs none of it

        self._finder = StoredBlockFinder()
        super().__init__(reader, self._finder.feed)

    @property
    def parameters(self) -> GzipParameters:
        """The first header, how many members there were, and the stored blocks in them."""
        from cosremaster.codecs.gzip.repack import GzipParameters  # noqa: PLC0415 - the same

        return GzipParameters(self.header, self.count, self._finder.blocks)


class GzipReader(GzipMembers):
    """All members as one plain stream, nothing noted; its own form, which is good for reading again."""

    name = GZIP
    is_identity = caches_blocks = False
    refusal = None
    dictionary_size = 0

    @property
    def parameters(self) -> GzipReader:
        """This."""
        return self

    def describe(self) -> str:
        """See :class:`~cosremaster.codecs.base.StreamParameters`."""
        return self._noted().describe()

    def decode_from(self, packed: PieceTable, offset: int, place: Place) -> tuple[int, Iterator[bytes]]:
        """See :class:`~cosremaster.codecs.base.StreamParameters`: always from the beginning."""
        return 0, GzipMembers(ByteReader(packed.chunks(), place)).chunks()

    def dump(self) -> dict[str, Any]:
        """See :class:`~cosremaster.codecs.base.StreamParameters`."""
        return self._noted().dump()

    def repack(self, job: RepackJob) -> RepackResult:
        """See :class:`~cosremaster.codecs.base.StreamParameters`: nothing of the old bytes can stay."""
        return self._noted().repack(job)

    def _noted(self) -> GzipParameters:
        from cosremaster.codecs.gzip.repack import GzipParameters  # noqa: PLC0415 - who only reads needs none of it

        return GzipParameters(self.header, self.count)


class GzipCodec:
    """gzip. ``note``: whether decoding notes the stored blocks, for packing anew."""

    name = GZIP
    is_identity = False
    peek_size = 4096

    def __init__(self, *, note: bool = True) -> None:
        self._note = note

    def sniff(self, head: bytes) -> bool:
        """RFC 1952 magic with method 8 (deflate)."""
        return head.startswith(MAGIC)

    def peek(self, head: bytes, count: int) -> bytes:
        """The first plain bytes; none where the head is damaged."""
        try:
            return zlib.decompressobj(31).decompress(head, count)
        except zlib.error:
            return b""

    def decode(self, reader: ByteReader) -> GzipDecoding | GzipReader:
        """Begins to decode."""
        return GzipDecoding(reader) if self._note else GzipReader(reader)

    def for_reading(self) -> GzipCodec:
        """Return a codec that does not look for stored blocks."""
        return GzipCodec(note=False)

    def shared_front(self, parameters: StreamParameters, packed: PieceTable, other: PieceTable) -> None:
        """Return None: decoding can begin nowhere inside a deflate stream."""

    def load(self, values: dict[str, Any]) -> GzipParameters:
        """What ``dump`` wrote."""
        from cosremaster.codecs.gzip.repack import GzipParameters  # noqa: PLC0415 - as above
        from cosremaster.codecs.gzip.stored import StoredBlocks  # noqa: PLC0415 - the same

        stored = StoredBlocks.load(values["stored"])
        return GzipParameters(bytes.fromhex(values["header"]), int(values["members"]), stored)
