"""gzip (RFC 1952) around deflate (RFC 1951): members decoded in a row, written as one member."""

from __future__ import annotations

import zlib
from typing import Any

from cosremaster.codecs.gzip_form import GzipForm
from cosremaster.codecs.gzip_read import MAGIC, Members
from cosremaster.codecs.stored import StoredBlocks, StoredFinder
from cosremaster.streams import ByteReader


class GzipDecoding(Members):
    """All members as one plain stream, the stored blocks in them noted."""

    def __init__(self, reader: ByteReader, *, note: bool = True) -> None:
        self._finder = StoredFinder()
        super().__init__(reader, self._finder.feed if note else None)

    @property
    def form(self) -> GzipForm:
        """The first header, how many members there were, and the stored blocks in them."""
        return GzipForm(self.header, self.count, self._finder.blocks)


class GzipCodec:
    """gzip. ``note``: whether decoding notes the stored blocks, for packing anew."""

    name = "gzip"
    reach = 4096

    def __init__(self, *, note: bool = True) -> None:
        self._note = note

    def sniff(self, head: bytes) -> bool:
        """RFC 1952 magic with method 8 (deflate)."""
        return head.startswith(MAGIC)

    def first(self, head: bytes, count: int) -> bytes:
        """The first plain bytes; none where the head is damaged."""
        try:
            return zlib.decompressobj(31).decompress(head, count)
        except zlib.error:
            return b""

    def decode(self, reader: ByteReader) -> GzipDecoding:
        """Begins to decode."""
        return GzipDecoding(reader, note=self._note)

    def load(self, values: dict[str, Any]) -> GzipForm:
        """What ``dump`` wrote."""
        stored = StoredBlocks.load(values["stored"])
        return GzipForm(bytes.fromhex(values["header"]), int(values["members"]), stored)


def reading_codec() -> GzipCodec:
    """gzip for who only reads."""
    return GzipCodec(note=False)
