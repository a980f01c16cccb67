"""lz4: the frame format (lz4_Frame_format.md 1.6.4), and the legacy one that the kernel reads (its last section)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import lz4.block
import lz4.frame

from cosremaster.codecs.base import Codec, PackedParameters, RepackJob, RepackResult
from cosremaster.codecs.frames import Frame, load_frames, pack_frames, pack_one
from cosremaster.codecs.rows import FrameDecoding, decode_frame, plain_from_frame
from cosremaster.errors import CorruptError, Place
from cosremaster.io.pieces import Literal, PieceTable
from cosremaster.io.streams import ByteReader

MAGIC = b"\x04\x22\x4d\x18"
LEGACY = b"\x02\x21\x4c\x18"
LEGACY_BLOCK = 8 << 20
LEVEL = 9
"""No stream says its level; this one is what ``lz4 -9`` takes."""

FRAME_PLAIN = 16 << 20
_BLOCKS = {4: "64 KiB", 5: "256 KiB", 6: "1 MiB", 7: "4 MiB"}
_FAILURES = (RuntimeError, EOFError, ValueError)


class Lz4Parameters(PackedParameters, frozen=True):
    """``block``: the id of the largest block (4 to 7), ``linked``, ``sums``: of content and of each block; all of the
    first frame."""

    block: int
    linked: bool
    sums: tuple[bool, bool]
    frames: tuple[Frame, ...]

    name = "lz4"

    def describe(self) -> str:
        """Block size and frames."""
        text = f"blocks of {_BLOCKS.get(self.block, '64 KiB')}"
        return text + (f", {len(self.frames)} frames" if len(self.frames) > 1 else "")

    def decode_from(self, packed: PieceTable, offset: int, place: Place) -> tuple[int, Iterator[bytes]]:
        """See :class:`~cosremaster.codecs.base.StreamParameters`: from the beginning of a frame."""
        return plain_from_frame(packed, self.frames, offset, place, Lz4Decoding)

    def dump(self) -> dict[str, Any]:
        """All of it."""
        frames = [frame.dump() for frame in self.frames]
        return {"block": self.block, "linked": self.linked, "sums": list(self.sums), "frames": frames}

    def _maker(self) -> Any:
        return lz4.frame.LZ4FrameCompressor(
            block_size=self.block, block_linked=self.linked, content_checksum=self.sums[0],
            block_checksum=self.sums[1], compression_level=LEVEL,
        )  # fmt: skip

    def _whole(self, plain: bytes) -> bytes:
        maker = self._maker()
        return bytes(maker.begin() + maker.compress(plain) + maker.flush())

    def repack(self, job: RepackJob) -> RepackResult:
        """One frame where there was one, else a row."""
        if len(self.frames) > 1:
            return pack_frames(job, self.frames, FRAME_PLAIN, self._whole)
        maker = self._maker()
        waiting = [maker.begin()]

        def compress(plain: bytes) -> bytes:
            return (waiting.pop() if waiting else b"") + bytes(maker.compress(plain))

        return pack_one(job, compress, lambda: (waiting.pop() if waiting else b"") + bytes(maker.flush()))


class Lz4Decoding(FrameDecoding):
    """All frames as one plain stream."""

    def __init__(self, reader: ByteReader) -> None:
        super().__init__(reader, self._frame, "lz4")
        self._info: dict[str, Any] = {}

    @property
    def parameters(self) -> Lz4Parameters:
        """What the first frame says."""
        sums = (bool(self._info.get("content_checksum")), bool(self._info.get("block_checksum")))
        block = int(self._info.get("block_size_id", 4))
        return Lz4Parameters(
            block if block in _BLOCKS else 4, bool(self._info.get("block_linked")), sums, tuple(self.frames)
        )

    def _frame(self, reader: ByteReader) -> Iterator[bytes]:
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
        """The frame's magic."""
        return head.startswith(MAGIC)

    def peek(self, head: bytes, count: int) -> bytes:
        """The first plain bytes; none where the first block is not whole."""
        try:
            return bytes(lz4.frame.LZ4FrameDecompressor().decompress(head, count))
        except _FAILURES:
            return b""

    def decode(self, reader: ByteReader) -> Lz4Decoding:
        """Begins to decode."""
        return Lz4Decoding(reader)

    def load(self, values: dict[str, Any]) -> Lz4Parameters:
        """What ``dump`` wrote."""
        content, block = values["sums"]
        sums = (bool(content), bool(block))
        return Lz4Parameters(int(values["block"]), bool(values["linked"]), sums, load_frames(values["frames"]))


