"""Decoding rows of frames by a decompressor that tells where a frame ends: bzip2, lzma, lz4, zstd."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from cosremaster.codecs.frames import Frame
from cosremaster.errors import CorruptError, Place
from cosremaster.io.pieces import PieceTable
from cosremaster.io.streams import ByteReader


class Decompressor(Protocol):
    """One frame being decoded, as the standard library's decompressors do it."""

    @property
    def eof(self) -> bool:
        """Behind the frame's end."""
        ...

    @property
    def unused_data(self) -> bytes | None:
        """What was fed from behind the end."""
        ...

    @property
    def needs_input(self) -> bool:
        """Nothing more comes without more data."""
        ...

    def decompress(self, data: bytes, max_length: int = -1, /) -> bytes:
        """Plain bytes, at most ``max_length``."""
        ...


FEED = 1 << 14
STEP = 1 << 20


def decode_frame(
    reader: ByteReader, decompressor: Decompressor, name: str, failures: tuple[type[Exception], ...]
) -> Iterator[bytes]:
    """The plain bytes of the frame where ``reader`` stands, which is then right behind it.

    :raises CorruptError: damage, as near as the decompressor tells, or the stream ends before.
    """
    while not decompressor.eof:
        data = reader.read_some(FEED) if decompressor.needs_input else b""
        if decompressor.needs_input and not data:
            raise CorruptError(f"{name} data ends too early", reader.next_place)
        try:
            plain = decompressor.decompress(data, STEP)
        except failures as error:
            where = reader.place_at(reader.position - len(data))
            raise CorruptError(f"corrupt {name} data ({error})", where) from error
        if plain:
            yield plain
    reader.unread(decompressor.unused_data or b"")


class FrameDecoding:
    """Frames of one format in a row, each noted. A codec says how one is decoded."""

    def __init__(self, reader: ByteReader, one: Callable[[ByteReader], Iterator[bytes]], name: str) -> None:
        self.reader = reader
        self.frames: list[Frame] = []
        self._one = one
        self._name = name
        self._base = reader.position
        self._plain = 0

    @property
    def position(self) -> int:
        """What was decoded up to here."""
        return self.reader.position

    def next_stream(self) -> Iterator[bytes]:
        """The plain bytes of the next frame. :raises CorruptError: damage."""
        start, plain = self.reader.position, self._plain
        for chunk in self._one(self.reader):
            self._plain += len(chunk)
            yield chunk
        end = self.reader.position
        self.frames.append(Frame(start - self._base, end - self._base, plain, self._plain - plain))

    def chunks(self) -> Iterator[bytes]:
        """The plain bytes of all frames. :raises CorruptError: damage, or bytes that belong to no frame."""
        while True:
            yield from self.next_stream()
            for chunk in self.reader.read_rest():
                rest = chunk.lstrip(b"\0")
                if rest:
                    self.reader.unread(rest)
                    break
            if not self.reader.peek(1):
                return


def plain_from_frame(
    packed: PieceTable, frames: Sequence[Frame], offset: int, place: Place,
    decoding: Callable[[ByteReader], FrameDecoding],
) -> tuple[int, Iterator[bytes]]:  # fmt: skip
    """What a form's ``decode_from`` gives where decoding can begin at each of ``frames``."""
    first = max(bisect_right([frame.plain for frame in frames], offset) - 1, 0)
    start, plain = (frames[first].start, frames[first].plain) if frames else (0, 0)
    reader = ByteReader(packed.cut(start, packed.length).chunks(), place)
    reader.origin = start
    return plain, decoding(reader).chunks()
