"""bzip2: concatenated streams, kept where nothing in them changed; a single stream stays a single one."""

from __future__ import annotations

import bz2
from collections.abc import Iterator, Sequence
from typing import Annotated, Any

from cosremaster.codecs.base import Codec, PackedParameters, RepackJob, RepackResult, SharedFront, StreamParameters
from cosremaster.codecs.frames import (
    Frame,
    FrameDecoding,
    check_frames,
    decode_frame,
    decode_from_frame,
    explain_single,
    load_frames,
    parts_of,
    repack_frames,
    repack_whole,
    share_frames,
)
from cosremaster.codecs.peek import peek_streams
from cosremaster.errors import CorruptError, Place
from cosremaster.io.pieces import PieceTable
from cosremaster.io.streams import ByteReader
from cosremaster.lazy_regex import lazy_regex
from cosremaster.records import NumberRange
from cosremaster.records.json import convert

_MAGIC = lazy_regex(rb"BZh[1-9](?:1AY&SY|\x17rE8P\x90)")
BLOCKS = 8
"""Blocks of plain bytes in each new stream, where there are several."""


class Bzip2Parameters(PackedParameters, frozen=True):
    """The parameters of bzip2 streams.

    :ivar level: the first stream has blocks of so many 100,000 bytes.
    :ivar frames: all streams.
    """

    level: int
    frames: tuple[Frame, ...]

    name = "bzip2"

    def describe(self) -> str:
        """Return the level, and the number of streams when there are several."""
        return f"level {self.level}" + (f", {len(self.frames)} streams" if len(self.frames) > 1 else "")

    @property
    def parts(self) -> Sequence[tuple[int, int]]:
        """The streams that hold plain bytes."""
        return parts_of(self.frames)

    def cut_refusal(self, *, by_kernel: bool) -> str | None:
        """Return that kernels read a single stream, where they unpack it."""
        return explain_single(self.name, "stream", by_kernel=by_kernel)

    def decode_from(self, packed: PieceTable, offset: int, place: Place) -> tuple[int, Iterator[bytes]]:
        """Begin to decode at the beginning of a stream."""
        return decode_from_frame(packed, self.frames, offset, place, Bzip2Decoding)

    def dump(self) -> dict[str, Any]:
        """Return level and streams as JSON values."""
        return {"level": self.level, "frames": [frame.dump() for frame in self.frames]}

    def check_sizes(self, packed: int, plain: int | None) -> None:
        """Check the frames. :raises ValueError: they are those of another stream."""
        check_frames(self.frames, packed, plain)

    def repack(self, job: RepackJob) -> RepackResult:
        """Pack one stream where there was one, since the kernel reads no more; else several."""
        if len(self.frames) < 2 and job.cutting is None:
            compressor = bz2.BZ2Compressor(self.level)
            return repack_whole(job, compressor.compress, compressor.flush)
        size = BLOCKS * self.level * 100_000
        return repack_frames(job, self.frames, size, lambda plain: bz2.compress(plain, self.level))


class Bzip2Decoding(FrameDecoding):
    """Decodes all streams as one."""

    def __init__(self, reader: ByteReader) -> None:
        """Begin where ``reader`` stands."""
        super().__init__(reader, self._decode_stream)
        self._level = 9

    @classmethod
    def behind(cls, reader: ByteReader, frames: Sequence[Frame], parameters: Bzip2Parameters) -> Bzip2Decoding:
        """Begin where ``reader`` stands, behind the ``frames`` of streams with ``parameters``."""
        decoding = cls(reader)
        decoding.resume(frames)
        decoding._level = parameters.level
        return decoding

    @property
    def parameters(self) -> Bzip2Parameters:
        """Level and streams."""
        return Bzip2Parameters(self._level, tuple(self.frames))

    def _decode_stream(self, reader: ByteReader) -> Iterator[bytes]:
        """Yield the plain bytes of one stream."""
        head = reader.peek(10)
        if not _MAGIC.match(head):
            raise CorruptError("bytes that are no bzip2 stream", reader.next_place)
        if not self.frames:
            self._level = head[3] - ord("0")
        yield from decode_frame(reader, bz2.BZ2Decompressor(), "bzip2", (OSError, ValueError))


class Bzip2Codec(Codec):
    """The bzip2 format."""

    name = "bzip2"
    peek_size = 1 << 20

    def sniff(self, head: bytes) -> bool:
        """Return whether there is the magic of a stream and that of its first block."""
        return _MAGIC.match(head) is not None

    def peek(self, head: bytes, count: int) -> bytes:
        """Return the first plain bytes; none come before a whole block, which ``head`` may not hold."""
        return peek_streams(bz2.BZ2Decompressor, (OSError, ValueError), head, count)

    def decode(self, reader: ByteReader) -> Bzip2Decoding:
        """Begin to decode."""
        return Bzip2Decoding(reader)

    def shared_front(self, parameters: StreamParameters, packed: PieceTable, other: PieceTable) -> SharedFront | None:
        """Return the streams that both begin with."""
        assert isinstance(parameters, Bzip2Parameters)
        return share_frames(
            parameters.frames, packed, other, lambda reader, frames: Bzip2Decoding.behind(reader, frames, parameters)
        )

    def load(self, values: dict[str, Any]) -> Bzip2Parameters:
        """Return the parameters that ``dump`` made ``values`` of."""
        level = convert(values["level"], Annotated[int, NumberRange(ge=1, le=9)])
        return Bzip2Parameters(level, load_frames(values["frames"]))
