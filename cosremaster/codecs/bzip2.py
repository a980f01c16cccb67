"""bzip2: streams in a row, kept where nothing in them changed; a single one is written as a single one."""

from __future__ import annotations

import bz2
import re
from collections.abc import Iterator
from typing import Any

from cosremaster.codecs.base import Codec, PackedParameters, RepackJob, RepackResult
from cosremaster.codecs.frames import Frame, load_frames, pack_frames, pack_one
from cosremaster.codecs.rows import FrameDecoding, decode_frame, plain_from_frame
from cosremaster.errors import CorruptError, Place
from cosremaster.io.pieces import PieceTable
from cosremaster.io.streams import ByteReader

_MAGIC = re.compile(rb"BZh[1-9](?:1AY&SY|\x17rE8P\x90)")
BLOCKS = 8
"""Blocks of plain bytes in each new stream of a row."""


class Bzip2Parameters(PackedParameters, frozen=True):
    """``level``: blocks of so many 100,000 bytes, as the first stream says; ``frames``: all streams."""

    level: int
    frames: tuple[Frame, ...]

    name = "bzip2"

    def describe(self) -> str:
        """Level, and streams when there are several."""
        return f"level {self.level}" + (f", {len(self.frames)} streams" if len(self.frames) > 1 else "")

    def decode_from(self, packed: PieceTable, offset: int, place: Place) -> tuple[int, Iterator[bytes]]:
        """See :class:`~cosremaster.codecs.base.StreamParameters`: from the beginning of a stream."""
        return plain_from_frame(packed, self.frames, offset, place, Bzip2Decoding)

    def dump(self) -> dict[str, Any]:
        """Level and streams."""
        return {"level": self.level, "frames": [frame.dump() for frame in self.frames]}

    def repack(self, job: RepackJob) -> RepackResult:
        """One stream where there was one, since the kernel reads no more; else a row."""
        if len(self.frames) < 2:
            maker = bz2.BZ2Compressor(self.level)
            return pack_one(job, maker.compress, maker.flush)
        size = BLOCKS * self.level * 100_000
        return pack_frames(job, self.frames, size, lambda plain: bz2.compress(plain, self.level))


class Bzip2Decoding(FrameDecoding):
    """All streams as one plain stream."""

    def __init__(self, reader: ByteReader) -> None:
        super().__init__(reader, self._frame, "bzip2")
        self._level = 9

    @property
    def parameters(self) -> Bzip2Parameters:
        """Level and streams."""
        return Bzip2Parameters(self._level, tuple(self.frames))

    def _frame(self, reader: ByteReader) -> Iterator[bytes]:
        head = reader.peek(10)
        if not _MAGIC.match(head):
            raise CorruptError("bytes that are no bzip2 stream", reader.next_place)
        if not self.frames:
            self._level = head[3] - ord("0")
        yield from decode_frame(reader, bz2.BZ2Decompressor(), "bzip2", (OSError, ValueError))


class Bzip2Codec(Codec):
    """bzip2."""

    name = "bzip2"
    peek_size = 1 << 20

    def sniff(self, head: bytes) -> bool:
        """The stream's magic and that of its first block."""
        return _MAGIC.match(head) is not None

    def peek(self, head: bytes, count: int) -> bytes:
        """The first plain bytes: none come before a whole block, which ``head`` may not hold."""
        try:
            return bz2.BZ2Decompressor().decompress(head, count)
        except (OSError, ValueError):
            return b""

    def decode(self, reader: ByteReader) -> Bzip2Decoding:
        """Begins to decode."""
        return Bzip2Decoding(reader)

    def load(self, values: dict[str, Any]) -> Bzip2Parameters:
        """What ``dump`` wrote."""
        if values["level"] not in range(1, 10):
            raise ValueError("no such level")
        return Bzip2Parameters(values["level"], load_frames(values["frames"]))
