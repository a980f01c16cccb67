"""Stored deflate blocks (RFC 1951, 3.2.4) in a stream that is being inflated: where its plain bytes lie packed.

What was compressed before it came into a gzip stream stands there as it was, in stored blocks. A new stream can take
those bytes from the packed file, without inflating anything. Each block is found by its plain bytes and compared
with them whole: nothing depends on how the inflater got there.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Iterator

from fastcrc import crc32
from msgspec import Struct, field

from cosremaster.codecs.checks import crc32_without

HEAD = 5
"""Bytes of a stored block before its data, where it begins at a byte: type, length, its complement."""

FULL = 65535
"""Most bytes of a block's data."""

NEEDLE = 32
_STEP, _MAX_STEP = 1 << 14, 1 << 18  # between needles: twice as many after each that is not found
_WINDOW = 1 << 17  # twice what a block holds
_SHRUNK = 1.25
_SHORT = 4096  # bytes; a cpio header and what an xz stream begins with are shorter
_TRIES = 256  # zeros among them, with which a block might begin: of random bytes 16 are


class StoredRun(Struct, frozen=True):
    """Plain bytes ``start`` to ``end`` that lie at packed offset ``packed``, with their headers between if ``whole``.

    ``crc``: the CRC32 of the plain bytes, where it is known without reading them.
    """

    start: int
    end: int
    packed: int
    packed_end: int
    whole: bool
    crc: int | None = None


class StoredBlocks(Struct, frozen=True):
    """Blocks in order, as columns: packed and plain offset of the data, its length, and whether it is ``linked``:
    its header follows the block before it and nothing but whole bytes are between. ``crcs``: the CRC32 of the data
    from the last block that is not linked to the end of this one.
    """

    packed: array[int] = field(default_factory=lambda: array("Q"))
    plain: array[int] = field(default_factory=lambda: array("Q"))
    lengths: array[int] = field(default_factory=lambda: array("H"))
    linked: array[int] = field(default_factory=lambda: array("B"))
    crcs: array[int] = field(default_factory=lambda: array("I"))

    @property
    def columns(self) -> tuple[array[int], ...]:
        """All columns."""
        return self.packed, self.plain, self.lengths, self.linked, self.crcs

    @property
    def end(self) -> int:
        """The plain offset behind the last block."""
        return self.plain[-1] + self.lengths[-1] if self.plain else 0

    def dump(self) -> list[str]:
        """The columns as hexadecimal text."""
        return [column.tobytes().hex() for column in self.columns]

    @classmethod
    def load(cls, values: list[str]) -> StoredBlocks:
        """What :meth:`dump` wrote. :raises ValueError, TypeError: it did not."""
        blocks = cls()
        for column, text in zip(blocks.columns, values, strict=True):
            column.frombytes(bytes.fromhex(text))
        if len({len(column) for column in blocks.columns}) != 1:
            raise ValueError("columns of different lengths")
        return blocks

    def add(self, packed: int, plain: int, data: bytes, linked: bool) -> None:
        """Adds a block that lies behind those before it."""
        before = self.crcs[-1] if linked else 0
        for column, value in zip(self.columns, (packed, plain, len(data), linked), strict=False):
            column.append(value)
        self.crcs.append(crc32.iso_hdlc(data, before))

    def runs(self, start: int, end: int) -> Iterator[StoredRun]:
        """What of the plain bytes ``start`` to ``end`` lies in blocks, in order: part of one, or whole ones."""
        index = max(bisect_right(self.plain, start) - 1, 0)
        count = len(self.plain)
        while index < count and self.plain[index] < end:
            first, last = self.plain[index], self.plain[index] + self.lengths[index]
            begin, stop = max(start, first), min(end, last)
            whole = (begin, stop) == (first, last)
            if whole and self.linked[index]:
                after = index + 1
                while after < count and self.linked[after] and self.plain[after] + self.lengths[after] <= end:
                    after += 1
                yield self._whole(index, after - 1)
                index = after
                continue
            if begin < stop:
                packed = self.packed[index] + begin - first
                crc = self.crcs[index] if whole else None
                yield StoredRun(begin, stop, packed, packed + stop - begin, False, crc)
            index += 1

    def _whole(self, first: int, last: int) -> StoredRun:
        """Blocks ``first`` to ``last``, all linked."""
        start, end = self.plain[first], self.plain[last] + self.lengths[last]
        crc = crc32_without(self.crcs[last], self.crcs[first - 1], end - start)
        return StoredRun(start, end, self.packed[first] - HEAD, self.packed[last] + self.lengths[last], True, crc)


