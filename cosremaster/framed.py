"""Bytes cut into frames, each behind a head of its own, as the formats store what does not compress.

Nothing is written for that anywhere: the frames are made while they are read, and taken apart while they are read back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from fastcrc import crc32

from cosremaster.pieces import PieceTable, Range, Waiting
from cosremaster.streams import CHUNK


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

    def head(self, number: int, length: int) -> bytes:
        """The head of frame ``number``, counted from 0, which holds ``length`` bytes."""
        ...


class _Parts:
    """A source made of a table's bytes: in chunks by filling."""

    __slots__ = ()

    def fill(self, offset: int, views: Sequence[memoryview]) -> None:
        """See :class:`~cosremaster.pieces.Direct`."""
        raise NotImplementedError

    def chunks(self, offset: int, length: int) -> Iterator[bytes]:
        """``length`` bytes from ``offset``."""
        end = offset + length
        while offset < end:
            data = bytearray(min(CHUNK, end - offset))
            self.fill(offset, [memoryview(data)])
            yield bytes(data)
            offset += len(data)


@dataclass(frozen=True, slots=True, eq=False)
class Joined(_Parts):
    """The bytes of ``table`` as one source; ``crc`` is their CRC32."""

    table: PieceTable
    crc: int
    name: str = "files"

    def fill(self, offset: int, views: Sequence[memoryview]) -> None:
        """See :class:`~cosremaster.pieces.Direct`."""
        self.table.fill(offset, views)


@dataclass(frozen=True, slots=True, eq=False)
class Framed(_Parts):
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

    def _head(self, number: int) -> tuple[bytes, int]:
        """The head of frame ``number``, and how many bytes are behind it."""
        length = min(self.framing.size, self.table.length - number * self.framing.size)
        return self.framing.head(number, length), length

    def fill(self, offset: int, views: Sequence[memoryview]) -> None:
        """See :class:`~cosremaster.pieces.Direct`."""
        waiting = Waiting(views)
        number, inside = divmod(offset, self.framing.size + self.framing.head_size)
        start = number * self.framing.size + max(0, inside - self.framing.head_size)
        bodies: list[memoryview] = []
        while waiting.length:
            head, length = self._head(number)
            part = head[inside : inside + waiting.length]
            waiting.put(part)
            inside += len(part)
            bodies += waiting.take(min(waiting.length, len(head) + length - inside))
            number, inside = number + 1, 0
        self.table.fill(start, bodies)

    def found(self, fill: Callable[[int, Sequence[memoryview]], None]) -> int | None:
        """The CRC32 of what ``fill(offset, views)`` gives for this source's bytes, without heads; None where heads are
        not as they must be."""
        size, head_size = self.framing.size, self.framing.head_size
        count = max(1, 4 * CHUNK // size)
        heads, bodies = memoryview(bytearray(count * head_size)), bytearray(count * size)
        body = memoryview(bodies)
        crc = 0
        for first in range(0, -(-self.table.length // size), count):
            length = min(count * size, self.table.length - first * size)
            views: list[memoryview] = []
            wanted = []
            for at in range(0, length, size):
                wanted.append(self._head(first + at // size)[0])
                start = (len(wanted) - 1) * head_size
                views += [heads[start : start + head_size], body[at : min(at + size, length)]]
            fill(first * (size + head_size), views)
            if heads[: len(wanted) * head_size] != b"".join(wanted):
                return None
            crc = crc32.iso_hdlc(body[:length], crc)
        return crc


class FramedSum:
    """The CRC32 of frames, heads included, of bytes that come in parts."""

    def __init__(self, framing: Framing) -> None:
        self._framing = framing
        self._crc = self._number = 0
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
        self._crc = crc32.iso_hdlc(self._framing.head(self._number, len(body)), self._crc)
        self._crc = crc32.iso_hdlc(body, self._crc)
        self._number += 1

    def value(self) -> int:
        """The sum, when all has come."""
        if self._rest:
            self._frame(self._rest)
            self._rest = b""
        return self._crc
