"""Encoding plain bytes as .xz blocks: LZMA2 where it gains something, uncompressed chunks where it does not."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator, Sequence
from itertools import pairwise

from fastcrc import crc32
from msgspec import Struct

from cosremaster.codecs.checks import RunningCheck, crc32_joined
from cosremaster.codecs.lzma_module import lzma
from cosremaster.codecs.xz.container import BlockHeader, IndexRecord
from cosremaster.io.descriptors import aligned_buffer
from cosremaster.io.framed import FramedCrc32, FramedSource
from cosremaster.io.parallel import StopFlag
from cosremaster.io.pieces import Literal, PieceTable
from cosremaster.io.streams import CHUNK

PRESET = 6
PRESET_DICTS = tuple(size << 10 for size in (256, 1024, 2048, 4096, 4096, 8192, 8192, 16384, 32768, 65536))
"""The dictionaries of presets 0 to 9 (xz(1)) in bytes."""

MIN_DICT = 4096
BLOCK_DICTS = 3
"""A block holds three dictionaries of plain bytes, as ``xz -T0`` makes them."""

SEGMENT = 1 << 20
"""Whether bytes compress is decided for so many at a time."""

DIRECT_FROM = 1 << 16
"""Stored bytes stay where they are, if the pieces they come in hold as many as this or more, one with another."""

_MOST_LITERAL = 1 << 16  # bytes of such a block that may be kept in memory
_SAMPLES = 16
_TRIED, _COUNTED = 1024, 8192  # bytes of each sample
_WORTH = 0.99
_THOROUGH = 64  # of a piece of data segments 0, 1, 2, 4, 8 and so on to this are tried by all means, then each such
_REPEATS, _LOOKED = 32, 8  # repeats are looked for in the first segments, then in the first so many of as many again
_ANCHOR = re.compile(rb"\x5a[\x00-\x0f].{30}", re.DOTALL)  # some 256 to the MiB of random bytes


class EncoderOptions(Struct, frozen=True):
    """How to encode: the check's id, the largest dictionary in bytes, the preset, and whether to try always."""

    check: int
    dictionary_size: int
    preset: int = PRESET
    always: bool = False

    @property
    def block_size(self) -> int:
        """Plain bytes of a block."""
        return max(BLOCK_DICTS * self.dictionary_size, SEGMENT)


class EncodedBlock(Struct, frozen=True):
    """A block ready to be written, padding included, and its index record. ``stored``: it is uncompressed.

    Its bytes are ``parts``, or ``table`` where they need not be kept, and ``crc`` then their CRC32.
    """

    record: IndexRecord
    parts: tuple[bytes, ...] = ()
    stored: bool = False
    table: PieceTable | None = None
    crc: int = 0


class StoredChunks(Struct, frozen=True):
    """LZMA2 uncompressed chunks: control 1 (resets the dictionary) or 2, then size - 1 as 16 bits big-endian."""

    size: int = 65536
    head_size: int = 3

    def head(self, length: int, *, first: bool) -> bytes:
        """See :class:`~cosremaster.io.framed.Framing`."""
        return (b"\x01" if first else b"\x02") + (length - 1).to_bytes(2, "big")


STORED = StoredChunks()


class _Plain:
    """Plain bytes that are looked at in parts: pieces that can be read again, or one in memory."""

    def __init__(self, table: PieceTable) -> None:
        self.table = table
        only = table.pieces[0] if len(table.pieces) == 1 else None
        self._whole = memoryview(only.data) if isinstance(only, Literal) else None
        self._buffer = memoryview(b"") if self._whole is not None else aligned_buffer(min(SEGMENT, table.length))

    def segment(self, start: int, end: int) -> memoryview:
        """At most :data:`SEGMENT` bytes, good until the next are asked for."""
        if self._whole is not None:
            return self._whole[start:end]
        view = self._buffer[: end - start]
        self.table.fill(start, [view])
        return view

    def view(self, start: int, end: int) -> memoryview:
        """Any bytes, to be kept."""
        if self._whole is not None:
            return self._whole[start:end]
        view = memoryview(bytearray(end - start))
        self.table.fill(start, [view])
        return view

    def again(self, start: int, end: int) -> PieceTable | None:
        """The bytes as pieces to be read again when they are written; None where that would cost more than it saves."""
        if self._whole is not None:
            return None
        table = self.table.cut(start, end)
        held = sum(piece.length for piece in table.pieces if isinstance(piece, Literal))
        return table if held <= _MOST_LITERAL and len(table.pieces) * DIRECT_FROM <= table.length else None


