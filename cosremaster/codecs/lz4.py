"""lz4: the frame format (lz4_Frame_format.md 1.6.4), and the legacy one that the kernel reads (its last section)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, Any

import lz4.block
import lz4.frame

from cosremaster.codecs.base import Codec, PackedParameters, RepackJob, RepackResult, SharedFront, StreamParameters
from cosremaster.codecs.frames import (
    Frame,
    FrameDecoding,
    check_frames,
    decode_frame,
    decode_from_frame,
    load_frames,
    parts_of,
    repack_frames,
    repack_whole,
    share_frames,
)
from cosremaster.codecs.peek import peek_streams
from cosremaster.errors import CorruptError, Place
from cosremaster.io.pieces import Literal, PieceTable
from cosremaster.io.streams import ByteReader
from cosremaster.records import NumberRange, replace
from cosremaster.records.json import convert

MAGIC = b"\x04\x22\x4d\x18"
LEGACY = b"\x02\x21\x4c\x18"
LEGACY_BLOCK = 8 << 20
LEVEL = 9
"""The level of ``lz4 -9``; a stream does not tell its level."""

FRAME_PLAIN = 16 << 20
_BLOCKS = {4: "64 KiB", 5: "256 KiB", 6: "1 MiB", 7: "4 MiB"}
_FAILURES = (RuntimeError, EOFError, ValueError)


class Lz4Parameters(PackedParameters, frozen=True):
    """The parameters of lz4 frames; all but the last are those of the first frame.

    :ivar block: the id of the largest block size (4 to 7).
    :ivar linked: whether blocks depend on those before.
    :ivar checksums: whether there is one of the content, and one of each block.
    :ivar frames: all frames.
    """

    block: int
    linked: bool
    checksums: tuple[bool, bool]
    frames: tuple[Frame, ...]

    name = "lz4"

    def describe(self) -> str:
        """Return the block size, and the number of frames when there are several."""
        text = f"blocks of {_BLOCKS.get(self.block, '64 KiB')}"
        return text + (f", {len(self.frames)} frames" if len(self.frames) > 1 else "")

    @property
    def parts(self) -> Sequence[tuple[int, int]]:
        """The frames that hold plain bytes."""
        return parts_of(self.frames)

    def cut_refusal(self, *, by_kernel: bool) -> str | None:
        """Return None: no kernel reads frames, and lz4 reads any number."""
        return None

    def decode_from(self, packed: PieceTable, offset: int, place: Place) -> tuple[int, Iterator[bytes]]:
        """Begin to decode at the beginning of a frame."""
        return decode_from_frame(packed, self.frames, offset, place, Lz4Decoding)

    def dump(self) -> dict[str, Any]:
        """Return all parameters as JSON values."""
        frames = [frame.dump() for frame in self.frames]
        return {"block": self.block, "linked": self.linked, "sums": list(self.checksums), "frames": frames}

    def _new_compressor(self) -> Any:
        """Return a compressor with these parameters."""
        return lz4.frame.LZ4FrameCompressor(
            block_size=self.block, block_linked=self.linked, content_checksum=self.checksums[0],
            block_checksum=self.checksums[1], compression_level=LEVEL,
        )  # fmt: skip

    def _encode_frame(self, plain: bytes) -> bytes:
        """Return a frame that holds ``plain``."""
        compressor = self._new_compressor()
        return bytes(compressor.begin() + compressor.compress(plain) + compressor.flush())

    def check_sizes(self, packed: int, plain: int | None) -> None:
        """Check the frames. :raises ValueError: they are those of another stream."""
        check_frames(self.frames, packed, plain)

    def repack(self, job: RepackJob) -> RepackResult:
        """Pack one frame where there was one, else several."""
        if len(self.frames) > 1 or job.cutting is not None:
            return repack_frames(job, self.frames, FRAME_PLAIN, self._encode_frame)
        compressor = self._new_compressor()
        pending = [compressor.begin()]

        def compress(plain: bytes) -> bytes:
            """Return the packed bytes of ``plain``, the first time behind the frame's header."""
            return (pending.pop() if pending else b"") + bytes(compressor.compress(plain))

        return repack_whole(job, compress, lambda: (pending.pop() if pending else b"") + bytes(compressor.flush()))


