"""Bytes cut into frames, each behind a header, as compression formats store data that does not compress.

The frames are written to no temporary file: they are made while they are read, and taken apart while they are read
back.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import cycle, islice
from typing import Protocol

from cosremaster.crc import crc32
from cosremaster.io.descriptors import AHEAD, BUFFERS, STEP, Filler, aligned_buffer
from cosremaster.io.parallel import prefetch
from cosremaster.io.pieces import PieceTable, Range
from cosremaster.io.streams import CHUNK
from cosremaster.records import Struct

PAGE = 4096


class Framing(Protocol):
    """The frames of a format: at most ``size`` bytes behind each header of ``head_size`` bytes."""

    @property
    def size(self) -> int:
        """The bytes of a full frame without its header."""
        ...

    @property
    def head_size(self) -> int:
        """The bytes of a header."""
        ...

    def head(self, length: int, *, first: bool) -> bytes:
        """Return the header of a frame that holds ``length`` bytes; ``first``: no other frame is before it."""
        ...


class _FilledSource(Struct, frozen=True, eq=False):
    """A direct source that makes chunks by filling buffers."""

    def fill(self, offset: int, views: Sequence[memoryview]) -> None:
        """Fill ``views``; see :class:`~cosremaster.io.pieces.DirectSource`."""
        raise NotImplementedError

    def chunks(self, offset: int, length: int) -> Iterator[bytes]:
        """Yield ``length`` bytes from ``offset`` on."""
        end = offset + length
        while offset < end:
            data = bytearray(min(CHUNK, end - offset))
            self.fill(offset, [memoryview(data)])
            yield bytes(data)
            offset += len(data)


class ConcatSource(_FilledSource, frozen=True, eq=False):
    """The bytes of ``table`` as one source; ``crc``: their CRC32."""

    table: PieceTable
    crc: int
    name: str = "files"

    def fill(self, offset: int, views: Sequence[memoryview]) -> None:
        """Fill ``views``; see :class:`~cosremaster.io.pieces.DirectSource`."""
        self.table.fill(offset, views)


class FramedSource(_FilledSource, frozen=True, eq=False):
    """The bytes of ``table`` in frames. ``crc``: the CRC32 of the bytes without headers; None where it is not known."""

    table: PieceTable
    framing: Framing
    crc: int | None = None
    name: str = "files"

    @property
    def length(self) -> int:
        """Its length in bytes, headers included."""
        return self.table.length + self.framing.head_size * -(-self.table.length // self.framing.size)

    def piece(self) -> Range:
        """Return all frames as a piece."""
        return Range(self, 0, self.length, True)

    def _headers(self, number: int) -> Iterator[tuple[bytes, int]]:
        """Yield the headers from that of frame ``number`` on, each with the number of bytes behind it."""
        size = self.framing.size
        rest = self.table.length - number * size
        if rest and not number:
            yield self.framing.head(min(rest, size), first=True), min(rest, size)
            rest -= min(rest, size)
        full = self.framing.head(size, first=False), size
        while rest >= size:
            yield full
            rest -= size
        if rest:
            yield self.framing.head(rest, first=False), rest

    def fill(self, offset: int, views: Sequence[memoryview]) -> None:
        """Fill ``views``; see :class:`~cosremaster.io.pieces.DirectSource`."""
        head_size = self.framing.head_size
        number, position = divmod(offset, self.framing.size + head_size)  # position in the frame, header included
        start = number * self.framing.size + max(0, position - head_size)
        headers = self._headers(number)
        header, length = next(headers, (b"", 0))
        bodies: list[memoryview] = []
        for view in views:
            at, end = 0, len(view)
            while at < end:
                if position == head_size + length:
                    header, length = next(headers)
                    position = 0
                if position < head_size:
                    part = header[position : position + end - at]
                    view[at : at + len(part)] = part
                    at += len(part)
                    position += len(part)
                count = min(end - at, head_size + length - position)
                if count:
                    bodies.append(view[at : at + count])
                    at += count
                    position += count
        self.table.fill(start, bodies)

    def crc32_of(self, fill: Filler) -> int | None:
        """Return the CRC32, without headers, of the frames that ``fill(offset, views)`` reads back.

        None where a header is not the expected one.
        """
        crc = 0
        for headers, expected, bodies in prefetch(self._read_back(fill), AHEAD):
            if headers != expected:
                return None
            for body in bodies:
                crc = crc32(body, crc)
        return crc

    def _read_back(self, fill: Filler) -> Iterator[tuple[memoryview, bytes, list[memoryview]]]:
        """Yield groups of frames that ``fill`` reads: their headers, the expected headers, and the bytes behind each.

        A group is valid until :data:`AHEAD` more have been taken.
        """
        size, head_size = self.framing.size, self.framing.head_size
        count, room = max(1, STEP // size), -(-size // PAGE) * PAGE  # each body begins with a page
        buffers = [(memoryview(bytearray(count * head_size)), aligned_buffer(count * room)) for _ in range(BUFFERS)]
        frames = self._headers(0)
        for turn, (headers, space) in enumerate(cycle(buffers)):
            group = list(islice(frames, count))
            if not group:
                return
            bodies = [space[index * room : index * room + length] for index, (_, length) in enumerate(group)]
            views: list[memoryview] = []
            for index, body in enumerate(bodies):
                views += [headers[index * head_size : (index + 1) * head_size], body]
            fill(turn * count * (size + head_size), views)
            expected = b"".join(header for header, _ in group)
            yield headers[: len(expected)], expected, bodies


class FramedCrc32:
    """The CRC32 of frames, headers included, of bytes that are added in parts."""

    def __init__(self, framing: Framing) -> None:
        """Begin with no bytes."""
        self._framing = framing
        self._crc, self._is_first = 0, True
        self._rest = b""

    def update(self, data: bytes | memoryview) -> None:
        """Add ``data``."""
        size, view = self._framing.size, memoryview(data)
        if self._rest:
            missing = size - len(self._rest)
            self._rest += view[:missing]
            view = view[missing:]
            if len(self._rest) < size:
                return
            self._add_frame(self._rest)
        whole = len(view) - len(view) % size
        for start in range(0, whole, size):
            self._add_frame(view[start : start + size])
        self._rest = bytes(view[whole:])

    def _add_frame(self, body: bytes | memoryview) -> None:
        """Add a frame with its header."""
        self._crc = crc32(self._framing.head(len(body), first=self._is_first), self._crc)
        self._crc = crc32(body, self._crc)
        self._is_first = False

    def value(self) -> int:
        """Return the CRC32 when all bytes were added."""
        if self._rest:
            self._add_frame(self._rest)
            self._rest = b""
        return self._crc
