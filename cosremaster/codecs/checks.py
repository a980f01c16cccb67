"""The integrity checks of an .xz block (The .xz File Format 1.2.1, section 2.1.1.2)."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from functools import lru_cache

from cosremaster.crc import crc64_xz
from cosremaster.io.streams import new_sha256

NONE, CRC32, CRC64, SHA256 = 0, 1, 4, 10
NAMES = {NONE: "none", CRC32: "CRC32", CRC64: "CRC64", SHA256: "SHA-256"}
SIZES = {NONE: 0, CRC32: 4, CRC64: 8, SHA256: 32}


class RunningCheck:
    """The check of bytes that are added in parts; ``kind`` is one of :data:`NAMES`."""

    def __init__(self, kind: int) -> None:
        """Begin with no bytes."""
        self._crc = 0
        self._sha = new_sha256() if kind == SHA256 else None
        self._step: Callable[[bytes | memoryview, int], int] | None = {CRC32: zlib.crc32, CRC64: crc64_xz}.get(kind)
        self._size = SIZES[kind]

    def update(self, data: bytes | memoryview) -> None:
        """Add ``data``."""
        if self._sha is not None:
            self._sha.update(data)
        elif self._step is not None:
            self._crc = self._step(data, self._crc)

    @property
    def number(self) -> int | None:
        """The CRC so far; None for a check that is not a number."""
        return self._crc if self._sha is None else None

    def value(self) -> bytes:
        """Return the check field of a block; it is empty for no check."""
        if self._sha is not None:
            return self._sha.digest()
        return self._crc.to_bytes(self._size, "little")


_POLYNOMIAL = 0xEDB88320  # of CRC32, reflected


def crc32_joined(first: int, second: int, length: int) -> int:
    """Return the CRC32 of two runs of bytes together, from their CRC32; ``length``: bytes of the second run."""
    return _product(_power(length), first) ^ second


def crc32_without(whole: int, first: int, length: int) -> int:
    """Return the CRC32 of the last ``length`` bytes of a run, from that of the whole run and of the bytes before."""
    return crc32_joined(first, whole, length)


def _product(first: int, second: int) -> int:
    """Return the product of two polynomials over GF(2) modulo CRC32's; bit 31 is the coefficient of 1."""
    product = 0
    for bit in range(31, -1, -1):
        if first >> bit & 1:
            product ^= second
        second = second >> 1 ^ (_POLYNOMIAL if second & 1 else 0)
    return product


@lru_cache(maxsize=4096)
def _power(length: int) -> int:
    """Return x to the power of 8 * ``length``, modulo CRC32's polynomial."""
    power, square = 1 << 31, 1 << 23  # 1 and x^8
    while length:
        if length & 1:
            power = _product(power, square)
        square = _product(square, square)
        length >>= 1
    return power
