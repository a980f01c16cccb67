"""Planning where a stream is cut into parts that are packed one without the others. Pure: offsets in, parts out.

Parts are the blocks of .xz and the frames of zstd, lz4 and bzip2. A later change of a part packs that part anew, and no
other.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise

from cosremaster.io.pieces import PieceTable, Range, Source
from cosremaster.records import Struct
from cosremaster.records.tuples import NamedTuple


class Cutting(Struct, frozen=True):
    """How a stream is cut: parts of at most ``size`` plain bytes, and a new one at each of ``borders``.

    ``borders``: plain offsets in the old stream, in order.
    """

    size: int
    borders: tuple[int, ...] = ()

    def keeps(self, start: int, end: int) -> bool:
        """Return whether the part of the old plain bytes ``start`` to ``end`` is small enough, and in one piece."""
        return end - start <= self.size and _borders_between(self.borders, start, end) == ()

    def is_met_by(self, parts: Iterable[tuple[int, int]]) -> bool:
        """Return whether a stream of ``parts`` (start and end of each in plain bytes) is cut so already."""
        return all(self.keeps(start, end) for start, end in parts)


class Cut(NamedTuple):
    """The plain bytes ``start`` to ``end`` of a new stream; ``number``: of the old part that they are, or None."""

    start: int
    end: int
    number: int | None = None


def plan_cuts(
    plain: PieceTable, decoded: Source, parts: Sequence[tuple[int, int]], cutting: Cutting
) -> tuple[Cut, ...]:  # fmt: skip
    """Return ``plain``, the bytes of the new stream, in parts: old ones that can stay, and new ones between them.

    New parts between two borders are of one size, as far as that divides.

    :param decoded: the plain bytes of the old stream, as the source of ranges in ``plain``.
    :param parts: start and end of each old part that may stay, in plain bytes of the old stream, in order.
    """
    staying = list(_find_staying(plain, decoded, parts, cutting))
    borders = move_borders(plain, decoded, cutting.borders)
    cuts: list[Cut] = []
    reached = 0
    for part in staying:
        cuts += _cut_evenly(reached, part.start, borders, cutting.size)
        cuts.append(part)
        reached = part.end
    return (*cuts, *_cut_evenly(reached, plain.length, borders, cutting.size))


def move_borders(plain: PieceTable, decoded: Source, borders: Sequence[int]) -> tuple[int, ...]:
    """Return where those of ``borders``, offsets in ``decoded``, stand in ``plain`` that are there."""
    moved: set[int] = set()
    for start, piece in _old_pieces(plain, decoded):
        end = piece.offset + piece.length
        inside = borders[bisect_left(borders, piece.offset) : bisect_right(borders, end)]
        moved.update(border - piece.offset + start for border in inside)
    return tuple(sorted(moved))


def measure_parts(parts: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """Return how many ``parts`` there are, and the plain bytes of the largest."""
    return len(parts), max((end - start for start, end in parts), default=0)


def _old_pieces(plain: PieceTable, decoded: Source) -> Iterator[tuple[int, Range]]:
    """Yield the pieces of ``plain`` that are ranges of ``decoded``, each with its offset."""
    offset = 0
    for piece in plain.pieces:
        if isinstance(piece, Range) and piece.source is decoded:
            yield offset, piece
        offset += piece.length


def _find_staying(
    plain: PieceTable, decoded: Source, parts: Sequence[tuple[int, int]], cutting: Cutting
) -> Iterator[Cut]:
    """Yield the old parts that are whole in ``plain`` and need no cut, where they stand there."""
    starts = [start for start, _ in parts]
    for offset, piece in _old_pieces(plain, decoded):
        first = bisect_left(starts, piece.offset)
        for number, (start, end) in enumerate(parts[first:], first):
            if end > piece.offset + piece.length:
                break
            if start < end and cutting.keeps(start, end):
                yield Cut(start - piece.offset + offset, end - piece.offset + offset, number)


def _cut_evenly(start: int, end: int, borders: Sequence[int], size: int) -> Iterator[Cut]:
    """Yield bytes ``start`` to ``end``, cut at ``borders``, in parts of at most ``size``."""
    for first, last in pairwise((start, *_borders_between(borders, start, end), end)):
        count = -(-(last - first) // size)
        step = -(-(last - first) // max(count, 1))
        for begin in range(first, last, max(step, 1)):
            yield Cut(begin, min(begin + step, last))


def _borders_between(borders: Sequence[int], start: int, end: int) -> tuple[int, ...]:
    """Return those of ``borders`` that stand behind ``start`` and before ``end``."""
    return tuple(borders[bisect_right(borders, start) : bisect_left(borders, end)])
