"""The first plain bytes of a compressed file, in which streams without any may come first."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def peek_streams(
    new_decompressor: Callable[[], Any], failures: tuple[type[Exception], ...], head: bytes, count: int
) -> bytes:
    """Return the first ``count`` plain bytes of the streams that ``head`` begins with, fewer where it ends early.

    Streams may be empty, as the frame that pzstd begins with is, and zeros may stand between them. Decoding stops at
    damage, for which ``new_decompressor()`` raises one of ``failures``.
    """
    plain = b""
    while head and len(plain) < count:
        decompressor = new_decompressor()
        try:
            plain += decompressor.decompress(head, count - len(plain))
        except failures:
            break
        if not decompressor.eof:
            break
        head = (decompressor.unused_data or b"").lstrip(b"\0")  # of lz4 it may be None
    return plain
