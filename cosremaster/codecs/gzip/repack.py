"""What inflating a gzip stream taught, and packing it again as one member.

What is compressed already goes into stored blocks (RFC 1951, 3.2.4), so that it costs a copy and a sum; where it
stood in stored blocks before, not even that. In front of the first change, a stream that we wrote is kept as it was.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from operator import itemgetter
from typing import Any

from fastcrc import crc32
from msgspec import Struct, field

from cosremaster.codecs.base import PackedParameters, RepackJob, RepackResult
from cosremaster.codecs.checks import crc32_joined, crc32_without
from cosremaster.codecs.gzip.read import GzipMembers, read_header
from cosremaster.codecs.gzip.stored import FULL, HEAD, StoredBlocks
from cosremaster.errors import Place
from cosremaster.io.framed import ConcatSource, FramedSource
from cosremaster.io.parallel import StopFlag, ordered_map
from cosremaster.io.pieces import Literal, Piece, PieceTable, Range, is_direct
from cosremaster.io.streams import CHUNK, ByteReader

STORE_FROM = 4096
"""A packed piece smaller than this is deflated with its neighbours."""

DEFLATE_BLOCK = 1 << 20
WINDOW = 1 << 15
_UNPROVED = 16  # parts of a stream, each of a chunk at most


class StoredFrames(Struct, frozen=True):
    """Stored blocks (RFC 1951, 3.2.4) that begin at a byte: type, length, its complement."""

    size: int = FULL
    head_size: int = HEAD

    def head(self, length: int, *, first: bool) -> bytes:
        """See :class:`~cosremaster.io.framed.Framing`."""
        return b"\0" + length.to_bytes(2, "little") + (length ^ 0xFFFF).to_bytes(2, "little")


STORED = StoredFrames()
_END = b"\x03\x00"  # an empty last block with fixed codes
_FLUSHED = b"\0\0\xff\xff"  # what a sync flush ends with: an empty stored block, behind which a byte begins


class GzipParameters(PackedParameters, frozen=True):
    """``header``: the first member's header bytes but its extra field, to be written again; ``members``: how many;
    ``stored``: the stored blocks that were found.
    """

    header: bytes
    members: int
    stored: StoredBlocks = field(default_factory=StoredBlocks)

    name = "gzip"
    caches_blocks = True

    @property
    def level(self) -> int:
        """The deflate level that XFL tells of (RFC 1952, 2.3.1); 6 when it tells nothing."""
        return {2: 9, 4: 1}.get(self.header[8], 6)

    def describe(self) -> str:
        """Level, and the number of members when it is not one."""
        return f"level {self.level}" + (f", {self.members} members" if self.members != 1 else "")

    def decode_from(self, packed: PieceTable, offset: int, place: Place) -> tuple[int, Iterator[bytes]]:
        """See :class:`~cosremaster.codecs.base.StreamParameters`: always from the beginning."""
        return 0, GzipMembers(ByteReader(packed.chunks(), place)).chunks()

    def dump(self) -> dict[str, Any]:
        """Header, number of members, stored blocks."""
        return {"header": self.header.hex(), "members": self.members, "stored": self.stored.dump()}

    def repack(self, job: RepackJob) -> RepackResult:
        """One member: the front kept up to a border before the first change, packed pieces stored, everything else
        deflated on ``job.threads`` threads.
        """
        stream = _Stream(self, job)
        stream.keep(_front(job))
        rest = job.plain.cut(stream.plain, job.plain.length)
        for stored, group in groupby(_sorted_out(rest.pieces), key=itemgetter(0)):
            (stream.store if stored else stream.deflate)(piece for _, piece in group)
        return stream.finished()


def _sorted_out(pieces: Sequence[Piece]) -> Iterator[tuple[bool, Piece]]:
    """Each piece, and whether it is to be stored: packed ones, and a few bytes that stand before one, so that a later
    run need not inflate everything before these for them, and what it puts there instead takes as much room."""
    stored = [_is_stored(piece) for piece in pieces]
    room = 0
    for index in reversed(range(len(pieces))):
        if stored[index]:
            room = STORE_FROM
        elif isinstance(pieces[index], Literal) and pieces[index].length < room:
            stored[index] = True
            room -= pieces[index].length
        else:
            room = 0
    yield from zip(stored, pieces, strict=True)


def _is_stored(piece: Piece) -> bool:
    return isinstance(piece, Range) and piece.packed and piece.length >= STORE_FROM


class _Front(Struct, frozen=True):
    """Packed bytes ``start`` to ``end`` that inflate to the first ``plain`` bytes, whose CRC32 is ``crc``."""

    start: int = 0
    end: int = 0
    plain: int = 0
    crc: int = 0


def _front(job: RepackJob) -> _Front:
    """What of the old stream can be kept in front of the first changed byte.

    It ends where a sync flush did. That is proved by inflating it with an end set behind: bytes that only look like
    a sync flush are inside a block, and no end is found there.
    """
    first = next(iter(job.plain.pieces), None)
    if not isinstance(first, Range) or first.source is not job.decoded or first.offset or first.packed:
        return _Front()
    if not job.packed.length:  # nothing is packed anew, but for the first time
        return _Front()
    key = "front", first.length
    front: _Front | None = job.cache.get(key)
    if front is None:
        front = _border(job, first.length)
        job.cache.put(key, front, 0)
    return front


def _border(job: RepackJob, limit: int) -> _Front:
    """The front up to the last border at or before plain offset ``limit``."""
    reader = ByteReader(job.packed.chunks(), Place())
    read_header(reader)
    best = _Front(reader.position)
    inflate = zlib.decompressobj(-15)
    crc = plain = 0
    waiting: list[bytes] = []
    for packed, flushed in _split(reader):
        waiting.append(packed)
        if not flushed:  # there is nothing to be proved
            if reader.position - best.start > _most_packed(limit):
                break
            if len(waiting) < _UNPROVED:
                continue
        left = b"".join(waiting)
        waiting = []
        while left and not inflate.eof:
            data = inflate.decompress(left, CHUNK)
            left = inflate.unconsumed_tail
            crc, plain = crc32.iso_hdlc(data, crc), plain + len(data)
        if plain > limit or inflate.eof:
            break
        ends = inflate.copy()
        if flushed and not ends.decompress(_END, 1) and ends.eof:
            best = _Front(best.start, reader.position, plain, crc)
    return best


def _most_packed(plain: int) -> int:
    """More bytes than ``plain`` ones are deflated to, unless somebody wastes them (RFC 1951, 3.2.4)."""
    return plain + plain // 1024 + 4096


def _split(reader: ByteReader) -> Iterator[tuple[bytes, bool]]:
    """What is left, in parts; True: one ends with what a sync flush ends with. The reader stands behind each."""
    before = b""
    while data := reader.read_some():
        joined = before + data
        found = joined.find(_FLUSHED)
        if found >= 0:
            end = found + len(_FLUSHED) - len(before)
            reader.unread(data[end:])
            data = data[:end]
        yield data, found >= 0
        before = b"" if found >= 0 else joined[-len(_FLUSHED) + 1 :]


class _Deflated(Struct, frozen=True):
    """A packed block: how many plain bytes it holds, their CRC32, and the last of them."""

    packed: bytes
    length: int
    crc: int
    window: bytes


class _Block(Struct, frozen=True):
    """A plain block and what is before it, or what was made of it when it was known by its ``key``."""

    key: object
    plain: bytes
    before: bytes
    known: _Deflated | None


class _Stream:
    """A gzip member that grows at its end; between calls it stands at a byte border."""

    def __init__(self, form: GzipParameters, job: RepackJob) -> None:
        self._form, self._job = form, job
        self._pieces: list[Piece] = [Literal(form.header)]
        self._unframed: list[Piece] = []
        self._unframed_crc = 0
        self._crc = self._kept = self._encoded = self._stored = 0
        self.plain = 0

    def keep(self, front: _Front) -> None:
        """Takes the front of the old stream over."""
        if front.plain:
            self._pieces += self._job.packed.cut(front.start, front.end).pieces
            self._kept += front.end - front.start
            self._crc = front.crc
            self._done(front.plain)

    def store(self, pieces: Iterable[Piece]) -> None:
        """``pieces`` in stored blocks: old ones with what stands in them, where there are such, else new ones."""
        start = self.plain
        for piece in pieces:
            if isinstance(piece, Range) and piece.source is self._job.decoded:
                self._store_old(piece)
            else:
                self._frame([piece])
        self._flush()
        self._stored += self.plain - start

    def _store_old(self, piece: Range) -> None:
        """Bytes of the old stream, from its packed bytes where they lie in stored blocks."""
        at, end = piece.offset, piece.offset + piece.length
        for run in self._form.stored.runs(at, end):
            self._frame([Range(piece.source, at, run.start - at, True)])
            packed = self._job.packed.cut(run.packed, run.packed_end)
            self._kept += packed.length
            if run.whole and run.crc is not None:
                self._flush()
                self._pieces += packed.pieces
                self._crc = crc32_joined(self._crc, run.crc, run.end - run.start)
                self._done(run.end - run.start)
            else:
                self._frame(packed.pieces)
            at = run.end
        self._frame([Range(piece.source, at, end - at, True)])

    def _frame(self, pieces: Iterable[Piece]) -> None:
        """Takes ``pieces`` into the block under way. A few bytes before a packed piece get one of their own."""
        for piece in pieces:
            if piece.length:
                if piece.length >= STORE_FROM and all(isinstance(one, Literal) for one in self._unframed):
                    self._flush()
                self._unframed.append(piece)
                known = self._known_sum(piece)
                if known is not None:
                    self._unframed_crc = crc32_joined(self._unframed_crc, known, piece.length)
                    self._done(piece.length)
                    continue
                for chunk in piece.chunks():
                    self._unframed_crc = crc32.iso_hdlc(chunk, self._unframed_crc)
                    self._done(len(chunk))

    def _known_sum(self, piece: Piece) -> int | None:
        """The CRC32 of ``piece`` where it was taken before."""
        if isinstance(piece, Range) and piece.source is self._job.spool:
            sums = self._job.spool.crcs_around(piece.offset, piece.length)
            return None if sums is None else crc32_without(sums[1], sums[0], piece.length)
        if isinstance(piece, Range) and isinstance(piece.source, ConcatSource):
            return piece.source.crc if piece.length == piece.source.table.length else None
        return None

    def _flush(self) -> None:
        """Frames what was taken (RFC 1951, 3.2.4); what can be read again is framed when it is written."""
        table, crc = PieceTable(self._unframed), self._unframed_crc
        self._unframed, self._unframed_crc = [], 0
        if not table.length:
            return
        self._crc = crc32_joined(self._crc, crc, table.length)
        for start, end, direct in _spans(table):
            part = table.cut(start, end)
            if direct:
                self._pieces.append(FramedSource(part, STORED, crc if part.length == table.length else None).piece())
            else:
                self._pieces += [Literal(STORED.head(part.length, first=False)), *part.pieces]

    def deflate(self, pieces: Iterable[Piece]) -> None:
        """``pieces`` deflated into the spool."""
        start = self.plain
        packed = ordered_map(self._deflated, self._blocks(pieces), self._job.threads)
        self._pieces.append(self._job.spool.append(self._summed(packed), packed=True))
        self._encoded += self.plain - start

    def _blocks(self, pieces: Iterable[Piece]) -> Iterator[_Block]:
        """Plain blocks, each with what is before it. Old bytes end a block, so that a later run finds a border
        there when what follows changes again."""
        key: object = None
        before = b""
        for table in _up_to_old(pieces, self._job):
            for start in range(0, table.length, DEFLATE_BLOCK):
                piece = table.cut(start, min(start + DEFLATE_BLOCK, table.length))
                key = self._key(piece, key, before)
                known: _Deflated | None = self._job.cache.get(key)
                plain = b"" if known else piece.read()
                yield _Block(key, plain, before, known)
                before = known.window if known else plain[-WINDOW:]

    def _key(self, block: PieceTable, last: object, before: bytes) -> object:
        """What tells a block of old bytes behind the block of key ``last``; None for one with others in it."""
        old = [piece for piece in block.pieces if isinstance(piece, Range) and piece.source is self._job.decoded]
        if len(old) != len(block.pieces) or (before and last is None):
            return None
        return self._form.level, last, tuple((piece.offset, piece.length) for piece in old)

    def _deflated(self, block: _Block, stop: StopFlag) -> _Deflated:
        """A block, packed now or in an earlier remaster of the same image."""
        stop.check()
        if block.known:
            return block.known
        maker = zlib.compressobj(self._form.level, zlib.DEFLATED, -15, zdict=block.before)
        packed = maker.compress(block.plain) + maker.flush(zlib.Z_SYNC_FLUSH)
        crc = crc32.iso_hdlc(block.plain)
        done = _Deflated(packed, len(block.plain), crc, block.plain[-WINDOW:])
        if block.key is not None:
            self._job.cache.put(block.key, done, len(packed) + WINDOW)
        return done

    def _summed(self, blocks: Iterable[_Deflated]) -> Iterator[bytes]:
        """The packed bytes of ``blocks``."""
        for block in blocks:
            self._crc = crc32_joined(self._crc, block.crc, block.length)
            self._done(block.length)
            yield block.packed

    def _done(self, count: int) -> None:
        self.plain += count
        self._job.advance(count)

    def finished(self) -> RepackResult:
        """The stream with its end (RFC 1952, 2.3.1)."""
        size = self.plain & 0xFFFFFFFF
        self._pieces.append(Literal(_END + self._crc.to_bytes(4, "little") + size.to_bytes(4, "little")))
        return RepackResult(PieceTable(self._pieces), reused=self._kept, encoded=self._encoded, stored=self._stored)


def _spans(table: PieceTable) -> Iterator[tuple[int, int, bool]]:
    """``table`` in parts of whole frames: single ones with a piece that is not direct, and all between them."""
    at = reached = 0
    for piece in table.pieces:
        if not is_direct(piece):
            first = max(reached, at - at % STORED.size)
            if first > reached:
                yield reached, first, True
            for start in range(first, at + piece.length, STORED.size):
                reached = min(start + STORED.size, table.length)
                yield start, reached, False
        at += piece.length
    if reached < table.length:
        yield reached, table.length, True


def _up_to_old(pieces: Iterable[Piece], job: RepackJob) -> Iterator[PieceTable]:
    """``pieces`` as tables that end with each long run of old bytes."""
    group: list[Piece] = []
    for piece in pieces:
        group.append(piece)
        if isinstance(piece, Range) and piece.source is job.decoded and piece.length >= STORE_FROM:
            yield PieceTable(group)
            group = []
    yield PieceTable(group)
