"""Encoding plain bytes as .xz blocks: LZMA2 where it gains something, uncompressed chunks where it does not."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from cosremaster.codecs.checks import SIZES, RunningCheck
from cosremaster.codecs.lzma_module import lzma
from cosremaster.codecs.xz_container import BlockHeader, BlockRecord
from cosremaster.parallel import Stop
from cosremaster.streams import CHUNK

PRESET = 6
PRESET_DICTS = tuple(size << 10 for size in (256, 1024, 2048, 4096, 4096, 8192, 8192, 16384, 32768, 65536))
"""The dictionaries of presets 0 to 9 (xz(1)) in bytes."""

MIN_DICT = 4096
BLOCK_DICTS = 3
"""A block holds three dictionaries of plain bytes, as ``xz -T0`` makes them."""

STORED_MAX = 65536
_FIRST, _NEXT = b"\x01", b"\x02"  # uncompressed chunk with and without dictionary reset

SEGMENT = 1 << 20
"""Whether bytes compress is decided for so many at a time."""

_SAMPLES = 16
_TRIED, _COUNTED = 1024, 8192  # bytes of each sample
_WORTH = 0.99
_THOROUGH, _EACH = 2, 8  # the first segments of a piece of data, and each eighth, are tried by all means
_ANCHOR = re.compile(rb"\x5a[\x00-\x0f].{30}", re.DOTALL)  # some 256 to the MiB of random bytes


@dataclass(frozen=True, slots=True)
class Encoding:
    """How to encode: the check's id, the largest dictionary in bytes, the preset, and whether to try always."""

    check: int
    dict_size: int
    preset: int = PRESET
    always: bool = False

    @property
    def block_size(self) -> int:
        """Plain bytes of a block."""
        return max(BLOCK_DICTS * self.dict_size, SEGMENT)


@dataclass(frozen=True, slots=True)
class EncodedBlock:
    """A block ready to be written, padding included, and its index record. ``stored``: it is uncompressed."""

    parts: tuple[bytes, ...]
    record: BlockRecord
    stored: bool = False


def encode_blocks(plain: bytes, marks: Sequence[int], how: Encoding, stop: Stop) -> tuple[EncodedBlock, ...]:
    """``plain`` as blocks with their sizes in the header.

    Runs of it that do not compress become blocks of uncompressed chunks. ``marks`` are offsets where other data
    may begin, in order. :raises CancelledError: ``stop`` is set.
    """
    runs = [(0, len(plain), True)] if how.always else _runs(plain, marks, stop)
    view = memoryview(plain)
    return tuple(_encode(view[start:end], worth, how, stop) for start, end, worth in runs)


def _encode(plain: memoryview, worth: bool, how: Encoding, stop: Stop) -> EncodedBlock:
    running = RunningCheck(how.check)
    running.update(plain)
    dict_size = max(MIN_DICT, min(how.dict_size, len(plain))) if worth else MIN_DICT
    data = _compressed(plain, dict_size, how.preset, stop) if worth else _stored(plain)
    size = sum(len(part) for part in data)
    header = BlockHeader.make(size, len(plain), dict_size)
    record = BlockRecord(len(header.raw) + size + SIZES[how.check], len(plain))
    return EncodedBlock((header.raw, *data, bytes(-size % 4), running.value()), record, not worth)


def _compressed(plain: memoryview, dict_size: int, preset: int, stop: Stop) -> tuple[bytes, ...]:
    filters = [{"id": lzma.FILTER_LZMA2, "preset": preset, "dict_size": dict_size}]
    maker = lzma.LZMACompressor(format=lzma.FORMAT_RAW, filters=filters)
    parts = []
    for start in range(0, len(plain), CHUNK):
        stop.check()
        parts.append(maker.compress(plain[start : start + CHUNK]))
    return (*parts, maker.flush())


def _stored(plain: memoryview) -> tuple[bytes, ...]:
    """LZMA2 uncompressed chunks (control 1 or 2, size - 1 as 16 bits big-endian) and the end marker."""
    parts: list[bytes | memoryview] = []
    for start in range(0, len(plain), STORED_MAX):
        part = plain[start : start + STORED_MAX]
        parts += [(_NEXT if start else _FIRST) + (len(part) - 1).to_bytes(2, "big"), part]
    return (b"".join((*parts, b"\0")),)


def _runs(plain: bytes, marks: Sequence[int], stop: Stop) -> list[tuple[int, int, bool]]:
    """(start, end, worth compressing) of runs of ``plain``; one run where it repeats itself somewhere."""
    runs: list[tuple[int, int, bool]] = []
    seen: set[bytes] = set()
    for start, end, number in _segments(len(plain), marks):
        stop.check()
        segment = plain[start:end]
        worth = _shrinks(segment, thorough=number < _THOROUGH or number % _EACH == 0)
        if not worth and _repeats(segment, seen):
            return [(0, len(plain), True)]
        if runs and runs[-1][2] == worth:
            runs[-1] = (runs[-1][0], end, worth)
        else:
            runs.append((start, end, worth))
    return runs


def _segments(length: int, marks: Sequence[int]) -> Iterator[tuple[int, int, int]]:
    """(start, end, number) of pieces of at most :data:`SEGMENT` bytes that begin anew, with 0, at each mark."""
    edges = [0, *(mark for mark in marks if 0 < mark < length), length]
    for left, right in pairwise(edges):
        for number, start in enumerate(range(left, right, SEGMENT)):
            yield start, min(start + SEGMENT, right), number


def _shrinks(segment: bytes, *, thorough: bool) -> bool:
    """True when samples of ``segment`` get smaller by a hundredth under deflate or, if that is to be tried too, under
    LZMA or by their bytes' frequencies alone.

    LZMA finds those too, but only in more than it could be asked to try.
    """
    sample = _sample(segment, _TRIED)
    if len(zlib.compress(sample, 1)) < _WORTH * len(sample):
        return True
    if not thorough:
        return False
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": 1 << 16}]
    if len(lzma.compress(sample, lzma.FORMAT_RAW, filters=filters)) < _WORTH * len(sample):
        return True
    sample = _sample(segment, _COUNTED)
    huffman = zlib.compressobj(1, zlib.DEFLATED, -15, strategy=zlib.Z_HUFFMAN_ONLY)
    return len(huffman.compress(sample)) + len(huffman.flush()) < _WORTH * len(sample)


def _sample(segment: bytes, size: int) -> bytes:
    """:data:`_SAMPLES` parts of ``size`` bytes from all over ``segment``, joined."""
    step = max(len(segment) // _SAMPLES, size)
    return b"".join(segment[at : at + size] for at in range(0, len(segment), step))


def _repeats(segment: bytes, seen: set[bytes]) -> bool:
    """True when something in ``segment`` stands in it, or in those before it, once more; ``seen`` grows with it.

    Looked at are the bytes from each anchor on, so that a repeat is found wherever it stands.
    """
    found = _ANCHOR.findall(segment)
    repeated = len(set(found)) < len(found) or not seen.isdisjoint(found)
    seen.update(found)
    return repeated
