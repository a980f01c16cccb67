"""Streams that are a sequence of independent frames: decoding them, and packing them again around unchanged frames.

This is the form of bzip2, lzma, lz4 and zstd. A decompressor must tell where a frame ends.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any, Protocol, TypeAlias

from cosremaster.codecs.base import Count, Decoding, RepackJob, RepackResult, SharedFront
from cosremaster.codecs.cuts import Cutting, plan_cuts
from cosremaster.codecs.part_memory import LEAST, PartKey, pack_part
from cosremaster.crc import crc32
from cosremaster.errors import CorruptError, Place
from cosremaster.io.parallel import StopFlag, ordered_map
from cosremaster.io.pieces import Piece, PieceTable, Range
from cosremaster.io.streams import CHUNK, ByteReader, common_prefix_length
from cosremaster.progress import ThreadedAdvance, skip_bytes
from cosremaster.records import Struct
from cosremaster.records.json import convert
from cosremaster.records.tuples import NamedTuple

FEED = 1 << 14
"""Packed bytes that a decompressor gets at once."""

STEP = 1 << 20
"""Plain bytes that a decompressor gives at once."""


class Frame(Struct, frozen=True):
    """A frame: its bytes ``start`` to ``end`` of the packed stream hold ``size`` plain bytes from offset ``plain``."""

    start: int
    end: int
    plain: int
    size: int

    def dump(self) -> list[int]:
        """Return the frame as JSON values."""
        return [self.start, self.end, self.plain, self.size]


def load_frames(values: Any) -> tuple[Frame, ...]:
    """Return the frames that :meth:`Frame.dump` made ``values`` of. :raises MismatchError: it did not."""
    return tuple(Frame(*frame) for frame in convert(values, tuple[tuple[Count, Count, Count, Count], ...]))


def check_frames(frames: Sequence[Frame], packed: int, plain: int | None, first: int = 0) -> None:
    """Check that ``frames`` follow one another from byte ``first`` of ``packed`` ones, and hold ``plain`` ones.

    Frames with zeros between them are refused too: few streams have such. ``plain`` None: any number.
    :raises ValueError: they do not.
    """
    end, plain_end = first, 0
    for frame in frames:
        if not end == frame.start < frame.end or frame.plain != plain_end:
            raise ValueError("frames do not follow one another")
        end, plain_end = frame.end, frame.plain + frame.size
    if end > packed or plain not in (None, plain_end):
        raise ValueError("frames of another stream")


class Decompressor(Protocol):
    """A frame that is being decoded, with the interface of the standard library's decompressors."""

    @property
    def eof(self) -> bool:
        """Whether the frame's end was reached."""
        ...

    @property
    def unused_data(self) -> bytes | None:
        """The bytes behind the frame's end that were fed."""
        ...

    @property
    def needs_input(self) -> bool:
        """Whether no plain bytes can come without more data."""
        ...

    def decompress(self, data: bytes, max_length: int = -1, /) -> bytes:
        """Return at most ``max_length`` plain bytes."""
        ...


def decode_frame(
    reader: ByteReader, decompressor: Decompressor, name: str, failures: tuple[type[Exception], ...]
) -> Iterator[bytes]:
    """Yield the plain bytes of the frame where ``reader`` stands, which is then right behind it.

    :param name: the format, for messages.
    :param failures: the exceptions that the decompressor raises for damage.
    :raises CorruptError: the frame is damaged, with a place as near as the decompressor tells, or is cut off.
    """
    while not decompressor.eof:
        data = reader.read_some(FEED) if decompressor.needs_input else b""
        if decompressor.needs_input and not data:
            raise CorruptError(f"{name} data ends too early", reader.next_place)
        try:
            plain = decompressor.decompress(data, STEP)
        except failures as error:
            place = reader.place_at(reader.position - len(data))
            raise CorruptError(f"corrupt {name} data ({error})", place) from error
        if plain:
            yield plain
    reader.unread(decompressor.unused_data or b"")


def decode_single(
    reader: ByteReader, decompressor: Decompressor, name: str, failures: tuple[type[Exception], ...]
) -> Iterator[bytes]:
    """Yield the plain bytes of the only frame of ``reader``. :raises CorruptError: it is damaged, or not alone."""
    yield from decode_frame(reader, decompressor, name, failures)
    if reader.peek(1):
        raise CorruptError(f"something behind {name} data", reader.next_place)


class FrameMethod(NamedTuple):
    """How frames are packed: ``name``, all that decides their bytes beside the plain ones; empty for a quick encoder.

    ``decode``: yields the plain bytes of a single frame, and raises CorruptError for anything else.
    """

    name: str
    decode: Callable[[ByteReader], Iterator[bytes]]

    def unpack(self, data: bytes) -> Iterator[bytes]:
        """Yield the plain bytes of the frame ``data``. :raises CorruptError: it is damaged, or not alone."""
        return self.decode(ByteReader([data], Place()))


