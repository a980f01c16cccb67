"""Expanding LZO1X blocks. There is no wheel of a library; the tests compare this one with lzop.

Specification: the kernel's Documentation/staging/lzo.rst ("LZO stream format as understood by Linux's LZO
decompressor"); ``state`` is its: how many literals the last instruction copied, 4 for a run of them.
"""

from __future__ import annotations

from contextlib import suppress

END = 16384
"""The distance, of no match, that ends a block."""

_RUN = 4
_FIRST = 17
"""A first byte above this one is a run of so many literals more."""


class LzoError(ValueError):
    """A block is damaged; ``at``: the byte of the block where the damage shows."""

    def __init__(self, message: str, at: int) -> None:
        """Make the error ``message`` for byte ``at``."""
        super().__init__(message)
        self.at = at


def expand(data: bytes, size: int) -> bytes:
    """Return the ``size`` plain bytes of the block ``data``. :raises LzoError: it is damaged, or has another size."""
    block = _Lzo1xBlock(data, size)
    while block.step():
        pass
    if len(block.plain) != size:
        raise LzoError(f"expands to {len(block.plain):,} bytes instead of {size:,}", block.at)
    if block.at != len(data):
        raise LzoError("goes on behind its end", block.at)
    return bytes(block.plain)


def expand_within(data: bytes, limit: int) -> bytes:
    """Return the plain bytes of the block ``data``, at most ``limit``. :raises LzoError: it is damaged, or has more."""
    block = _Lzo1xBlock(data, limit)
    while block.step():
        pass
    if block.at != len(data):
        raise LzoError("goes on behind its end", block.at)
    return bytes(block.plain)


def expand_some(data: bytes, size: int, count: int) -> bytes:
    """Return the first ``count`` plain bytes of the block, fewer where it is cut off or damaged."""
    block = _Lzo1xBlock(data, size)
    with suppress(LzoError):
        while len(block.plain) < count and block.step():
            pass
    return bytes(block.plain[:count])


class _Lzo1xBlock:
    """A block that is being expanded; ``at``: its next byte, ``plain``: the plain bytes so far, at most ``size``."""

    def __init__(self, data: bytes, size: int) -> None:
        """Begin with the first byte of ``data``."""
        self.plain = bytearray()
        self.at = 0
        self._data = data
        self._size = size
        self._state = 0

    def step(self) -> bool:
        """Execute an instruction; return False if it ends the block. :raises LzoError: the block is damaged."""
        try:
            return self._execute()
        except IndexError:
            raise LzoError("ends too early", len(self._data)) from None

    def _execute(self) -> bool:
        """Execute the next instruction; return False if it ends the block."""
        data, code = self._data, self._data[self.at]
        self.at += 1
        if code > _FIRST and self.at == 1:
            self._copy_literals(code - _FIRST)
            self._state = min(code - _FIRST, _RUN)
            return True
        if code >= 64:
            length = (code >> 5) + 1
            distance = (data[self.at] << 3) + (code >> 2 & 7) + 1
            self.at += 1
        elif code >= 16:
            length = 2 + (self._read_length(code & 31, 31) if code >= 32 else self._read_length(code & 7, 7))
            operand = data[self.at] | data[self.at + 1] << 8
            distance = (operand >> 2) + 1
            if code < 32:
                distance += END - 1 + ((code & 8) << 11)
                if distance == END:
                    self.at += 2
                    return False
            code = operand
            self.at += 2
        elif self._state:
            length = 3 if self._state == _RUN else 2
            distance = (data[self.at] << 2) + (code >> 2) + (2049 if self._state == _RUN else 1)
            self.at += 1
        else:
            self._copy_literals(3 + self._read_length(code, 15))
            self._state = _RUN
            return True
        self._copy_match(distance, length)
        self._state = code & 3
        if self._state:
            self._copy_literals(self._state)
        return True

    def _read_length(self, short: int, largest: int) -> int:
        """Return the length ``short``; for 0 it is in the bytes that follow: zeros for 255 each, then the rest."""
        if short:
            return short
        start = self.at
        while not self._data[self.at]:
            self.at += 1
        self.at += 1
        return largest + 255 * (self.at - 1 - start) + self._data[self.at - 1]

    def _copy_literals(self, count: int) -> None:
        """Add ``count`` literals."""
        literals = self._data[self.at : self.at + count]
        if len(literals) < count:
            raise LzoError("ends too early", len(self._data))
        self._check_size(count)
        self.plain += literals
        self.at += count

    def _copy_match(self, distance: int, length: int) -> None:
        """Add ``length`` plain bytes from ``distance`` bytes before."""
        plain = self.plain
        start = len(plain) - distance
        if start < 0:
            raise LzoError("refers to bytes before its beginning", self.at)
        self._check_size(length)
        if distance >= length:
            plain += plain[start : start + length]
        else:
            pattern = bytes(plain[start:])
            plain += (pattern * (length // distance + 1))[:length]

    def _check_size(self, count: int) -> None:
        """Check that ``count`` more plain bytes are expected. :raises LzoError: they are not."""
        if len(self.plain) + count > self._size:
            raise LzoError(f"expands to more than {self._size:,} bytes", self.at)