class Lz4Decoding(FrameDecoding):
    """Decodes all frames as one stream."""

    def __init__(self, reader: ByteReader) -> None:
        """Begin where ``reader`` stands."""
        super().__init__(reader, self._decode_frame)
        self._info: dict[str, Any] = {}

    @classmethod
    def behind(cls, reader: ByteReader, frames: Sequence[Frame], parameters: Lz4Parameters) -> Lz4Decoding:
        """Begin where ``reader`` stands, behind the ``frames`` of a stream with ``parameters``."""
        decoding = cls(reader)
        decoding.resume(frames)
        content, block = parameters.checksums
        decoding._info = {
            "block_size_id": parameters.block, "block_linked": parameters.linked, "content_checksum": content,
            "block_checksum": block,
        }  # fmt: skip
        return decoding

    @property
    def parameters(self) -> Lz4Parameters:
        """The parameters of the first frame, and all frames."""
        sums = (bool(self._info.get("content_checksum")), bool(self._info.get("block_checksum")))
        block = int(self._info.get("block_size_id", 4))
        return Lz4Parameters(
            block if block in _BLOCKS else 4, bool(self._info.get("block_linked")), sums, tuple(self.frames)
        )

    def _decode_frame(self, reader: ByteReader) -> Iterator[bytes]:
        """Yield the plain bytes of one frame."""
        head = reader.peek(19)
        if not head.startswith(MAGIC):
            raise CorruptError("bytes that are no lz4 frame", reader.next_place)
        try:
            info = lz4.frame.get_frame_info(head)
        except _FAILURES as error:
            raise CorruptError(f"corrupt lz4 frame header ({error})", reader.next_place) from error
        self._info = self._info or info
        yield from decode_frame(reader, lz4.frame.LZ4FrameDecompressor(), "lz4", _FAILURES)


class Lz4Codec(Codec):
    """The lz4 frame format."""

    name = "lz4"
    peek_size = (4 << 20) + 4096

    def sniff(self, head: bytes) -> bool:
        """Return whether there is the magic of a frame."""
        return head.startswith(MAGIC)

    def peek(self, head: bytes, count: int) -> bytes:
        """Return the first plain bytes, or none where the head holds no whole block."""
        return peek_streams(lz4.frame.LZ4FrameDecompressor, _FAILURES, head, count)

    def decode(self, reader: ByteReader) -> Lz4Decoding:
        """Begin to decode."""
        return Lz4Decoding(reader)

    def shared_front(self, parameters: StreamParameters, packed: PieceTable, other: PieceTable) -> SharedFront | None:
        """Return the frames that both streams begin with."""
        assert isinstance(parameters, Lz4Parameters)
        return share_frames(
            parameters.frames, packed, other, lambda reader, frames: Lz4Decoding.behind(reader, frames, parameters)
        )

    def load(self, values: dict[str, Any]) -> Lz4Parameters:
        """Return the parameters that ``dump`` made ``values`` of."""
        block, linked = (
            convert(values["block"], Annotated[int, NumberRange(ge=min(_BLOCKS), le=max(_BLOCKS))]),
            convert(values["linked"], bool),
        )
        checksums = convert(values["sums"], tuple[bool, bool])
        return Lz4Parameters(block, linked, checksums, load_frames(values["frames"]))


class Lz4LegacyParameters(PackedParameters, frozen=True):
    """The parameters of a legacy stream. ``frames``: all blocks, each with its four bytes of length."""

    frames: tuple[Frame, ...]

    name = "lz4-legacy"

    def describe(self) -> str:
        """Return the number of blocks."""
        return f"{len(self.frames)} blocks of 8 MiB"

    @property
    def parts(self) -> Sequence[tuple[int, int]]:
        """The blocks that hold plain bytes."""
        return parts_of(self.frames)

    def cut_refusal(self, *, by_kernel: bool) -> str | None:
        """Return None: kernels too read a short block anywhere."""
        return None

    def decode_from(self, packed: PieceTable, offset: int, place: Place) -> tuple[int, Iterator[bytes]]:
        """Begin to decode at the beginning."""
        return 0, Lz4LegacyDecoding(ByteReader(packed.chunks(), place)).chunks()

    def dump(self) -> dict[str, Any]:
        """Return the blocks as JSON values."""
        return {"frames": [frame.dump() for frame in self.frames]}

    def check_sizes(self, packed: int, plain: int | None) -> None:
        """Check the frames. :raises ValueError: they are those of another stream."""
        check_frames(self.frames, packed, plain, len(LEGACY))

    def repack(self, job: RepackJob) -> RepackResult:
        """Pack one stream: unchanged blocks are kept. The kernel accepts a short block anywhere."""
        if job.cutting is not None and job.cutting.size > LEGACY_BLOCK:
            job = replace(job, cutting=replace(job.cutting, size=LEGACY_BLOCK))
        blocks = repack_frames(job, self.frames, LEGACY_BLOCK, _encode_legacy_block)
        return replace(blocks, table=PieceTable([Literal(LEGACY), *blocks.table.pieces]))


