"""Limits on what the directory tree of an image may make its readers do.

In a sound image each directory, and each continuation area of Rock Ridge, is there once: together they are smaller than
the image. Where directories overlap, or all records name one area, a small image would take unbounded time and memory.
"""

from __future__ import annotations

from collections.abc import Iterable

from cosremaster.errors import ImageError
from cosremaster.io.source import ByteSource
from cosremaster.units import Lba, lba_offset

SLACK = 1 << 20
"""Bytes that may be read again: several records of real images share small areas."""

MAX_PATHS = 1 << 28
"""Bytes of all paths together, beyond the size of the image: directories may be nested 5,000 levels deep."""

_LEVEL = 8  # bytes for each level above a directory


class TreeLimits:
    """Counts the bytes of directories, of continuation areas and of paths while the tree of ``source`` is read."""

    def __init__(self, source: ByteSource) -> None:
        """Begin with no bytes."""
        self._source = source
        self._directories = self._areas = self._paths = 0

    def count_directory(self, lba: Lba, length: int) -> None:
        """Count a directory of ``length`` bytes before it is read.

        :raises ImageError: all together are larger than the image.
        """
        self._directories += length
        if self._directories > self._source.size + SLACK:
            place = self._source.place.at(lba_offset(lba))
            raise ImageError("its directories overlap: together they are larger than the image", place)

    def count_areas(self, areas: Iterable[tuple[int, int]]) -> None:
        """Count continuation areas, each a byte offset and a number of bytes.

        :raises ImageError: all together are larger than the image.
        """
        for offset, length in areas:
            self._areas += length
            if self._areas > self._source.size + SLACK:
                place = self._source.place.at(offset)
                raise ImageError("its records share continuation areas: together they are larger than the image", place)

    def count_path(self, path: bytes, depth: int) -> None:
        """Count a path with ``depth`` directories above it. :raises ImageError: all together are too long."""
        self.count_path_bytes(len(path) + _LEVEL * depth)

    def count_path_bytes(self, length: int) -> None:
        """Count paths of ``length`` bytes together. Raises as :meth:`count_path`."""
        self._paths += length
        if self.is_past(0):
            raise ImageError("its paths are too long: together they are larger than the image", self._source.place)

    def is_past(self, length: int) -> bool:
        """Return whether paths of ``length`` bytes more would be too long together."""
        return self._paths + length > self._source.size + MAX_PATHS
