"""The compressed blocks of EROFS files made plain: lz4, MicroLZMA, deflate and zstd.

Blocks stand at the end of the room that they have, behind zeros, so that they can be unpacked in place. Where files
share blocks, one may need only the first bytes of what is in them.
"""

from __future__ import annotations

import zlib

from cosremaster.codecs.lzma_module import lzma
from cosremaster.layers.erofs.extents import DEFLATE, INTERLACED, LZ4, LZMA, MAX_PLAIN, SHIFTED

_MIN_DICTIONARY = 4096


class ExtentError(ValueError):
    """The stored bytes of an extent cannot be made plain."""


def expand_extent(
    stored: bytes, form: int, length: int, *, is_partial: bool, block_offset: int, block_size: int
) -> bytes:
    """Return the ``length`` plain bytes of an extent.

    :param form: how they are stored. :param is_partial: there may be more. :param block_offset: where in a block of the
        file they begin. :raises ExtentError: damage, or fewer bytes. :raises ImportError: a library is missing.
    """
    if form == SHIFTED:
        plain = stored[:length]
    elif form == INTERLACED:
        plain = _turn_back(stored, length, block_offset, block_size)
    else:
        plain = _decompress(stored, form, length, is_partial=is_partial)
    if len(plain) != length:
        raise ExtentError("they are fewer than the file needs")
    return plain


def _turn_back(stored: bytes, length: int, block_offset: int, block_size: int) -> bytes:
    """Return bytes that stand in a block where they stand in that of the file, and go on at its start."""
    first = block_size - block_offset
    if len(stored) < block_size:
        return stored[:length]
    return stored[len(stored) - first :][:length] + stored[: max(length - first, 0)]


def _decompress(stored: bytes, form: int, length: int, *, is_partial: bool) -> bytes:
    """Return the first ``length`` bytes of the compressed ``stored``."""
    if form == LZ4:
        return _expand_lz4(stored, length, is_partial=is_partial)
    if form == LZMA:
        return _expand_lzma(stored, length)
    if form == DEFLATE:
        try:
            return zlib.decompressobj(-zlib.MAX_WBITS).decompress(stored, length)
        except zlib.error as error:
            raise ExtentError("their deflate stream is damaged") from error
    return _expand_zstd(stored, length)


def _expand_lzma(stored: bytes, length: int) -> bytes:
    """Return the first bytes of a MicroLZMA stream: LZMA whose first byte, else zero, holds the inverted properties."""
    properties = ~stored[0] & 0xFF
    bits, literal_context = divmod(properties, 9)
    position_bits, literal_position = divmod(bits, 5)
    if position_bits > 4 or literal_context + literal_position > 4:
        raise ExtentError("their LZMA properties are impossible")
    settings = {
        "id": lzma.FILTER_LZMA1, "lc": literal_context, "lp": literal_position, "pb": position_bits,
        "dict_size": max(length, _MIN_DICTIONARY),
    }  # fmt: skip
    try:
        return lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=[settings]).decompress(b"\0" + stored[1:], length)
    except lzma.LZMAError as error:
        raise ExtentError("their LZMA stream is damaged") from error


def _expand_zstd(stored: bytes, length: int) -> bytes:
    """Return the first bytes of a zstd frame."""
    from cosremaster.io.zstd_frames import load_zstd, new_decompressor  # noqa: PLC0415 - only images under zstd need it

    try:
        return bytes(new_decompressor().decompress(stored, length))
    except load_zstd().ZstdError as error:
        raise ExtentError("their zstd frame is damaged") from error


def _expand_lz4(stored: bytes, length: int, *, is_partial: bool) -> bytes:
    """Return the first bytes of an lz4 block."""
    try:
        import lz4.block  # noqa: PLC0415 - an extra
    except ImportError:
        return expand_lz4_block(stored, length)
    most = min(len(stored) * 255, MAX_PLAIN) if is_partial else length
    try:
        return bytes(lz4.block.decompress(stored, uncompressed_size=most))[:length]
    except (lz4.block.LZ4BlockError, ValueError):
        return expand_lz4_block(stored, length)  # zeros follow the block, or more than length bytes are in it


def expand_lz4_block(stored: bytes, length: int) -> bytes:
    """Return the first ``length`` bytes of an lz4 block (lz4_Block_format.md), whatever follows them.

    :raises ExtentError: damage.
    """
    plain = bytearray()
    at = 0
    try:
        while len(plain) < length:
            token = stored[at]
            at += 1
            count, at = _read_length(stored, at, token >> 4)
            plain += stored[at : at + count]
            at += count
            if len(plain) >= length or at >= len(stored):
                break
            distance = stored[at] | stored[at + 1] << 8
            count, at = _read_length(stored, at + 2, token & 15)
            _copy_match(plain, distance, min(count + 4, length - len(plain)))
    except IndexError as error:
        raise ExtentError("their lz4 block is damaged") from error
    return bytes(plain[:length])


def _read_length(stored: bytes, at: int, count: int) -> tuple[int, int]:
    """Return a length whose first four bits are ``count``, and where what follows it begins."""
    if count == 15:
        while True:
            more = stored[at]
            at += 1
            count += more
            if more != 255:
                break
    return count, at


def _copy_match(plain: bytearray, distance: int, count: int) -> None:
    """Append ``count`` bytes that stand ``distance`` before the end of ``plain``, or repeat from there."""
    if not 0 < distance <= len(plain):
        raise ExtentError("their lz4 block is damaged")
    part = plain[-distance:]
    if count > distance:
        part = part * (count // distance + 1)
    plain += part[:count]
