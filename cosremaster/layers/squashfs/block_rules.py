"""What kernels demand of a compressed block beyond that it can be unpacked; most other readers do not notice."""

from __future__ import annotations

import struct
import zlib
from typing import TYPE_CHECKING

from cosremaster.layers.squashfs.superblock import Compression

if TYPE_CHECKING:
    from collections.abc import Callable

_METADATA_SIZE = 8192
_XZ_MAGIC = b"\xfd7zXZ\0"
_XZ_CHECKS = (0, 1)
_LZMA2 = 0x21
_XZ_BRANCHES = range(0x04, 0x0C)
"""Filters for machine code, x86 to RISC-V (xz-file-format.txt, 5.3.2)."""
_ZSTD_MAGIC = 0xFD2FB528
_ZSTD_RUN = 1


def find_block_fault(compression: int, data: bytes, dictionary: int) -> str:
    """Return what a kernel refuses in the compressed block ``data``, as the end of a sentence; empty for nothing.

    :param dictionary: bytes of the largest dictionary or window that a kernel has memory for.
    """
    check = _CHECKS.get(compression)
    try:
        return "" if check is None else check(data, dictionary)
    except (IndexError, struct.error):
        return "is cut off"


def dictionary_limit(compression: int, options: bytes, block_size: int) -> int:
    """Return the largest dictionary of blocks of an image (fs/squashfs/xz_wrapper.c).

    :param options: the compressor's options, empty where the image has none.
    """
    named = struct.unpack_from("<I", options)[0] if compression == Compression.XZ and len(options) >= 8 else block_size
    return max(named, _METADATA_SIZE)


def _check_zlib(data: bytes, dictionary: int) -> str:
    """Return what is wrong with a zlib stream (RFC 1950)."""
    inflater = zlib.decompressobj()
    try:
        inflater.decompress(data)
    except zlib.error:
        return "is no zlib stream"
    if not inflater.eof:
        return "is cut off"
    return f"has {len(inflater.unused_data):,} bytes behind its zlib stream" if inflater.unused_data else ""


def _check_xz(data: bytes, dictionary: int) -> str:
    """Return what is wrong with an xz stream: its check, its filters, its dictionary (lib/xz of the kernel)."""
    if not data.startswith(_XZ_MAGIC):
        return "is no xz stream"
    if data[7] not in _XZ_CHECKS:
        return f"has check {data[7]} of xz, and kernels know CRC32 and none"
    flags, at = data[13], 14
    for has_size in (flags & 0x40, flags & 0x80):
        if has_size:
            _, at = _read_number(data, at)
    for _ in range((flags & 3) + 1):
        number, at = _read_number(data, at)
        size, at = _read_number(data, at)
        if number == _LZMA2:
            bits = data[at]
            needed = (2 | bits & 1) << (bits // 2 + 11)
            if needed > dictionary:
                return f"has a dictionary of {needed:,} bytes, and kernels take {dictionary:,} for this image"
        elif number not in _XZ_BRANCHES:
            return f"has filter {number} of xz, which kernels do not know"
        at += size
    return ""


def _read_number(data: bytes, at: int) -> tuple[int, int]:
    """Return the number of variable length at byte ``at``, and where it ends (xz-file-format.txt, 1.2)."""
    number = shift = 0
    while True:
        byte, at = data[at], at + 1
        number |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return number, at


def _check_zstd(data: bytes, dictionary: int) -> str:
    """Return what is wrong with a zstd frame: it must tell its size, and be alone (RFC 8878, 3.1.1)."""
    magic, descriptor = struct.unpack_from("<IB", data)
    if magic != _ZSTD_MAGIC:
        return "is no zstd frame"
    is_single, at = bool(descriptor & 0x20), 5
    if not is_single:
        window = 1 << (10 + (data[at] >> 3))
        window += (window >> 3) * (data[at] & 7)
        at += 1
        if window > dictionary:
            return f"has a window of {window:,} bytes, and kernels take {dictionary:,} for this image"
    at += (0, 1, 2, 4)[descriptor & 3]
    size_bytes = (1 if is_single else 0, 2, 4, 8)[descriptor >> 6]
    if not size_bytes:
        return "has a zstd frame that does not tell its size"
    at += size_bytes
    is_last = False
    while not is_last:
        header = int.from_bytes(data[at : at + 3], "little")
        if at + 3 > len(data):
            return "is cut off"
        is_last, kind = bool(header & 1), header >> 1 & 3
        at += 3 + (1 if kind == _ZSTD_RUN else header >> 3)
    at += 4 if descriptor & 4 else 0
    if at > len(data):
        return "is cut off"
    return "has something behind its zstd frame" if at < len(data) else ""


_CHECKS: dict[int, Callable[[bytes, int], str]] = {
    Compression.GZIP: _check_zlib,
    Compression.XZ: _check_xz,
    Compression.ZSTD: _check_zstd,
}
