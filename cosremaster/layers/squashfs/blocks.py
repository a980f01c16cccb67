"""The compression of single blocks, data or metadata, in the form that a kernel reads.

Only the kernel notices some faults: xz needs CRC32 or no check and a dictionary within the image's; zstd one frame
that tells its size; zlib no bytes behind the stream.
"""

from __future__ import annotations

import struct
import zlib
from typing import TYPE_CHECKING, Protocol

from cosremaster.codecs.lzma_module import lzma
from cosremaster.codecs.part_memory import describe_library
from cosremaster.errors import UnsupportedError
from cosremaster.io.zstd_frames import (
    SLOW_LEVEL,
    load_zstd,
    new_compressor,
    pack_frame,
    read_header,
    unpack_frame,
)
from cosremaster.layers.squashfs.superblock import Compression

if TYPE_CHECKING:
    from cosremaster.errors import Place
    from cosremaster.layers.squashfs.superblock import Superblock


class BlockError(ValueError):
    """A block cannot be decompressed, or becomes larger than it may be."""


class BlockCodec(Protocol):
    """Compresses and decompresses one block at a time; any thread may call it."""

    name: str
    method: str
    """All that decides what :meth:`pack` makes; empty for a codec that packs about as quickly as it unpacks."""

    def unpack(self, data: bytes, limit: int) -> bytes:
        """Return the plain bytes of ``data``. :raises BlockError: damage, or more than ``limit`` bytes."""
        ...

    def pack(self, data: bytes) -> bytes:
        """Return ``data`` compressed; it may be longer."""
        ...


class ZlibBlocks:
    """zlib streams (RFC 1950), which squashfs calls gzip."""

    name = "gzip"

    def __init__(self, options: bytes, block_size: int) -> None:
        """Read the options: level, window size, strategies."""
        level = struct.unpack_from("<I", options)[0] if len(options) >= 8 else 9
        self._level = min(max(level, 1), 9)
        self.method = f"squashfs gzip, level {self._level}; {describe_library('z')}"

    def unpack(self, data: bytes, limit: int) -> bytes:
        """Return the plain bytes. :raises BlockError: damage, or too many bytes."""
        inflater = zlib.decompressobj()
        try:
            plain = inflater.decompress(data, limit + 1)
        except zlib.error as error:
            raise BlockError("its zlib stream is damaged") from error
        if not inflater.eof or len(plain) > limit:
            raise BlockError("its zlib stream is cut off or too long")
        return plain

    def pack(self, data: bytes) -> bytes:
        """Return a zlib stream."""
        return zlib.compress(data, self._level)


class XzBlocks:
    """xz streams with CRC32, and no larger dictionary than the image's."""

    name = "xz"

    def __init__(self, options: bytes, block_size: int) -> None:
        """Read the options: size of the dictionary, branch filters."""
        size = struct.unpack_from("<I", options)[0] if len(options) >= 8 else block_size
        self._filters = [{"id": lzma.FILTER_LZMA2, "preset": 6, "dict_size": max(size, 4096)}]
        self.method = f"squashfs xz, {self._filters}; {describe_library('lzma')}"

    def unpack(self, data: bytes, limit: int) -> bytes:
        """Return the plain bytes. :raises BlockError: damage, or too many bytes."""
        decoder = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=128 << 20)
        try:
            plain = decoder.decompress(data, limit + 1)
        except lzma.LZMAError as error:
            raise BlockError("its xz stream is damaged") from error
        if not decoder.eof or len(plain) > limit:
            raise BlockError("its xz stream is cut off or too long")
        return plain

    def pack(self, data: bytes) -> bytes:
        """Return an xz stream."""
        return lzma.compress(data, lzma.FORMAT_XZ, lzma.CHECK_CRC32, filters=self._filters)


class ZstdBlocks:
    """Single zstd frames with their size (RFC 8878)."""

    name = "zstd"

    def __init__(self, options: bytes, block_size: int) -> None:
        """Read the options: level."""
        load_zstd()
        level = struct.unpack_from("<I", options)[0] if len(options) >= 4 else 15
        self._level = min(max(level, 1), 22)
        is_slow = self._level >= SLOW_LEVEL
        self.method = f"squashfs zstd, level {self._level}; {describe_library('zstd')}" if is_slow else ""

    def unpack(self, data: bytes, limit: int) -> bytes:
        """Return the plain bytes. :raises BlockError: damage, or too many bytes."""
        try:
            size = read_header(data[:18]).size
            plain = None if size is None or size > limit else unpack_frame(data, size)
        except ValueError as error:
            raise BlockError("its zstd frame is damaged") from error
        if plain is None:
            raise BlockError("its zstd frame tells no size, or too large a one")
        return plain

    def pack(self, data: bytes) -> bytes:
        """Return one frame with its size."""
        return pack_frame(new_compressor(self._level, checksum=False, sized=True), data)


class Lz4Blocks:
    """Raw lz4 blocks."""

    name = "lz4"
    method = ""

    def __init__(self, options: bytes, block_size: int) -> None:
        """Read the options: version, and whether the slower, better compression was used."""
        import lz4.block  # noqa: PLC0415 - an extra

        self._block = lz4.block
        self._is_high = len(options) >= 8 and bool(struct.unpack_from("<II", options)[1] & 1)

    def unpack(self, data: bytes, limit: int) -> bytes:
        """Return the plain bytes. :raises BlockError: damage, or too many bytes."""
        try:
            return bytes(self._block.decompress(data, uncompressed_size=limit))
        except (self._block.LZ4BlockError, ValueError) as error:
            raise BlockError("its lz4 block is damaged or too long") from error

    def pack(self, data: bytes) -> bytes:
        """Return a raw lz4 block."""
        mode = "high_compression" if self._is_high else "default"
        return bytes(self._block.compress(data, mode=mode, store_size=False))


class LzoBlocks:
    """LZO1X blocks."""

    name = "lzo"
    method = ""

    def __init__(self, options: bytes, block_size: int) -> None:
        """Take the options, which only the compressor that wrote them needs."""
        from cosremaster.codecs import lzo  # noqa: PLC0415 - an extra

        self._lzo = lzo

    def unpack(self, data: bytes, limit: int) -> bytes:
        """Return the plain bytes. :raises BlockError: damage, or too many bytes."""
        try:
            return self._lzo.expand_within(data, limit)
        except self._lzo.LzoError as error:
            raise BlockError("its LZO block is damaged") from error

    def pack(self, data: bytes) -> bytes:
        """Return an LZO1X block."""
        return self._lzo.compress(data)


_CODECS: dict[Compression, type[BlockCodec]] = {
    Compression.GZIP: ZlibBlocks,
    Compression.LZO: LzoBlocks,
    Compression.XZ: XzBlocks,
    Compression.LZ4: Lz4Blocks,
    Compression.ZSTD: ZstdBlocks,
}


def make_block_codec(superblock: Superblock, options: bytes, place: Place) -> BlockCodec:
    """Return the codec of the image with ``superblock`` and compressor ``options`` (empty where it has none).

    :raises UnsupportedError: a library that the codec needs is not installed.
    """
    compression = Compression(superblock.compression)
    try:
        make = _CODECS[compression]
        return make(options, superblock.block_size)  # type: ignore[call-arg]
    except ImportError as error:
        name = compression.name.lower()
        raise UnsupportedError(f"is squashfs under {name}, which needs the extra cosremaster[{name}]", place) from error
