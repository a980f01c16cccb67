"""The blocks of an .xz stream that was read, and the chunk borders at which they can be cut."""

from __future__ import annotations

from array import array
from bisect import bisect_right
from typing import Any

from cosremaster.codecs.base import Count
from cosremaster.codecs.checks import NAMES, SHA256, SIZES, RunningCheck
from cosremaster.codecs.xz.container import FILTER_LZMA2, BlockHeader, IndexRecord
from cosremaster.errors import Place
from cosremaster.records import Struct, field, replace


class ChunkBorders(Struct, frozen=True):
    """The borders of a block's LZMA2 chunks.

    A decoder needs nothing behind a border to decode everything before it, so a block can end there.

    :ivar packed: the packed offset of each border.
    :ivar plain: the plain offset.
    :ivar checks: the check of the block's plain bytes before the border; empty where it is no number (SHA-256).
    """

    packed: array[int] = field(default_factory=lambda: array("Q"))
    plain: array[int] = field(default_factory=lambda: array("Q"))
    checks: array[int] = field(default_factory=lambda: array("Q"))

    def add(self, packed: int, plain: int, running: RunningCheck) -> None:
        """Add a border; ``running``: the check of the plain bytes before it."""
        self.packed.append(packed)
        self.plain.append(plain)
        if running.number is not None:
            self.checks.append(running.number)

    def last_before(self, plain: int) -> int:
        """Return the index of the last border at or before plain offset ``plain``."""
        return bisect_right(self.plain, plain) - 1


class StoredXzBlock(Struct, frozen=True, forbid_unknown_fields=True):
    """A block as JSON values, which :meth:`XzBlock.dump` made."""

    header: str
    check: Count
    places: tuple[Count, Count, Count, Count]
    record: tuple[Count, Count]
    cuts: tuple[str, str, str]


class XzBlock(Struct, frozen=True):
    """A block of a stream that was read.

    :ivar check: the id of its check.
    :ivar start: the packed offset of its header.
    :ivar data: the packed offset of its first chunk.
    :ivar plain: the plain offset of its first plain byte.
    :ivar end: the packed offset behind its check.
    :ivar record: its index record.
    """

    header: BlockHeader
    check: int
    start: int
    data: int
    plain: int
    end: int = 0
    record: IndexRecord = field(default_factory=lambda: IndexRecord(0, 0))
    borders: ChunkBorders = field(default_factory=ChunkBorders)

    def with_end(self, end: int, record: IndexRecord) -> XzBlock:
        """Return this block with its end and its index record."""
        return replace(self, end=end, record=record)

    def dump(self) -> dict[str, Any]:
        """Return the block as JSON values; the borders are columns in hexadecimal digits."""
        columns = (self.borders.packed, self.borders.plain, self.borders.checks)
        return {
            "header": self.header.raw.hex(),
            "check": self.check,
            "places": [self.start, self.data, self.plain, self.end],
            "record": [self.record.unpadded, self.record.plain],
            "cuts": [column.tobytes().hex() for column in columns],
        }

    @classmethod
    def load(cls, values: StoredXzBlock) -> XzBlock:
        """Return the block that :meth:`dump` made ``values`` of. :raises ValueError, CosremasterError: it did not."""
        header = BlockHeader.parse(bytes.fromhex(values.header), Place())
        header.decoder_filters(Place())
        if values.check not in NAMES:
            raise ValueError("no such check")
        columns = [array("Q") for _ in range(3)]
        for column, text in zip(columns, values.cuts, strict=True):
            column.frombytes(bytes.fromhex(text))
        record = IndexRecord(*values.record)
        return cls(header, values.check, *values.places, record=record, borders=ChunkBorders(*columns))

    def check_borders(self) -> None:
        """Check that its offsets and borders agree. :raises ValueError: they do not."""
        borders, header = self.borders, self.header
        if self.data != self.start + len(header.raw) or self.end != self.start + self.record.padded:
            raise ValueError("a block of another length")
        if len(borders.packed) != len(borders.plain) or len(borders.checks) not in (0, len(borders.packed)):
            raise ValueError("columns of different lengths")
        if bool(borders.checks) == (self.check == SHA256) and borders.packed:
            raise ValueError("checks of another kind")
        packed = [self.data, *borders.packed, self.end - SIZES[self.check]]
        plain = [self.plain, *borders.plain, self.plain_end]
        if sorted(packed) != packed or sorted(plain) != plain or len(set(borders.packed)) != len(borders.packed):
            raise ValueError("borders do not follow one another")
        if any(check >= 1 << 8 * SIZES[self.check] for check in borders.checks):
            raise ValueError("checks of another size")

    @property
    def plain_end(self) -> int:
        """The plain offset behind its last plain byte."""
        return self.plain + self.record.plain

    @property
    def can_be_cut(self) -> bool:
        """Whether it can be cut at a border; a BCJ or delta filter depends on bytes across borders."""
        return [number for number, _ in self.header.filters] == [FILTER_LZMA2]

    def check_before(self, border: int) -> int | None:
        """Return the check of the plain bytes before border number ``border``; None where it is not known."""
        return self.borders.checks[border] if self.borders.checks else None
