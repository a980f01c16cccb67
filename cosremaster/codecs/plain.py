"""No compression, as a codec."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from cosremaster.codecs.base import Job
from cosremaster.pieces import PieceTable
from cosremaster.streams import ByteReader


@dataclass(frozen=True, slots=True)
class PlainForm:
    """Stored as it is."""

    name: str = "none"

    def describe(self) -> str:
        """Nothing to say."""
        return ""

    def pack(self, job: Job) -> PieceTable:
        """The plain bytes themselves: every unchanged range stays where it comes from."""
        job.advance(job.plain.length)
        return job.plain


@dataclass(frozen=True, slots=True)
class PlainDecoding:
    """Bytes passed on."""

    reader: ByteReader
    form: PlainForm = PlainForm()

    def chunks(self) -> Iterator[bytes]:
        """All of the reader's bytes."""
        return self.reader.rest()


class PlainCodec:
    """Never sniffed: it is what remains when no magic fits."""

    name = "none"

    def sniff(self, head: bytes) -> bool:
        """Nothing announces itself as uncompressed."""
        return False

    def first(self, head: bytes, count: int) -> bytes:
        """The bytes themselves."""
        return head[:count]

    def decode(self, reader: ByteReader) -> PlainDecoding:
        """Passes ``reader`` through."""
        return PlainDecoding(reader)