class _Run:
    """Bytes from ``start`` on that are worth compressing, or are not; of those the sums are taken."""

    def __init__(self, start: int, check: int, *, worth: bool) -> None:
        self.start = self.end = start
        self.worth = worth
        self.check, self.framed = RunningCheck(check), FramedCrc32(STORED)

    def add(self, segment: memoryview) -> None:
        """The run goes on."""
        self.end += len(segment)
        if not self.worth:
            self.check.update(segment)
            self.framed.update(segment)


def encode_blocks(
    table: PieceTable, marks: Sequence[int], how: EncoderOptions, stop: StopFlag
) -> tuple[EncodedBlock, ...]:
    """``table``, of direct pieces, as blocks with their sizes in the header.

    Runs of it that do not compress become blocks of uncompressed chunks. ``marks`` are offsets where other data
    may begin, in order. :raises CancelledError: ``stop`` is set.
    """
    plain = _Plain(table)
    whole = _Run(0, how.check, worth=True)
    whole.end = table.length
    runs = [whole] if how.always else _runs(plain, marks, how.check, stop) or [whole]
    return tuple(_encode(plain, run, how, stop) if run.worth else _stored(plain, run) for run in runs)


def _encode(plain: _Plain, run: _Run, how: EncoderOptions, stop: StopFlag) -> EncodedBlock:
    """A run as a compressed block."""
    data = plain.view(run.start, run.end)
    running = RunningCheck(how.check)
    running.update(data)
    dictionary_size = max(MIN_DICT, min(how.dictionary_size, len(data)))
    packed = _compressed(data, dictionary_size, how.preset, stop)
    size = sum(len(part) for part in packed)
    header = BlockHeader.make(size, len(data), dictionary_size)
    check = running.value()
    record = IndexRecord(len(header.raw) + size + len(check), len(data))
    return EncodedBlock(record, (header.raw, *packed, bytes(-size % 4), check))


def _stored(plain: _Plain, run: _Run) -> EncodedBlock:
    """A run in uncompressed chunks; its bytes stay where they are, if they can."""
    length, table = run.end - run.start, plain.again(run.start, run.end)
    framed = FramedSource(plain.table.cut(run.start, run.end) if table is None else table, STORED)
    size = framed.length + 1
    header = BlockHeader.make(size, length, MIN_DICT)
    end = b"\0" + bytes(-size % 4) + run.check.value()
    record = IndexRecord(len(header.raw) + size + len(run.check.value()), length)
    if table is None:
        packed = memoryview(bytearray(framed.length))
        framed.fill(0, [packed])
        return EncodedBlock(record, (header.raw, bytes(packed), end), True)
    crc = crc32_joined(crc32.iso_hdlc(header.raw), run.framed.value(), framed.length)
    whole = PieceTable([Literal(header.raw), framed.piece(), Literal(end)])
    return EncodedBlock(record, (), True, whole, crc32.iso_hdlc(end, crc))


def _compressed(plain: memoryview, dictionary_size: int, preset: int, stop: StopFlag) -> tuple[bytes, ...]:
    filters = [{"id": lzma.FILTER_LZMA2, "preset": preset, "dict_size": dictionary_size}]
    maker = lzma.LZMACompressor(format=lzma.FORMAT_RAW, filters=filters)
    parts = []
    for start in range(0, len(plain), CHUNK):
        stop.check()
        parts.append(maker.compress(plain[start : start + CHUNK]))
    return (*parts, maker.flush())


