"""LZO1X blocks by lzokay, an extra: for lzop streams and for squashfs.

Specification: the kernel's Documentation/staging/lzo.rst ("LZO stream format as understood by Linux's LZO
decompressor").
"""

from __future__ import annotations

import lzokay


class LzoError(ValueError):
    """A block is damaged, or has another size."""


def expand(data: bytes, size: int) -> bytes:
    """Return the ``size`` plain bytes of the block ``data``. :raises LzoError: it is damaged, or has another size."""
    plain = _expand_at_most(data, size)
    if plain is None:
        raise LzoError(f"expands to more than {size:,} bytes")
    if size and _expand_at_most(data, size - 1) is not None:
        raise LzoError(f"expands to less than {size:,} bytes")
    return plain


def expand_within(data: bytes, limit: int) -> bytes:
    """Return the plain bytes of the block ``data``, at most ``limit``. :raises LzoError: it is damaged, or has more.

    lzokay fills its buffer up with zeros and does not tell where the plain bytes end, so the smallest buffer that is
    enough is looked for. Nearly all blocks are full.
    """
    plain = _expand_at_most(data, limit)
    if plain is None:
        raise LzoError(f"expands to more than {limit:,} bytes")
    low, high, size = 0, limit, limit - 1  # the plain bytes are at least `low` and at most `high`
    while low < high:
        if _expand_at_most(data, size) is None:
            low = size + 1
        else:
            high = size
        size = (low + high) // 2
    return plain[:low]


def _expand_at_most(data: bytes, size: int) -> bytes | None:
    """Return the plain bytes of ``data``, with zeros behind them up to ``size`` bytes; None if they are more.

    :raises LzoError: the block is damaged.
    """
    try:
        return lzokay.decompress(data, size)
    except lzokay.OutputOverrunError:
        return None
    except lzokay.LzokayError as error:
        raise LzoError(f"is damaged ({error})") from error


def compress(plain: bytes) -> bytes:
    """Return an LZO1X block that holds ``plain``; it may be longer."""
    return lzokay.compress(plain)
