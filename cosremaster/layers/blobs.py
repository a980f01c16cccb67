"""Bytes beside JSON values in a remembered index."""

from __future__ import annotations

from collections.abc import Callable

from msgspec import Struct, field


class Blobs(Struct):
    """Bytes that JSON values refer to by their places."""

    data: bytearray = field(default_factory=bytearray)

    def put(self, data: bytes) -> tuple[int, int]:
        """Append ``data`` and return its place: start and end."""
        self.data += data
        return len(self.data) - len(data), len(self.data)


def blob_reader(blobs: memoryview) -> Callable[[tuple[int, int]], bytes]:
    """Return a function that reads from ``blobs``, all bytes that :meth:`Blobs.put` was given, those at a place.

    The function raises ValueError or TypeError for a place outside.
    """

    def read(place: tuple[int, int]) -> bytes:
        """Return the bytes at ``place``."""
        start, end = place
        if not 0 <= start <= end <= len(blobs):
            raise ValueError("no blob at this place")
        return bytes(blobs[start:end])

    return read
