"""Finding stored deflate blocks (RFC 1951, 3.2.4) in a stream that is being inflated.

Data that were compressed before they came into a gzip stream are in it unchanged, in stored blocks. A new stream can
take these bytes from the packed file without inflating. Each block is match by its plain bytes and compared with all of
them, so that nothing depends on the state of the inflater.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Iterator

from cosremaster.codecs.checks import crc32_without
from cosremaster.crc import crc32
from cosremaster.records import Struct, field
from cosremaster.records.json import convert

HEAD = 5
"""Bytes before the data of a stored block that begins at a byte: type, length, its complement."""

FULL = 65535
"""The most data bytes of a block."""

NEEDLE = 32
_STEP, _MAX_STEP = 1 << 14, 1 << 18  # plain bytes between searches: twice as many after each that fails
_WINDOW = 1 << 17  # bytes that are kept: twice a block
_SHRUNK = 1.25  # plain bytes for a packed one, from which on data count as compressed
_SHORT = 4096  # bytes of a short block; a cpio header and the beginning of an xz stream are shorter
_TRIES = 256  # zero bytes among them that are tried as the beginning of a block; of random bytes 16 are zeros


class StoredRun(Struct, frozen=True):
    """Plain bytes ``start`` to ``end``, which are at the packed offsets ``packed`` to ``packed_end``.

    :ivar whole: these are whole blocks, with their headers.
    :ivar crc: the CRC32 of the plain bytes, where it is known without reading them.
    """

    start: int
    end: int
    packed: int
    packed_end: int
    whole: bool
    crc: int | None = None


class StoredBlocks(Struct, frozen=True):
    """Blocks in order, as columns.

    :ivar packed: the packed offset of each block's data.
    :ivar plain: the plain offset.
    :ivar lengths: the length in bytes.
    :ivar linked: whether the block's header is right behind the block before, or behind empty blocks that follow it.
    :ivar crcs: the CRC32 of the data from the last block that is not linked to the end of this one.
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
        """Return the columns as hexadecimal text."""
        return [column.tobytes().hex() for column in self.columns]

    @classmethod
    def load(cls, values: list[str]) -> StoredBlocks:
        """Return the blocks that :meth:`dump` made ``values`` of. :raises ValueError, MismatchError: it did not."""
        blocks = cls()
        for column, text in zip(blocks.columns, convert(values, list[str]), strict=True):
            column.frombytes(bytes.fromhex(text))
        if len({len(column) for column in blocks.columns}) != 1:
            raise ValueError("columns of different lengths")
        return blocks

    def check_sizes(self, packed: int, plain: int | None) -> None:
        """Check that the blocks follow one another in ``packed`` bytes and ``plain`` ones (None: any number).

        :raises ValueError: they do not.
        """
        end = plain_end = 0
        for place, offset, length, linked in zip(self.packed, self.plain, self.lengths, self.linked, strict=True):
            heads, rest = divmod(place - end, HEAD)  # empty blocks, as sync flushes are, may stand between
            is_next = end > 0 and offset == plain_end and not rest
            if not length or linked > 1 or heads < 1 or not (is_next if linked else offset >= plain_end):
                raise ValueError("stored blocks do not follow one another")
            end, plain_end = place + length, offset + length
        if end > packed or (plain is not None and plain_end > plain):
            raise ValueError("stored blocks of another stream")

    def add(self, packed: int, plain: int, data: bytes, linked: bool) -> None:
        """Add a block behind all others."""
        before = self.crcs[-1] if linked else 0
        for column, value in zip(self.columns, (packed, plain, len(data), linked), strict=False):
            column.append(value)
        self.crcs.append(crc32(data, before))

    def runs(self, start: int, end: int) -> Iterator[StoredRun]:
        """Yield the runs of plain bytes ``start`` to ``end`` that are in blocks: a part of one, or whole ones."""
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
                yield self._whole_run(index, after - 1)
                index = after
                continue
            if begin < stop:
                packed = self.packed[index] + begin - first
                crc = self.crcs[index] if whole else None
                yield StoredRun(begin, stop, packed, packed + stop - begin, False, crc)
            index += 1

    def _whole_run(self, first: int, last: int) -> StoredRun:
        """Return the run of the blocks ``first`` to ``last``, all of which are linked."""
        start, end = self.plain[first], self.plain[last] + self.lengths[last]
        crc = crc32_without(self.crcs[last], self.crcs[first - 1], end - start)
        return StoredRun(start, end, self.packed[first] - HEAD, self.packed[last] + self.lengths[last], True, crc)


