"""Zstandard (RFC 8878): frames in a row, kept where nothing in them changed; a single one stays a single one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import zstandard

from cosremaster.codecs.base import Codec, PackedParameters, RepackJob, RepackResult
from cosremaster.codecs.frames import Frame, load_frames, pack_frames, pack_one
from cosremaster.codecs.rows import FrameDecoding, decode_frame, plain_from_frame
from cosremaster.errors import CorruptError, Place
from cosremaster.io.pieces import PieceTable
from cosremaster.io.streams import ByteReader
from cosremaster.units import format_size

MAGIC = b"\x28\xb5\x2f\xfd"
SKIPPABLE = b"\x2a\x4d\x18"  # section 3.1.2, behind a byte 0x50 to 0x5F
MAX_WINDOW = 1 << 27
"""The kernel refuses a larger window for an initramfs (lib/decompress_unzstd.c)."""

FRAME_SIZE = 4 << 20
FEED = 2048
"""Packed bytes fed at once: the decoder has no bound on its output, and a block of 4 bytes may hold 128 KiB."""

LEVELS = ((1 << 27, 22), (1 << 26, 21), (1 << 25, 20), (1 << 23, 19), (1 << 22, 12))
"""Window in bytes -> the level whose default it is, from zstd's own table for large inputs; 3 below."""


class ZstdParameters(PackedParameters, frozen=True):
    """``window``: bytes, of the largest frame; ``checksum``, ``sized``: the first has a checksum, tells its size."""

    window: int
    checksum: bool
    sized: bool
    frames: tuple[Frame, ...]

    name = "zstd"

    @property
    def level(self) -> int:
        """A guess: the level that has this window by default. A frame does not say its own."""
        return next((level for window, level in LEVELS if self.window >= window), 3)

    def describe(self) -> str:
        """Window, checksum, frames."""
        text = f"window {format_size(self.window)}" + (", checksum" if self.checksum else "")
        return text + (f", {len(self.frames)} frames" if len(self.frames) > 1 else "")

    def decode_from(self, packed: PieceTable, offset: int, place: Place) -> tuple[int, Iterator[bytes]]:
        """See :class:`~cosremaster.codecs.base.StreamParameters`: from the beginning of a frame."""
        return plain_from_frame(packed, self.frames, offset, place, ZstdDecoding)

    def dump(self) -> dict[str, Any]:
        """All of it."""
        frames = [frame.dump() for frame in self.frames]
        return {"window": self.window, "checksum": self.checksum, "sized": self.sized, "frames": frames}

    def _maker(self, threads: int) -> zstandard.ZstdCompressor:
        window = max(10, min(self.window, MAX_WINDOW).bit_length() - 1)
        parameters = zstandard.ZstdCompressionParameters.from_level(
            self.level, window_log=window, write_checksum=self.checksum, write_content_size=self.sized, threads=threads
        )
        return zstandard.ZstdCompressor(compression_params=parameters)

    def repack(self, job: RepackJob) -> RepackResult:
        """One frame where there was one, since the kernel reads no more; else a row.

        One frame is cut into zstd's own jobs, which do not depend on the number of threads either.
        """
        if len(self.frames) > 1:
            return pack_frames(job, self.frames, FRAME_SIZE, lambda plain: self._maker(0).compress(plain))
        size = job.plain.length if self.sized else -1
        maker = self._maker(job.threads).compressobj(size=size)
        return pack_one(job, maker.compress, maker.flush)


class _Bounded:
    """A zstd frame as a :class:`~cosremaster.codecs.rows.Decompressor`; its output is bounded by what it is fed."""

    def __init__(self) -> None:
        self._object = zstandard.ZstdDecompressor(max_window_size=1 << 31).decompressobj()
        self._waiting = b""
        self.unused_data: bytes | None = None
        self.eof = False

    @property
    def needs_input(self) -> bool:
        return not self._waiting

    def decompress(self, data: bytes, max_length: int = -1, /) -> bytes:
        data = self._waiting + data
        self._waiting = data[FEED:]
        plain = self._object.decompress(data[:FEED])
        if self._object.eof:
            self.eof, self.unused_data = True, self._object.unused_data + self._waiting
        return bytes(plain)


class ZstdDecoding(FrameDecoding):
    """All frames as one plain stream."""

    def __init__(self, reader: ByteReader) -> None:
        super().__init__(reader, self._frame, "zstd")
        self._window = 0
        self._first: tuple[bool, bool] = (False, False)

    @property
    def parameters(self) -> ZstdParameters:
        """Window, checksum and frames."""
        return ZstdParameters(self._window, *self._first, tuple(self.frames))

    def _frame(self, reader: ByteReader) -> Iterator[bytes]:
        head = reader.peek(18)
        if _is_skippable(head):
            reader.skip(4)
            reader.skip(int.from_bytes(reader.read_exactly(4), "little"))
            return
        if not head.startswith(MAGIC):
            raise CorruptError("bytes that are no zstd frame", reader.next_place)
        try:
            found = zstandard.get_frame_parameters(head)
        except zstandard.ZstdError as error:
            raise CorruptError(f"corrupt zstd frame header ({error})", reader.next_place) from error
        if not self._window:
            self._first = (found.has_checksum, found.content_size != zstandard.CONTENTSIZE_UNKNOWN)
        self._window = max(self._window, found.window_size)
        yield from decode_frame(reader, _Bounded(), "zstd", (zstandard.ZstdError,))


def _is_skippable(head: bytes) -> bool:
    return head[1:4] == SKIPPABLE and head[0] & 0xF0 == 0x50


class ZstdCodec(Codec):
    """zstd."""

    name = "zstd"
    peek_size = (128 << 10) + 64

    def sniff(self, head: bytes) -> bool:
        """The magic of a frame (section 3.1.1), or of one to be skipped."""
        return head.startswith(MAGIC) or _is_skippable(head)

    def peek(self, head: bytes, count: int) -> bytes:
        """The first plain bytes; none where the head is damaged, or a whole block is not in it."""
        try:
            with zstandard.ZstdDecompressor(max_window_size=1 << 31).stream_reader(head) as reader:
                return reader.read(count)
        except zstandard.ZstdError:
            return b""

    def decode(self, reader: ByteReader) -> ZstdDecoding:
        """Begins to decode."""
        return ZstdDecoding(reader)

    def load(self, values: dict[str, Any]) -> ZstdParameters:
        """What ``dump`` wrote."""
        frames = load_frames(values["frames"])
        return ZstdParameters(int(values["window"]), bool(values["checksum"]), bool(values["sized"]), frames)
