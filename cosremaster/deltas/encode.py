"""A delta straight from the pieces of a new image: what is in the base is copied from there, all else is added."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

from cosremaster.deltas.vcdiff import HEADER, VCD_ADLER32, VCD_SOURCE, encode_number
from cosremaster.io.frozen import BaseRange, Origin, OriginRun
from cosremaster.io.source import ByteSource
from cosremaster.records.tuples import NamedTuple

WINDOW = 4 << 20
"""Bytes that a window makes at most. xdelta3 takes 16 MiB, and keeps all of them in memory."""

SEGMENT = 64 << 20
"""Bytes of the base from the first to the last that a window copies. xdelta3 takes less than 4 GiB."""

_CODES = {Origin.ZEROS: b"\0", Origin.BYTES: b"\1", Origin.BASE: b"\x13"}
"""RUN, ADD, and COPY from an address that is written whole, each with its size behind it (section 5.6)."""


class DeltaTable(Protocol):
    """The bytes of a new image of which a delta is made; some of them are ranges of its ``base``."""

    @property
    def size(self) -> int:
        """The length in bytes."""
        ...

    @property
    def base(self) -> ByteSource:
        """What the delta copies from."""
        ...

    def runs(self) -> Iterator[OriginRun]:
        """Yield all bytes in order as runs of one origin."""
        ...

    def segments(self, offset: int, length: int) -> Iterator[bytes | BaseRange]:
        """Yield what is in ``length`` bytes from ``offset`` on: ranges of the base, and bytes."""
        ...

    def chunks(self, offset: int, length: int) -> Iterator[bytes]:
        """Yield ``length`` bytes from ``offset`` on."""
        ...


class Window(NamedTuple):
    """A part of the new image: its offset, its length in bytes, and its runs in order."""

    start: int
    length: int
    runs: tuple[OriginRun, ...]


def cut_windows(runs: Iterable[OriginRun]) -> Iterator[Window]:
    """Yield ``runs`` in windows that every decoder takes."""
    start, length, inside, span = 0, 0, list[OriginRun](), (0, 0)
    for run in runs:
        rest = run
        while rest.length:
            part, rest = rest.split(WINDOW - length)
            joined = _join_spans(span, part)
            if joined[1] - joined[0] > SEGMENT:
                yield Window(start, length, tuple(inside))
                start, length, inside = start + length, 0, []
                joined = _join_spans((0, 0), part)
            inside.append(part)
            length, span = length + part.length, joined
            if length == WINDOW:
                yield Window(start, length, tuple(inside))
                start, length, inside, span = start + length, 0, [], (0, 0)
    if inside:
        yield Window(start, length, tuple(inside))


def _join_spans(span: tuple[int, int], run: OriginRun) -> tuple[int, int]:
    """Return the start and end in the base of what is copied: ``span``, empty where they are equal, and ``run``."""
    if run.origin is not Origin.BASE:
        return span
    end = run.offset + run.length
    return (min(span[0], run.offset), max(span[1], end)) if span[0] < span[1] else (run.offset, end)


def encode_delta(
    table: DeltaTable, sum_window: Callable[[int, int], int] | None = None, *, has_sums: bool = True
) -> Iterator[bytes]:
    """Yield the delta that makes ``table`` from its base, in parts.

    ``sum_window`` is called with start and length of each window, in order, and returns the Adler-32 of its bytes; None
    for one that reads them. ``has_sums``: each window has it, by which a decoder notices another base; RFC 3284 does
    not have that.
    """
    yield HEADER
    for window in cut_windows(table.runs()):
        adler = _sum_bytes(table, window) if sum_window is None else sum_window(window.start, window.length)
        yield _encode_window(table, window, adler.to_bytes(4, "big") if has_sums else b"")


def _sum_bytes(table: DeltaTable, window: Window) -> int:
    """Return the Adler-32 of the bytes of ``window``."""
    adler = 1
    for chunk in table.chunks(window.start, window.length):
        adler = zlib.adler32(chunk, adler)
    return adler


def measure_delta(table: DeltaTable, *, has_sums: bool = True) -> int:
    """Return how many bytes the delta of ``table`` has; nothing is read."""
    adler = bytes(4 if has_sums else 0)
    frames = (_frame_window(window, adler) for window in cut_windows(table.runs()))
    return len(HEADER) + sum(len(head) + data + len(tail) for head, data, tail in frames)


def _encode_window(table: DeltaTable, window: Window, adler: bytes) -> bytes:
    """Return the delta of ``window`` of ``table``."""
    head, _, tail = _frame_window(window, adler)
    data: list[bytes] = [head]
    position = window.start
    for run in window.runs:
        if run.origin is Origin.ZEROS:
            data.append(b"\0")
        elif run.origin is Origin.BYTES:
            data += table.chunks(position, run.length)
        position += run.length
    return b"".join([*data, tail])


def _frame_window(window: Window, adler: bytes) -> tuple[bytes, int, bytes]:
    """Return what stands before the data of ``window``, how many bytes they are, and what follows (section 4.3)."""
    span, data = (0, 0), 0
    for run in window.runs:
        span = _join_spans(span, run)
        data += {Origin.BASE: 0, Origin.ZEROS: 1, Origin.BYTES: run.length}[run.origin]
    instructions, addresses = bytearray(), bytearray()
    for run in window.runs:
        instructions += _CODES[run.origin] + encode_number(run.length)
        if run.origin is Origin.BASE:
            addresses += encode_number(run.offset - span[0])
    has_source = span[0] < span[1]
    sizes = (encode_number(count) for count in (data, len(instructions), len(addresses)))
    inside = b"".join([encode_number(window.length), b"\0", *sizes, adler])
    indicator = (VCD_SOURCE if has_source else 0) | (VCD_ADLER32 if adler else 0)
    source = encode_number(span[1] - span[0]) + encode_number(span[0]) if has_source else b""
    length = encode_number(len(inside) + data + len(instructions) + len(addresses))
    return bytes([indicator]) + source + length + inside, data, bytes(instructions + addresses)
