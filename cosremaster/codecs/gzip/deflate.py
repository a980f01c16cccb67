"""Deflating blocks by zlib, or by ISA-L where that is asked for: which of them makes the bytes is never by chance."""

from __future__ import annotations

import zlib

from cosremaster.codecs.gzip import inflate
from cosremaster.errors import UnsupportedError, UsageError

ZLIB, ISAL = "zlib", "isal"
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
