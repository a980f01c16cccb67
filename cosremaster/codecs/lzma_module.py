"""Python's ``lzma`` module, from wherever it is to be had. The only place that imports it.

A Python built without liblzma has no ``_lzma``; the extra ``cosremaster[lzma]`` brings ``backports.lzma`` for it. That
is the module as it was in Python 3.3, whose decompressor knows no bound for what comes out at once.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

FEED = 64
"""Packed bytes given at once to a decompressor without a bound: LZMA expands by some 7,000 at most."""


class Bounded:
    """``decompressor``, which gives all that comes of what it is fed, with the bound and the attributes of today's."""

    def __init__(self, decompressor: Any) -> None:
        self._inner = decompressor
        self._packed = b""
        self._plain = b""

    @property
    def eof(self) -> bool:
        """Behind the stream's end, and everything was taken."""
        return bool(self._inner.eof) and not self._plain

    @property
    def unused_data(self) -> bytes:
        """What was fed from behind the end."""
        return bytes(self._inner.unused_data) + self._packed if self._inner.eof else b""

    @property
    def needs_input(self) -> bool:
        """Nothing more comes without more data."""
        return not (self._plain or self._packed or self._inner.eof)

    def decompress(self, data: bytes, max_length: int = -1) -> bytes:
        """Plain bytes, at most ``max_length`` of them where that is not negative."""
        self._packed += data
        parts, have = [self._plain], len(self._plain)
        feed = FEED if max_length >= 0 else len(self._packed)
        while self._packed and not self._inner.eof and (max_length < 0 or have < max_length):
            parts.append(self._inner.decompress(self._packed[:feed]))
            self._packed = self._packed[feed:]
            have += len(parts[-1])
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
"""Whether there is one. Where not, nothing may use :data:`lzma`."""

__all__ = ["AVAILABLE", "Bounded", "lzma"]
