"""LZO1X blocks, expanded. No wheel of a library exists; lzop itself judges this one.

Specification: the kernel's Documentation/staging/lzo.rst ("LZO stream format as understood by Linux's LZO
decompressor"); ``state`` is its: how many literals the last instruction copied, 4 for a run of them.
"""

from __future__ import annotations

from contextlib import suppress

END = 16384
"""The distance of no match that ends a block."""

_RUN = 4
_FIRST = 17
"""A first byte above this one is a run of so many literals more."""


class LzoError(ValueError):
    """A block that is damaged; ``at``: the byte of it where that shows."""

    def __init__(self, message: str, at: int) -> None:
        super().__init__(message)
        self.at = at


def expand(data: bytes, size: int) -> bytes:
    """The ``size`` plain bytes of the block ``data``. :raises LzoError: it is damaged, or not of that size."""
    block = _Block(data, size)
    while block.step():
        pass
    if len(block.plain) != size:
        raise LzoError(f"expands to {len(block.plain):,} bytes instead of {size:,}", block.at)
    if block.at != len(data):
        raise LzoError("goes on behind its end", block.at)
    return bytes(block.plain)


def expand_some(data: bytes, size: int, enough: int) -> bytes:
    """The first ``enough`` plain bytes of the block, or what can be had of one that is cut off or damaged."""
    block = _Block(data, size)
    with suppress(LzoError):
        while len(block.plain) < enough and block.step():
            pass
    return bytes(block.plain[:enough])


class _Block:
    """A block being expanded: ``at`` is the next byte of it, ``plain`` what it has come to, at most ``size`` bytes."""

    def __init__(self, data: bytes, size: int) -> None:
        self.plain = bytearray()
        self.at = 0
        self._data = data
        self._size = size
        self._state = 0

    def step(self) -> bool:
        """Carries out one instruction; False for that which ends the block. :raises LzoError: it cannot be."""
        try:
            return self._step()
        except IndexError:
            raise LzoError("ends too early", len(self._data)) from None

    def _step(self) -> bool:
        data, code = self._data, self._data[self.at]
        self.at += 1
        if code > _FIRST and self.at == 1:
            self._literals(code - _FIRST)
            self._state = min(code - _FIRST, _RUN)
            return True
        if code >= 64:
            length = (code >> 5) + 1
            distance = (data[self.at] << 3) + (code >> 2 & 7) + 1
            self.at += 1
        elif code >= 16:
            length = 2 + (self._length(code & 31, 31) if code >= 32 else self._length(code & 7, 7))
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
            self._literals(3 + self._length(code, 15))
            self._state = _RUN
            return True
        self._match(distance, length)
        self._state = code & 3
        if self._state:
            self._literals(self._state)
        return True

    def _length(self, short: int, most: int) -> int:
        """A length that fits the instruction, or goes on behind it: zeros for 255 each, then the rest."""
        if short:
            return short
        start = self.at
        while not self._data[self.at]:
            self.at += 1
        self.at += 1
        return most + 255 * (self.at - 1 - start) + self._data[self.at - 1]

    def _literals(self, count: int) -> None:
        found = self._data[self.at : self.at + count]
        if len(found) < count:
            raise LzoError("ends too early", len(self._data))
        self._fits(count)
        self.plain += found
        self.at += count

    def _match(self, distance: int, length: int) -> None:
        plain = self.plain
        start = len(plain) - distance
        if start < 0:
            raise LzoError("refers to bytes before its beginning", self.at)
        self._fits(length)
        if distance >= length:
            plain += plain[start : start + length]
        else:
            pattern = bytes(plain[start:])
            plain += (pattern * (length // distance + 1))[:length]

    def _fits(self, count: int) -> None:
        if len(self.plain) + count > self._size:
            raise LzoError(f"expands to more than {self._size:,} bytes", self.at)