class Lz4LegacyParameters(PackedParameters, frozen=True):
    """``frames``: each block behind its four bytes of length."""

    frames: tuple[Frame, ...]

    name = "lz4-legacy"

    def describe(self) -> str:
        """Blocks."""
        return f"{len(self.frames)} blocks of 8 MiB"

    def decode_from(self, packed: PieceTable, offset: int, place: Place) -> tuple[int, Iterator[bytes]]:
        """See :class:`~cosremaster.codecs.base.StreamParameters`: always from the beginning."""
        return 0, Lz4LegacyDecoding(ByteReader(packed.chunks(), place)).chunks()

    def dump(self) -> dict[str, Any]:
        """Blocks."""
        return {"frames": [frame.dump() for frame in self.frames]}

    def repack(self, job: RepackJob) -> RepackResult:
        """One stream: clean blocks kept, the rest in new ones; the kernel takes a short block anywhere."""
        made = pack_frames(job, self.frames, LEGACY_BLOCK, _legacy_block)
        return RepackResult(PieceTable([Literal(LEGACY), *made.table.pieces]), made.reused, made.encoded, made.stored)


def _legacy_block(plain: bytes) -> bytes:
    packed = lz4.block.compress(plain, mode="high_compression", compression=LEVEL, store_size=False)
    return len(packed).to_bytes(4, "little") + bytes(packed)


class Lz4LegacyDecoding:
    """Blocks up to the end, or to zeros or a length that no block has, as the kernel's ``unlz4`` reads them."""

    def __init__(self, reader: ByteReader) -> None:
        self._reader = reader
        self._base = reader.position
        self._frames: list[Frame] = []

    @property
    def position(self) -> int:
        """What was decoded up to here."""
        return self._reader.position

    @property
    def parameters(self) -> Lz4LegacyParameters:
        """All blocks."""
        return Lz4LegacyParameters(tuple(self._frames))

    def next_stream(self) -> Iterator[bytes]:
        """The plain bytes. :raises CorruptError: damage."""
        reader, plain = self._reader, 0
        if reader.read_upto(4) != LEGACY:
            raise CorruptError("bytes that are no legacy lz4 stream", reader.next_place)
        while True:
            start, here = reader.position, reader.next_place
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
                raise CorruptError(f"corrupt lz4 block ({error})", here) from error
            yield block
            self._frames.append(Frame(start - self._base, reader.position - self._base, plain, len(block)))
            plain += len(block)

    def chunks(self) -> Iterator[bytes]:
        """The plain bytes. :raises CorruptError: damage, or something else follows."""
        yield from self.next_stream()
        for chunk in self._reader.read_rest():
            if chunk.strip(b"\0"):
                raise CorruptError("bytes that are no lz4 block", self._reader.next_place)


class Lz4LegacyCodec(Codec):
    """The legacy lz4 format, as ``lz4 -l`` writes it."""

    name = "lz4-legacy"
    peek_size = LEGACY_BLOCK + LEGACY_BLOCK // 255 + 64

    def sniff(self, head: bytes) -> bool:
        """The magic."""
        return head.startswith(LEGACY)

    def peek(self, head: bytes, count: int) -> bytes:
        """The first plain bytes; none where the first block is not whole."""
        size = int.from_bytes(head[4:8], "little")
        try:
            return bytes(lz4.block.decompress(head[8 : 8 + size], uncompressed_size=LEGACY_BLOCK))[:count]
        except (lz4.block.LZ4BlockError, ValueError):
            return b""

    def decode(self, reader: ByteReader) -> Lz4LegacyDecoding:
        """Begins to decode."""
        return Lz4LegacyDecoding(reader)

    def load(self, values: dict[str, Any]) -> Lz4LegacyParameters:
        """What ``dump`` wrote."""
        return Lz4LegacyParameters(load_frames(values["frames"]))
