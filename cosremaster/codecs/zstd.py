"""Zstandard (RFC 8878): frames, kept where nothing in them changed; a single frame stays a single one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from cosremaster.codecs.base import (
    Codec,
    Count,
    PackedParameters,
    RepackJob,
    RepackResult,
    SharedFront,
    StreamParameters,
)
from cosremaster.codecs.frames import (
    QUICK,
    Frame,
    FrameDecoding,
    FrameMethod,
    check_frames,
    decode_frame,
    decode_from_frame,
    decode_single,
    explain_single,
    load_frames,
    parts_of,
    repack_frames,
    repack_whole,
    share_frames,
)
from cosremaster.codecs.part_memory import describe_library
from cosremaster.codecs.peek import peek_streams
from cosremaster.errors import CorruptError, Place
from cosremaster.io.pieces import PieceTable
from cosremaster.io.streams import ByteReader
from cosremaster.io.zstd_frames import (
    MAGIC,
    SLOW_LEVEL,
    load_zstd,
    new_compressor,
    new_decompressor,
    pack_frame,
    read_header,
)
from cosremaster.records.json import convert
from cosremaster.units import format_size

SKIPPABLE = b"\x2a\x4d\x18"  # section 3.1.2, behind a byte 0x50 to 0x5F
MAX_WINDOW = 1 << 27
"""The kernel refuses a larger window for an initramfs (lib/decompress_unzstd.c)."""

FRAME_SIZE = 4 << 20
LEVELS = ((1 << 27, 22), (1 << 26, 21), (1 << 25, 20), (1 << 23, 19), (1 << 22, 12))
"""Window size in bytes and the level that has it by default, from zstd's table for large inputs; 3 for smaller ones."""


class ZstdParameters(PackedParameters, frozen=True):
    """The parameters of zstd frames.

    :ivar window: the largest window of all frames, in bytes.
    :ivar checksum: whether the first frame has a checksum.
    :ivar sized: whether the first frame has its content size.
    """

    window: int
    checksum: bool
    sized: bool
    frames: tuple[Frame, ...]

    name = "zstd"

    @property
    def level(self) -> int:
        """The level that has this window by default; a frame does not tell its level."""
        return next((level for window, level in LEVELS if self.window >= window), 3)

    def describe(self) -> str:
        """Return window, checksum, and the number of frames when there are several."""
        text = f"window {format_size(self.window)}" + (", checksum" if self.checksum else "")
        return text + (f", {len(self.frames)} frames" if len(self.frames) > 1 else "")

    @property
    def parts(self) -> Sequence[tuple[int, int]]:
        """The frames that hold plain bytes."""
        return parts_of(self.frames)

    def cut_refusal(self, *, by_kernel: bool) -> str | None:
        """Return that kernels read a single frame, where they unpack it."""
        return explain_single(self.name, "frame", by_kernel=by_kernel)

    def decode_from(self, packed: PieceTable, offset: int, place: Place) -> tuple[int, Iterator[bytes]]:
        """Begin to decode at the beginning of a frame."""
        return decode_from_frame(packed, self.frames, offset, place, ZstdDecoding)

    def dump(self) -> dict[str, Any]:
        """Return all parameters as JSON values."""
        frames = [frame.dump() for frame in self.frames]
        return {"window": self.window, "checksum": self.checksum, "sized": self.sized, "frames": frames}

    @property
    def _window_log(self) -> int:
        """The binary logarithm of the window of new frames."""
        return max(10, min(self.window, MAX_WINDOW).bit_length() - 1)

    def _new_compressor(self, threads: int) -> Any:
        """Return a compressor with these parameters."""
        return new_compressor(
            self.level, checksum=self.checksum, sized=self.sized, window_log=self._window_log, threads=threads
        )

    def _method(self, kind: str) -> FrameMethod:
        """Return how frames are packed; ``kind``: whether in jobs."""
        if self.level < SLOW_LEVEL:
            return QUICK
        load_zstd()
        options = f"level {self.level}, window {self._window_log}, checksum {self.checksum}, size {self.sized}"
        return FrameMethod(f"zstd {kind}, {options}; {describe_library('zstd')}", _decode_single)

    def check_sizes(self, packed: int, plain: int | None) -> None:
        """Check the frames. :raises ValueError: they are those of another stream."""
        check_frames(self.frames, packed, plain)

    def repack(self, job: RepackJob) -> RepackResult:
        """Pack one frame where there was one, since the kernel reads no more; else several.

        zstd cuts one frame into jobs, which do not depend on the number of threads.
        """
        if len(self.frames) > 1 or job.cutting is not None:
            return repack_frames(
                job, self.frames, FRAME_SIZE, lambda plain: pack_frame(self._new_compressor(0), plain),
                self._method("frames"),
            )  # fmt: skip
        compressor = self._new_compressor(job.threads)
        if self.sized:
            compressor.set_pledged_input_size(job.plain.length)
        return repack_whole(job, compressor.compress, compressor.flush, self._method("frame of jobs"))