QUICK = FrameMethod("", lambda reader: iter(()))
"""An encoder that is about as quick as a decoder: what it makes is not worth remembering."""


class FrameDecoding:
    """Decodes the frames of a stream and records where each begins and ends."""

    def __init__(self, reader: ByteReader, decode: Callable[[ByteReader], Iterator[bytes]]) -> None:
        """Begin where ``reader`` stands; ``decode`` yields the plain bytes of one frame."""
        self.reader = reader
        self.frames: list[Frame] = []
        self._decode = decode
        self._base = reader.position
        self._plain = 0

    def resume(self, frames: Sequence[Frame]) -> None:
        """Go on behind ``frames``, the first of the stream, which are known: the reader stands there."""
        self.frames = list(frames)
        self._base, self._plain = self.reader.position - frames[-1].end, frames[-1].plain + frames[-1].size

    @property
    def position(self) -> int:
        """The packed offset up to which everything was decoded."""
        return self.reader.position

    def next_stream(self) -> Iterator[bytes]:
        """Yield the plain bytes of the next frame. :raises CorruptError: it is damaged."""
        start, plain = self.reader.position, self._plain
        for chunk in self._decode(self.reader):
            self._plain += len(chunk)
            yield chunk
        end = self.reader.position
        self.frames.append(Frame(start - self._base, end - self._base, plain, self._plain - plain))

    def chunks(self) -> Iterator[bytes]:
        """Yield the plain bytes of all frames. :raises CorruptError: damage, or bytes that belong to no frame."""
        while True:
            yield from self.next_stream()
            self.reader.skip_zeros()
            if not self.reader.peek(1):
                return


def share_frames(
    frames: Sequence[Frame], old: PieceTable, other: PieceTable,
    resume: Callable[[ByteReader, Sequence[Frame]], Decoding],
) -> SharedFront | None:  # fmt: skip
    """Return the front of the stream ``other`` that has the first of ``frames``, those of ``old``; None without any.

    ``resume``: begins to decode where its reader stands, behind frames that are known.
    """
    if len(frames) < 2:  # a frame that is the whole stream ends like no longer one
        return None
    equal = common_prefix_length(old.chunks(), other.chunks())
    count = bisect_right([frame.end for frame in frames], equal)
    if not count:
        return None
    front = frames[:count]
    return SharedFront(front[-1].end, front[-1].plain + front[-1].size, lambda reader: resume(reader, front))


def decode_from_frame(
    packed: PieceTable, frames: Sequence[Frame], offset: int, place: Place,
    decoding: Callable[[ByteReader], FrameDecoding],
) -> tuple[int, Iterator[bytes]]:  # fmt: skip
    """Begin to decode at the last of ``frames`` that begins at or before plain ``offset``.

    Returns as :meth:`~cosremaster.codecs.base.StreamParameters.decode_from` does.
    """
    number = max(bisect_right([frame.plain for frame in frames], offset) - 1, 0)
    start, plain = (frames[number].start, frames[number].plain) if frames else (0, 0)
    reader = ByteReader(packed.cut(start, packed.length).chunks(), place)
    reader.origin = start
    return plain, decoding(reader).chunks()


Part: TypeAlias = Frame | PieceTable
"""A frame that can be kept, or bytes that have to be packed."""


def parts_of(frames: Sequence[Frame]) -> list[tuple[int, int]]:
    """Return start and end of each of ``frames`` that holds plain bytes, in these."""
    return [(frame.plain, frame.plain + frame.size) for frame in frames if frame.size]


def explain_single(name: str, frame: str, *, by_kernel: bool) -> str | None:
    """Return why a stream of the format ``name`` stays a single ``frame``: kernels read no more; else None."""
    return f"is packed with {name}, of which kernels read a single {frame}" if by_kernel else None


def split_frames(job: RepackJob, frames: Sequence[Frame]) -> Iterator[Part]:
    """Yield the plain bytes of ``job`` in order, as unchanged frames of the old stream and the bytes between them."""
    starts = [frame.plain for frame in frames]
    pieces: list[Piece] = []
    for piece in job.plain.pieces:
        if not isinstance(piece, Range) or piece.source is not job.decoded:
            pieces.append(piece)
            continue
        offset, end = piece.offset, piece.offset + piece.length
        for frame in frames[bisect_left(starts, offset) :]:
            if frame.plain + frame.size > end:
                break
            if not frame.size:
                continue
            pieces.append(Range(piece.source, offset, frame.plain - offset))
            table = PieceTable(pieces)
            if table.length:
                yield table
            pieces = []
            yield frame
            offset = frame.plain + frame.size
        pieces.append(Range(piece.source, offset, end - offset))
    table = PieceTable(pieces)
    if table.length:
        yield table


