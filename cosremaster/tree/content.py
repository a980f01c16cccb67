"""The two contents of files that hold no state of their own: bytes in memory, and pieces of other sources."""

from __future__ import annotations

from cosremaster.io.pieces import Literal, Piece, PieceTable
from cosremaster.io.streams import sha256_of
from cosremaster.records import Struct


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
        return self.table().read(0, count)
