"""Encoding plain bytes as .xz blocks: LZMA2 where it gains something, uncompressed chunks where it does not."""

from __future__ import annotations

import lzma
from collections.abc import Iterator
from dataclasses import dataclass

from cosremaster.codecs.checks import SIZES, RunningCheck
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

_SAMPLE, _SAMPLES = 16384, 2
_WORTH = 0.99
_PROBE, _PROBES = 32, 3


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


def encode_blocks(plain: bytes, how: Encoding, stop: Stop) -> tuple[EncodedBlock, ...]:
    """``plain`` as blocks with their sizes in the header.

    Runs of it that do not compress become blocks of uncompressed chunks. :raises CancelledError: ``stop`` is set.
    """
    runs = [(0, len(plain), True)] if how.always else _runs(plain, stop)
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
    parts: list[bytes] = []
    for start in range(0, len(plain), STORED_MAX):
        part = bytes(plain[start : start + STORED_MAX])
        parts += [(_NEXT if start else _FIRST) + (len(part) - 1).to_bytes(2, "big"), part]
    return (*parts, b"\0")


def _runs(plain: bytes, stop: Stop) -> list[tuple[int, int, bool]]:
    """(start, end, worth compressing) of runs of ``plain``; one run where it repeats itself somewhere."""
    runs: list[tuple[int, int, bool]] = []
    for start in range(0, len(plain), SEGMENT):
        stop.check()
        end = min(start + SEGMENT, len(plain))
        worth = _shrinks(plain[start:end])
        if not worth and _repeats(plain, start, end):
            return [(0, len(plain), True)]
        if runs and runs[-1][2] == worth:
            runs[-1] = (runs[-1][0], end, worth)
        else:
            runs.append((start, end, worth))
    return runs


def _shrinks(segment: bytes) -> bool:
    """True when samples of ``segment`` get smaller by a hundredth."""
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": _SAMPLE}]
    step = max(len(segment) // _SAMPLES, 1)
    return any(
        len(lzma.compress(sample, lzma.FORMAT_RAW, filters=filters)) < _WORTH * len(sample)
        for sample in _samples(segment, step)
    )


def _samples(segment: bytes, step: int) -> Iterator[bytes]:
    return (segment[at : at + _SAMPLE] for at in range(0, len(segment), step))


def _repeats(plain: bytes, start: int, end: int) -> bool:
    """True when probes from a segment that does not shrink by itself stand in ``plain`` before it too."""
    step = max((end - start) // _PROBES, _PROBE)
    probes = (plain[at : at + _PROBE] for at in range(start, end - _PROBE, step))
    return any(plain.find(probe, 0, start + _PROBE - 1) >= 0 for probe in probes)
