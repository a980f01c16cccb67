"""Checksums of a file's packed bytes, one for each MiB: whether the bytes that an index stands for are still the same.

CRC64 is taken at nearly the speed of memory, and finds what storage does to bytes. It is no guard against people.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator

from cosremaster.crc import crc64_xz
from cosremaster.errors import CorruptError, Place
from cosremaster.io.descriptors import aligned_buffer
from cosremaster.io.parallel import StopFlag
from cosremaster.io.pieces import PieceTable

SPAN = 1 << 20
"""Packed bytes for each checksum; the last span may be shorter."""


class PackedSums:
    """Takes the checksums of the chunks that it passes on."""

    def __init__(self) -> None:
        """Begin with no bytes."""
        self._sums = array("Q")
        self._crc = self._length = 0

    def watch(self, chunks: Iterable[bytes]) -> Iterator[bytes]:
        """Yield ``chunks`` unchanged."""
        for chunk in chunks:
            self._add(chunk)
            yield chunk

    def _add(self, chunk: bytes) -> None:
        """Add ``chunk``, which may end some spans."""
        view, start = memoryview(chunk), 0
        while start < len(view):
            part = view[start : start + SPAN - self._length]
            self._crc = crc64_xz(part, self._crc)
            self._length += len(part)
            start += len(part)
            if self._length == SPAN:
                self._sums.append(self._crc)
                self._crc = self._length = 0

    def packed(self) -> bytes:
        """Return the checksums, eight bytes for each span, as :func:`check_sums` takes them."""
        sums = self._sums[:]
        if self._length:
            sums.append(self._crc)
        return sums.tobytes()


def sums_size(length: int) -> int:
    """Return how many bytes the checksums of a file of ``length`` bytes take."""
    return 8 * -(-length // SPAN)


def check_sums(packed: PieceTable, sums: bytes, place: Place, stop: StopFlag) -> None:
    """Read the file ``packed`` and compare it with ``sums``, which :meth:`PackedSums.packed` returned.

    :raises CorruptError: a span differs; its place is told. :raises CancelledError: ``stop`` was set.
    """
    expected = array("Q")
    expected.frombytes(sums)
    buffer = aligned_buffer(min(SPAN, packed.length))
    for number, crc in enumerate(expected):
        stop.check()
        start = number * SPAN
        view = buffer[: packed.length - start]
        packed.fill(start, [view])
        if crc64_xz(view) != crc:
            raise CorruptError(
                f"the {len(view):,} bytes from here are not those that were indexed, though size and times of the file"
                " are: they are damaged (if they are right, cosremaster cache clear forgets the index)",
                place.at(start),
            )
