"""Bytes cut into frames, each behind a head of its own, as the formats store what does not compress.

Nothing is written for that anywhere: the frames are made while they are read, and taken apart while they are read back.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import cycle, islice
from typing import Protocol

from fastcrc import crc32
from msgspec import Struct

from cosremaster.io.descriptors import AHEAD, BUFFERS, STEP, Filler, aligned_buffer
from cosremaster.io.parallel import prefetch
from cosremaster.io.pieces import PieceTable, Range
from cosremaster.io.streams import CHUNK

PAGE = 4096


class Framing(Protocol):
    """How a format frames: ``size`` bytes at most behind each head of ``head_size`` bytes."""

    @property
    def size(self) -> int:
        """Bytes of a full frame without its head."""
        ...

    @property
    def head_size(self) -> int:
        """Bytes of a head."""
        ...

    def head(self, length: int, *, first: bool) -> bytes:
        """The head of a frame that holds ``length`` bytes; ``first``: no other is before it."""
        ...


class _Parts(Struct, frozen=True, eq=False):
    """A source made of a table's bytes: in chunks by filling."""

    def fill(self, offset: int, views: Sequence[memoryview]) -> None:
        """See :class:`~cosremaster.io.pieces.DirectSource`."""
        raise NotImplementedError

    def chunks(self, offset: int, length: int) -> Iterator[bytes]:
        """``length`` bytes from ``offset``."""
        end = offset + length
        while offset < end:
            data = bytearray(min(CHUNK, end - offset))
            self.fill(offset, [memoryview(data)])
            yield bytes(data)
            offset += len(data)


class ConcatSource(_Parts, frozen=True, eq=False):
    """The bytes of ``table`` as one source; ``crc`` is their CRC32."""

    table: PieceTable
    crc: int
    name: str = "files"

    def fill(self, offset: int, views: Sequence[memoryview]) -> None:
        """See :class:`~cosremaster.io.pieces.DirectSource`."""
        self.table.fill(offset, views)


class FramedSource(_Parts, frozen=True, eq=False):
    """The bytes of ``table`` in frames. ``crc``: the CRC32 of the bytes without heads, where it is known already."""

    table: PieceTable
    framing: Framing
    crc: int | None = None
    name: str = "files"

    @property
    def length(self) -> int:
        """Bytes, heads included."""
        return self.table.length + self.framing.head_size * -(-self.table.length // self.framing.size)

    def piece(self) -> Range:
        """All of it."""
        return Range(self, 0, self.length, True)

    def _heads(self, number: int) -> Iterator[tuple[bytes, int]]:
        """The heads from that of frame ``number`` on, each with how many bytes are behind it."""
        size = self.framing.size
        left = self.table.length - number * size
        if left and not number:
            yield self.framing.head(min(left, size), first=True), min(left, size)
            left -= min(left, size)
        full = self.framing.head(size, first=False), size
        while left >= size:
            yield full
            left -= size
        if left:
            yield self.framing.head(left, first=False), left

    def fill(self, offset: int, views: Sequence[memoryview]) -> None:
        """See :class:`~cosremaster.io.pieces.DirectSource`."""
        head_size = self.framing.head_size
        number, inside = divmod(offset, self.framing.size + head_size)
        start = number * self.framing.size + max(0, inside - head_size)
        heads = self._heads(number)
        head, length = next(heads, (b"", 0))
        bodies: list[memoryview] = []
        for view in views:
            at, end = 0, len(view)
            while at < end:
                if inside == head_size + length:
                    head, length = next(heads)
                    inside = 0
                if inside < head_size:
                    part = head[inside : inside + end - at]
                    view[at : at + len(part)] = part
                    at += len(part)
                    inside += len(part)
                count = min(end - at, head_size + length - inside)
                if count:
                    bodies.append(view[at : at + count])
                    at += count
                    inside += count
        self.table.fill(start, bodies)

    def crc32_of(self, fill: Filler) -> int | None:
        """The CRC32 of what ``fill(offset, views)`` gives for this source's bytes, without heads; None where heads are
        not as they must be."""
        crc = 0
        for heads, wanted, bodies in prefetch(self._read(fill), AHEAD):
            if heads != wanted:
                return None
            for body in bodies:
                crc = crc32.iso_hdlc(body, crc)
        return crc

    def _read(self, fill: Filler) -> Iterator[tuple[memoryview, bytes, list[memoryview]]]:
        """What ``fill`` gives, in parts: heads, what they must be, and what is behind each. A part is good until
        :data:`AHEAD` more have been taken."""
        size, head_size = self.framing.size, self.framing.head_size
        count, room = max(1, STEP // size), -(-size // PAGE) * PAGE  # each body begins with a page
        buffers = [(memoryview(bytearray(count * head_size)), aligned_buffer(count * room)) for _ in range(BUFFERS)]
        frames = self._heads(0)
        for turn, (heads, space) in enumerate(cycle(buffers)):
            group = list(islice(frames, count))
            if not group:
                return
            bodies = [space[at * room : at * room + length] for at, (_, length) in enumerate(group)]
            views: list[memoryview] = []
            for at, body in enumerate(bodies):
                views += [heads[at * head_size : (at + 1) * head_size], body]
            fill(turn * count * (size + head_size), views)
            wanted = b"".join(head for head, _ in group)
            yield heads[: len(wanted)], wanted, bodies


class FramedCrc32:
    """The CRC32 of frames, heads included, of bytes that come in parts."""

    def __init__(self, framing: Framing) -> None:
        self._framing = framing
        self._crc, self._first = 0, True
        self._rest = b""

    def update(self, data: bytes | memoryview) -> None:
        """Takes in ``data``."""
        size, view = self._framing.size, memoryview(data)
        if self._rest:
            missing = size - len(self._rest)
            self._rest += view[:missing]
            view = view[missing:]
            if len(self._rest) < size:
                return
            self._frame(self._rest)
        whole = len(view) - len(view) % size
        for at in range(0, whole, size):
            self._frame(view[at : at + size])
        self._rest = bytes(view[whole:])

    def _frame(self, body: bytes | memoryview) -> None:
        self._crc = crc32.iso_hdlc(self._framing.head(len(body), first=self._first), self._crc)
        self._crc = crc32.iso_hdlc(body, self._crc)
        self._first = False

    def value(self) -> int:
        """The sum, when all has come."""
        if self._rest:
            self._frame(self._rest)
            self._rest = b""
        return self._crc
