"""Packing a gzip stream again as one member, by what inflating it recorded.

Compressed data inside go into stored blocks (RFC 1951, 3.2.4): that takes a copy and a CRC32, and less where they were
in stored blocks before. Blocks of long runs of old bytes stay (:mod:`cosremaster.codecs.gzip.splice`); of a shorter
stream of ours the front does, up to the last sync flush before the first change.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import accumulate, groupby
from operator import itemgetter
from typing import Any

from cosremaster.codecs.base import PackedParameters, RepackJob, RepackResult, Seam
from cosremaster.codecs.checks import crc32_joined, crc32_without
from cosremaster.codecs.gzip.borders import FLUSH
from cosremaster.codecs.gzip.checkpoints import Checkpoint
from cosremaster.codecs.gzip.deflate import (
    DEFLATE_BLOCK,
    FINAL_BLOCK,
    NEW_LEVEL,
    WINDOW,
    DeflatedBlock,
    deflate_block,
    expand_block,
    name_method,
)
from cosremaster.codecs.gzip.read import GzipMembers, read_header
from cosremaster.codecs.gzip.splice import BlockRun, Splice, frame_run, plan_splices
from cosremaster.codecs.gzip.stored import FULL, HEAD, StoredBlocks
from cosremaster.codecs.part_memory import pack_part
from cosremaster.crc import crc32
from cosremaster.errors import Place
from cosremaster.io.framed import ConcatSource, FramedSource
from cosremaster.io.parallel import StopFlag, ordered_map
from cosremaster.io.pieces import Literal, Piece, PieceTable, Range, Source, is_direct
from cosremaster.io.streams import CHUNK, ByteReader
from cosremaster.progress import skip_bytes
from cosremaster.records import Struct, field
from cosremaster.records.tuples import NamedTuple

SEGMENT = 4 << 20
"""The least plain bytes between two seams, which are read at the same time as others."""

MAX_WINDOWS = 256
"""About so many windows of seams are kept in memory at most, 8 MiB."""

STORE_FROM = 4096
"""The least bytes of a packed piece that gets stored blocks; a smaller one is deflated with its neighbours."""

MAX_HEADER = 4096  # bytes of a gzip header with a long name and comment
MAX_KEPT = 1 << 20  # bytes between stored blocks that are kept in memory
_BATCH = 16  # parts of a stream, each of a chunk at most, that are inflated at once


class StoredFrames(Struct, frozen=True):
    """The framing of stored blocks (RFC 1951, 3.2.4) that begin at a byte: type, length, its complement."""

    size: int = FULL
    head_size: int = HEAD

    def head(self, length: int, *, first: bool) -> bytes:
        """Return the header of a block that holds ``length`` bytes."""
        return b"\0" + length.to_bytes(2, "little") + (length ^ 0xFFFF).to_bytes(2, "little")


STORED = StoredFrames()


class GzipParameters(PackedParameters, frozen=True):
    """The parameters of gzip members.

    :ivar header: the first member's header without its extra field, to be written again.
    :ivar members: their number.
    :ivar stored: the stored blocks in their deflate streams.
    :ivar checkpoints: states of the inflater in the first member, where they were recorded.
    """

    header: bytes
    members: int
    stored: StoredBlocks = field(default_factory=StoredBlocks)
    checkpoints: tuple[Checkpoint, ...] = ()

    name = "gzip"
    caches_blocks = True

    @property
    def level(self) -> int:
        """The deflate level by XFL (RFC 1952, 2.3.1); 6 where that does not tell it."""
        return {2: 9, 4: 1}.get(self.header[8], NEW_LEVEL)

    def keeps_front(self, packed: PieceTable) -> bool:
        """Return whether the stream was written by blocks, as ours are: it begins with a stored block, or the first
        MiB has a sync flush."""
        begins_stored = bool(self.stored.packed) and self.stored.packed[0] - HEAD <= MAX_HEADER
        return begins_stored or FLUSH in packed.read(0, DEFLATE_BLOCK)

    @property
    def keeps_packed(self) -> bool:
        """True: a single stream is cut inside."""
        return True

    def cut_refusal(self, *, by_kernel: bool) -> str | None:
        """Return why such a stream is not cut.

        The kernel's decoder ends with the first member and skips no extra field, so no list of parts can stand in the
        header (lib/decompress_inflate.c).
        """
        return "is packed with gzip, which kernels read as a single stream; packing it again takes little time"

    def describe(self) -> str:
        """Return the level, and the number of members when it is not one."""
        return f"level {self.level}" + (f", {self.members} members" if self.members != 1 else "")

    def decode_from(self, packed: PieceTable, offset: int, place: Place) -> tuple[int, Iterator[bytes]]:
        """Begin to decode at the beginning."""
        return 0, GzipMembers(ByteReader(packed.chunks(), place)).chunks()

    def dump(self) -> dict[str, Any]:
        """Return header, number of members and stored blocks as JSON values."""
        return {"header": self.header.hex(), "members": self.members, "stored": self.stored.dump()}

    def check_sizes(self, packed: int, plain: int | None) -> None:
        """Check the stored blocks. :raises ValueError: they are those of another stream."""
        self.stored.check_sizes(packed, plain)

    def repack(self, job: RepackJob) -> RepackResult:
        """Pack one member: deflate blocks of long runs of old bytes are kept, packed pieces are stored.

        Of a stream without such runs the front is kept, up to a sync flush before the first change. Everything else is
        deflated on ``job.threads`` threads.
        """
        member = _MemberWriter(self, job)
        splices = plan_splices(job, self.checkpoints) if self.members == 1 else {}
        if not splices:
            member.keep_front(_find_front(job))
        rest = job.plain.cut(member.plain, job.plain.length)
        parts = list(_choose_parts(rest.pieces, splices))
        is_deflated = (part for is_stored, is_run, part in parts if not (is_stored or is_run))
        deflated = sum(part.length for part in is_deflated if not isinstance(part, BlockRun))
        skip_bytes(job.advance, job.plain.length - deflated)
        for (is_stored, is_run), group in groupby(parts, key=itemgetter(0, 1)):
            if is_run:
                member.keep_runs(run for _, _, run in group if isinstance(run, BlockRun))
            else:
                write = member.store if is_stored else member.deflate
                write(piece for _, _, piece in group if not isinstance(piece, BlockRun))
        return member.finish()


def _choose_parts(
    pieces: Sequence[Piece], splices: Mapping[int, Splice]
) -> Iterator[tuple[bool, bool, Piece | BlockRun]]:
    """Yield each piece, or what ``splices`` makes of it, with whether it is to be stored, and whether it is a run."""
    for number, (is_stored, piece) in enumerate(_choose_stored(pieces)):
        splice = splices.get(number)
        if splice is None:
            yield is_stored, False, piece
            continue
        for before in splice.before:
            yield is_stored, False, before
        if splice.run is not None:
            yield False, True, splice.run
        for after in splice.after:
            yield is_stored, False, after


def _choose_stored(pieces: Sequence[Piece]) -> Iterator[tuple[bool, Piece]]:
    """Yield each piece with whether it is to be stored.

    Packed pieces are, and a few bytes in front of one: a later run then need not inflate everything before these bytes
    to replace them, and their replacement takes as much room.
    """
    stored = [_is_large_packed(piece) for piece in pieces]
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


def _is_large_packed(piece: Piece) -> bool:
    """Return whether ``piece`` is compressed already and large enough for blocks of its own."""
    return isinstance(piece, Range) and piece.packed and piece.length >= STORE_FROM


class _Front(Struct, frozen=True):
    """Packed bytes ``start`` to ``end`` that inflate to the first ``plain`` bytes, whose CRC32 is ``crc``."""

    start: int = 0
    end: int = 0
    plain: int = 0
    crc: int = 0


def _find_front(job: RepackJob) -> _Front:
    """Return the front of the old stream that can be kept: it ends before the first changed byte, at a sync flush.

    A sync flush is proved by inflating the front with a final block behind it: bytes that only look like one are inside
    a block, and the stream does not end there.
    """
    first = next(iter(job.plain.pieces), None)
    if not isinstance(first, Range) or first.source is not job.decoded or first.offset or first.packed:
        return _Front()
    if not job.packed.length:  # the stream is packed for the first time
        return _Front()
    key = "front", first.length
    front: _Front | None = job.cache.get(key)
    if front is None:
        front = _find_last_flush(job, first.length)
        job.cache.put(key, front, 0)
    return front


def _find_last_flush(job: RepackJob, limit: int) -> _Front:
    """Return the front up to the last sync flush at or before plain offset ``limit``."""
    reader = ByteReader(job.packed.chunks(), Place())
    read_header(reader)
    front = _Front(reader.position)
    inflater = zlib.decompressobj(-15)
    crc = plain = 0
    parts: list[bytes] = []
    for part, has_flush in _split_at_flushes(reader):
        parts.append(part)
        if not has_flush:
            if reader.position - front.start > _max_packed_size(limit):
                break
            if len(parts) < _BATCH:
                continue
        packed = b"".join(parts)
        parts = []
        while packed and not inflater.eof:
            data = inflater.decompress(packed, CHUNK)
            packed = inflater.unconsumed_tail
            crc, plain = crc32(data, crc), plain + len(data)
        if plain > limit or inflater.eof:
            break
        trial = inflater.copy()
        if has_flush and not trial.decompress(FINAL_BLOCK, 1) and trial.eof:
            front = _Front(front.start, reader.position, plain, crc)
    return front


def _max_packed_size(plain: int) -> int:
    """Return more bytes than ``plain`` ones are deflated to by any sensible encoder (RFC 1951, 3.2.4)."""
    return plain + plain // 1024 + 4096


def _split_at_flushes(reader: ByteReader) -> Iterator[tuple[bytes, bool]]:
    """Yield the rest in parts, each with whether it ends like a sync flush. The reader stands behind each part."""
    before = b""
    while data := reader.read_some():
        joined = before + data
        flush = joined.find(FLUSH)
        if flush >= 0:
            end = flush + len(FLUSH) - len(before)
            reader.unread(data[end:])
            data = data[:end]
        yield data, flush >= 0
        before = b"" if flush >= 0 else joined[-len(FLUSH) + 1 :]


class _DeflateBlock(Struct, frozen=True):
    """A deflated block.

    :ivar length: its plain bytes.
    :ivar crc: their CRC32.
    :ivar window: the last of them, on which the next block depends.
    :ivar is_taken: an earlier plan packed it.
    """

    packed: bytes
    length: int
    crc: int
    window: bytes
    is_taken: bool = False


class _PlainBlock(Struct, frozen=True):
    """The plain bytes of a block to be deflated.

    :ivar key: the key of the block in the cache; None for a block with new bytes.
    :ivar before: the plain bytes before it, up to :data:`WINDOW`.
    :ivar cached: the deflated block from the cache, or where it waits; ``plain`` is empty then.
    """

    key: object
    plain: bytes
    before: bytes
    cached: _DeflateBlock | DeflatedBlock | None


class _SeamNote(NamedTuple):
    """A seam ``inside`` bytes behind the beginning of the piece at place ``piece``; see :class:`Seam`."""

    piece: int
    inside: int
    plain: int
    window: Range | Literal


class _MemberWriter:
    """Makes a gzip member front to back; between calls it ends at a byte."""

    def __init__(self, parameters: GzipParameters, job: RepackJob) -> None:
        """Begin with the header."""
        self._parameters, self._job = parameters, job
        self._pieces: list[Piece] = [Literal(parameters.header)]
        self._unframed: list[Piece] = []  # of the stored blocks that are being made
        self._unframed_crc = 0
        self._crc = self._reused = self._encoded = self._stored = 0
        self._seams: list[_SeamNote] = []
        self.plain = 0

    def keep_front(self, front: _Front) -> None:
        """Take over the front of the old stream."""
        if front.plain:
            self._pieces += self._job.packed.cut(front.start, front.end).pieces
            self._reused += front.end - front.start
            self._crc = front.crc
            self.plain += front.plain

    def keep_runs(self, runs: Iterable[BlockRun]) -> None:
        """Take over blocks of the old stream."""
        for run in runs:
            self._pieces += frame_run(run, self._job.packed)
            self._reused += run.end.byte - run.start.byte
            length = run.end.plain - run.start.plain
            self._crc = crc32_joined(self._crc, crc32_without(run.end.crc, run.start.crc, length), length)
            self.plain += length

    def store(self, pieces: Iterable[Piece]) -> None:
        """Add ``pieces`` in stored blocks: old blocks for old bytes in such blocks, else new ones."""
        start = self.plain
        for piece in pieces:
            if isinstance(piece, Range) and piece.source is self._job.decoded:
                self._store_old(piece)
            else:
                self._add_to_frames([piece])
        self._flush()
        self._stored += self.plain - start

    def _store_old(self, piece: Range) -> None:
        """Add bytes of the old stream, from its packed bytes where they are in stored blocks."""
        offset, end = piece.offset, piece.offset + piece.length
        for run in self._parameters.stored.runs(offset, end):
            self._add_to_frames([self._inflated(piece, offset, run.start)])
            packed = self._job.packed.cut(run.packed, run.packed_end)
            self._reused += packed.length
            if run.whole and run.crc is not None:
                self._flush()
                self._pieces += packed.pieces
                self._crc = crc32_joined(self._crc, run.crc, run.end - run.start)
                self.plain += run.end - run.start
            else:
                self._add_to_frames(packed.pieces)
            offset = run.end
        self._add_to_frames([self._inflated(piece, offset, end)])

    def _inflated(self, piece: Range, start: int, end: int) -> Range:
        """Return plain bytes ``start`` to ``end`` of the old stream, which are in no stored block.

        They are inflated once for planning, writing and later remasters, as far as the cache takes them.
        """
        whole = Range(piece.source, start, end - start, True)
        if not 0 < whole.length <= MAX_KEPT:
            return whole
        key = "inflated", start, whole.length
        kept: ConcatSource | None = self._job.cache.get(key)
        if kept is None and self._job.cache.has_room(whole.length):
            data = whole.read(0, whole.length)
            kept = ConcatSource(PieceTable([Literal(data)]), crc32(data))
            self._job.cache.put(key, kept, whole.length)
        return whole if kept is None else Range(kept, 0, whole.length, True)

    def _add_to_frames(self, pieces: Iterable[Piece]) -> None:
        """Add ``pieces`` to the stored blocks that are being made. A few bytes before a packed piece get their own."""
        for piece in pieces:
            if piece.length:
                if piece.length >= STORE_FROM and all(isinstance(other, Literal) for other in self._unframed):
                    self._flush()
                self._unframed.append(piece)
                crc = self._find_crc(piece)
                if crc is not None:
                    self._unframed_crc = crc32_joined(self._unframed_crc, crc, piece.length)
                    self.plain += piece.length
                    continue
                for chunk in piece.chunks():
                    self._unframed_crc = crc32(chunk, self._unframed_crc)
                    self.plain += len(chunk)

    def _find_crc(self, piece: Piece) -> int | None:
        """Return the CRC32 of ``piece`` where it is known without reading, else None."""
        if isinstance(piece, Range) and piece.source is self._job.spool:
            crcs = self._job.spool.crcs_around(piece.offset, piece.length)
            return None if crcs is None else crc32_without(crcs[1], crcs[0], piece.length)
        if isinstance(piece, Range) and isinstance(piece.source, ConcatSource):
            return piece.source.crc if piece.length == piece.source.table.length else None
        return None

    def _flush(self) -> None:
        """End the stored blocks that are being made. Pieces that can be read twice are framed when they are written."""
        table, crc = PieceTable(self._unframed), self._unframed_crc
        self._unframed, self._unframed_crc = [], 0
        if not table.length:
            return
        self._crc = crc32_joined(self._crc, crc, table.length)
        for start, end, is_framed_later in _split_by_source(table):
            part = table.cut(start, end)
            if is_framed_later:
                self._pieces.append(FramedSource(part, STORED, crc if part.length == table.length else None).piece())
            else:
                self._pieces += [Literal(STORED.head(part.length, first=False)), *part.pieces]

    def deflate(self, pieces: Iterable[Piece]) -> None:
        """Add ``pieces``, deflated into the spool."""
        start = self.plain
        spool = self._job.spool
        for has_waited, group in groupby(
            self._deflated_blocks(pieces), key=lambda block: isinstance(block, DeflatedBlock)
        ):
            if not has_waited:
                self._pieces.append(spool.append(self._packed_bytes(group), packed=True))
                continue
            for block in group:
                assert isinstance(block, DeflatedBlock)
                spool.count_outside(block.packed.length)
                self._add_crc(block)
                skip_bytes(self._job.advance, block.length)
                self._pieces.append(block.packed)
                self._note_seam(block.window, 0)
        self._encoded += self.plain - start

    def _note_seam(self, window: Range | Literal, inside: int) -> None:
        """Note that the stream can be read from here by who knows ``window``, unless the last seam is near.

        ``inside``: the packed bytes before this one that will be in the next piece.
        """
        last, step = self._seams[-1].plain if self._seams else 0, SEGMENT
        if isinstance(window, Literal):
            step = max(step, self._job.plain.length // MAX_WINDOWS)
        if window.length == WINDOW and self.plain - last >= step:
            self._seams.append(_SeamNote(len(self._pieces), inside, self.plain, window))

    def _deflated_blocks(self, pieces: Iterable[Piece]) -> Iterator[_DeflateBlock | DeflatedBlock]:
        """Yield the blocks of ``pieces``; those that wait need no thread."""
        blocks = self._plain_blocks(pieces)
        for has_waited, group in groupby(blocks, key=lambda block: isinstance(block.cached, DeflatedBlock)):
            if has_waited:
                yield from (block.cached for block in group if block.cached is not None)
            else:
                yield from ordered_map(self._deflate_block, group, self._job.threads)

    def _plain_blocks(self, pieces: Iterable[Piece]) -> Iterator[_PlainBlock]:
        """Yield plain blocks. A block ends with old bytes, so that a later run finds a sync flush there when the bytes
        behind them change again."""
        if self._job.origin is not None:
            yield from self._plain_blocks_of_origin(pieces, self._job.origin)
            return
        key: object = None
        before = b""
        for table in _split_behind_old(pieces, self._job):
            for start in range(0, table.length, DEFLATE_BLOCK):
                part = table.cut(start, min(start + DEFLATE_BLOCK, table.length))
                key = self._key_of(part, key, before)
                cached: _DeflateBlock | None = self._job.cache.get(key)
                plain = b"" if cached else part.read()
                yield _PlainBlock(key, plain, before, cached)
                before = cached.window if cached else plain[-WINDOW:]

    def _plain_blocks_of_origin(self, pieces: Iterable[Piece], origin: Source) -> Iterator[_PlainBlock]:
        """Yield plain blocks that end at fixed places in ``origin``; those that wait, deflated, are not read."""
        before: bytes | DeflatedBlock = b""
        end = run = 0  # of the old bytes at the end of the last block
        for part in _split_at_fixed_places(pieces, origin):
            last, block = part.pieces[-1], None
            is_old = isinstance(last, Range) and last.source is origin
            if isinstance(last, Range) and is_old and len(part.pieces) == 1:
                if (run >= WINDOW and end == last.offset) or (not last.offset and not before):
                    block = self._find_ahead(last)
                run = last.length + (run if end == last.offset else 0)
            else:
                run = last.length if is_old else 0
            end = last.offset + last.length if isinstance(last, Range) else 0
            if block is not None:
                yield _PlainBlock(None, b"", b"", block)
                before = block
                continue
            window = before.window.read(0, WINDOW) if isinstance(before, DeflatedBlock) else before
            plain = part.read()
            yield _PlainBlock(None, plain, window, None)
            before = plain[-WINDOW:]

    def _find_ahead(self, piece: Range) -> DeflatedBlock | None:
        """Return ``piece`` of the origin as it was deflated while it was read; None where that was not so."""
        ahead = self._job.ahead
        if ahead is None or (ahead.coder, ahead.level) != (self._job.gzip_coder, self._parameters.level):
            return None
        block = ahead.block_at(piece.offset)
        return block if block is not None and block.length == piece.length else None

    def _key_of(self, block: PieceTable, key_before: object, before: bytes) -> object:
        """Return the key of a block of old bytes behind the block of ``key_before``; None for one with new bytes."""
        old = [piece for piece in block.pieces if isinstance(piece, Range) and piece.source is self._job.decoded]
        if len(old) != len(block.pieces) or (before and key_before is None):
            return None
        return (
            self._job.gzip_coder,
            self._parameters.level,
            key_before,
            tuple((piece.offset, piece.length) for piece in old),
        )

    def _deflate_block(self, block: _PlainBlock, stop: StopFlag) -> _DeflateBlock | DeflatedBlock:
        """Deflate a block, or return it from an earlier remaster of the same image."""
        stop.check()
        if block.cached:
            return block.cached
        coder, level = self._job.gzip_coder, self._parameters.level
        part = pack_part(
            self._job.memory, name_method(coder, level), block.plain,
            lambda: deflate_block(coder, level, block.plain, block.before), partial(expand_block, block.before),
            block.before,
        )  # fmt: skip
        crc = crc32(block.plain)
        deflated = _DeflateBlock(part.data, len(block.plain), crc, block.plain[-WINDOW:], part.is_taken)
        if block.key is not None:
            self._job.cache.put(block.key, deflated, len(part.data) + WINDOW)
        return deflated

    def _packed_bytes(self, blocks: Iterable[_DeflateBlock | DeflatedBlock]) -> Iterator[bytes]:
        """Yield the packed bytes of ``blocks``, which become a piece."""
        inside = 0
        for block in blocks:
            assert isinstance(block, _DeflateBlock)
            inside += len(block.packed)
            self._add_crc(block)
            self._note_seam(Literal(block.window), inside)
            if block.is_taken:
                skip_bytes(self._job.advance, block.length)
            else:
                self._job.advance(block.length)
            yield block.packed

    def _add_crc(self, block: _DeflateBlock | DeflatedBlock) -> None:
        """Count the plain bytes of ``block``, and add their CRC32."""
        self._crc = crc32_joined(self._crc, block.crc, block.length)
        self.plain += block.length

    def finish(self) -> RepackResult:
        """End the member (RFC 1952, 2.3.1) and return it."""
        size = self.plain & 0xFFFFFFFF
        self._pieces.append(Literal(FINAL_BLOCK + self._crc.to_bytes(4, "little") + size.to_bytes(4, "little")))
        starts = [0, *accumulate(piece.length for piece in self._pieces)]
        seams = tuple(
            Seam(starts[note.piece] + note.inside, note.plain, PieceTable([note.window])) for note in self._seams
        )
        return RepackResult(PieceTable(self._pieces), self._reused, self._encoded, self._stored, seams=seams)


def _split_by_source(table: PieceTable) -> Iterator[tuple[int, int, bool]]:
    """Yield the parts of ``table``, in whole frames: begin, end, and whether all of its sources are direct.

    Each frame with a piece that is not direct is a part of its own.
    """
    offset = reached = 0
    for piece in table.pieces:
        if not is_direct(piece):
            first = max(reached, offset - offset % STORED.size)
            if first > reached:
                yield reached, first, True
            for start in range(first, offset + piece.length, STORED.size):
                reached = min(start + STORED.size, table.length)
                yield start, reached, False
        offset += piece.length
    if reached < table.length:
        yield reached, table.length, True


def _split_behind_old(pieces: Iterable[Piece], job: RepackJob) -> Iterator[PieceTable]:
    """Yield ``pieces`` as tables that end with each long run of old bytes."""
    group: list[Piece] = []
    for piece in pieces:
        group.append(piece)
        if isinstance(piece, Range) and piece.source is job.decoded and piece.length >= STORE_FROM:
            yield PieceTable(group)
            group = []
    yield PieceTable(group)


def _split_at_fixed_places(pieces: Iterable[Piece], origin: Source) -> Iterator[PieceTable]:
    """Yield ``pieces`` as tables of :data:`DEFLATE_BLOCK` bytes at most, which end at its multiples in ``origin``.

    So a removed file moves no border behind it.
    """
    group: list[Piece] = []
    size = 0
    for piece in pieces:
        start, length = 0, piece.length
        while start < length:
            room, to_border = DEFLATE_BLOCK - size, 0
            if isinstance(piece, Range) and piece.source is origin:
                to_border = DEFLATE_BLOCK - (piece.offset + start) % DEFLATE_BLOCK
                room = min(room, to_border)
            end = min(start + room, length)
            group.append(piece.cut(start, end))
            size += end - start
            if size == DEFLATE_BLOCK or end - start == to_border:
                yield PieceTable(group)
                group, size = [], 0
            start = end
    if group:
        yield PieceTable(group)
