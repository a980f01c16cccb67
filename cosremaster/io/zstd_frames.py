"""Zstandard frames (RFC 8878), by Python's module (3.14) or its backport. No other module imports either.

Both are bound to libzstd with the same functions, so they give the same bytes where its versions are equal.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import Any

from cosremaster.errors import UnsupportedError
from cosremaster.records.tuples import NamedTuple

__all__ = [
    "MAGIC", "SLOW_LEVEL", "FrameHeader", "has_zstd", "load_zstd", "new_compressor", "new_decompressor", "pack_frame",
    "read_header", "unpack_frame",
]  # fmt: skip

MAGIC = b"\x28\xb5\x2f\xfd"
SLOW_LEVEL = 6
"""The lowest level that takes far longer than to unpack and compare what it made."""

MAX_WINDOW_LOG = 31
"""The largest that libzstd knows."""


class _Level(NamedTuple):
    """What a level stands for in zstd's table for large inputs (lib/compress/clevels.h)."""

    hash_log: int
    chain_log: int
    search_log: int
    min_match: int
    target_length: int
    strategy: int


_LEVELS = {
    3: _Level(17, 16, 1, 5, 0, 2), 12: _Level(23, 22, 6, 5, 32, 5), 19: _Level(22, 24, 7, 3, 256, 9),
    20: _Level(23, 25, 7, 3, 256, 9), 21: _Level(24, 26, 7, 3, 512, 9), 22: _Level(25, 27, 9, 3, 999, 9),
}  # fmt: skip
"""The levels that frames of a given window are packed at."""


def has_zstd() -> bool:
    """Return whether zstd can be read and written here."""
    try:
        load_zstd()
    except UnsupportedError:
        return False
    return True


@cache
def load_zstd() -> Any:
    """Return the module for zstd. :raises UnsupportedError: there is none."""
    for name in ("compression.zstd", "backports.zstd"):
        try:
            return import_module(name)
        except ImportError:
            continue
    raise UnsupportedError(
        "zstd is read and written by Python 3.14 and newer, or by its backport, which is not installed here"
        " (pip install backports.zstd)"
    )


def new_compressor(level: int, *, checksum: bool, sized: bool, window_log: int = 0, threads: int = 0) -> Any:
    """Return a compressor of frames at ``level``.

    ``sized``: frames tell how many plain bytes they have. With ``window_log`` only a level of :data:`_LEVELS` is
    possible, and what it stands for does not depend on how long the input is. ``threads``: how many pack one frame in
    jobs; the bytes are the same for any number but 0.
    """
    zstd = load_zstd()
    parameter = zstd.CompressionParameter
    options = {
        parameter.compression_level: level, parameter.checksum_flag: int(checksum),
        parameter.content_size_flag: int(sized),
    }  # fmt: skip
    if window_log:
        options[parameter.window_log] = window_log
        options.update((getattr(parameter, name), value) for name, value in _LEVELS[level]._asdict().items())
    if threads:
        options[parameter.nb_workers] = min(threads, parameter.nb_workers.bounds()[1])
    return zstd.ZstdCompressor(options=options)


def pack_frame(compressor: Any, data: bytes | memoryview) -> bytes:
    """Return ``data`` as one frame of ``compressor``, which may pack others before and behind it."""
    compressor.set_pledged_input_size(len(data))
    return bytes(compressor.compress(data, compressor.FLUSH_FRAME))


def new_decompressor() -> Any:
    """Return what unpacks one frame, with the attributes of ``lzma.LZMADecompressor``."""
    zstd = load_zstd()
    return zstd.ZstdDecompressor(options={zstd.DecompressionParameter.window_log_max: MAX_WINDOW_LOG})


def unpack_frame(data: bytes, limit: int) -> bytes:
    """Return the plain bytes of the frame that ``data`` begins with.

    :raises ValueError: it is damaged, cut off, or has more than ``limit`` plain bytes.
    """
    decompressor, zstd = new_decompressor(), load_zstd()
    try:
        plain = bytes(decompressor.decompress(data, limit + 1))
    except zstd.ZstdError as error:
        raise ValueError(str(error)) from error
    if len(plain) > limit or not decompressor.eof:
        raise ValueError("it has more plain bytes, or is cut off")
    return plain


class FrameHeader(NamedTuple):
    """The header of a frame (section 3.1.1.1). ``size``: of the plain bytes; None where it does not tell."""

    window: int
    has_checksum: bool
    size: int | None


def read_header(head: bytes) -> FrameHeader:
    """Return the header of the frame, of which ``head`` has the first 18 bytes, or all where there are fewer.

    :raises ValueError: it is cut off, sets a reserved bit, or names a window that is too large.
    """
    if len(head) < 6 or not head.startswith(MAGIC):
        raise ValueError("it has no header")
    descriptor = head[4]
    is_single, reserved, id_flag = descriptor >> 5 & 1, descriptor >> 3 & 1, descriptor & 3
    if reserved:
        raise ValueError("a reserved bit is set")
    size_bytes = (is_single, 2, 4, 8)[descriptor >> 6]
    at = 5 + (not is_single) + (0, 1, 2, 4)[id_flag]
    if len(head) < at + size_bytes:
        raise ValueError("it is cut off")
    size = int.from_bytes(head[at : at + size_bytes], "little") if size_bytes else None
    if size_bytes == 2 and size is not None:
        size += 256
    if is_single:
        assert size is not None
        return FrameHeader(size, bool(descriptor & 4), size)
    exponent, mantissa = head[5] >> 3, head[5] & 7
    if 10 + exponent > MAX_WINDOW_LOG:
        raise ValueError("its window is too large")
    base = 1 << 10 + exponent
    return FrameHeader(base + (base >> 3) * mantissa, bool(descriptor & 4), size)
