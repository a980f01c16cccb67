"""Formats whose streams are rows of independent frames: what of an old row a new one can keep, the rest made anew."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeAlias

from msgspec import Struct

from cosremaster.codecs.base import RepackJob, RepackResult
from cosremaster.errors import Place
from cosremaster.io.parallel import StopFlag, ordered_map
from cosremaster.io.pieces import Piece, PieceTable, Range
from cosremaster.io.streams import ByteReader


class Frame(Struct, frozen=True):
    """A frame: its bytes ``start`` to ``end`` of the packed stream hold ``size`` plain bytes from ``plain`` on."""

    start: int
    end: int
    plain: int
    size: int

    def dump(self) -> list[int]:
        """As JSON values."""
        return [self.start, self.end, self.plain, self.size]


def load_frames(values: Any) -> tuple[Frame, ...]:
    """What :meth:`Frame.dump` wrote of each. :raises ValueError, TypeError: it did not."""
    return tuple(Frame(*(int(one) for one in frame)) for frame in values)


Part: TypeAlias = Frame | PieceTable


def split_frames(job: RepackJob, frames: Sequence[Frame]) -> Iterator[Part]:
    """The plain bytes of ``job`` as frames that can stay, wherever they come to stand, and what lies between."""
    starts = [frame.plain for frame in frames]
    fresh: list[Piece] = []
    for piece in job.plain.pieces:
        if not isinstance(piece, Range) or piece.source is not job.decoded:
            fresh.append(piece)
            continue
        at, end = piece.offset, piece.offset + piece.length
        for frame in frames[bisect_left(starts, at) :]:
            if frame.plain + frame.size > end:
                break
            if not frame.size:
                continue
            fresh.append(Range(piece.source, at, frame.plain - at))
            table = PieceTable(fresh)
            if table.length:
                yield table
            fresh = []
            yield frame
            at = frame.plain + frame.size
        fresh.append(Range(piece.source, at, end - at))
    table = PieceTable(fresh)
    if table.length:
        yield table


def pack_frames(job: RepackJob, frames: Sequence[Frame], size: int, encode: Callable[[bytes], bytes]) -> RepackResult:
    """``job`` as a row of frames: clean ones kept, the rest in frames of ``size`` plain bytes, made by ``encode``.

    The same bytes for any number of threads.
    """
    pieces: list[Piece] = []
    kept = encoded = 0

    def items() -> Iterator[Frame | bytes]:
        for part in split_frames(job, frames):
            if isinstance(part, Frame):
                yield part
                continue
            reader = ByteReader(part.chunks(), Place())
            while plain := reader.read_upto(size):
                yield plain

    def work(item: Frame | bytes, stop: StopFlag) -> Frame | tuple[int, bytes]:
        stop.check()
        return item if isinstance(item, Frame) else (len(item), encode(item))

    for done in ordered_map(work, items(), job.threads):
        if isinstance(done, Frame):
            pieces += job.packed.cut(done.start, done.end).marked_packed().pieces
            kept += done.end - done.start
            job.advance(done.size)
        else:
            pieces.append(job.spool.append((done[1],), packed=True))
            encoded += done[0]
            job.advance(done[0])
    return RepackResult(PieceTable(pieces), kept, encoded, stored=0)


def pack_one(job: RepackJob, compress: Callable[[bytes], bytes], finish: Callable[[], bytes]) -> RepackResult:
    """``job`` as a single stream, as whoever decodes no more than one (the kernel) needs it."""

    def chunks() -> Iterator[bytes]:
        for chunk in job.plain.chunks():
            yield compress(chunk)
            job.advance(len(chunk))
        yield finish()

    return RepackResult(PieceTable([job.spool.append(chunks(), packed=True)]), 0, job.plain.length, stored=0)
