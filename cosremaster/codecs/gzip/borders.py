"""Finding where deflate blocks begin, in a stream of any program (RFC 1951, 3.2.3).

Nothing in a stream says where its blocks begin, and that may be at any bit. What looks like the head of a block with
codes of its own is tried: the stream up to there is inflated with other blocks behind it, first an empty final one. The
stream ends with that only where a block begins, as its first bits are ones; or anywhere in the last block, where some
symbol may end it. So there is a second trial, with a stored block: its data come out behind no bit of the last block.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator
from hashlib import sha256

from cosremaster.crc import crc32
from cosremaster.records import Struct

EMPTY, EMPTY_SIZE = 0b010, 10
"""An empty block with fixed codes and its bits: BFINAL 0, BTYPE 01, and seven zeros for the end of the block."""

_TRIAL = sha256(b"a block").digest()
_FINAL, _FINAL_SIZE = 0b011, 10
_STORED = len(_TRIAL).to_bytes(2, "little") + (len(_TRIAL) ^ 0xFFFF).to_bytes(2, "little") + _TRIAL + b"\3\0"
"""A stored block behind its first byte (RFC 1951, 3.2.4), and an empty final block."""

FLUSH = b"\0\0\xff\xff"
"""The end of a sync flush: an empty stored block, behind which a byte begins."""

_HEAD_SIZE = 12
"""Bytes that hold the head of a block at any bit, up to the lengths of the codes for code lengths."""

_MOST_CODES = 30
"""HLIT and HDIST are smaller: of 32 values two have no meaning."""


class Border(Struct, frozen=True):
    """A place where a block begins: bit ``bit`` of the packed byte at ``byte``.

    ``plain``: plain bytes of all blocks before, whose CRC32 is ``crc``.
    """

    byte: int
    bit: int
    plain: int
    crc: int


def _head_pattern(bit: int) -> re.Pattern[bytes]:
    """Return what matches the bytes before one where a block begins at ``bit``: no final one, with its own codes."""
    values = [value for value in range(1 << 10) if value >> bit & 7 == 4]
    firsts = sorted({value & 0xFF for value in values if bit <= 5 or value >> 8 == (1 if bit == 6 else 2)})
    classes = b"[" + b"".join(b"\\x%02x" % value for value in firsts) + b"]"
    if bit > 5:
        mask, wanted = ((1, 1), (3, 2))[bit - 6]
        seconds = [value for value in range(256) if value & mask == wanted]
        classes += b"[" + b"".join(b"\\x%02x" % value for value in seconds) + b"]"
    return re.compile(b"(?=" + classes + b")", re.DOTALL)


def _kraft_sums() -> tuple[int, ...]:
    """Return by the bits of four code lengths how much of all codes they take, in parts of 128."""
    one = [0, *(128 >> length for length in range(1, 8))]
    return tuple(one[v & 7] + one[v >> 3 & 7] + one[v >> 6 & 7] + one[v >> 9] for v in range(1 << 12))


class _Heads:
    """What looks like the head of a block, in packed bytes; the tables for that are made at the first use."""

    def __init__(self) -> None:
        """Make the tables."""
        self._patterns = [_head_pattern(bit) for bit in range(8)]
        self._sums = _kraft_sums()

    def find(self, data: bytes) -> list[tuple[int, int]]:
        """Return byte and bit of each place in ``data`` where a block may begin, in order."""
        places = [
            (match.start(), bit)
            for bit, pattern in enumerate(self._patterns)
            for match in pattern.finditer(data)
            if self._has_whole_codes(int.from_bytes(data[match.start() : match.start() + _HEAD_SIZE], "little") >> bit)
        ]
        flush = data.find(FLUSH)
        while flush >= 0:
            places.append((flush + len(FLUSH), 0))
            flush = data.find(FLUSH, flush + 1)
        return sorted(places)

    def _has_whole_codes(self, head: int) -> bool:
        """Return whether the codes for code lengths in ``head`` leave no code over (RFC 1951, 3.2.7)."""
        if (head >> 3 & 31) >= _MOST_CODES or (head >> 8 & 31) >= _MOST_CODES:
            return False
        lengths = head >> 17 & ((1 << 3 * ((head >> 13 & 15) + 4)) - 1)
        sums, total = self._sums, 0
        while lengths:
            total += sums[lengths & 0xFFF]
            lengths >>= 12
        return total == 128


_heads: list[_Heads] = []


class PackedStep(Struct, frozen=True):
    """Packed bytes ``data`` from offset ``start`` on, and the inflater before them.

    ``plain``: plain bytes before, whose CRC32 is ``crc``.
    """

    inflater: zlib._Decompress
    data: bytes
    start: int
    plain: int
    crc: int

    def borders(self) -> Iterator[Border]:
        """Yield where blocks begin in these bytes, in order."""
        if not _heads:
            _heads.append(_Heads())
        inflater, at, plain, crc = self.inflater.copy(), 0, self.plain, self.crc
        for byte, bit in _heads[0].find(self.data):
            out = inflater.decompress(self.data[at:byte])
            at, plain, crc = byte, plain + len(out), crc32(out, crc)
            if inflater.eof:
                return
            before = self.data[byte] & ((1 << bit) - 1) if bit else 0
            last = _inflate_last_bits(inflater, before, bit)
            if last is not None:
                yield Border(self.start + byte, bit, plain + len(last), crc32(last, crc))

    def plain_bytes(self) -> bytes:
        """Return what these bytes are inflated to."""
        return self.inflater.copy().decompress(self.data)


def _inflate_last_bits(inflater: zlib._Decompress, last: int, count: int) -> bytes | None:
    """Return what the ``count`` bits ``last`` of a byte inflate to behind those before; None if no block ends there."""
    packed = (last | _FINAL << count).to_bytes((count + _FINAL_SIZE + 7) // 8, "little")
    trial, second = inflater.copy(), inflater.copy()
    try:
        plain = trial.decompress(packed)
        if (
            not trial.eof
            or second.decompress(last.to_bytes((count + 3 + 7) // 8, "little") + _STORED) != plain + _TRIAL
        ):
            return None
    except zlib.error:
        return None
    return plain
