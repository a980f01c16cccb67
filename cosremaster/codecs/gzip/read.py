"""Reading gzip (RFC 1952): member headers, and inflating concatenated members."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator

from cosremaster.codecs.gzip.inflate import DeflateError, Inflater, new_inflater
from cosremaster.crc import crc32
from cosremaster.errors import CorruptError
from cosremaster.io.streams import CHUNK, ByteReader

MAGIC = b"\x1f\x8b\x08"
FHCRC, FEXTRA, FNAME, FCOMMENT = 2, 4, 8, 16


class GzipMembers:
    """Decodes all members of a gzip stream as one stream.

    :ivar header: the first member's header, as :func:`read_header` returns it.
    :ivar count: the number of members so far.
    """

    packed_step, plain_step = CHUNK // 2, 1 << 20
    """Bytes that are inflated at once, at most: between two steps the thread has to get the interpreter's lock."""

    def __init__(self, reader: ByteReader, watch: Callable[[bytes, int, bytes, int], None] | None = None) -> None:
        """Begin where ``reader`` stands.

        ``watch`` is called with the bytes that go into the inflater and their offset, and those that come out of it and
        theirs.
        """
        self._reader = reader
        self._watch = watch
        self._plain = 0
        self.header = b""
        self.count = 0

    @property
    def position(self) -> int:
        """The packed offset up to which everything was decoded."""
        return self._reader.position

    def chunks(self) -> Iterator[bytes]:
        """Yield the plain bytes. :raises CorruptError: damage, or bytes that belong to no member."""
        reader = self._reader
        while True:
            yield from self.next_stream()
            reader.skip_zeros()
            if not reader.peek(1):
                return

    def next_stream(self) -> Iterator[bytes]:
        """Yield the plain bytes of the next member. :raises CorruptError: damage, or there is no member."""
        header = read_header(self._reader)
        if not self.count:
            self.header = header
        self.count += 1
        yield from self._inflate_member()

    def _new_inflater(self) -> Inflater:
        """Return what inflates the next member."""
        return new_inflater()

    def _read_step(self, inflater: Inflater, crc: int) -> bytes:
        """Return the next packed bytes for ``inflater``; ``crc``: the CRC32 of the member's plain bytes so far."""
        return self._reader.read_some(self.packed_step)

    def _inflate_member(self) -> Iterator[bytes]:
        """Yield the plain bytes of a member's deflate stream, and check its trailer (RFC 1952, 2.3.1)."""
        return self._inflate_rest(self._new_inflater(), 0, 0)

    def _inflate_rest(self, inflater: Inflater, crc: int, size: int) -> Iterator[bytes]:
        """Yield the plain bytes of the rest of a member's deflate stream, and check its trailer.

        ``crc``: the CRC32 of the ``size`` plain bytes before.
        """
        reader = self._reader
        while not inflater.eof:
            start = reader.position
            data = self._read_step(inflater, crc) if inflater.needs_input else b""
            if inflater.needs_input and not data:
                raise CorruptError("gzip data ends too early", reader.next_place)
            try:
                plain = inflater.feed(data, self.plain_step)
            except DeflateError as error:
                place = reader.place_at(reader.position + error.offset)
                raise CorruptError(f"corrupt gzip data ({error})", place) from error
            crc, size = crc32(plain, crc), size + len(plain)
            if self._watch is not None:
                self._watch(data, start, plain, self._plain)
            self._plain += len(plain)
            if plain:
                yield plain
        reader.unread(inflater.unused_data)
        place = reader.next_place
        trailer = reader.read_exactly(8)
        if int.from_bytes(trailer[:4], "little") != crc:
            raise CorruptError("gzip CRC32 does not fit the data", place)
        if int.from_bytes(trailer[4:], "little") != size & 0xFFFFFFFF:
            raise CorruptError("gzip length does not fit the data", place)


def read_header(reader: ByteReader) -> bytes:
    """Return a member's header (RFC 1952, 2.3) without the extra field, which is about the old deflate data."""
    place = reader.next_place
    head = reader.read_upto(10)
    if len(head) < 10 or not head.startswith(MAGIC):
        raise CorruptError("bytes that are no gzip member", place)
    flags = head[3]
    if flags & 0xE0:
        raise CorruptError("reserved gzip flags are set", place)
    extra = b""
    if flags & FEXTRA:
        extra = reader.read_exactly(2)
        extra += reader.read_exactly(int.from_bytes(extra, "little"))
    texts = b"".join(_read_string(reader) for flag in (FNAME, FCOMMENT) if flags & flag)
    header = head[:3] + bytes((flags & ~FEXTRA,)) + head[4:] + texts
    if flags & FHCRC:
        if int.from_bytes(reader.read_exactly(2), "little") != zlib.crc32(head + extra + texts) & 0xFFFF:
            raise CorruptError("gzip header CRC does not fit", place)
        header += (zlib.crc32(header) & 0xFFFF).to_bytes(2, "little")
    return header


def _read_string(reader: ByteReader) -> bytes:
    """Return the bytes up to a NUL, which is included."""
    text = bytearray()
    while not text.endswith(b"\0"):
        text += reader.read_exactly(1)
        if len(text) > CHUNK:
            raise CorruptError("gzip header text without an end", reader.next_place)
    return bytes(text)
