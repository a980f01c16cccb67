"""gzip (RFC 1952) around deflate (RFC 1951): members decoded in a row, written as one member.

What is compressed already goes into stored blocks (RFC 1951, 3.2.4), so that it costs a copy and a sum.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from cosremaster.codecs.base import Job, Packed
from cosremaster.codecs.inflate import DeflateError, new_inflater
from cosremaster.errors import CorruptError, Place
from cosremaster.parallel import Stop, ordered_map
from cosremaster.pieces import Literal, Piece, PieceTable, Range
from cosremaster.streams import CHUNK, ByteReader

MAGIC = b"\x1f\x8b\x08"
FHCRC, FEXTRA, FNAME, FCOMMENT = 2, 4, 8, 16
STORED_MAX = 65535
STORE_FROM = 4096
"""A packed piece smaller than this is deflated with its neighbours."""

DEFLATE_BLOCK = 1 << 20
WINDOW = 1 << 15
_END = b"\x03\x00"  # an empty last block with fixed codes


@dataclass(frozen=True, slots=True)
class GzipForm:
    """``header``: the first member's header bytes but its extra field, to be written again; ``members``: how many."""

    header: bytes
    members: int
    name: str = "gzip"

    @property
    def level(self) -> int:
        """The deflate level that XFL tells of (RFC 1952, 2.3.1); 6 when it tells nothing."""
        return {2: 9, 4: 1}.get(self.header[8], 6)

    def describe(self) -> str:
        """Level, and the number of members when it is not one."""
        return f"level {self.level}" + (f", {self.members} members" if self.members != 1 else "")

    def dump(self) -> dict[str, Any]:
        """Header and number of members."""
        return {"header": self.header.hex(), "members": self.members}

    def pack(self, job: Job) -> Packed:
        """One member: packed pieces stored, everything else deflated on ``job.threads`` threads."""
        pieces: list[Piece] = [Literal(self.header)]
        crc = stored_bytes = 0
        for stored, group in groupby(job.plain.pieces, key=_is_stored):
            table = PieceTable(group)
            stored_bytes += table.length if stored else 0
            body, crc = _stored(table, crc, job) if stored else _deflated(table, crc, job, self.level)
            pieces += body
        size = job.plain.length & 0xFFFFFFFF
        pieces.append(Literal(_END + crc.to_bytes(4, "little") + size.to_bytes(4, "little")))
        return Packed(PieceTable(pieces), kept=0, encoded=job.plain.length - stored_bytes, stored=stored_bytes)


def _is_stored(piece: Piece) -> bool:
    return isinstance(piece, Range) and piece.packed and piece.length >= STORE_FROM


def _stored(table: PieceTable, crc: int, job: Job) -> tuple[list[Piece], int]:
    """``table`` as stored deflate blocks, and the running CRC32."""
    for chunk in table.chunks():
        crc = zlib.crc32(chunk, crc)
        job.advance(len(chunk))
    pieces: list[Piece] = []
    for start in range(0, table.length, STORED_MAX):
        end = min(start + STORED_MAX, table.length)
        length = end - start
        pieces.append(Literal(b"\0" + length.to_bytes(2, "little") + (length ^ 0xFFFF).to_bytes(2, "little")))
        pieces += table.cut(start, end).pieces
    return pieces, crc


def _deflated(table: PieceTable, crc: int, job: Job, level: int) -> tuple[list[Piece], int]:
    """``table`` deflated into the spool, byte-aligned at its end, and the running CRC32."""
    reader = ByteReader(table.chunks(), Place())
    running = crc

    def blocks() -> Iterator[tuple[bytes, bytes]]:
        nonlocal running
        before = b""
        while block := reader.upto(DEFLATE_BLOCK):
            running = zlib.crc32(block, running)
            job.advance(len(block))
            yield block, before
            before = block[-WINDOW:]

    def deflate(item: tuple[bytes, bytes], stop: Stop) -> bytes:
        stop.check()
        block, before = item
        maker = zlib.compressobj(level, zlib.DEFLATED, -15, zdict=before)
        return maker.compress(block) + maker.flush(zlib.Z_SYNC_FLUSH)

    return [job.spool.append(ordered_map(deflate, blocks(), job.threads), packed=True)], running