def _encode_legacy_block(plain: bytes) -> bytes:
    """Return a block that holds ``plain``, behind its four bytes of length."""
    packed = lz4.block.compress(plain, mode="high_compression", compression=LEVEL, store_size=False)
    return len(packed).to_bytes(4, "little") + bytes(packed)


class Lz4LegacyDecoding:
    """Decodes blocks up to the end, or to a length that no block has (zeros too), as the kernel's ``unlz4`` does."""

    def __init__(self, reader: ByteReader) -> None:
        """Begin where ``reader`` stands."""
        self._reader = reader
        self._base = reader.position
        self._frames: list[Frame] = []

    @property
    def position(self) -> int:
        """The packed offset up to which everything was decoded."""
        return self._reader.position

    @property
    def parameters(self) -> Lz4LegacyParameters:
        """All blocks."""
        return Lz4LegacyParameters(tuple(self._frames))

    def next_stream(self) -> Iterator[bytes]:
        """Yield the plain bytes. :raises CorruptError: a block is damaged."""
        reader, plain = self._reader, 0
        if reader.read_upto(4) != LEGACY:
            raise CorruptError("bytes that are no legacy lz4 stream", reader.next_place)
        while True:
            start, place = reader.position, reader.next_place
            size = int.from_bytes(reader.peek(4), "little")
            if reader.peek(4) == LEGACY:
                reader.skip(4)
                continue
            if not 0 < size <= LEGACY_BLOCK + LEGACY_BLOCK // 255 + 16:
                return
            reader.skip(4)
            try:
                block = bytes(lz4.block.decompress(reader.read_exactly(size), uncompressed_size=LEGACY_BLOCK))
            except lz4.block.LZ4BlockError as error:
                raise CorruptError(f"corrupt lz4 block ({error})", place) from error
            yield block
            self._frames.append(Frame(start - self._base, reader.position - self._base, plain, len(block)))
            plain += len(block)

    def chunks(self) -> Iterator[bytes]:
        """Yield the plain bytes. :raises CorruptError: a block is damaged, or something else follows."""
        yield from self.next_stream()
        for chunk in self._reader.read_rest():
            if chunk.strip(b"\0"):
                raise CorruptError("bytes that are no lz4 block", self._reader.next_place)


class Lz4LegacyCodec(Codec):
    """The legacy lz4 format, as ``lz4 -l`` writes it."""

    name = "lz4-legacy"
    peek_size = LEGACY_BLOCK + LEGACY_BLOCK // 255 + 64

    def sniff(self, head: bytes) -> bool:
        """Return whether there is the magic."""
        return head.startswith(LEGACY)

    def peek(self, head: bytes, count: int) -> bytes:
        """Return the first plain bytes, or none where the head holds no whole block."""
        size = int.from_bytes(head[4:8], "little")
        try:
            return bytes(lz4.block.decompress(head[8 : 8 + size], uncompressed_size=LEGACY_BLOCK))[:count]
        except (lz4.block.LZ4BlockError, ValueError):
            return b""

    def decode(self, reader: ByteReader) -> Lz4LegacyDecoding:
        """Begin to decode."""
        return Lz4LegacyDecoding(reader)

    def load(self, values: dict[str, Any]) -> Lz4LegacyParameters:
        """Return the parameters that ``dump`` made ``values`` of."""
        return Lz4LegacyParameters(load_frames(values["frames"]))
