"""A file that only grows: newly encoded bytes until the output takes them."""

from __future__ import annotations

import os
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, BinaryIO

from cosremaster.crc import crc32
from cosremaster.errors import OutputError, Place, SizeError
from cosremaster.io.descriptors import read_into, write_all, write_error
from cosremaster.io.pieces import Range
from cosremaster.io.streams import CHUNK

if TYPE_CHECKING:
    from pathlib import Path


class Spool:
    """A nameless temporary file in ``folder`` that newly encoded bytes are appended to.

    It has no name from the start (or loses it at once), so that no file can be left over.

    :raises OutputError: the folder cannot be written to, or is full.
    :raises SizeError: there are more than ``limit`` bytes, those of :meth:`count_outside` included.
    """

    name = "spool"

    def __init__(self, folder: Path, limit: int | None = None) -> None:
        """Make a spool in ``folder``; the file is opened with the first use."""
        self._place = Place((str(folder),))
        self._file: BinaryIO | None = None
        self._folder = folder
        self._limit = limit
        self._ends, self._crcs = [0], [0]  # the end of each appended run, and the CRC32 of everything before it
        self.size = self._outside = 0

    def __enter__(self) -> Spool:
        """Return the spool itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the file, which removes it."""
        if self._file is not None:
            with suppress(OSError):  # nobody needs the data any more
                self._file.close()

    def __repr__(self) -> str:
        """Return the class."""
        return "Spool()"

    def _open(self) -> BinaryIO:
        """Return the file, a new one the first time."""
        if self._file is None:
            try:
                import tempfile  # noqa: PLC0415 - a command that only reads needs none of it

                self._file = tempfile.TemporaryFile(dir=self._folder, buffering=0)  # noqa: SIM115
            except OSError as error:
                raise write_error(error, "temporary data", self._place) from error
        return self._file

    def append(self, chunks: Iterable[bytes], *, packed: bool) -> Range:
        """Write ``chunks`` behind everything before and return their range. Only one thread may write at a time.

        Where that fails, what was written of them is given up: the next ones get its place.
        """
        start, fd, crc = self.size, self._open().fileno(), self._crcs[-1]
        try:
            for chunk in chunks:
                write_all(fd, chunk, lambda error: write_error(error, "temporary data", self._place))
                crc = crc32(chunk, crc)
                self.size += len(chunk)
                self.count_outside(0)
        except BaseException:
            self.size = os.lseek(fd, start, os.SEEK_SET)
            with suppress(OSError):  # room for others
                os.ftruncate(fd, start)
            raise
        self._ends.append(self.size)
        self._crcs.append(crc)
        return Range(self, start, self.size - start, packed)

    def count_outside(self, count: int) -> None:
        """Count ``count`` bytes that belong to the spooled data though they stay where they are.

        :raises SizeError: together they exceed the limit.
        """
        self._outside += count
        if self._limit is not None and self.size + self._outside > self._limit:
            raise SizeError(
                f"the packed layer passes {self._limit:,} bytes, more than one file of an ISO or cpio archive"
                " holds; put large files on the ISO's own file tree instead"
            )

    def crcs_around(self, offset: int, length: int) -> tuple[int, int] | None:
        """Return the CRC32 of everything before byte ``offset``, and of everything before ``offset + length``.

        None where no appended run begins or ends there.
        """
        first, last = bisect_left(self._ends, offset), bisect_left(self._ends, offset + length)
        if last == len(self._ends) or (self._ends[first], self._ends[last]) != (offset, offset + length):
            return None
        return self._crcs[first], self._crcs[last]

    def chunks(self, offset: int, length: int) -> Iterator[bytes]:
        """Yield ``length`` bytes, which were appended before, from ``offset`` on."""
        fd, end = self._open().fileno(), offset + length
        while offset < end:
            try:
                data = os.pread(fd, min(CHUNK, end - offset), offset)
            except OSError as error:
                raise self._read_error(error) from error
            if not data:
                raise OutputError("temporary data vanished while it was needed", self._place)
            yield data
            offset += len(data)

    def _read_error(self, error: OSError) -> OutputError:
        """Return the error to raise when reading failed with ``error``."""
        return OutputError(f"temporary data cannot be read: {error.strerror}", self._place)

    def fill(self, offset: int, views: Sequence[memoryview]) -> None:
        """Fill ``views`` with bytes that were appended before, from ``offset`` on."""
        try:
            count = read_into(self._open().fileno(), offset, views)
        except OSError as error:
            raise self._read_error(error) from error
        if count < sum(map(len, views)):
            raise OutputError("temporary data vanished while it was needed", self._place)
