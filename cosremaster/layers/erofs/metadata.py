"""Metadata of an EROFS file system by offset: the image itself, or the plain bytes of an inode that holds them."""

from __future__ import annotations

from functools import lru_cache

from cosremaster.io.pieces import PieceTable

_PAGE = 1 << 14
_CACHED_PAGES = 128


class MetadataBytes:
    """Bytes of ``table``, read in pages that stay in memory for a while."""

    def __init__(self, table: PieceTable) -> None:
        """Remember the table."""
        self.table = table
        self._page = lru_cache(_CACHED_PAGES)(self._read_page)

    def _read_page(self, number: int) -> bytes:
        """Return page ``number``."""
        return self.table.read(number * _PAGE, _PAGE)

    def read(self, position: int, length: int) -> bytes:
        """Return ``length`` bytes from byte ``position`` on. :raises ValueError: they are not there."""
        return self._read(position, length)

    def _read(self, position: int, length: int) -> bytes:
        """Return what :meth:`read` does."""
        if not 0 <= position <= self.table.length - length:
            raise ValueError(f"{length:,} bytes at {position:,} are outside of the image")
        first, last = position // _PAGE, (position + length - 1) // _PAGE
        if first == last:
            start = position - first * _PAGE
            return self._page(first)[start : start + length]
        if length > _PAGE * 8:
            return self.table.read(position, length)
        pages = b"".join(map(self._page, range(first, last + 1)))
        return pages[position - first * _PAGE :][:length]

    def read_up_to(self, position: int, length: int) -> bytes:
        """Return ``length`` bytes from byte ``position`` on, fewer where the image ends.

        :raises ValueError: none is there.
        """
        if not 0 <= position < self.table.length:
            raise ValueError(f"byte {position:,} is outside of the image")
        return self._read(position, min(length, self.table.length - position))
