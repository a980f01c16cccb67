"""CRCs, by fastcrc where it is installed, else by Python alone: with the same results, slower.

``crc`` is that of the bytes before, where they come in parts. CRC-16/XMODEM is binascii's, as every Python has it.
"""

from __future__ import annotations

import zlib
from binascii import crc_hqx
from collections.abc import Callable, Sequence
from functools import cache
from typing import TypeAlias

__all__ = ["crc16_xmodem", "crc32", "crc32c", "crc64_xz"]

_Bytes: TypeAlias = bytes | bytearray | memoryview
_Crc: TypeAlias = Callable[[_Bytes, int], int]

_CASTAGNOLI = 0x82F63B78  # RFC 3720, appendix B.4, reflected
_ECMA = 0xC96C5795D7870F42  # of CRC-64 in .xz files (The .xz File Format 1.2.1, section 6), reflected
_WORD = 8
_ROW = 1 << 13
"""Words of a row: rows are added to each other, all words of one at once."""


def crc16_xmodem(data: _Bytes) -> int:
    """Return the CRC-16 of UDF's descriptor tags (ECMA-167 3/7.2.6)."""
    return crc_hqx(data, 0)


def crc32(data: _Bytes, crc: int = 0) -> int:
    """Return the CRC-32 of gzip and others (RFC 1952)."""
    return _quickest("crc32", "iso_hdlc", zlib.crc32)(data, crc)


def crc32c(data: _Bytes, crc: int = 0) -> int:
    """Return the CRC-32C of ext4 and others (RFC 3720, appendix B.4)."""
    return _quickest("crc32", "iscsi", _crc32c_plainly)(data, crc)


def crc64_xz(data: _Bytes, crc: int = 0) -> int:
    """Return the CRC-64 of .xz files."""
    return _quickest("crc64", "xz", _crc64_plainly)(data, crc)


@cache
def _quickest(module: str, name: str, plain: _Crc) -> _Crc:
    """Return the function ``name`` of fastcrc's ``module``, or ``plain`` where there is none."""
    try:
        import fastcrc  # noqa: PLC0415 - small commands need none
    except ImportError:
        return plain
    quick: _Crc = getattr(getattr(fastcrc, module), name)
    return quick


def _crc32c_plainly(data: _Bytes, crc: int = 0) -> int:
    """Return the CRC-32C by Python alone."""
    return _step_bytes(data, crc ^ 0xFFFFFFFF, _byte_table(_CASTAGNOLI)) ^ 0xFFFFFFFF


def _crc64_plainly(data: _Bytes, crc: int = 0) -> int:
    """Return the CRC-64 by Python alone.

    The CRC of a run of words is linear in them: a word may be added to one that is some words behind it, multiplied by
    a power of x. So rows of words are added to the next row until one is left, whose bytes are taken one by one.
    """
    mask, table = (1 << 64) - 1, _byte_table(_ECMA)
    view = memoryview(data).cast("B")
    size = _ROW * _WORD
    crc ^= mask
    if len(view) >= 4 * size:
        end = len(view) // size * size
        folded = _fold_rows(view[:end], crc)
        crc, view = _step_bytes(folded, 0, table), view[end:]
    return _step_bytes(view, crc, table) ^ mask


def _step_bytes(data: _Bytes, crc: int, table: Sequence[int]) -> int:
    """Return the running ``crc`` behind ``data``."""
    for byte in memoryview(data).cast("B"):
        crc = table[(crc ^ byte) & 0xFF] ^ crc >> 8
    return crc


@cache
def _byte_table(polynomial: int) -> tuple[int, ...]:
    """Return what each byte adds, for a reflected ``polynomial``."""
    table = []
    for byte in range(256):
        crc = byte
        for _ in range(8):
            crc = crc >> 1 ^ (polynomial if crc & 1 else 0)
        table.append(crc)
    return tuple(table)


def _fold_rows(view: memoryview, crc: int) -> bytes:
    """Return a row of words whose CRC, begun with 0, is that of the rows in ``view``, begun with ``crc``."""
    size = _ROW * _WORD
    tables = _fold_tables()
    planes = [int.from_bytes(view[at:size:_WORD], "little") for at in range(_WORD)]
    for at, byte in enumerate(crc.to_bytes(_WORD, "little")):
        planes[at] ^= byte
    for start in range(size, len(view), size):
        packed = [plane.to_bytes(_ROW, "little") for plane in planes]
        for target in range(_WORD):
            plane = int.from_bytes(view[start + target : start + size : _WORD], "little")
            for source in range(_WORD):
                plane ^= int.from_bytes(packed[source].translate(tables[source][target]), "little")
            planes[target] = plane
    row = bytearray(size)
    for at, plane in enumerate(planes):
        row[at::_WORD] = plane.to_bytes(_ROW, "little")
    return bytes(row)


@cache
def _fold_tables() -> tuple[tuple[bytes, ...], ...]:
    """Return, for each byte of a word and each of its product with x^(64 * row), the table from one to the other."""
    power = 1 << 63  # 1: bit 63 is the coefficient of 1
    for _ in range(64 * _ROW):
        power = power >> 1 ^ (_ECMA if power & 1 else 0)
    products = [0] * 64  # those of the bits of a word
    for bit in range(63, -1, -1):
        products[bit] = power
        power = power >> 1 ^ (_ECMA if power & 1 else 0)
    tables = []
    for byte in range(_WORD):
        values = [0]
        for bit in range(8 * byte, 8 * byte + 8):
            values += [value ^ products[bit] for value in values]
        joined = b"".join([value.to_bytes(_WORD, "little") for value in values])
        tables.append(tuple(joined[at::_WORD] for at in range(_WORD)))
    return tuple(tables)
