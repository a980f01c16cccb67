"""Reading a gzip member on several threads, where it is known which plain bytes stand before some of its blocks.

A seam names a byte of the stream and the plain bytes before it. It is believed only when all before it was inflated:
there the blocks must end at that byte, and the plain bytes must be those that the seam names. The inflater that read
the whole stream would have just this state there, so it would return the same bytes.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import Any

from cosremaster.codecs.base import Seam
from cosremaster.codecs.gzip import inflate
from cosremaster.codecs.gzip.codec import GzipCodec, GzipReader
from cosremaster.codecs.gzip.deflate import FINAL_BLOCK, WINDOW
from cosremaster.codecs.gzip.inflate import DeflateError, ZlibInflater
from cosremaster.crc import crc32
from cosremaster.errors import CorruptError, Place
from cosremaster.io.parallel import StopFlag, cpu_count, ordered_map
from cosremaster.io.pieces import PieceTable
from cosremaster.io.streams import ByteReader
from cosremaster.records import Struct

WHOLE_LIMIT = 8 << 20
"""The most plain bytes, and the most packed ones, of a segment that is inflated beside others."""

THREADS = 4
"""Threads that inflate at most: more than who reads the plain bytes can keep up with."""

_WAITING = 2
"""Segments that are in memory beside those that are being inflated."""

_STEP = 1 << 20
"""Plain bytes that are inflated at once."""


class _Segment(Struct, frozen=True):
    """What stands between two seams; the stream itself begins with a seam behind its header."""

    start: Seam
    end: Seam

    @property
    def packed(self) -> int:
        """Its packed bytes."""
        return self.end.packed - self.start.packed

    @property
    def plain(self) -> int:
        """Its plain bytes, as the seams say."""
        return self.end.plain - self.start.plain

    @property
    def is_small(self) -> bool:
        """Whether all of it may be in memory."""
        return max(self.packed, self.plain) <= WHOLE_LIMIT


class _PackedSegment(Struct, frozen=True):
    """The packed bytes of a segment, and the plain ones before it."""

    segment: _Segment
    place: Place
    parts: tuple[bytes, ...]
    before: bytes

    def inflate(self, stop: StopFlag) -> tuple[_Segment, list[bytes]]:
        """Return the segment and its plain bytes. :raises CorruptError: they are damaged, or more than they should."""
        stop.check()
        return self.segment, list(_inflate_blocks(self.parts, self.before, self.segment.plain, self.place))


class SegmentedGzipReader(GzipReader):
    """Decodes as :class:`GzipReader` does, the first member in segments on several threads.

    ``seams``: of that member, in order; their offsets are those of the stream.
    """

    def __init__(self, reader: ByteReader, seams: Sequence[Seam]) -> None:
        """Begin where ``reader`` stands: at the first byte of the stream."""
        super().__init__(reader)
        self._seams = seams
        self._origin = self._decoded = reader.position

    @property
    def position(self) -> int:
        """The packed offset up to which everything was decoded or is being; the reader may be further."""
        return self._decoded if self._seams else super().position

    def _inflate_member(self) -> Iterator[bytes]:
        """Yield the plain bytes of a member's deflate stream, and check its trailer.

        :raises CorruptError: damage, or a seam is wrong.
        """
        seams, crc, before = self._seams, 0, b""
        if not seams:
            yield from super()._inflate_member()
            return
        begin = Seam(self._reader.position - self._origin, 0, PieceTable([]))
        segments = map(_Segment, (begin, *seams), seams)
        for segment, chunks in self._inflate_segments(segments):
            for chunk in chunks:
                crc = crc32(chunk, crc)
                self._plain += len(chunk)
                before = chunk[-WINDOW:] if len(chunk) >= WINDOW else (before + chunk)[-WINDOW:]
                yield chunk
            if (self._plain, before) != (segment.end.plain, segment.end.window.read()):
                raise CorruptError(
                    "the plain bytes before this byte are not those that were planned",
                    self._place_at(segment.end.packed),
                )
            self._decoded = self._origin + segment.end.packed
        self._seams = ()
        yield from self._inflate_rest(ZlibInflater(before), crc, self._plain)

    def _place_at(self, packed: int) -> Place:
        """Return the place of byte ``packed`` of the stream."""
        return self._reader.place_at(self._origin + packed)

    def _inflate_segments(self, segments: Iterable[_Segment]) -> Iterator[tuple[_Segment, Iterable[bytes]]]:
        """Yield ``segments`` in order, each with its plain bytes; small ones are inflated at the same time."""
        threads = min(cpu_count(), THREADS)
        for is_small, group in groupby(segments, key=lambda segment: segment.is_small):
            if is_small and threads > 1:
                packed = map(self._take, group)
                yield from ordered_map(lambda part, stop: part.inflate(stop), packed, threads, threads + _WAITING)
                continue
            for segment in group:
                parts, place = self._follow(self._read_parts(segment)), self._place_at(segment.start.packed)
                yield segment, _inflate_blocks(parts, segment.start.window.read(), segment.plain, place)

    def _follow(self, parts: Iterable[bytes]) -> Iterator[bytes]:
        """Yield ``parts``, the packed bytes of a large segment; the position goes on with what is read of it."""
        for part in parts:
            self._decoded = self._reader.position
            yield part

    def _take(self, segment: _Segment) -> _PackedSegment:
        """Read the packed bytes of ``segment``, which are next. :raises CorruptError: the stream ends before."""
        place, before = self._place_at(segment.start.packed), segment.start.window.read()
        return _PackedSegment(segment, place, tuple(self._read_parts(segment)), before)

    def _read_parts(self, segment: _Segment) -> Iterator[bytes]:
        """Yield the packed bytes of ``segment``, which are next. :raises CorruptError: the stream ends before."""
        end = self._origin + segment.end.packed
        while (rest := end - self._reader.position) > 0:
            part = self._reader.read_some(min(rest, self.packed_step))
            yield part or self._reader.read_exactly(rest)


class SegmentedGzipCodec(GzipCodec):
    """The gzip format, for a stream whose first member has ``seams``; it is decoded and not packed again."""

    def __init__(self, seams: Sequence[Seam]) -> None:
        """Make a codec for that stream."""
        super().__init__(records_blocks=False)
        self._seams = seams

    def decode(self, reader: ByteReader) -> GzipReader:
        """Begin to decode."""
        return SegmentedGzipReader(reader, self._seams)

    def for_reading(self) -> GzipCodec:
        """Return the codec itself."""
        return self


def _inflate_blocks(packed: Iterable[bytes], before: bytes, most: int, place: Place) -> Iterator[bytes]:
    """Yield the plain bytes of whole deflate blocks that stand behind the plain bytes ``before``.

    :param most: so many plain bytes there are at most.
    :raises CorruptError: they are damaged, more, or end the stream; or the last does not end with ``packed``.
    """
    inflater, failure = _new_decompressor(before)
    reached = 0
    try:
        for part in packed:
            rest, has_more = part, True
            while rest or has_more:
                plain = inflater.decompress(rest, _STEP)
                rest, has_more = inflater.unconsumed_tail, len(plain) == _STEP
                reached += len(plain)
                if reached > most or inflater.eof:
                    raise DeflateError("its blocks are others than those that were planned", 0)
                if plain:
                    yield plain
        if inflater.decompress(FINAL_BLOCK, 1) or not inflater.eof or inflater.unused_data:
            raise DeflateError("its blocks do not end where it was planned", 0)
    except (DeflateError, failure) as error:
        raise CorruptError(f"corrupt gzip data ({error})", place) from error


def _new_decompressor(before: bytes) -> tuple[Any, type[Exception]]:
    """Return what inflates blocks behind ``before``, of the fastest library, and the class of its errors."""
    if inflate.HAS_ISAL:
        from isal import isal_zlib  # noqa: PLC0415 - only where it is installed

        failure: Any = isal_zlib.error  # its stub declares the class as an instance
        return isal_zlib.decompressobj(-15, zdict=before), failure
    return zlib.decompressobj(-15, zdict=before), zlib.error
