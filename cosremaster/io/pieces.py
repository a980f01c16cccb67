"""The piece table: bytes to be written, as an ordered list of pieces that say where the bytes come from.

A table is a value. It knows its length without reading anything, can be cut and joined, and yields its
bytes on demand in order.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from itertools import accumulate
from operator import itemgetter
from typing import Protocol, TypeAlias, cast

from cosremaster.io.streams import CHUNK
from cosremaster.records.tuples import NamedTuple


class Source(Protocol):
    """Bytes that pieces refer to: a file, a decoded stream, a spool."""

    @property
    def name(self) -> str:
        """The source's name for people."""
        ...

    def chunks(self, offset: int, length: int) -> Iterator[bytes]:
        """Yield exactly ``length`` bytes from byte ``offset`` on, in order, in chunks of any size."""
        ...


class DirectSource(Source, Protocol):
    """A source that can be read twice at no extra cost, straight into the buffers of the caller."""

    def fill(self, offset: int, views: Sequence[memoryview]) -> None:
        """Fill ``views``, one after another, with the bytes from byte ``offset`` on."""
        ...


class Literal(NamedTuple):
    """Bytes in memory."""

    data: bytes

    @property
    def length(self) -> int:
        """Its length in bytes."""
        return len(self.data)

    def cut(self, start: int, end: int) -> Literal:
        """Return bytes ``start`` to ``end`` of this piece."""
        return Literal(self.data[start:end])

    def chunks(self) -> Iterator[bytes]:
        """Yield the bytes."""
        yield self.data


class Zeros(NamedTuple):
    """``length`` zero bytes."""

    length: int

    def cut(self, start: int, end: int) -> Zeros:
        """Return bytes ``start`` to ``end`` of this piece."""
        return Zeros(end - start)

    def chunks(self) -> Iterator[bytes]:
        """Yield the zeros."""
        block = bytes(min(self.length, CHUNK))
        for start in range(0, self.length, CHUNK):
            yield block[: min(CHUNK, self.length - start)]


class Range(NamedTuple):
    """``length`` bytes of ``source`` from byte ``offset``.

    ``packed``: they are compressed already, so that compressing them again gains nothing.
    """

    source: Source
    offset: int
    length: int
    packed: bool = False

    def cut(self, start: int, end: int) -> Range:
        """Return bytes ``start`` to ``end`` of this piece."""
        return Range(self.source, self.offset + start, end - start, self.packed)

    def chunks(self) -> Iterator[bytes]:
        """Yield the bytes, which are read from the source now."""
        return self.source.chunks(self.offset, self.length)

    def read(self, offset: int, length: int) -> bytes:
        """Return ``length`` bytes from byte ``offset`` of the range on, fewer where it ends."""
        return b"".join(self.cut(offset, min(offset + length, self.length)).chunks())


Piece: TypeAlias = Literal | Zeros | Range


class PieceTable:
    """An immutable ordered list of pieces."""

    def __init__(self, pieces: Iterable[Piece]) -> None:
        """Make a table of ``pieces``; empty ones are left out, and neighbours that continue each other are joined."""
        self.pieces: tuple[Piece, ...] = tuple(join_neighbours(pieces))

    @cached_property
    def _starts(self) -> list[int]:
        """The offset of each piece, and the table's length at the end."""
        return list(accumulate((piece.length for piece in self.pieces), initial=0))

    @property
    def length(self) -> int:
        """Its length in bytes."""
        return self._starts[-1]

    def marked_packed(self) -> PieceTable:
        """Return this table with its ranges marked as compressed."""
        return PieceTable(
            Range(piece.source, piece.offset, piece.length, True) if isinstance(piece, Range) else piece
            for piece in self.pieces
        )

    def cut(self, start: int, end: int) -> PieceTable:
        """Return bytes ``start`` to ``end`` as a table. :raises ValueError: they are not inside this one."""
        if not 0 <= start <= end <= self.length:
            raise ValueError(f"cut {start}..{end} leaves a table of {self.length} bytes")
        return PieceTable(self._cut(start, end))

    def _cut(self, start: int, end: int) -> Iterator[Piece]:
        """Yield the pieces of bytes ``start`` to ``end``."""
        index = max(bisect_right(self._starts, start) - 1, 0)
        while start < end:
            piece, base = self.pieces[index], self._starts[index]
            stop = min(end, base + piece.length)
            if stop > start:
                yield piece.cut(start - base, stop - base)
            start = max(start, stop)
            index += 1

    def patched(self, patches: Iterable[tuple[int, bytes | PieceTable]]) -> PieceTable:
        """Return this table with bytes replaced.

        :param patches: pairs of offset and bytes, in any order.
        :raises ValueError: two patches overlap, or one passes the end.
        """
        pieces: list[Piece] = []
        reached = 0
        for offset, data in sorted(patches, key=itemgetter(0)):
            table = PieceTable([Literal(data)]) if isinstance(data, bytes) else data
            if offset < reached or offset + table.length > self.length:
                raise ValueError(f"patch of {table.length} bytes at {offset} overlaps another or the end")
            pieces += self._cut(reached, offset)
            pieces += table.pieces
            reached = offset + table.length
        return PieceTable([*pieces, *self._cut(reached, self.length)])

    def chunks(self) -> Iterator[bytes]:
        """Yield all bytes in order."""
        for piece in self.pieces:
            yield from piece.chunks()

    def read(self, offset: int = 0, length: int | None = None) -> bytes:
        """Return ``length`` bytes from byte ``offset`` on, fewer where the table ends; None: all that follow."""
        end = self.length if length is None else min(offset + length, self.length)
        return b"".join([chunk for piece in self._cut(offset, end) for chunk in piece.chunks()])

    def fill(self, offset: int, views: Sequence[memoryview]) -> None:
        """Fill ``views``, one after another, with the bytes from byte ``offset`` on, which must not pass the end."""
        index = max(bisect_right(self._starts, offset) - 1, 0)
        buffers = Buffers(views)
        while buffers.length:
            piece, start = self.pieces[index], offset - self._starts[index]
            count = min(piece.length - start, buffers.length)
            _fill(piece, start, buffers.take(count))
            offset += count
            index += 1


