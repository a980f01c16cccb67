"""Bytes that are put together from those of another source, as a source of their own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cosremaster.errors import ImageError, Place
from cosremaster.io.source import SourceIdentity

if TYPE_CHECKING:
    from cosremaster.io.pieces import PieceTable
    from cosremaster.io.source import ByteSource


class TableSource:
    """The bytes of ``table``; see :class:`~cosremaster.io.source.ByteSource`.

    ``origin``: the source that they are made from, which stays its owner's to close; ``place``: theirs in messages.
    """

    descriptor = None

    def __init__(self, table: PieceTable, origin: ByteSource, place: Place) -> None:
        """Keep the arguments."""
        self._table, self._origin = table, origin
        self.name, self.place, self.size = origin.name, place, table.length

    @property
    def is_far(self) -> bool:
        """Whether the origin is on another machine."""
        return self._origin.is_far

    @property
    def local_paths(self) -> tuple[Path, ...]:
        """The files of this machine that are read."""
        return self._origin.local_paths

    def __enter__(self) -> TableSource:
        """Return the source itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Do nothing: there is nothing to close."""

    def close(self) -> None:
        """Do nothing: there is nothing to close."""

    def identity(self) -> SourceIdentity:
        """Return the identity of the origin under another name, as these are not its bytes."""
        identity = self._origin.identity()
        return identity._replace(name=f"{identity.name}-table")

    def check_unchanged(self) -> None:
        """Compare the origin with its state at its opening. :raises ImageError: somebody wrote to it since."""
        self._origin.check_unchanged()

    def read(self, offset: int, length: int) -> bytes:
        """Return ``length`` bytes from ``offset``, fewer where the table ends."""
        return self._table.read(offset, length) if offset < self.size else b""

    def chunks(self, offset: int, length: int) -> Iterator[bytes]:
        """Yield ``length`` bytes from ``offset`` on. :raises ImageError: the table ends before."""
        self._check_end(offset + length)
        yield from self._table.cut(offset, offset + length).chunks()

    def read_into(self, offset: int, views: Sequence[memoryview]) -> None:
        """Fill ``views``, one after another, from byte ``offset`` on. :raises ImageError: the table ends before."""
        self._check_end(offset + sum(map(len, views)))
        self._table.fill(offset, views)

    def _check_end(self, end: int) -> None:
        """Check that the table has all bytes up to ``end``. :raises ImageError: it ends before."""
        if end > self.size:
            raise ImageError(f"ends {end - self.size:,} bytes too early", self.place.at(self.size))
