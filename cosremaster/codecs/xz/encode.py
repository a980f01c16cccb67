"""Encoding plain bytes as .xz blocks: LZMA2 where that makes them smaller, uncompressed chunks where it does not."""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING

from cosremaster.codecs.checks import RunningCheck, crc32_joined
from cosremaster.codecs.frames import decode_single
from cosremaster.codecs.lzma_module import lzma
from cosremaster.codecs.part_memory import describe_library, pack_part
from cosremaster.codecs.xz.container import BlockHeader, IndexRecord
from cosremaster.crc import crc32
from cosremaster.errors import Place
from cosremaster.io.descriptors import aligned_buffer
from cosremaster.io.framed import FramedCrc32, FramedSource
from cosremaster.io.parallel import StopFlag
from cosremaster.io.pieces import Literal, PieceTable
from cosremaster.io.streams import CHUNK, ByteReader
from cosremaster.lazy_regex import lazy_regex
from cosremaster.progress import Advance, skip_bytes
from cosremaster.records import Struct

if TYPE_CHECKING:
    from cosremaster.codecs.part_memory import PartMemory

PRESET = 6
PRESET_DICTS = tuple(size << 10 for size in (256, 1024, 2048, 4096, 4096, 8192, 8192, 16384, 32768, 65536))
"""The dictionaries of presets 0 to 9 (xz(1)) in bytes."""

QUICK_PRESET = 1
"""The preset for a few bytes in a large stream, which take a third of the time and 5 % more bytes than by 6."""

MIN_DICT = 4096
BLOCK_DICTS = 3
"""The plain bytes of a block, in dictionaries, as ``xz -T0`` makes them."""

SEGMENT = 1 << 20
"""The bytes for which it is decided at once whether they compress."""

DIRECT_FROM = 1 << 16
"""Stored bytes stay in their sources if their pieces have at least so many bytes on average."""

_MAX_LITERAL = 1 << 16  # bytes of such a block that may be in memory
_SAMPLES = 16
_TRIAL_SIZE, _COUNT_SIZE = 1024, 8192  # bytes of each sample
_WORTH = 0.99  # the size after compression from which on it is not worth it
_THOROUGH = 64  # every method is tried on segments 0, 1, 2, 4, 8 and so on to this of a file, then on every 64th
_REPEATS, _SEARCHED = 32, 8  # repeats are searched in the first 32 segments, then in 8 of every 32
_ANCHOR = lazy_regex(rb"\x5a[\x00-\x0f].{30}", re.DOTALL)  # some 256 matches in a MiB of random bytes


class EncoderOptions(Struct, frozen=True):
    """The options of the encoder.

    :ivar check: the check id.
    :ivar dictionary_size: the largest dictionary in bytes.
    :ivar always: compress everything, without a trial.
    :ivar quick: data begin with so many bytes or fewer that compress: these are compressed by :data:`QUICK_PRESET`.
    """

    check: int
    dictionary_size: int
    preset: int = PRESET
    always: bool = False
    quick: int = 0

    @property
    def block_size(self) -> int:
        """The plain bytes of a block."""
        return max(BLOCK_DICTS * self.dictionary_size, SEGMENT)


class EncodedBlock(Struct, frozen=True):
    """A block ready to be written, padding included.

    :ivar record: its index record.
    :ivar parts: its bytes; empty where there is ``table``.
    :ivar stored: its chunks are uncompressed.
    :ivar table: its bytes as pieces of their sources, or None.
    :ivar crc: the CRC32 of ``table``.
    """

    record: IndexRecord
    parts: tuple[bytes, ...] = ()
    stored: bool = False
    table: PieceTable | None = None
    crc: int = 0


class StoredChunks(Struct, frozen=True):
    """The framing of uncompressed LZMA2 chunks.

    A header is control 1 (which resets the dictionary) or 2, and size - 1 as 16 bits big-endian.
    """

    size: int = 65536
    head_size: int = 3

    def head(self, length: int, *, first: bool) -> bytes:
        """Return the header of a chunk that holds ``length`` bytes."""
        return (b"\x01" if first else b"\x02") + (length - 1).to_bytes(2, "big")


STORED = StoredChunks()


class _PlainData:
    """Plain bytes that are read in parts: pieces that can be read twice, or one in memory."""

    def __init__(self, table: PieceTable) -> None:
        """Begin without reading."""
        self.table = table
        only = table.pieces[0] if len(table.pieces) == 1 else None
        self._whole = memoryview(only.data) if isinstance(only, Literal) else None
        self._buffer = memoryview(b"") if self._whole is not None else aligned_buffer(min(SEGMENT, table.length))

    def segment(self, start: int, end: int) -> memoryview:
        """Return bytes ``start`` to ``end``, at most :data:`SEGMENT`; they are valid until the next call."""
        if self._whole is not None:
            return self._whole[start:end]
        view = self._buffer[: end - start]
        self.table.fill(start, [view])
        return view

    def view(self, start: int, end: int) -> memoryview:
        """Return bytes ``start`` to ``end``, valid for ever."""
        if self._whole is not None:
            return self._whole[start:end]
        view = memoryview(bytearray(end - start))
        self.table.fill(start, [view])
        return view

    def pieces(self, start: int, end: int) -> PieceTable | None:
        """Return the bytes as pieces that are read when they are written; None where that costs more than it saves."""
        if self._whole is not None:
            return None
        table = self.table.cut(start, end)
        literal = sum(piece.length for piece in table.pieces if isinstance(piece, Literal))
        return table if literal <= _MAX_LITERAL and len(table.pieces) * DIRECT_FROM <= table.length else None