def repack_frames(
    job: RepackJob, frames: Sequence[Frame], size: int, encode: Callable[[bytes], bytes], method: FrameMethod = QUICK
) -> RepackResult:
    """Pack ``job`` as a sequence of frames: unchanged ones are kept, the rest becomes frames of ``size`` plain bytes.

    The result does not depend on the number of threads. The job's ``cutting`` counts before ``size``.

    :param encode: returns the frame that holds its argument.
    :param method: what ``encode`` does, so that frames of an earlier plan can be taken.
    """
    pieces: list[Piece] = []
    reused = encoded = 0
    sizes: list[int] = []
    fed = ThreadedAdvance(job.advance)

    def items() -> Iterator[Frame | bytes]:
        """Yield kept frames, and the plain bytes of new ones."""
        if job.cutting is not None:
            yield from _cut_frames(job, frames, job.cutting)
            return
        parts = list(split_frames(job, frames))
        skip_bytes(job.advance, sum(part.size for part in parts if isinstance(part, Frame)))
        for part in parts:
            if isinstance(part, Frame):
                yield part
                continue
            reader = ByteReader(part.chunks(), Place())
            while plain := reader.read_upto(size):
                yield plain

    def encode_item(item: Frame | bytes, stop: StopFlag) -> Frame | tuple[int, bytes]:
        """Return a kept frame, or the plain size and the bytes of a new one."""
        stop.check()
        if isinstance(item, Frame):
            return item
        packed = pack_part(job.memory, method.name, item, lambda: encode(item), method.unpack)
        (fed.skip if packed.is_taken else fed)(len(item))
        return len(item), packed.data

    for result in ordered_map(encode_item, items(), job.threads, report=fed.report):
        if isinstance(result, Frame):
            pieces += job.packed.cut(result.start, result.end).marked_packed().pieces
            reused += result.end - result.start
            sizes.append(result.size)
        else:
            plain_size, packed = result
            pieces.append(job.spool.append((packed,), packed=True))
            encoded += plain_size
            sizes.append(plain_size)
    fed.report()
    largest = max(sizes, default=0)
    return RepackResult(PieceTable(pieces), reused, encoded, stored=0, parts=len(sizes), largest_part=largest)


def _cut_frames(job: RepackJob, frames: Sequence[Frame], cutting: Cutting) -> Iterator[Frame | bytes]:
    """Yield the plain bytes of ``job``, cut by ``cutting``: old frames that can stay, and the bytes of new ones."""
    filled = [frame for frame in frames if frame.size]
    cuts = plan_cuts(job.plain, job.decoded, parts_of(filled), cutting)
    skip_bytes(job.advance, sum(filled[number].size for _, _, number in cuts if number is not None))
    for start, end, number in cuts:
        yield job.plain.cut(start, end).read() if number is None else filled[number]


def repack_whole(
    job: RepackJob, compress: Callable[[bytes], bytes], finish: Callable[[], bytes], method: FrameMethod = QUICK
) -> RepackResult:
    """Pack ``job`` as a single frame, for decoders that read no more than one, such as the kernel.

    ``method``: what ``compress`` and ``finish`` do, so that the frame of an earlier plan can be taken.
    """
    taken = _take_whole(job, method)
    if taken is not None:
        skip_bytes(job.advance, job.plain.length)
        return RepackResult(PieceTable([taken]), 0, job.plain.length, stored=0)
    memory = job.memory if method.name and job.plain.length >= LEAST else None
    crc = 0

    def chunks() -> Iterator[bytes]:
        """Yield the packed bytes."""
        nonlocal crc
        for chunk in job.plain.chunks():
            yield compress(chunk)
            crc = crc32(chunk, crc) if memory is not None else 0
            job.advance(len(chunk))
        yield finish()

    piece = job.spool.append(chunks(), packed=True)
    if memory is not None and memory.stores:
        key = PartKey(method.name, job.plain.length, crc)
        memory.store(key, job.spool.chunks(piece.offset, piece.length))
        memory.measure(method.decode(ByteReader(job.spool.chunks(piece.offset, piece.length), Place())), is_alone=True)
    return RepackResult(PieceTable([piece]), 0, job.plain.length, stored=0)


def _take_whole(job: RepackJob, method: FrameMethod) -> Range | None:
    """Return the frame that an earlier plan made by ``method`` of the plain bytes of ``job``; None for none.

    Each of the right size is decoded beside the plain bytes, up to the first difference.
    """
    if job.memory is None or not method.name:
        return None
    for stored in job.memory.find(method.name, job.plain.length):
        with suppress(CorruptError, MemoryError):
            if _are_equal(method.decode(ByteReader(stored.chunks(), Place())), job.plain.chunks()):
                piece = job.spool.append(stored.chunks(), packed=True)
                job.memory.count_taken(job.plain.length)
                return piece
    return None


def _are_equal(first: Iterator[bytes], second: Iterator[bytes]) -> bool:
    """Return whether both yield the same bytes, however they are cut into chunks."""
    reader, other = ByteReader(first, Place()), ByteReader(second, Place())
    while True:
        data = reader.read_upto(CHUNK)
        if data != other.read_upto(CHUNK):
            return False
        if not data:
            return True
