"""Python's ``lzma`` module, or its backport where Python has none. No other module imports it.

A Python built without liblzma has no ``_lzma``; the extra ``cosremaster[lzma]`` brings ``backports.lzma`` for it. That
is the module as it was in Python 3.3, whose decompressor knows no bound for what comes out at once.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

FEED = 64
"""Packed bytes that a decompressor without a bound gets at once: LZMA expands by a factor of at most some 7,000."""


class Bounded:
    """Gives ``decompressor``, which has no bound on its output, the bound and the attributes of Python 3.5."""

    def __init__(self, decompressor: Any) -> None:
        """Wrap ``decompressor``, which was fed nothing so far."""
        self._inner = decompressor
        self._packed = b""
        self._plain = b""

    @property
    def eof(self) -> bool:
        """Whether the stream's end was reached and all plain bytes were returned."""
        return bool(self._inner.eof) and not self._plain

    @property
    def unused_data(self) -> bytes:
        """The bytes behind the stream's end that were fed."""
        return bytes(self._inner.unused_data) + self._packed if self._inner.eof else b""

    @property
    def needs_input(self) -> bool:
        """Whether no plain bytes can come without more data."""
        return not (self._plain or self._packed or self._inner.eof)

    def decompress(self, data: bytes, max_length: int = -1) -> bytes:
        """Return plain bytes, at most ``max_length`` where that is not negative."""
        self._packed += data
        parts, size = [self._plain], len(self._plain)
        feed = FEED if max_length >= 0 else len(self._packed)
        while self._packed and not self._inner.eof and (max_length < 0 or size < max_length):
            parts.append(self._inner.decompress(self._packed[:feed]))
            self._packed = self._packed[feed:]
            size += len(parts[-1])
        plain = b"".join(parts)
        cut = len(plain) if max_length < 0 else max_length
        self._plain = plain[cut:]
        return plain[:cut]


if TYPE_CHECKING:
    import lzma
else:
    try:
        import lzma
    except ImportError:
        try:
            from backports import lzma as _old
        except ImportError:
            lzma = None
        else:
            lzma = SimpleNamespace(**vars(_old))
            lzma.LZMADecompressor = lambda *args, **kwargs: Bounded(_old.LZMADecompressor(*args, **kwargs))

AVAILABLE = lzma is not None
"""Whether there is an lzma module. If not, :data:`lzma` must not be used."""

__all__ = ["AVAILABLE", "Bounded", "lzma"]
