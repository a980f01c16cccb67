"""Bytes beside JSON values in a remembered index."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from cosremaster.records import Struct, field

Blob: TypeAlias = bytes | bytearray | memoryview


class Blobs(Struct):
    """Bytes that JSON values refer to by their places. Large ones are not copied, and must not change."""

    parts: list[Blob] = field(default_factory=list)
    size: int = 0

    def put(self, data: Blob) -> tuple[int, int]:
        """Append ``data`` and return its place: start and end."""
        self.parts.append(data)
        self.size += len(data)
        return self.size - len(data), self.size


def view_blob(blobs: memoryview, place: tuple[int, int]) -> memoryview:
    """Return the bytes at ``place`` without copying them. :raises ValueError: there are none."""
    start, end = place
    if not 0 <= start <= end <= len(blobs):
        raise ValueError("no blob at this place")
    return blobs[start:end]


def blob_reader(blobs: memoryview) -> Callable[[tuple[int, int]], bytes]:
    """Return a function that reads from ``blobs``, all bytes that :meth:`Blobs.put` was given, those at a place.

    The function raises ValueError or TypeError for a place outside.
    """

    def read(place: tuple[int, int]) -> bytes:
        """Return the bytes at ``place``."""
        return bytes(view_blob(blobs, place))

    return read
