"""What of a gzip stream's deflate blocks can stay around changes, whatever program wrote them.

A block refers to 32 KiB of plain bytes before it at most. So a run of old bytes keeps its blocks from the first that
begins so far behind its own beginning up to the last that ends in it. The plain bytes of its edges are taken down on
the same pass, as far as they are few, so that nothing is inflated again for them.
"""

from __future__ import annotations

import zlib
from collections import deque
from collections.abc import Mapping, Sequence
from functools import lru_cache

from cosremaster.codecs.base import RepackJob
from cosremaster.codecs.gzip.borders import EMPTY, EMPTY_SIZE, FLUSH, Border, PackedStep
from cosremaster.codecs.gzip.checkpoints import SEARCHED, STEP, Checkpoint, find_checkpoint
from cosremaster.codecs.gzip.deflate import WINDOW
from cosremaster.codecs.gzip.read import read_header
from cosremaster.crc import crc32
from cosremaster.errors import Place
from cosremaster.io.pieces import Literal, Piece, PieceTable, Range
from cosremaster.io.streams import ByteReader
from cosremaster.records import Struct

MIN_RUN = 4 << 20
"""The least plain bytes of a run of old bytes whose blocks are looked for: that takes a tenth of a second."""

_MOST_NOTED = 16 << 20  # plain bytes between kept blocks that are kept in memory


class BlockRun(Struct, frozen=True):
    """Deflate blocks that stay, from the border ``start`` to the border ``end``."""

    start: Border
    end: Border


class Splice(Struct, frozen=True):
    """What comes of a piece of old bytes: blocks that stay, and plain bytes ``before`` and ``after`` them."""

    before: tuple[Piece, ...]
    run: BlockRun | None = None
    after: tuple[Piece, ...] = ()


def plan_splices(job: RepackJob, checkpoints: Sequence[Checkpoint] = ()) -> Mapping[int, Splice]:
    """Return, by its place among the pieces of ``job``, what comes of each piece of old bytes; empty where no run is
    long enough.

    The old stream, which has one member, is inflated up to the end of the last such piece; where it has
    ``checkpoints``, from the last of them before each end of a piece. That changes nothing in the result.
    """
    if not job.packed.length:  # the stream is packed for the first time
        return {}
    old = {
        number: piece
        for number, piece in enumerate(job.plain.pieces)
        if isinstance(piece, Range) and piece.source is job.decoded and not piece.packed
    }
    pieces = sorted(old.items(), key=lambda item: item[1].offset)
    reached = 0
    for _, piece in pieces:
        if piece.offset < reached:  # bytes that come twice
            return {}
        reached = piece.offset + piece.length
    if not any(piece.length >= MIN_RUN for _, piece in pieces):
        return {}
    search = _Search(job, [piece for _, piece in pieces], checkpoints)
    search.run()
    return {number: splice for (number, _), splice in zip(pieces, search.splices, strict=False)}