def have_same_bytes(first: PieceTable, second: PieceTable) -> bool:
    """Return whether two tables hold the same bytes. Meant for sources that can be read at any offset at once."""
    if first.length != second.length:
        return False
    buffer, other = bytearray(min(CHUNK, first.length)), bytearray(min(CHUNK, first.length))
    for start in range(0, first.length, CHUNK):
        rest = first.length - start
        if rest < len(buffer):
            buffer, other = bytearray(rest), bytearray(rest)
        first.fill(start, [memoryview(buffer)])
        second.fill(start, [memoryview(other)])
        if buffer != other:
            return False
    return True


def list_unlike_spans(first: PieceTable, second: PieceTable) -> Iterator[tuple[int, int]]:
    """Yield the spans, each a first byte and the byte behind it, in which two tables of one length may differ.

    Where both have holes, or the same bytes of the same source, they do not; nothing is read to know that.
    """
    pieces, others = list(first.pieces[::-1]), list(second.pieces[::-1])
    at = start = 0
    while pieces and others:
        count = min(pieces[-1].length, others[-1].length)
        if _take_head(pieces, count) == _take_head(others, count):
            if start < at:
                yield start, at
            start = at + count
        at += count
    if start < at:
        yield start, at


def _take_head(pieces: list[Piece], count: int) -> Piece:
    """Take the first ``count`` bytes off the last of ``pieces``, and return them."""
    piece = pieces.pop()
    if count < piece.length:
        pieces.append(piece.cut(count, piece.length))
    return piece.cut(0, count)


class Buffers:
    """Buffers to be filled, one after another; ``length``: bytes that are still to be filled."""

    def __init__(self, views: Sequence[memoryview]) -> None:
        """Begin with all of ``views``."""
        self._views = list(reversed(views))
        self.length = sum(map(len, views))

    def take(self, count: int) -> list[memoryview]:
        """Take away the next ``count`` bytes and return their buffers."""
        taken: list[memoryview] = []
        if count == self.length:  # the usual case: everything from a single source
            taken, self._views, self.length = self._views[::-1], taken, 0
            return taken
        self.length -= count
        while count:
            view = self._views.pop()
            if len(view) > count:
                self._views.append(view[count:])
                view = view[:count]
            taken.append(view)
            count -= len(view)
        return taken

    def take_buffers(self, count: int) -> list[memoryview]:
        """Take away and return the next ``count`` buffers, fewer if there are no more."""
        taken = self._views[: -count - 1 : -1]
        del self._views[-count:]
        self.length -= sum(map(len, taken))
        return taken

    def put_back(self, views: Sequence[memoryview], filled: int) -> None:
        """Put ``views``, which were taken last, in front again, without their first ``filled`` bytes."""
        rest = Buffers(views)
        rest.take(filled)
        self._views += rest._views
        self.length += rest.length

    def put(self, data: bytes) -> None:
        """Fill the next bytes with ``data``."""
        at = 0
        for view in self.take(len(data)):
            view[:] = data[at : at + len(view)]
            at += len(view)


def direct_source(piece: Piece) -> DirectSource | None:
    """Return the source of ``piece`` if it is a direct one, else None."""
    if isinstance(piece, Range) and hasattr(piece.source, "fill"):
        return cast("DirectSource", piece.source)
    return None


def is_direct(piece: Piece) -> bool:
    """Return whether ``piece`` can be read a second time at no extra cost."""
    return not isinstance(piece, Range) or direct_source(piece) is not None


def _fill(piece: Piece, start: int, views: Sequence[memoryview]) -> None:
    """Fill ``views`` with the bytes of ``piece`` from its byte ``start`` on."""
    if isinstance(piece, Range):
        fill = getattr(piece.source, "fill", None) or getattr(piece.source, "read_into", None)
        if fill is not None:
            fill(piece.offset + start, views)
            return
    buffers = Buffers(views)
    for chunk in piece.cut(start, start + buffers.length).chunks():
        buffers.put(chunk)


def join_neighbours(pieces: Iterable[Piece]) -> Iterator[Piece]:
    """Yield ``pieces`` without empty ones, neighbours that continue each other joined."""
    last: Piece | None = None
    for piece in pieces:
        if not piece.length:
            continue
        if last is not None:
            joined = _join(last, piece)
            if joined is not None:
                last = joined
                continue
            yield last
        last = piece
    if last is not None:
        yield last


def _join(first: Piece, second: Piece) -> Piece | None:
    """Return both pieces as one, or None if ``second`` does not continue ``first``."""
    match first, second:
        case Range(), Range() if (
            first.source is second.source
            and first.offset + first.length == second.offset
            and first.packed == second.packed
        ):
            return Range(first.source, first.offset, first.length + second.length, first.packed)
        case Zeros(), Zeros():
            return Zeros(first.length + second.length)
        case _:
            return None