def _decode_single(reader: ByteReader) -> Iterator[bytes]:
    """Yield the plain bytes of a single frame. :raises CorruptError: it is damaged, or not alone."""
    return decode_single(reader, new_decompressor(), "zstd", (load_zstd().ZstdError,))


class ZstdDecoding(FrameDecoding):
    """Decodes all frames as one stream."""

    def __init__(self, reader: ByteReader) -> None:
        """Begin where ``reader`` stands."""
        super().__init__(reader, self._decode_frame)
        self._window = 0
        self._flags: tuple[bool, bool] = (False, False)

    @classmethod
    def behind(cls, reader: ByteReader, frames: Sequence[Frame], parameters: ZstdParameters) -> ZstdDecoding:
        """Begin where ``reader`` stands, behind the ``frames`` of a stream with ``parameters``."""
        decoding = cls(reader)
        decoding.resume(frames)
        decoding._window, decoding._flags = parameters.window, (parameters.checksum, parameters.sized)
        return decoding

    @property
    def parameters(self) -> ZstdParameters:
        """Window, checksum and frames."""
        return ZstdParameters(self._window, *self._flags, tuple(self.frames))

    def _decode_frame(self, reader: ByteReader) -> Iterator[bytes]:
        """Yield the plain bytes of one frame."""
        head = reader.peek(18)
        if _is_skippable(head):
            reader.skip(4)
            reader.skip(int.from_bytes(reader.read_exactly(4), "little"))
            return
        if not head.startswith(MAGIC):
            raise CorruptError("bytes that are no zstd frame", reader.next_place)
        try:
            frame = read_header(head)
        except ValueError as error:
            raise CorruptError(f"corrupt zstd frame header ({error})", reader.next_place) from error
        if not self._window:
            self._flags = (frame.has_checksum, frame.size is not None)
        self._window = max(self._window, frame.window)
        yield from decode_frame(reader, new_decompressor(), "zstd", (load_zstd().ZstdError,))


def _is_skippable(head: bytes) -> bool:
    """Return whether a skippable frame (section 3.1.2) begins with ``head``."""
    return head[1:4] == SKIPPABLE and head[0] & 0xF0 == 0x50


class ZstdCodec(Codec):
    """The Zstandard format."""

    name = "zstd"
    peek_size = (128 << 10) + 4096

    def sniff(self, head: bytes) -> bool:
        """Return whether there is the magic of a frame (section 3.1.1) or of a skippable one."""
        return head.startswith(MAGIC) or _is_skippable(head)

    def peek(self, head: bytes, count: int) -> bytes:
        """Return the first plain bytes, fewer where the head is damaged or ends within a block."""
        return peek_streams(new_decompressor, (load_zstd().ZstdError,), head, count)

    def decode(self, reader: ByteReader) -> ZstdDecoding:
        """Begin to decode."""
        return ZstdDecoding(reader)

    def shared_front(self, parameters: StreamParameters, packed: PieceTable, other: PieceTable) -> SharedFront | None:
        """Return the frames that both streams begin with."""
        assert isinstance(parameters, ZstdParameters)
        return share_frames(
            parameters.frames, packed, other, lambda reader, frames: ZstdDecoding.behind(reader, frames, parameters)
        )

    def load(self, values: dict[str, Any]) -> ZstdParameters:
        """Return the parameters that ``dump`` made ``values`` of."""
        window = convert(values["window"], Count)
        checksum, sized = (convert(values[name], bool) for name in ("checksum", "sized"))
        return ZstdParameters(window, checksum, sized, load_frames(values["frames"]))