class GzipDecoding:
    """All members of a gzip stream as one plain stream."""

    def __init__(self, reader: ByteReader) -> None:
        self._reader = reader
        self._header = b""
        self._members = 0

    @property
    def form(self) -> GzipForm:
        """The first header, and how many members there were."""
        return GzipForm(self._header, self._members)

    def chunks(self) -> Iterator[bytes]:
        """The plain bytes. :raises CorruptError: damage, or bytes that belong to no member."""
        reader = self._reader
        while True:
            yield from self.stream()
            for zeros in reader.rest():
                rest = zeros.lstrip(b"\0")
                if rest:
                    reader.unread(rest)
                    break
            if not reader.peek(1):
                return

    def stream(self) -> Iterator[bytes]:
        """The plain bytes of the next member. :raises CorruptError: damage, or no member is there."""
        header = _read_header(self._reader)
        if not self._members:
            self._header = header
        self._members += 1
        yield from self._member()

    def _member(self) -> Iterator[bytes]:
        """One member's deflate stream and trailer (RFC 1952, 2.3.1)."""
        reader = self._reader
        inflate = new_inflater()
        crc = size = 0
        while not inflate.done:
            data = reader.some(CHUNK // 4) if inflate.hungry else b""
            if inflate.hungry and not data:
                raise CorruptError("gzip data ends too early", reader.here)
            try:
                plain = inflate.feed(data, 4 * CHUNK)
            except DeflateError as error:
                where = reader.place.at(reader.position + error.offset)
                raise CorruptError(f"corrupt gzip data ({error})", where) from error
            crc, size = zlib.crc32(plain, crc), size + len(plain)
            if plain:
                yield plain
        reader.unread(inflate.unused)
        where = reader.here
        trailer = reader.exactly(8)
        if int.from_bytes(trailer[:4], "little") != crc:
            raise CorruptError("gzip CRC32 does not fit the data", where)
        if int.from_bytes(trailer[4:], "little") != size & 0xFFFFFFFF:
            raise CorruptError("gzip length does not fit the data", where)


def _read_header(reader: ByteReader) -> bytes:
    """A member's header (RFC 1952, 2.3), without the extra field: that speaks of the old deflate data."""
    where = reader.here
    head = reader.upto(10)
    if len(head) < 10 or not head.startswith(MAGIC):
        raise CorruptError("bytes that are no gzip member", where)
    flags = head[3]
    if flags & 0xE0:
        raise CorruptError("reserved gzip flags are set", where)
    extra = b""
    if flags & FEXTRA:
        extra = reader.exactly(2)
        extra += reader.exactly(int.from_bytes(extra, "little"))
    texts = b"".join(_read_string(reader) for flag in (FNAME, FCOMMENT) if flags & flag)
    kept = head[:3] + bytes((flags & ~FEXTRA,)) + head[4:] + texts
    if flags & FHCRC:
        if int.from_bytes(reader.exactly(2), "little") != zlib.crc32(head + extra + texts) & 0xFFFF:
            raise CorruptError("gzip header CRC does not fit", where)
        kept += (zlib.crc32(kept) & 0xFFFF).to_bytes(2, "little")
    return kept


def _read_string(reader: ByteReader) -> bytes:
    """Bytes up to and with a NUL."""
    text = bytearray()
    while not text.endswith(b"\0"):
        text += reader.exactly(1)
        if len(text) > CHUNK:
            raise CorruptError("gzip header text without an end", reader.here)
    return bytes(text)


class GzipCodec:
    """gzip."""

    name = "gzip"
    reach = 4096

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
        return GzipDecoding(reader)

    def load(self, values: dict[str, Any]) -> GzipForm:
        """What ``dump`` wrote."""
        return GzipForm(bytes.fromhex(values["header"]), int(values["members"]))
