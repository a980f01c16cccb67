"""The two contents of files that hold no state of their own: bytes in memory, and pieces of other sources.

A file may have holes that are larger than any disk, as a log of logins by large numbers of users. Nobody reads these.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cosremaster.io.pieces import Literal, Piece, PieceTable, Range, Zeros, list_unlike_spans
from cosremaster.io.streams import same_bytes, sha256_of
from cosremaster.records import Struct

if TYPE_CHECKING:
    from cosremaster.tree.nodes import Content

MIN_HOLE = 4096
"""The least bytes of a hole that stays one where a file is written."""
_LARGE_HOLES = 1 << 30
"""Bytes of holes in a file; more take too long to be read."""


class BytesContent(Struct, frozen=True):
    """The content of a file, kept in memory; see :class:`~cosremaster.tree.nodes.Content`."""

    data: bytes

    @property
    def size(self) -> int:
        """Its length in bytes."""
        return len(self.data)

    def digest(self) -> bytes:
        """Return the SHA-256 of the bytes."""
        return sha256_of((self.data,))

    def table(self) -> PieceTable:
        """Return the bytes as a piece table."""
        return PieceTable([Literal(self.data)])

    def head(self, count: int) -> bytes:
        """Return the first ``count`` bytes, or all when there are fewer."""
        return self.data[:count]


class PieceContent(Struct, frozen=True):
    """The content of a file as pieces in order; see :class:`~cosremaster.tree.nodes.Content`.

    ``sha256``: the digest where it is known without reading; None where it is not.
    """

    pieces: tuple[Piece, ...]
    sha256: bytes | None = None

    @property
    def size(self) -> int:
        """Its length in bytes."""
        return sum([piece.length for piece in self.pieces])

    def digest(self) -> bytes:
        """Return the SHA-256 of the bytes; reads them where it is not known."""
        return self.sha256 or sha256_of(self.table().chunks())

    def table(self) -> PieceTable:
        """Return the pieces as a table."""
        return PieceTable(self.pieces)

    def head(self, count: int) -> bytes:
        """Return the first ``count`` bytes, or all when there are fewer."""
        first = self.pieces[0] if self.pieces else None
        if isinstance(first, Range) and (first.length >= count or len(self.pieces) == 1):  # of many files: no table
            return b"".join(first.cut(0, min(count, first.length)).chunks())
        return self.table().read(0, count)


def has_large_holes(content: Content) -> bool:
    """Return whether ``content`` has holes that take too long to be read."""
    if content.size <= _LARGE_HOLES:
        return False
    return sum([piece.length for piece in content.table().pieces if isinstance(piece, Zeros)]) > _LARGE_HOLES


def is_same_content(old: Content, new: Content) -> bool:
    """Return whether two files hold the same bytes.

    Reads them if their sizes agree, up to the first difference; not where both have holes, or the same bytes of the
    same source.
    """
    if old.size != new.size or not old.size:
        return old.size == new.size
    if any(isinstance(content, PieceContent) and content.sha256 for content in (old, new)):
        return old.digest() == new.digest()
    first, second = old.table(), new.table()
    return all(
        same_bytes(first.cut(start, end).chunks(), second.cut(start, end).chunks())
        for start, end in list_unlike_spans(first, second)
    )
