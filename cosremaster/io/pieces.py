"""The piece table: bytes to be written, as an ordered list of where each run of them comes from.

A table is a value. It knows its length without reading anything, can be cut and joined, and yields its
bytes on demand in order.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from itertools import accumulate
from typing import NamedTuple, Protocol, TypeAlias, cast

from cosremaster.io.streams import CHUNK


class Source(Protocol):
    """Something that pieces take ranges of: a file, a decoded stream, a spool."""

    @property
    def name(self) -> str:
        """For people: what this source is."""
        ...

    def chunks(self, offset: int, length: int) -> Iterator[bytes]:
        """Exactly ``length`` bytes from byte ``offset`` on, in order, in chunks of any size."""
        ...


class DirectSource(Source, Protocol):
    """A source whose ranges cost no more when they are read a second time, straight into where they are wanted."""

    def fill(self, offset: int, views: Sequence[memoryview]) -> None:
        """Fills ``views``, one after another, with the bytes from byte ``offset`` on."""
        ...


class Literal(NamedTuple):
    """Bytes made by us."""

    data: bytes

    @property
    def length(self) -> int:
        """Bytes in this piece."""
        return len(self.data)

    def cut(self, start: int, end: int) -> Literal:
        """Bytes ``start`` to ``end`` of this piece."""
        return Literal(self.data[start:end])

    def chunks(self) -> Iterator[bytes]:
        """The bytes."""
        yield self.data


class Zeros(NamedTuple):
    """``length`` zero bytes."""

    length: int

    def cut(self, start: int, end: int) -> Zeros:
        """Bytes ``start`` to ``end`` of this piece."""
        return Zeros(end - start)

    def chunks(self) -> Iterator[bytes]:
        """The zeros."""
        block = bytes(min(self.length, CHUNK))
        for start in range(0, self.length, CHUNK):
            yield block[: min(CHUNK, self.length - start)]


class Range(NamedTuple):
    """``length`` bytes of ``source`` from byte ``offset``.

    ``packed`` says that they are compressed already, so that nobody tries to compress them again.
    """

    source: Source
    offset: int
    length: int
    packed: bool = False

    def cut(self, start: int, end: int) -> Range:
        """Bytes ``start`` to ``end`` of this piece."""
        return Range(self.source, self.offset + start, end - start, self.packed)

    def chunks(self) -> Iterator[bytes]:
        """The bytes, read from the source now."""
        return self.source.chunks(self.offset, self.length)

    def read(self, offset: int, length: int) -> bytes:
        """Return ``length`` bytes from byte ``offset`` of the range on, fewer where it ends."""
        return b"".join(self.cut(offset, min(offset + length, self.length)).chunks())


Piece: TypeAlias = Literal | Zeros | Range


class PieceTable:
    """An immutable ordered list of pieces."""

    def __init__(self, pieces: Iterable[Piece]) -> None:
        self.pieces: tuple[Piece, ...] = tuple(_joined(pieces))

    @cached_property
    def _starts(self) -> list[int]:
        return list(accumulate((piece.length for piece in self.pieces), initial=0))

    @property
    def length(self) -> int:
        """Bytes in the whole table."""
        return self._starts[-1]

    def marked_packed(self) -> PieceTable:
        """This table with its ranges marked as compressed."""
        return PieceTable(
            Range(piece.source, piece.offset, piece.length, True) if isinstance(piece, Range) else piece
            for piece in self.pieces
        )

    def cut(self, start: int, end: int) -> PieceTable:
        """Bytes ``start`` to ``end`` as a table of its own. Both must lie inside this one."""
        if not 0 <= start <= end <= self.length:
            raise ValueError(f"cut {start}..{end} leaves a table of {self.length} bytes")
        return PieceTable(self._cut(start, end))

    def _cut(self, start: int, end: int) -> Iterator[Piece]:
        index = max(bisect_right(self._starts, start) - 1, 0)
        while start < end:
            piece, base = self.pieces[index], self._starts[index]
            stop = min(end, base + piece.length)
            if stop > start:
                yield piece.cut(start - base, stop - base)
            start = max(start, stop)
            index += 1

    def patched(self, patches: Iterable[tuple[int, bytes]]) -> PieceTable:
        """This table with bytes replaced: ``patches`` are (offset, bytes) in any order, not overlapping."""
        pieces: list[Piece] = []
        reached = 0
        for offset, data in sorted(patches):
            if offset < reached or offset + len(data) > self.length:
                raise ValueError(f"patch of {len(data)} bytes at {offset} overlaps another or the end")
            pieces += self._cut(reached, offset)
            pieces.append(Literal(data))
            reached = offset + len(data)
        return PieceTable([*pieces, *self._cut(reached, self.length)])

    def chunks(self) -> Iterator[bytes]:
        """Every byte, front to back."""
        for piece in self.pieces:
            yield from piece.chunks()

    def read(self, offset: int = 0, length: int | None = None) -> bytes:
        """Return ``length`` bytes from byte ``offset`` on, fewer where the table ends; None: all that follow."""
        end = self.length if length is None else min(offset + length, self.length)
        return b"".join([chunk for piece in self._cut(offset, end) for chunk in piece.chunks()])

    def fill(self, offset: int, views: Sequence[memoryview]) -> None:
        """Fills ``views``, one after another, with the bytes from byte ``offset`` on; they must not pass the end."""
        waiting = Buffers(views)
        index = max(bisect_right(self._starts, offset) - 1, 0)
        while waiting.length:
            piece, start = self.pieces[index], offset - self._starts[index]
            count = min(piece.length - start, waiting.length)
            _fill(piece, start, waiting.take(count))
            offset += count
            index += 1


class Buffers:
    """Buffers that are to be filled, one after another; ``length`` bytes in all."""

    def __init__(self, views: Sequence[memoryview]) -> None:
        self._views = list(reversed(views))
        self.length = sum(map(len, views))

    def take(self, count: int) -> list[memoryview]:
        """The first ``count`` bytes of what is left."""
        taken: list[memoryview] = []
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
        """At most ``count`` buffers of what is left."""
        taken = self._views[: -count - 1 : -1]
        del self._views[-count:]
        self.length -= sum(map(len, taken))
        return taken

    def put_back(self, views: Sequence[memoryview], filled: int) -> None:
        """Puts ``views``, which were taken last, in front again, without the first ``filled`` bytes of them."""
        again = Buffers(views)
        again.take(filled)
        self._views += again._views
        self.length += again.length

    def put(self, data: bytes) -> None:
        """Fills the first bytes of what is left with ``data``."""
        at = 0
        for view in self.take(len(data)):
            view[:] = data[at : at + len(view)]
            at += len(view)


def direct_source(piece: Piece) -> DirectSource | None:
    """The source of ``piece`` if that is a direct one."""
    if isinstance(piece, Range) and hasattr(piece.source, "fill"):
        return cast("DirectSource", piece.source)
    return None


def is_direct(piece: Piece) -> bool:
    """True when ``piece`` can be read again for nothing."""
    return not isinstance(piece, Range) or direct_source(piece) is not None


def _fill(piece: Piece, start: int, views: Sequence[memoryview]) -> None:
    """Fills ``views`` with the bytes of ``piece`` from its byte ``start`` on."""
    source = direct_source(piece)
    if source is not None and isinstance(piece, Range):
        source.fill(piece.offset + start, views)
        return
    waiting = Buffers(views)
    for chunk in piece.cut(start, start + waiting.length).chunks():
        waiting.put(chunk)


def _joined(pieces: Iterable[Piece]) -> Iterator[Piece]:
    """``pieces`` without empty ones, neighbours that continue each other made one."""
    last: Piece | None = None
    for piece in pieces:
        if not piece.length:
            continue
        if last is not None:
            one = _one(last, piece)
            if one is not None:
                last = one
                continue
            yield last
        last = piece
    if last is not None:
        yield last


def _one(left: Piece, right: Piece) -> Piece | None:
    match left, right:
        case Range(), Range() if (
            left.source is right.source and left.offset + left.length == right.offset and left.packed == right.packed
        ):
            return Range(left.source, left.offset, left.length + right.length, left.packed)
        case Zeros(), Zeros():
            return Zeros(left.length + right.length)
        case _:
            return None