class StoredBlockFinder:
    """Finds the stored blocks of a deflate stream from the input and the output of an inflater."""

    def __init__(self) -> None:
        """Begin with no bytes."""
        self.blocks = StoredBlocks()
        self._packed, self._packed_start = bytearray(), 0
        self._plain, self._plain_start = bytearray(), 0
        self._expected: tuple[int, int, bool] | None = (
            None  # a block: packed offset of its header, plain offset, linked
        )
        self._searched, self._step = 0, _STEP

    def feed(self, packed: bytes, packed_at: int, plain: bytes, plain_at: int) -> None:
        """Add the input ``packed`` and the output ``plain``, each with its offset."""
        if packed_at != self._packed_start + len(self._packed) or plain_at != self._plain_start + len(self._plain):
            self._restart(packed_at, plain_at)
        self._packed += packed
        self._plain += plain
        if self._expected is None and len(plain) > _SHRUNK * len(packed) + _STEP:
            self._searched = plain_at + len(plain)  # these are mostly deflated data
        while self._expected is not None or self._search():
            if not self._take_expected():
                break
        self._trim()

    def _restart(self, packed_at: int, plain_at: int) -> None:
        """Begin again at these offsets."""
        self._packed, self._packed_start = bytearray(), packed_at
        self._plain, self._plain_start = bytearray(), plain_at
        self._expected, self._searched, self._step = None, plain_at, _STEP

    def _take_expected(self) -> bool:
        """Add the expected block, or expect none if it is not there; return False when more bytes are needed."""
        assert self._expected is not None
        header, plain_at, linked = self._expected
        at, plain = header - self._packed_start, plain_at - self._plain_start
        head = self._packed[at : at + HEAD]
        if len(head) < HEAD:
            return False
        length = _parse_length(head[1:])
        if length is None or (linked and head[0] & 7):  # BFINAL or another type
            self._expected = None
            return True
        if len(self._packed) < at + HEAD + length or len(self._plain) < plain + length:
            return False
        data = self._packed[at + HEAD : at + HEAD + length]
        if data != self._plain[plain : plain + length] or plain_at < self.blocks.end:
            self._expected = None
            return True
        if length:
            self.blocks.add(header + HEAD, plain_at, bytes(data), linked)
        self._expected = (header + HEAD + length, plain_at + length, bool(length) or linked)
        self._searched = max(self._searched, plain_at + length)  # never back, or the same block would be match for ever
        return True

    def _search(self) -> bool:
        """Search for some plain bytes among the packed ones; return whether a header is before them."""
        at = self._searched - self._plain_start
        while at + NEEDLE <= len(self._plain):
            match = self._packed.find(self._plain[at : at + NEEDLE])
            if match >= 0:
                length = _common_suffix_length(self._packed, match, self._plain, at)
                # The plain bytes before may equal the end of the header: data begin at the last offset that fits.
                for start in reversed(range(match - length, min(match - length + 3, match) + 1)):
                    if start >= HEAD and _parse_length(self._packed[start - 4 : start]) is not None:
                        first, plain = self._find_first(start - HEAD, at - (match - start))
                        self._expected = first + self._packed_start, plain + self._plain_start, False
                        self._searched, self._step = at + self._plain_start + _STEP, _STEP
                        return True
            at += self._step
            self._step = min(2 * self._step, _MAX_STEP)
        self._searched = at + self._plain_start
        return False

    def _find_first(self, header: int, plain: int) -> tuple[int, int]:
        """Return header and data of the first block of those that lead without a gap to the block of ``header``.

        These are full ones, and a short one before them. All offsets are in the buffers.
        """
        while (length := self._length_before(header, plain)) is not None:
            header, plain = header - HEAD - length, plain - length
        return header, plain

    def _length_before(self, header: int, plain: int) -> int | None:
        """Return the length of the block that ends at ``header`` and holds the bytes before ``plain``, or None."""
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
        """Return whether a block of ``length`` bytes, at most ``limit``, begins at ``head`` and holds the plain bytes
        before ``end``; both are offsets in the buffers."""
        if length > limit or self._packed[head] or _parse_length(self._packed[head + 1 : head + HEAD]) != length:
            return False
        return self._packed[head + HEAD : head + HEAD + length] == self._plain[end - length : end]

    def _trim(self) -> None:
        """Drop bytes in which no further block can begin."""
        if self._expected is not None:
            packed, plain = self._expected[0], self._expected[1]
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


def _parse_length(head: bytes | bytearray) -> int | None:
    """Return the length of a stored block from its LEN and NLEN; None where they are not complements."""
    length = int.from_bytes(head[:2], "little")
    return length if length ^ int.from_bytes(head[2:4], "little") == 0xFFFF else None


def _common_suffix_length(first: bytearray, first_end: int, second: bytearray, second_end: int) -> int:
    """Return how many bytes before both ends are equal."""
    low, high = 0, min(first_end, second_end)
    while low < high:
        middle = (low + high + 1) // 2
        if first[first_end - middle : first_end] == second[second_end - middle : second_end]:
            low = middle
        else:
            high = middle - 1
    return low