class _Segments:
    """Consecutive segments that are all worth compressing, or are not. The checks of the latter are computed."""

    def __init__(self, start: int, check: int, *, is_worth_it: bool) -> None:
        """Begin at ``start`` without segments."""
        self.start = self.end = start
        self.is_worth_it = is_worth_it
        self.check, self.framed = RunningCheck(check), FramedCrc32(STORED)

    def add(self, segment: memoryview) -> None:
        """Add a segment."""
        self.end += len(segment)
        if not self.is_worth_it:
            self.check.update(segment)
            self.framed.update(segment)


def encode_blocks(
    table: PieceTable, marks: Sequence[int], options: EncoderOptions, stop: StopFlag,
    advance: Advance = lambda count: None, memory: PartMemory | None = None,
) -> tuple[EncodedBlock, ...]:  # fmt: skip
    """Return ``table``, which has direct pieces only, as blocks with their sizes in the headers.

    Runs of segments that do not compress become blocks of uncompressed chunks.

    :param marks: offsets at which other data may begin, in order.
    :param advance: called with the bytes that were fed to the encoder, and skips those that are not compressed.
    :param memory: what earlier plans packed.
    :raises CancelledError: ``stop`` is set.
    """
    plain = _PlainData(table)
    whole = _Segments(0, options.check, is_worth_it=True)
    whole.end = table.length
    runs = [whole] if options.always else _find_runs(plain, marks, options.check, stop) or [whole]
    for run in runs:
        if not run.is_worth_it:
            skip_bytes(advance, run.end - run.start)

    def pack(data: memoryview, dictionary_size: int, preset: int) -> tuple[bytes, ...]:
        """Return the LZMA2 chunks of ``data`` in parts, those of an earlier plan where there are such."""
        encode = partial(_lzma2, data, dictionary_size, preset, stop, advance)
        if memory is None:
            return encode()
        method = f"LZMA2, preset {preset}, dictionary {dictionary_size}; {describe_library('lzma')}"
        unpack = partial(_expand_lzma2, dictionary_size)
        packed = pack_part(memory, method, data, lambda: b"".join(encode()), unpack)
        if packed.is_taken:
            skip_bytes(advance, len(data))
        return (packed.data,)

    return tuple(_compress(plain, run, options, pack) if run.is_worth_it else _store(plain, run) for run in runs)


def _compress(
    plain: _PlainData,
    run: _Segments,
    options: EncoderOptions,
    pack: Callable[[memoryview, int, int], tuple[bytes, ...]],
) -> EncodedBlock:
    """Return a run as a compressed block; ``pack``: returns the chunks of data by a dictionary and a preset."""
    data = plain.view(run.start, run.end)
    running = RunningCheck(options.check)
    running.update(data)
    dictionary_size = max(MIN_DICT, min(options.dictionary_size, len(data)))
    is_quick = run.start == 0 and len(data) <= options.quick
    packed = pack(data, dictionary_size, QUICK_PRESET if is_quick else options.preset)
    size = sum(len(part) for part in packed)
    header = BlockHeader.make(size, len(data), dictionary_size)
    check = running.value()
    record = IndexRecord(len(header.raw) + size + len(check), len(data))
    return EncodedBlock(record, (header.raw, *packed, bytes(-size % 4), check))


def _store(plain: _PlainData, run: _Segments) -> EncodedBlock:
    """Return a run as a block of uncompressed chunks; its bytes stay in their sources, if they can."""
    length, table = run.end - run.start, plain.pieces(run.start, run.end)
    framed = FramedSource(plain.table.cut(run.start, run.end) if table is None else table, STORED)
    size = framed.length + 1
    header = BlockHeader.make(size, length, MIN_DICT)
    end = b"\0" + bytes(-size % 4) + run.check.value()
    record = IndexRecord(len(header.raw) + size + len(run.check.value()), length)
    if table is None:
        packed = memoryview(bytearray(framed.length))
        framed.fill(0, [packed])
        return EncodedBlock(record, (header.raw, bytes(packed), end), True)
    crc = crc32_joined(crc32(header.raw), run.framed.value(), framed.length)
    whole = PieceTable([Literal(header.raw), framed.piece(), Literal(end)])
    return EncodedBlock(record, (), True, whole, crc32(end, crc))