class StoredBlockFinder:
    """Finds the stored blocks of a deflate stream from what goes into an inflater and what comes out of it."""

    def __init__(self) -> None:
        self.blocks = StoredBlocks()
        self._packed, self._packed_start = bytearray(), 0
        self._plain, self._plain_start = bytearray(), 0
        self._next: tuple[int, int, bool] | None = None  # packed offset of a block's header, its plain offset, linked
        self._searched, self._step = 0, _STEP

    def feed(self, packed: bytes, packed_at: int, plain: bytes, plain_at: int) -> None:
        """``packed``, at its offset, went in, and ``plain``, at its offset, came out."""
        if packed_at != self._packed_start + len(self._packed) or plain_at != self._plain_start + len(self._plain):
            self._forget(packed_at, plain_at)
        self._packed += packed
        self._plain += plain
        if self._next is None and len(plain) > _SHRUNK * len(packed) + _STEP:
            self._searched = plain_at + len(plain)  # most of it is compressed
        while self._next is not None or self._search():
            if not self._follow():
                break
        self._trim()

    def _forget(self, packed_at: int, plain_at: int) -> None:
        """Starts anew at these offsets."""
        self._packed, self._packed_start = bytearray(), packed_at
        self._plain, self._plain_start = bytearray(), plain_at
        self._next, self._searched, self._step = None, plain_at, _STEP

    def _follow(self) -> bool:
        """Takes the block at ``_next``; False when more bytes are needed for it. Clears ``_next`` if there is none."""
        assert self._next is not None
        header, plain_at, linked = self._next
        at, plain = header - self._packed_start, plain_at - self._plain_start
        head = self._packed[at : at + HEAD]
        if len(head) < HEAD:
            return False
        length = _length(head[1:])
        if length is None or (linked and head[0] & 7):  # BFINAL or another type
            self._next = None
            return True
        if len(self._packed) < at + HEAD + length or len(self._plain) < plain + length:
            return False
        data = self._packed[at + HEAD : at + HEAD + length]
        if data != self._plain[plain : plain + length] or plain_at < self.blocks.end:
            self._next = None
            return True
        if length:
            self.blocks.add(header + HEAD, plain_at, bytes(data), linked)
        self._next = (header + HEAD + length, plain_at + length, bool(length) or linked)
        self._searched = max(self._searched, plain_at + length)  # never back, or the same would be found for ever
        return True

    def _search(self) -> bool:
        """Looks for some plain bytes among the packed ones, and for the header before them; True when it is found."""
        at = self._searched - self._plain_start
        while at + NEEDLE <= len(self._plain):
            found = self._packed.find(self._plain[at : at + NEEDLE])
            if found >= 0:
                back = _common_end(self._packed, found, self._plain, at)
                # The plain bytes before may be those of the header's end: the last that fits is where data begin.
                for start in reversed(range(found - back, min(found - back + 3, found) + 1)):
                    if start >= HEAD and _length(self._packed[start - 4 : start]) is not None:
                        first, plain = self._first(start - HEAD, at - (found - start))
                        self._next = first + self._packed_start, plain + self._plain_start, False
                        self._searched, self._step = at + self._plain_start + _STEP, _STEP
                        return True
            at += self._step
            self._step = min(2 * self._step, _MAX_STEP)
        self._searched = at + self._plain_start
        return False

    def _first(self, header: int, plain: int) -> tuple[int, int]:
        """Where the blocks begin that lead without a gap to the one with this ``header`` and ``plain`` data: full ones,
        and a short one before them. Offsets in the buffers."""
        while (length := self._length_before(header, plain)) is not None:
            header, plain = header - HEAD - length, plain - length
        return header, plain

    def _length_before(self, header: int, plain: int) -> int | None:
        """The length of the block that ends where ``header`` is and holds the bytes before ``plain``."""
        limit = min(header - HEAD, plain, self._plain_start + plain - self.blocks.end)
        if self._is_block(header - HEAD - FULL, FULL, plain, limit):
            return FULL
        first, head = max(header - HEAD - min(_SHORT, limit), 0), header - HEAD
        for _ in range(_TRIES):
            head = self._packed.rfind(0, first, head)
            if head < 0:
                break
            if self._is_block(head, header - HEAD - head, plain, limit):
                return header - HEAD - head
        return None

    def _is_block(self, head: int, length: int, end: int, limit: int) -> bool:
        """True when a block of ``length`` bytes, no more than ``limit``, begins at ``head`` in the buffer and holds the
        plain bytes before ``end`` in theirs."""
        if length > limit or self._packed[head] or _length(self._packed[head + 1 : head + HEAD]) != length:
            return False
        return self._packed[head + HEAD : head + HEAD + length] == self._plain[end - length : end]

    def _trim(self) -> None:
        """Lets go what no block ahead can begin in."""
        if self._next is not None:
            packed, plain = self._next[0], self._next[1]
        else:
            packed = self._packed_start + len(self._packed) - _WINDOW
            plain = self._plain_start + len(self._plain) - _WINDOW
        if packed > self._packed_start:
            del self._packed[: packed - self._packed_start]
            self._packed_start = packed
        if plain > self._plain_start:
            del self._plain[: plain - self._plain_start]
            self._plain_start = plain
        self._searched = max(self._searched, self._plain_start)


def _length(head: bytes | bytearray) -> int | None:
    """The length that a stored block's LEN and NLEN tell; None where they are not each other's complement."""
    length = int.from_bytes(head[:2], "little")
    return length if length ^ int.from_bytes(head[2:4], "little") == 0xFFFF else None


def _common_end(left: bytearray, left_end: int, right: bytearray, right_end: int) -> int:
    """How many bytes before both ends are the same."""
    low, high = 0, min(left_end, right_end)
    while low < high:
        middle = (low + high + 1) // 2
        if left[left_end - middle : left_end] == right[right_end - middle : right_end]:
            low = middle
        else:
            high = middle - 1
    return low
