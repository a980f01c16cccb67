"""The blocks of an .xz stream that was read, and where they can be cut."""

from __future__ import annotations

from array import array
from bisect import bisect_right
from typing import Any

from msgspec import Struct, field
from msgspec.structs import replace

from cosremaster.codecs.checks import RunningCheck
from cosremaster.codecs.xz.container import FILTER_LZMA2, BlockHeader, IndexRecord
from cosremaster.errors import CosremasterError, Place


class ChunkBorders(Struct, frozen=True):
    """The LZMA2 chunk borders of a block: packed offset, plain offset, and the check of the block before it.

    A decoder needs nothing behind a border to decode everything before it, so a block can end there.
    ``checks`` is empty where the check is no number (SHA-256).
    """

    packed: array[int] = field(default_factory=lambda: array("Q"))
    plain: array[int] = field(default_factory=lambda: array("Q"))
    checks: array[int] = field(default_factory=lambda: array("Q"))

    def note(self, packed: int, plain: int, running: RunningCheck) -> None:
        """Adds a border."""
        self.packed.append(packed)
        self.plain.append(plain)
        if running.number is not None:
            self.checks.append(running.number)

    def before(self, plain: int) -> int:
        """The index of the last border at or before plain offset ``plain``."""
        return bisect_right(self.plain, plain) - 1


class XzBlock(Struct, frozen=True):
    """A block of the stream that was read. ``start``: its header; ``data``: its first chunk; ``end``: behind
    its check; all as packed offsets. ``plain``: where its plain bytes begin. ``record``: its index record.
    """

    header: BlockHeader
    check: int
    start: int
    data: int
    plain: int
    end: int = 0
    record: IndexRecord = field(default_factory=lambda: IndexRecord(0, 0))
    borders: ChunkBorders = field(default_factory=ChunkBorders)

    def ended(self, end: int, record: IndexRecord) -> XzBlock:
        """This block, now that all of it is known."""
        return replace(self, end=end, record=record)

    def dump(self) -> dict[str, Any]:
        """This block as JSON values, numbers of borders as hexadecimal columns."""
        columns = (self.borders.packed, self.borders.plain, self.borders.checks)
        return {
            "header": self.header.raw.hex(),
            "check": self.check,
            "places": [self.start, self.data, self.plain, self.end],
            "record": [self.record.unpadded, self.record.plain],
            "cuts": [column.tobytes().hex() for column in columns],
        }

    @classmethod
    def load(cls, values: dict[str, Any]) -> XzBlock:
        """What :meth:`dump` wrote. :raises ValueError, KeyError, TypeError: it did not write that."""
        try:
            header = BlockHeader.parse(bytes.fromhex(values["header"]), Place())
        except CosremasterError as error:
            raise ValueError(str(error)) from error
        columns = [array("Q") for _ in range(3)]
        for column, text in zip(columns, values["cuts"], strict=True):
            column.frombytes(bytes.fromhex(text))
        start, data, plain, end = values["places"]
        return cls(
            header, values["check"], start, data, plain, end, IndexRecord(*values["record"]), ChunkBorders(*columns)
        )

    @property
    def plain_end(self) -> int:
        """Where its plain bytes end."""
        return self.plain + self.record.plain

    @property
    def can_be_cut(self) -> bool:
        """True when its filters allow to keep a part (a BCJ or delta filter looks across borders)."""
        return [number for number, _ in self.header.filters] == [FILTER_LZMA2]

    def check_before(self, cut: int) -> int | None:
        """The check of the plain bytes before border ``cut``; None where it was not noted."""
        return self.borders.checks[cut] if self.borders.checks else None
