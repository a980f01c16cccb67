"""Reading gzip (RFC 1952): member headers, and members in a row inflated."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator

from fastcrc import crc32

from cosremaster.codecs.gzip.inflate import DeflateError, new_inflater
from cosremaster.errors import CorruptError
from cosremaster.io.streams import CHUNK, ByteReader

MAGIC = b"\x1f\x8b\x08"
FHCRC, FEXTRA, FNAME, FCOMMENT = 2, 4, 8, 16

STEP = 1 << 17
"""Plain bytes that are inflated at once: for more the C library asks the kernel for fresh pages each time (malloc(3),
M_MMAP_THRESHOLD), which takes half as long again."""


class GzipMembers:
    """All members of a gzip stream as one plain stream.

    ``header``: the first one's, as :func:`read_header` gives it; ``count``: how many there were so far. ``watch`` hears
    of what goes into the inflater and what comes out of it, each with its offset.
    """

    def __init__(self, reader: ByteReader, watch: Callable[[bytes, int, bytes, int], None] | None = None) -> None:
        self._reader = reader
        self._watch = watch
        self._plain = 0
        self.header = b""
        self.count = 0

    @property
    def position(self) -> int:
        """What was decoded up to here."""
        return self._reader.position

    def chunks(self) -> Iterator[bytes]:
        """The plain bytes. :raises CorruptError: damage, or bytes that belong to no member."""
        reader = self._reader
        while True:
            yield from self.next_stream()
            for zeros in reader.read_rest():
                rest = zeros.lstrip(b"\0")
                if rest:
                    reader.unread(rest)
                    break
            if not reader.peek(1):
                return

    def next_stream(self) -> Iterator[bytes]:
        """The plain bytes of the next member. :raises CorruptError: damage, or no member is there."""
        header = read_header(self._reader)
        if not self.count:
            self.header = header
        self.count += 1
        yield from self._member()

    def _member(self) -> Iterator[bytes]:
        """One member's deflate stream and trailer (RFC 1952, 2.3.1)."""
        reader = self._reader
        inflate = new_inflater()
        crc = size = 0
        while not inflate.done:
            at = reader.position
            data = reader.read_some(CHUNK // 4) if inflate.hungry else b""
            if inflate.hungry and not data:
                raise CorruptError("gzip data ends too early", reader.next_place)
            try:
                plain = inflate.feed(data, STEP)
            except DeflateError as error:
                where = reader.place_at(reader.position + error.offset)
                raise CorruptError(f"corrupt gzip data ({error})", where) from error
            crc, size = crc32.iso_hdlc(plain, crc), size + len(plain)
            if self._watch is not None:
                self._watch(data, at, plain, self._plain)
            self._plain += len(plain)
            if plain:
                yield plain
        reader.unread(inflate.unused)
        where = reader.next_place
        trailer = reader.read_exactly(8)
        if int.from_bytes(trailer[:4], "little") != crc:
            raise CorruptError("gzip CRC32 does not fit the data", where)
        if int.from_bytes(trailer[4:], "little") != size & 0xFFFFFFFF:
            raise CorruptError("gzip length does not fit the data", where)


def read_header(reader: ByteReader) -> bytes:
    """A member's header (RFC 1952, 2.3), without the extra field: that speaks of the old deflate data."""
    where = reader.next_place
    head = reader.read_upto(10)
    if len(head) < 10 or not head.startswith(MAGIC):
        raise CorruptError("bytes that are no gzip member", where)
    flags = head[3]
    if flags & 0xE0:
        raise CorruptError("reserved gzip flags are set", where)
    extra = b""
    if flags & FEXTRA:
        extra = reader.read_exactly(2)
        extra += reader.read_exactly(int.from_bytes(extra, "little"))
    texts = b"".join(_read_string(reader) for flag in (FNAME, FCOMMENT) if flags & flag)
    kept = head[:3] + bytes((flags & ~FEXTRA,)) + head[4:] + texts
    if flags & FHCRC:
        if int.from_bytes(reader.read_exactly(2), "little") != zlib.crc32(head + extra + texts) & 0xFFFF:
            raise CorruptError("gzip header CRC does not fit", where)
        kept += (zlib.crc32(kept) & 0xFFFF).to_bytes(2, "little")
    return kept


def _read_string(reader: ByteReader) -> bytes:
    """Bytes up to and with a NUL."""
    text = bytearray()
    while not text.endswith(b"\0"):
        text += reader.read_exactly(1)
        if len(text) > CHUNK:
            raise CorruptError("gzip header text without an end", reader.next_place)
    return bytes(text)
