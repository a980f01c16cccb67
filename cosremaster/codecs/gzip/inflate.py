"""Inflating raw deflate data in steps: by ISA-L where the ``isal`` package is installed, else by zlib."""

from __future__ import annotations

import importlib.util
import zlib
from typing import Any, Protocol

HAS_ISAL = importlib.util.find_spec("isal") is not None
"""Whether ISA-L is installed, an optional extra that is several times faster."""


class DeflateError(Exception):
    """The data are no deflate data.

    ``offset``: the place of the damage, as near as is known, relative to the end of the last input (so it is negative).
    """

    def __init__(self, reason: str, offset: int) -> None:
        """Make the error for damage at ``offset``."""
        super().__init__(reason)
        self.offset = offset


class Inflater(Protocol):
    """Inflates a raw deflate stream (RFC 1951) that is fed in parts."""

    def feed(self, data: bytes, limit: int) -> bytes:
        """Return at most ``limit`` plain bytes. ``data`` must be empty when :attr:`needs_input` is False.

        :raises DeflateError: the data are damaged.
        """
        ...

    @property
    def needs_input(self) -> bool:
        """Whether no plain bytes can come without more data."""
        ...

    @property
    def eof(self) -> bool:
        """Whether the stream's end was reached."""
        ...

    @property
    def unused_data(self) -> bytes:
        """The bytes behind the stream's end that were fed."""
        ...


class ZlibInflater:
    """Inflates by the standard library."""

    def __init__(self, before: bytes = b"") -> None:
        """Begin a stream, or go on in it behind the plain bytes ``before``."""
        self._inflate = zlib.decompressobj(-15, zdict=before)

    def feed(self, data: bytes, limit: int) -> bytes:
        """Return at most ``limit`` plain bytes; see :class:`Inflater`."""
        data = self._inflate.unconsumed_tail + data
        copy = self._inflate.copy()
        try:
            return self._inflate.decompress(data, limit)
        except zlib.error as error:
            reason = str(error).rpartition(": ")[2]
            raise DeflateError(reason, _count_sound(copy, data) - len(data)) from error

    @property
    def needs_input(self) -> bool:
        """Whether no plain bytes can come without more data."""
        return not self._inflate.unconsumed_tail

    @property
    def eof(self) -> bool:
        """Whether the stream's end was reached."""
        return self._inflate.eof

    @property
    def unused_data(self) -> bytes:
        """The bytes behind the stream's end that were fed."""
        return self._inflate.unused_data


def _count_sound(inflate: zlib._Decompress, data: bytes) -> int:
    """Return how many bytes of ``data`` can be inflated before the damage."""
    for index in range(len(data)):
        try:
            inflate.decompress(data[index : index + 1])
        except zlib.error:
            return index
    return len(data)


class IsalInflater:
    """Inflates by ISA-L, which does not tell where in the last input the damage is."""

    def __init__(self) -> None:
        """Begin a stream."""
        from isal import igzip_lib  # noqa: PLC0415 - only where it is installed

        self._inflate = igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_DEFLATE)
        self._error: Any = igzip_lib.IsalError  # its stub declares the class as an instance
        self._fed = 0

    def feed(self, data: bytes, limit: int) -> bytes:
        """Return at most ``limit`` plain bytes; see :class:`Inflater`."""
        self._fed = len(data) or self._fed
        try:
            plain = self._inflate.decompress(data, limit)
        except self._error as error:
            reason = str(error).partition(" ")[2].partition(" ")[2].lower()
            raise DeflateError(reason, -self._fed) from error
        return plain

    @property
    def needs_input(self) -> bool:
        """Whether no plain bytes can come without more data."""
        return bool(self._inflate.needs_input)

    @property
    def eof(self) -> bool:
        """Whether the stream's end was reached."""
        return bool(self._inflate.eof)

    @property
    def unused_data(self) -> bytes:
        """The bytes behind the stream's end that were fed."""
        return bytes(self._inflate.unused_data)


def new_inflater() -> Inflater:
    """Return an inflater of the fastest library that is installed."""
    return IsalInflater() if HAS_ISAL else ZlibInflater()