class _Search:
    """One pass over the old stream, for ``pieces`` of its plain bytes, which are in order and do not overlap.

    ``splices``: what comes of each of them so far.
    """

    def __init__(self, job: RepackJob, pieces: Sequence[Range], checkpoints: Sequence[Checkpoint]) -> None:
        """Begin at the first block."""
        self.splices: list[Splice] = []
        self._pieces, self._checkpoints, self._packed = pieces, checkpoints, job.packed
        self._reader = ByteReader(job.packed.chunks(), Place())
        read_header(self._reader)
        self._first = Border(self._reader.position, 0, 0, 0)
        self._inflater = zlib.decompressobj(-15)
        self._plain = self._crc = self._noted_size = 0
        self._steps: deque[PackedStep] = deque(maxlen=SEARCHED)
        self._start: Border | None = None
        self._noted: list[bytes] = []  # the plain bytes from the beginning of the piece on, until its first border

    def run(self) -> None:
        """Go to the end of the last piece."""
        while len(self.splices) < len(self._pieces) and not self._inflater.eof:
            self._pass_over()
            data = self._reader.read_upto(STEP)
            if not data:
                return
            step = PackedStep(self._inflater.copy(), data, self._reader.position - len(data), self._plain, self._crc)
            plain = self._inflater.decompress(data)
            self._steps.append(step)
            self._plain, self._crc = self._plain + len(plain), crc32(plain, self._crc)
            while len(self.splices) < len(self._pieces) and self._take(step, plain):
                pass

    def _pass_over(self) -> None:
        """Go on from the last checkpoint in front of what has to be seen next, if that is further."""
        piece = self._pieces[len(self.splices)]
        if self._start is None:
            point = find_checkpoint(self._checkpoints, piece.offset, searched=False)
        else:
            point = find_checkpoint(self._checkpoints, piece.offset + piece.length, searched=True)
        if point is None or point.plain <= self._plain:
            return
        self._reader = ByteReader(self._packed.cut(point.byte, self._packed.length).chunks(), Place())
        self._reader.position = point.byte
        self._inflater, self._plain, self._crc = point.inflater.copy(), point.plain, point.crc
        self._steps.clear()

    def _take(self, step: PackedStep, plain: bytes) -> bool:
        """Use ``step``, whose bytes inflate to ``plain``, for the next piece; return whether that is complete."""
        piece = self._pieces[len(self.splices)]
        end = piece.offset + piece.length
        if piece.length < MIN_RUN:
            return self._note(step, plain, piece, end) >= end and self._finish(piece, None)
        if self._start is None:
            self._start = self._find_start(step, piece)
            self._note(step, plain, piece, end if self._start is None else self._start.plain)
        if self._plain < end and not self._inflater.eof:
            return False
        return self._finish(piece, self._start and self._find_end(end))

    def _find_start(self, step: PackedStep, piece: Range) -> Border | None:
        """Return where the first block of ``piece`` begins that can stay, if it does in ``step``."""
        if not piece.offset:
            return self._first
        if self._plain < piece.offset + WINDOW:
            return None
        return next((border for border in step.borders() if border.plain >= piece.offset + WINDOW), None)

    def _find_end(self, end: int) -> Border | None:
        """Return where the last block that ends at plain byte ``end`` or before does so; None if that is too far."""
        assert self._start is not None
        for step in reversed(self._steps):
            borders = [border for border in step.borders() if self._start.plain < border.plain <= end]
            if borders:
                return borders[-1]
        return None

    def _note(self, step: PackedStep, plain: bytes, piece: Range, end: int) -> int:
        """Take down ``plain``, to which ``step`` inflates, as far as ``piece`` has it up to plain byte ``end``.

        Return up to where that is done.
        """
        first, last = max(piece.offset, step.plain) - step.plain, min(end - step.plain, len(plain))
        if first < last:
            self._noted_size += last - first
            if self._noted_size <= _MOST_NOTED:
                self._noted.append(plain[first:last])
        return step.plain + last

    def _finish(self, piece: Range, end: Border | None) -> bool:
        """Say what comes of ``piece``, whose last block that stays ends at ``end``; return True."""
        start, noted = self._start, b"".join(self._noted)
        self._start, self._noted = None, []
        if piece.length < MIN_RUN:
            whole = len(noted) == piece.length
            self.splices.append(Splice((Literal(noted) if whole else piece,)))
        elif start is None or end is None:
            self.splices.append(Splice((piece,)))
        else:
            length = start.plain - piece.offset
            before: Piece = Literal(noted) if len(noted) == length else piece.cut(0, length)
            after = self._read_after(end, piece)
            self.splices.append(Splice((before,) if length else (), BlockRun(start, end), after))
        return True

    def _read_after(self, end: Border, piece: Range) -> tuple[Piece, ...]:
        """Return the rest of ``piece`` behind the border ``end``."""
        last = piece.offset + piece.length
        rest = b"".join(
            step.plain_bytes()[max(end.plain - step.plain, 0) : last - step.plain]
            for step in self._steps
            if step.plain < last and step.start + len(step.data) > end.byte
        )
        self._noted_size += len(rest)
        if len(rest) == last - end.plain and self._noted_size <= _MOST_NOTED:
            return (Literal(rest),) if rest else ()
        return (piece.cut(end.plain - piece.offset, piece.length),)


def frame_run(run: BlockRun, packed: PieceTable) -> tuple[Piece, ...]:
    """Return the blocks of ``run`` in the stream ``packed``, behind a byte and up to one.

    Empty blocks fill the bits before the first, and a sync flush those behind the last.
    """
    first, last = run.start, run.end
    begin, bits, length = first.byte, *_filler(first.bit)
    head = b""
    if length:
        bits |= (packed.read(begin, 1)[0] >> first.bit) << length
        head, begin = bits.to_bytes((length + 7) // 8, "little"), begin + 1
    tail = b""
    if last.bit:
        low = packed.read(last.byte, 1)[0] & ((1 << last.bit) - 1)
        tail = low.to_bytes((last.bit + 3 + 7) // 8, "little") + FLUSH
    pieces = (Literal(head), *packed.cut(begin, last.byte).pieces, Literal(tail))
    return tuple(piece for piece in pieces if piece.length)


@lru_cache(8)
def _filler(bit: int) -> tuple[int, int]:
    """Return the bits of empty blocks, and how many they are: as many as lead from a byte's beginning to ``bit``.

    A block with fixed codes has an even number of bits, one with codes of its own can have an odd one.
    """
    bits = length = 0
    if bit % 2:
        bits, length = _odd_block()
    while (bit - length) % 8:
        bits |= EMPTY << length
        length += EMPTY_SIZE
    return bits, length


def _odd_block() -> tuple[int, int]:
    """Return the bits of an empty block with codes of its own, and their odd number (RFC 1951, 3.2.7).

    Code lengths: 254 zeros, 2, 1 and 2 for the end of the block; twice 1 for distances. No code is over.
    """
    bits = length = 0

    def add(value: int, size: int) -> None:
        """Add a number, whose lowest bit is the first."""
        nonlocal bits, length
        bits, length = bits | value << length, length + size

    add(0b100, 3)  # not final, codes of its own
    add(0, 5)  # 257 codes for literals and lengths
    add(1, 5)  # 2 codes for distances
    add(18 - 4, 4)
    own = {18: 1, 1: 2, 2: 2}
    for symbol in (16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1):
        add(own.get(symbol, 0), 3)
    zeros, one, two = (0b0, 1), (0b01, 2), (0b11, 2)  # Huffman codes begin with their highest bit
    for count in (138, 116):
        add(*zeros)
        add(count - 11, 7)
    for code in (two, one, two, one, one):
        add(*code)
    add(0b11, 2)  # the end of the block
    return bits, length
