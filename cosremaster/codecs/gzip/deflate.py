"""Deflating blocks by zlib, or by ISA-L where that is asked for: which of them makes the bytes is never by chance."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Any, Protocol

from cosremaster.codecs.gzip import inflate
from cosremaster.codecs.part_memory import describe_library
from cosremaster.errors import CorruptError, Place, UnsupportedError, UsageError
from cosremaster.io.pieces import Range
from cosremaster.records import Struct

NEW_LEVEL = 6
"""The level of zlib for new streams."""

DEFLATE_BLOCK = 1 << 20
"""Plain bytes that are deflated at once; blocks that lie side by side do not depend on how many are made so."""

WINDOW = 1 << 15
"""Plain bytes before a block that it refers to at most."""

ZLIB, ISAL = "zlib", "isal"
FINAL_BLOCK = b"\x03\x00"
"""An empty block with fixed codes, which ends a stream."""

CODERS = (ZLIB, ISAL)
"""What deflates. Each makes bytes of its own, so the default does not depend on what is installed."""

ISAL_LEVEL = 2
"""The level of ISA-L: 3, its best, takes 2.5 times as long and makes 1 % fewer bytes."""


def check_coder(coder: str) -> None:
    """Check that ``coder`` can deflate here. :raises UsageError: nothing is called so.

    :raises UnsupportedError: it is not installed.
    """
    if coder not in CODERS:
        raise UsageError(f"gzip is packed by {' or '.join(CODERS)}, not by {coder!r}")
    if coder == ISAL and not inflate.HAS_ISAL:
        raise UnsupportedError(
            "gzip cannot be packed by isal, which is not installed here (pip install 'cosremaster[fast]'); zlib is"
            " always there"
        )


def deflate_block(coder: str, level: int, plain: bytes, before: bytes) -> bytes:
    """Return ``plain`` as deflate blocks behind the plain bytes ``before``, with a sync flush at the end.

    ``level``: that of zlib.
    """
    if coder == ZLIB:
        compressor = zlib.compressobj(level, zlib.DEFLATED, -15, zdict=before)
        return compressor.compress(plain) + compressor.flush(zlib.Z_SYNC_FLUSH)
    from isal import isal_zlib  # noqa: PLC0415 - only where it is asked for

    fast = isal_zlib.compressobj(ISAL_LEVEL, isal_zlib.DEFLATED, -15, zdict=before)
    return bytes(fast.compress(plain)) + bytes(fast.flush(isal_zlib.Z_SYNC_FLUSH))


def inflate_block(packed: bytes, before: bytes, length: int) -> bytes:
    """Return the plain bytes of what :func:`deflate_block` made behind ``before``; not ``length`` of damaged ones."""
    if inflate.HAS_ISAL:
        from isal import isal_zlib  # noqa: PLC0415 - only where it is installed

        failure: Any = isal_zlib.error  # its stub declares the class as an instance
        try:  # given a dictionary, igzip_lib's class damages memory before 1.9, which Python 3.10 does not get
            return bytes(isal_zlib.decompressobj(-15, zdict=before).decompress(packed, length))
        except failure:
            return b""
    try:
        return zlib.decompressobj(-15, zdict=before).decompress(packed, length)
    except zlib.error:
        return b""


def name_method(coder: str, level: int) -> str:
    """Return all that decides what :func:`deflate_block` makes; empty for ISA-L, which is as quick as unpacking."""
    return f"deflate, level {level}; {describe_library('z')}" if coder == ZLIB else ""


def expand_block(before: bytes, packed: bytes) -> Iterator[bytes]:
    """Yield the plain bytes of what :func:`deflate_block` made behind ``before``; ``packed`` must end at a whole byte.

    :raises CorruptError: it is damaged, ends within a block or ends the stream.
    """
    inflater = zlib.decompressobj(-15, zdict=before)
    try:
        plain = inflater.decompress(packed, 2 * DEFLATE_BLOCK)
        yield plain
        is_whole = not (inflater.eof or inflater.unconsumed_tail)
        end = inflater.decompress(FINAL_BLOCK, 1) if is_whole else b"?"
    except zlib.error as error:
        raise CorruptError(f"corrupt deflate data ({error})", Place()) from error
    if end or not inflater.eof or inflater.unused_data:
        raise CorruptError("deflate data that does not end at a byte", Place())


class DeflatedBlock(Struct, frozen=True):
    """A deflated block of old plain bytes, which waits in a temporary file.

    ``packed``: it; ``length``: its plain bytes, whose CRC32 is ``crc``. ``window``: the last of them, on which the next
    block depends.
    """

    packed: Range
    length: int
    crc: int
    window: Range


class DeflatedAhead(Protocol):
    """Blocks of a stream's plain bytes that :func:`deflate_block` made, each behind the :data:`WINDOW` bytes before."""

    coder: str
    level: int

    def block_at(self, offset: int) -> DeflatedBlock | None:
        """Return the block of :data:`DEFLATE_BLOCK` bytes, or the last, at plain byte ``offset``; None if none is."""
        ...