def _runs(plain: _Plain, marks: Sequence[int], check: int, stop: StopFlag) -> list[_Run]:
    """The runs of ``plain``; none where it repeats itself somewhere."""
    runs: list[_Run] = []
    seen: set[bytes] = set()
    trial = _Trial()
    for start, end, number in _segments(plain.table.length, marks):
        stop.check()
        segment = plain.segment(start, end)
        worth = trial.shrinks(segment, number)
        looked = number < _REPEATS or number % _REPEATS < _LOOKED
        if not worth and looked and _repeats(segment, seen):
            return []
        if not runs or runs[-1].worth != worth:
            runs.append(_Run(start, check, worth=worth))
        runs[-1].add(segment)
    return runs


def _segments(length: int, marks: Sequence[int]) -> Iterator[tuple[int, int, int]]:
    """(start, end, number) of pieces of at most :data:`SEGMENT` bytes that begin anew, with 0, at each mark; a mark
    before all of them tells how many came before."""
    before = -max((mark for mark in marks if mark <= 0), default=0)
    edges = [0, *(mark for mark in marks if 0 < mark < length), length]
    for left, right in pairwise(edges):
        first = 0 if left else -(-before // SEGMENT)
        for number, start in enumerate(range(left, right, SEGMENT), first):
            yield start, min(start + SEGMENT, right), number


class _Trial:
    """Tries whether segments, one after another, get smaller."""

    def __init__(self) -> None:
        import zstandard  # noqa: PLC0415 - a remaster that encodes nothing starts sooner without it

        self._quick = zstandard.ZstdCompressor(level=3, write_content_size=False, write_checksum=False)
        self._all = False

    def shrinks(self, segment: memoryview, number: int) -> bool:
        """True when samples of ``segment``, the one of this number of its data, get smaller by a hundredth."""
        sample = _sample(segment, _TRIED)
        if len(self._quick.compress(sample)) < _WORTH * len(sample):
            return True
        power = number & (number - 1) == 0 and number <= _THOROUGH
        if self._all or power or number % _THOROUGH == 0:
            self._all = _shrinks(segment, sample)
            return self._all
        return False


def _shrinks(segment: memoryview, sample: bytes) -> bool:
    """True when ``sample`` of ``segment`` gets smaller by a hundredth under deflate or LZMA, or a larger one by its
    bytes' frequencies alone.

    LZMA finds those too, but only in more than it could be asked to try.
    """
    if len(zlib.compress(sample, 1)) < _WORTH * len(sample):
        return True
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": 1 << 16}]
    if len(lzma.compress(sample, lzma.FORMAT_RAW, filters=filters)) < _WORTH * len(sample):
        return True
    sample = _sample(segment, _COUNTED)
    huffman = zlib.compressobj(1, zlib.DEFLATED, -15, strategy=zlib.Z_HUFFMAN_ONLY)
    return len(huffman.compress(sample)) + len(huffman.flush()) < _WORTH * len(sample)


def _sample(segment: memoryview, size: int) -> bytes:
    """:data:`_SAMPLES` parts of ``size`` bytes from all over ``segment``, joined."""
    step = max(len(segment) // _SAMPLES, size)
    return b"".join(segment[at : at + size] for at in range(0, len(segment), step))


def _repeats(segment: memoryview, seen: set[bytes]) -> bool:
    """True when something in ``segment`` stands in it, or in those before it, once more; ``seen`` grows with it.

    Looked at are the bytes from each anchor on, so that a repeat is found wherever it stands.
    """
    found = _ANCHOR.findall(segment)
    repeated = len(set(found)) < len(found) or not seen.isdisjoint(found)
    seen.update(found)
    return repeated
