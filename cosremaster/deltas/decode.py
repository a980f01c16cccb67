"""A delta read: each window as pieces of the base and new bytes. Nothing that a delta says is believed."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from functools import cache

from cosremaster.deltas.vcdiff import (
    ADD,
    COPY,
    HEADER,
    MAGIC,
    MAX_NUMBER,
    NEAR,
    RUN,
    SAME,
    VCD_ADLER32,
    VCD_APPHEADER,
    VCD_CODETABLE,
    VCD_DECOMPRESS,
    VCD_SOURCE,
    VCD_TARGET,
    make_code_table,
)
from cosremaster.errors import CorruptError, ImageError, UnsupportedError
from cosremaster.io.descriptors import MIN_HOLE, aligned_buffer
from cosremaster.io.pieces import Literal, Piece, Range, Zeros
from cosremaster.io.source import ByteSource
from cosremaster.records.tuples import NamedTuple

MAX_WINDOW = 64 << 20
"""Bytes of a window that are made in memory at most. xdelta3 writes windows of at most 16 MiB."""

MAX_SECTIONS = 4 * MAX_WINDOW
"""Bytes in which a window is described at most."""

MIN_RANGE = 1 << 14
"""Bytes of the base from which on they are copied by the kernel."""

_make_table = cache(make_code_table)


class WindowHead(NamedTuple):
    """A window (section 4.2): where it stands in the delta, what it takes from the base, and what it makes.

    ``data``, ``instructions`` and ``addresses``: the borders of its sections in the delta; ``adler``: the Adler-32 of
    its bytes, None where it does not say.
    """

    offset: int
    source: tuple[int, int]
    length: int
    data: tuple[int, int]
    instructions: tuple[int, int]
    addresses: tuple[int, int]
    adler: int | None

    @property
    def end(self) -> int:
        """The offset behind it."""
        return self.addresses[1]


class _Numbers:
    """Reads bytes and numbers of ``data``, which stand at byte ``base`` of the delta."""

    def __init__(self, delta: ByteSource, data: bytes, base: int) -> None:
        """Begin at the first."""
        self._delta, self._data, self._base = delta, data, base
        self.position = 0

    @property
    def offset(self) -> int:
        """The offset in the delta of the next byte."""
        return self._base + self.position

    @property
    def is_at_end(self) -> bool:
        """Whether all bytes were taken."""
        return self.position == len(self._data)

    def byte(self) -> int:
        """Take a byte. :raises CorruptError: there is none."""
        if self.position >= len(self._data):
            raise CorruptError("ends in the middle of a window", self._delta.place.at(self.offset))
        self.position += 1
        return self._data[self.position - 1]

    def number(self) -> int:
        """Take a number in base 128 (section 2). :raises CorruptError: there is none, or it has more than 63 bits."""
        start, value = self.offset, 0
        while True:
            digit = self.byte()
            value = value << 7 | digit & 0x7F
            if value > MAX_NUMBER:
                raise CorruptError("a number has more than 63 bits", self._delta.place.at(start))
            if digit < 0x80:
                return value

    def take(self, count: int) -> bytes:
        """Take ``count`` bytes. :raises CorruptError: there are fewer."""
        if count > len(self._data) - self.position:
            raise CorruptError(f"{count:,} bytes pass the end of their section", self._delta.place.at(self.offset))
        self.position += count
        return self._data[self.position - count : self.position]


def read_heads(delta: ByteSource, base_size: int) -> Iterator[WindowHead]:
    """Yield the windows of ``delta``, which is for a base of ``base_size`` bytes.

    :raises CorruptError: it is damaged. :raises UnsupportedError: it has what is not read here.
    :raises ImageError: it is no delta.
    """
    offset = _read_header(delta)
    while offset < delta.size:
        head = _read_head(delta, offset, base_size)
        yield head
        offset = head.end


def _read_header(delta: ByteSource) -> int:
    """Read the header (section 4.1) and return the offset behind it. Raises as :func:`read_heads`."""
    start = delta.read(0, 64)
    if start[:3] != MAGIC[:3]:
        raise ImageError("is no delta in the format VCDIFF", delta.place)
    if len(start) < len(HEADER):
        raise CorruptError("ends in its header", delta.place.at(len(start)))
    if start[3]:
        raise UnsupportedError(f"is a delta of version {start[3]:#04x}, not of RFC 3284", delta.place.at(3))
    indicator = start[4]
    if indicator & ~(VCD_DECOMPRESS | VCD_CODETABLE | VCD_APPHEADER):
        raise CorruptError(f"its header has unknown flags {indicator:#04x}", delta.place.at(4))
    if indicator & VCD_CODETABLE:
        raise UnsupportedError("has a code table of its own, which is not read here", delta.place.at(4))
    numbers = _Numbers(delta, start[5:], 5)
    if indicator & VCD_DECOMPRESS:
        numbers.byte()  # counts where a window is compressed
    length = numbers.number() if indicator & VCD_APPHEADER else 0
    if numbers.offset + length > delta.size:
        raise CorruptError("ends in its application header", delta.place.at(numbers.offset))
    return numbers.offset + length


def _read_head(delta: ByteSource, offset: int, base_size: int) -> WindowHead:
    """Return the window at ``offset``. Raises as :func:`read_heads`."""
    numbers = _Numbers(delta, delta.read(offset, 128), offset)
    indicator = numbers.byte()
    place = delta.place.at(offset)
    if indicator & ~(VCD_SOURCE | VCD_TARGET | VCD_ADLER32):
        raise CorruptError(f"a window has unknown flags {indicator:#04x}", place)
    if indicator & VCD_TARGET:
        raise UnsupportedError("a window copies from what others made (VCD_TARGET), which is not read here", place)
    size, start = (numbers.number(), numbers.number()) if indicator & VCD_SOURCE else (0, 0)
    if start + size > base_size:
        raise CorruptError(f"a window takes bytes {start:,} to {start + size:,} of a base of {base_size:,}", place)
    described = numbers.number()
    end = numbers.offset + described
    if end > delta.size:
        raise CorruptError(f"ends {end - delta.size:,} bytes too early", delta.place.at(delta.size))
    length = numbers.number()
    if length > MAX_WINDOW or described > MAX_SECTIONS:
        raise UnsupportedError(
            f"a window makes {length:,} bytes from {described:,}; at most {MAX_WINDOW:,} are made at once", place
        )
    if numbers.byte():
        raise UnsupportedError(
            "has a secondary compression, which is not read here (xdelta3 -S none writes without)", place
        )
    data, instructions, addresses = (numbers.number() for _ in range(3))
    adler = int.from_bytes(numbers.take(4), "big") if indicator & VCD_ADLER32 else None
    first = numbers.offset
    if first + data + instructions + addresses != end:
        raise CorruptError("the sections of a window do not fill it", place)
    second, third = first + data, first + data + instructions
    return WindowHead(offset, (start, size), length, (first, second), (second, third), (third, end), adler)


class _Addresses:
    """The addresses of COPY instructions (section 5.3), and the caches by which they are short."""

    def __init__(self, numbers: _Numbers) -> None:
        """Begin with empty caches."""
        self._numbers = numbers
        self._near, self._same = [0] * NEAR, [0] * (SAME * 256)
        self._next = 0

    def take(self, mode: int, here: int) -> int:
        """Return the next address; ``here`` is that of the next byte that is made. :raises CorruptError: it ends."""
        if mode == 0:
            address = self._numbers.number()
        elif mode == 1:
            address = here - self._numbers.number()
        elif mode < 2 + NEAR:
            address = self._near[mode - 2] + self._numbers.number()
        else:
            address = self._same[(mode - 2 - NEAR) * 256 + self._numbers.byte()]
        self._near[self._next] = address
        self._next = (self._next + 1) % NEAR
        self._same[address % (SAME * 256)] = address
        return address


class _WindowDecoder:
    """Makes the bytes of a window. Long ranges of the base are read only where they count."""

    def __init__(self, delta: ByteSource, head: WindowHead, base: ByteSource) -> None:
        """Read its sections."""
        self._delta, self._head, self._base = delta, head, base
        self._data, self._codes, addresses = (
            _Numbers(delta, delta.read(start, end - start), start)
            for start, end in (head.data, head.instructions, head.addresses)
        )
        self._address_numbers, self._addresses = addresses, _Addresses(addresses)
        self._made = aligned_buffer(head.length)  # what nobody writes to takes neither time nor memory
        self._position = 0
        self._ranges: list[tuple[int, int, int]] = []  # of the base: position, offset, length
        self._missing = 0  # the first of them that was not read
        self._holes: list[tuple[int, int]] = []

    def decode(self, *, is_checked: bool) -> Iterator[Piece]:
        """Return the bytes as pieces. ``is_checked``: compare their Adler-32.

        :raises CorruptError: the delta is wrong.
        """
        table = _make_table()
        while not self._codes.is_at_end:
            start = self._codes.offset
            for kind, size, mode in table[self._codes.byte()]:
                count = size or self._codes.number()
                if count > self._head.length - self._position:
                    raise CorruptError("an instruction passes the end of its window", self._delta.place.at(start))
                self._obey(kind, count, mode, start)
                self._position += count
        self._check_end()
        if is_checked and self._head.adler is not None:
            self._fill_missing()
            if zlib.adler32(self._made) != self._head.adler:
                raise CorruptError(
                    f"the window makes bytes with another Adler-32: {self._base.place} is not its base",
                    self._delta.place.at(self._head.offset),
                )
        return self._pieces()

    def _check_end(self) -> None:
        """Check that the window is whole. :raises CorruptError: bytes are missing, or were not used."""
        if self._position < self._head.length:
            raise CorruptError(
                f"a window makes {self._position:,} bytes of its {self._head.length:,}",
                self._delta.place.at(self._head.offset),
            )
        for numbers in (self._data, self._address_numbers):
            if not numbers.is_at_end:
                raise CorruptError("a window has bytes that no instruction takes", self._delta.place.at(numbers.offset))

    def _obey(self, kind: int, count: int, mode: int, start: int) -> None:
        """Make ``count`` bytes by the instruction at ``start``."""
        target = self._made[self._position : self._position + count]
        if kind == ADD:
            target[:] = self._data.take(count)
        elif kind == RUN:
            value = self._data.byte()
            if value:
                target[:] = bytes([value]) * count
            elif count >= MIN_HOLE:
                self._holes.append((self._position, count))
        elif kind == COPY:
            address = self._addresses.take(mode, self._head.source[1] + self._position)
            self._copy(address, count, start)

    def _copy(self, address: int, count: int, start: int) -> None:
        """Copy ``count`` bytes from ``address``: of the base's part first, then of what the window made."""
        offset, size = self._head.source
        if not 0 <= address < size + self._position:
            raise CorruptError(f"a copy begins at {address:,}, where nothing is", self._delta.place.at(start))
        position, from_base = self._position, max(0, min(count, size - address))
        if from_base >= MIN_RANGE:
            self._ranges.append((position, offset + address, from_base))
        elif from_base:
            self._base.read_into(offset + address, [self._made[position : position + from_base]])
        position, count = position + from_base, count - from_base
        if not count:
            return
        self._fill_missing()
        source = max(address - size, 0)
        while count:  # a copy may take what it makes itself
            part = min(count, position - source)
            if not part:
                raise CorruptError("a copy takes what is not made yet", self._delta.place.at(start))
            self._made[position : position + part] = bytes(self._made[source : source + part])
            position, count = position + part, count - part

    def _fill_missing(self) -> None:
        """Read the ranges of the base that were not read."""
        for position, offset, count in self._ranges[self._missing :]:
            self._base.read_into(offset, [self._made[position : position + count]])
        self._missing = len(self._ranges)

    def _pieces(self) -> Iterator[Piece]:
        """Yield the bytes: long ranges of the base, long runs of zeros, and all else as it is."""
        position = 0
        parts: dict[int, Piece] = {at: Range(self._base, offset, count) for at, offset, count in self._ranges}
        parts.update((at, Zeros(count)) for at, count in self._holes)
        for at, piece in sorted(parts.items()):
            if at > position:
                yield Literal(bytes(self._made[position:at]))
            yield piece
            position = at + piece.length
        if position < self._head.length:
            yield Literal(bytes(self._made[position:]))


def decode_window(delta: ByteSource, head: WindowHead, base: ByteSource, *, is_checked: bool = True) -> Iterator[Piece]:
    """Return the bytes that the window ``head`` of ``delta`` makes from ``base``, as pieces.

    ``is_checked``: compare its Adler-32, where it has one, which reads all that it copies.

    :raises CorruptError: the window is damaged, or made for another base.
    """
    return _WindowDecoder(delta, head, base).decode(is_checked=is_checked)
