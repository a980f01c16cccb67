"""Raw deflate data inflated in steps: by ISA-L where the ``isal`` package is installed, else by zlib."""

from __future__ import annotations

import importlib.util
import zlib
from typing import Any, Protocol

HAS_ISAL = importlib.util.find_spec("isal") is not None
"""An optional extra: several times faster, not needed."""


class DeflateError(Exception):
    """The data are no deflate data. ``offset``: where the damage is, as near as can be told, counted from
    behind the last input (so it is negative)."""

    def __init__(self, reason: str, offset: int) -> None:
        super().__init__(reason)
        self.offset = offset


class Inflater(Protocol):
    """Inflates one raw deflate stream (RFC 1951) fed in pieces."""

    def feed(self, data: bytes, limit: int) -> bytes:
        """Plain bytes, at most ``limit``. ``data`` is empty when :attr:`hungry` is False.

        :raises DeflateError: damage.
        """
        ...

    @property
    def hungry(self) -> bool:
        """True when nothing more comes without more data."""
        ...

    @property
    def done(self) -> bool:
        """True behind the stream's end."""
        ...

    @property
    def unused(self) -> bytes:
        """What was fed from behind the end."""
        ...


class ZlibInflater:
    """By the standard library."""

    def __init__(self) -> None:
        self._inflate = zlib.decompressobj(-15)

    def feed(self, data: bytes, limit: int) -> bytes:
        """See :class:`Inflater`."""
        data = self._inflate.unconsumed_tail + data
        before = self._inflate.copy()
        try:
            return self._inflate.decompress(data, limit)
        except zlib.error as error:
            reason = str(error).rpartition(": ")[2]
            raise DeflateError(reason, _sound(before, data) - len(data)) from error

    @property
    def hungry(self) -> bool:
        """See :class:`Inflater`."""
        return not self._inflate.unconsumed_tail

    @property
    def done(self) -> bool:
        """See :class:`Inflater`."""
        return self._inflate.eof

    @property
    def unused(self) -> bytes:
        """See :class:`Inflater`."""
        return self._inflate.unused_data


def _sound(inflate: zlib._Decompress, data: bytes) -> int:
    """How many bytes of ``data`` can be inflated before the damage."""
    for index in range(len(data)):
        try:
            inflate.decompress(data[index : index + 1])
        except zlib.error:
            return index
    return len(data)


class IsalInflater:
    """By ISA-L, which cannot tell where in the last input the damage is."""

    def __init__(self) -> None:
        from isal import igzip_lib  # noqa: PLC0415 - only where it is installed

        self._inflate = igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_DEFLATE)
        self._error: Any = igzip_lib.IsalError  # its stub calls the class an instance
        self._fed = 0

    def feed(self, data: bytes, limit: int) -> bytes:
        """See :class:`Inflater`."""
        self._fed = len(data) or self._fed
        try:
            plain = self._inflate.decompress(data, limit)
        except self._error as error:
            reason = str(error).partition(" ")[2].partition(" ")[2].lower()
            raise DeflateError(reason, -self._fed) from error
        return plain

    @property
    def hungry(self) -> bool:
        """See :class:`Inflater`."""
        return bool(self._inflate.needs_input)

    @property
    def done(self) -> bool:
        """See :class:`Inflater`."""
        return bool(self._inflate.eof)

    @property
    def unused(self) -> bytes:
        """See :class:`Inflater`."""
        return bytes(self._inflate.unused_data)


def new_inflater() -> Inflater:
    """The fastest there is."""
    return IsalInflater() if HAS_ISAL else ZlibInflater()