def _lzma2(plain: memoryview, dictionary_size: int, preset: int, stop: StopFlag, advance: Advance) -> tuple[bytes, ...]:
    """Return the LZMA2 chunks of ``plain`` in parts."""
    filters = [{"id": lzma.FILTER_LZMA2, "preset": preset, "dict_size": dictionary_size}]
    compressor = lzma.LZMACompressor(format=lzma.FORMAT_RAW, filters=filters)
    parts = []
    for start in range(0, len(plain), CHUNK):
        stop.check()
        part = plain[start : start + CHUNK]
        parts.append(compressor.compress(part))
        advance(len(part))
    return (*parts, compressor.flush())


def _expand_lzma2(dictionary_size: int, packed: bytes) -> Iterator[bytes]:
    """Yield the plain bytes of the LZMA2 chunks ``packed``. :raises CorruptError: they are damaged, or not alone."""
    filters = [{"id": lzma.FILTER_LZMA2, "dict_size": dictionary_size}]
    decompressor = lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=filters)
    return decode_single(ByteReader([packed], Place()), decompressor, "LZMA2", (lzma.LZMAError, EOFError))


def _find_runs(plain: _PlainData, marks: Sequence[int], check: int, stop: StopFlag) -> list[_Segments]:
    """Return the runs of ``plain``; none where it repeats itself, so that all of it is worth compressing."""
    runs: list[_Segments] = []
    anchors: set[bytes] = set()
    trial = _Trial()
    for start, end, number in _segments(plain.table.length, marks):
        stop.check()
        segment = plain.segment(start, end)
        is_worth_it = trial.shrinks(segment, number)
        is_searched = number < _REPEATS or number % _REPEATS < _SEARCHED
        if not is_worth_it and is_searched and _repeats(segment, anchors):
            return []
        if not runs or runs[-1].is_worth_it != is_worth_it:
            runs.append(_Segments(start, check, is_worth_it=is_worth_it))
        runs[-1].add(segment)
    return runs


def _segments(length: int, marks: Sequence[int]) -> Iterator[tuple[int, int, int]]:
    """Yield begin, end and number of segments of at most :data:`SEGMENT` bytes.

    At each mark a segment begins, with number 0. A mark before the first byte tells how many segments were before.
    """
    before = -max((mark for mark in marks if mark <= 0), default=0)
    edges = [0, *(mark for mark in marks if 0 < mark < length), length]
    for begin, end in pairwise(edges):
        first = 0 if begin else -(-before // SEGMENT)
        for number, start in enumerate(range(begin, end, SEGMENT), first):
            yield start, min(start + SEGMENT, end), number


class _Trial:
    """Tries whether consecutive segments get smaller."""

    def __init__(self) -> None:
        """Begin with the quick method: deflate at its lowest level, which every Python has."""
        self._is_thorough = False

    def shrinks(self, segment: memoryview, number: int) -> bool:
        """Return whether samples of ``segment``, which has this number in its file, get smaller by a hundredth."""
        sample = _sample(segment, _TRIAL_SIZE)
        if len(zlib.compress(sample, 1)) < _WORTH * len(sample):
            return True
        is_power = number & (number - 1) == 0 and number <= _THOROUGH
        if self._is_thorough or is_power or number % _THOROUGH == 0:
            self._is_thorough = _shrinks(segment, sample)
            return self._is_thorough
        return False


def _shrinks(segment: memoryview, sample: bytes) -> bool:
    """Return whether ``sample`` of ``segment`` gets smaller by a hundredth under deflate or LZMA, or a larger sample by
    the frequencies of its bytes alone.

    LZMA uses frequencies too, but only in samples too large for a trial.
    """
    if len(zlib.compress(sample, 1)) < _WORTH * len(sample):
        return True
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": 1 << 16}]
    if len(lzma.compress(sample, lzma.FORMAT_RAW, filters=filters)) < _WORTH * len(sample):
        return True
    sample = _sample(segment, _COUNT_SIZE)
    huffman = zlib.compressobj(1, zlib.DEFLATED, -15, strategy=zlib.Z_HUFFMAN_ONLY)
    return len(huffman.compress(sample)) + len(huffman.flush()) < _WORTH * len(sample)


def _sample(segment: memoryview, size: int) -> bytes:
    """Return :data:`_SAMPLES` parts of ``size`` bytes, evenly distributed over ``segment``, joined."""
    step = max(len(segment) // _SAMPLES, size)
    return b"".join(segment[at : at + size] for at in range(0, len(segment), step))


def _repeats(segment: memoryview, anchors: set[bytes]) -> bool:
    """Return whether ``segment`` repeats something in itself or in the segments before it.

    Only the bytes from each anchor on are compared, so that a repeat is detected at any distance.

    :param anchors: the bytes at the anchors of the segments before; those of ``segment`` are added.
    """
    matches = _ANCHOR.findall(segment)
    is_repeated = len(set(matches)) < len(matches) or not anchors.isdisjoint(matches)
    anchors.update(matches)
    return is_repeated
