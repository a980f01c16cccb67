"""The two files behind pieces: one that is read at any offset, one that only grows."""

from __future__ import annotations

import errno
import mmap
import os
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from itertools import cycle
from typing import TYPE_CHECKING, BinaryIO, TypeAlias

from fastcrc import crc32

from cosremaster.errors import CosremasterError, ImageError, OutputError, Place, SizeError
from cosremaster.io.pieces import Buffers, Range
from cosremaster.io.streams import CHUNK

if TYPE_CHECKING:
    from pathlib import Path

COPY_STEP = 1 << 26
_COPYING = frozenset(("ext2", "ext3", "ext4", "tmpfs", "vfat", "exfat"))
_NO_COPY = frozenset(
    (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM, errno.EBADF, errno.ETXTBSY)
)


Filler: TypeAlias = Callable[[int, Sequence[memoryview]], None]
"""Fills buffers, one after another, with the bytes from an offset on."""

STEP = 1 << 20
"""Bytes that are read ahead at once."""

AHEAD = 3
"""Parts of what is read ahead that wait to be worked on."""

BUFFERS = AHEAD + 2
"""What reading ahead needs: one is being filled, one worked on."""

_WORTH_A_THREAD = 8 << 20  # bytes
_ZEROS = bytes(CHUNK)


MIN_HOLE = 1 << 16
"""Bytes of the smallest hole that is worth keeping one."""


def data_runs(fd: int, offset: int, length: int) -> Iterator[tuple[int, int, bool]]:
    """What ``length`` bytes of a file from ``offset`` on consist of (lseek(2), SEEK_HOLE): begin and bytes of each run,
    and whether it holds data. Small holes count as data, and so does everything where the system tells of none."""
    end, begin = offset + length, offset
    while offset < end:
        data = _next_data(fd, offset, end)
        if data - offset >= MIN_HOLE:
            if offset > begin:
                yield begin, offset - begin, True
            yield offset, data - offset, False
            begin = data
        offset = min(end, os.lseek(fd, data, os.SEEK_HOLE)) if data < end else end
    if end > begin:
        yield begin, end - begin, True


def _next_data(fd: int, offset: int, end: int) -> int:
    """Where data begin at or behind ``offset``, ``end`` where there are none before that."""
    if not hasattr(os, "SEEK_DATA"):
        return offset
    try:
        return min(end, os.lseek(fd, offset, os.SEEK_DATA))
    except OSError as error:
        return end if error.errno == errno.ENXIO else offset


def aligned_buffer(size: int) -> memoryview:
    """``size`` bytes to read into, again and again. They begin with a page: that makes the kernel's copying up to three
    times as fast as into a bytearray, which begins 16 bytes behind one."""
    return memoryview(mmap.mmap(-1, max(size, 1)))[:size]


def read_ahead(fill: Filler, offset: int, length: int) -> Iterator[memoryview]:
    """``length`` bytes from ``offset`` on, each part good until the next is asked for; read on a thread of their own
    where there are many."""
    buffers = [aligned_buffer(min(STEP, length)) for _ in range(BUFFERS if length >= _WORTH_A_THREAD else 1)]

    def parts() -> Iterator[memoryview]:
        for start, buffer in zip(range(0, length, STEP), cycle(buffers)):
            view = buffer[: length - start]
            fill(offset + start, [view])
            yield view

    if len(buffers) == 1:
        return parts()
    from cosremaster.io.parallel import prefetch  # noqa: PLC0415 - a plain listing needs none of it

    return prefetch(parts(), AHEAD)


_MOST_VIEWS = 1024  # buffers that one preadv takes (IOV_MAX, limits.h)


def read_into(fd: int, offset: int, views: Sequence[memoryview]) -> int:
    """Fills ``views``, one after another, from byte ``offset`` of ``fd`` on; returns how many bytes there were.

    :raises OSError: a read fails.
    """
    waiting = Buffers(views)
    start = offset
    while waiting.length:
        batch = waiting.some(_MOST_VIEWS)
        count = os.preadv(fd, batch, offset)
        if not count:
            break
        offset += count
        waiting.put_back(batch, count)
    return offset - start


def write_error(error: OSError, what: str, place: Place) -> OutputError:
    """The error to raise when writing ``what`` failed with ``error``."""
    return OutputError(f"cannot write {what}: {error.strerror or error}", place)


class FileSource:
    """A file opened for reading at any offset, from any thread. Closes with its context.

    :raises ImageError: the path cannot be opened, or is no regular file or block device.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = str(path)
        self.place = Place((self.path,))
        try:
            self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a FIFO would wait
        except OSError as error:
            raise ImageError(f"cannot be opened: {error.strerror}", self.place) from error
        try:
            self.size = os.lseek(self._fd, 0, os.SEEK_END)
            os.pread(self._fd, 1, 0)
            self._stamp = self._now()
        except OSError as error:
            os.close(self._fd)
            raise ImageError(f"cannot be read at any offset: {error.strerror}", self.place) from error

    @property
    def name(self) -> str:
        """The path."""
        return self.path

    def __repr__(self) -> str:
        return f"FileSource({self.name!r})"

    def __enter__(self) -> FileSource:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends reading."""
        os.close(self._fd)

    def fileno(self) -> int:
        """The descriptor, for fstat."""
        return self._fd

    def _now(self) -> tuple[int, int]:
        status = os.fstat(self._fd)
        return status.st_size, status.st_mtime_ns

    def check_unchanged(self) -> None:
        """:raises ImageError: somebody wrote to the file since it was opened."""
        if self._now() != self._stamp:
            raise ImageError("changed while it was being read", self.place)

    def read_at(self, offset: int, length: int) -> bytes:
        """``length`` bytes from ``offset``, fewer where the file ends. :raises ImageError: a read fails."""
        parts: list[bytes] = []
        while length > 0 and offset < self.size:  # tables hold 64-bit places, more than pread(2) takes
            try:
                part = os.pread(self._fd, length, offset)
            except OSError as error:
                raise ImageError(f"cannot be read: {error.strerror}", self.place.at(offset)) from error
            if not part:
                break
            parts.append(part)
            offset, length = offset + len(part), length - len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def chunks(self, offset: int, length: int) -> Iterator[bytes]:
        """``length`` bytes from ``offset``. :raises ImageError: the file ends before."""
        end = offset + length
        while offset < end:
            data = self.read_at(offset, min(CHUNK, end - offset))
            if not data:
                raise ImageError(f"ends {end - offset:,} bytes too early", self.place.at(offset))
            yield data
            offset += len(data)

    def fill(self, offset: int, views: Sequence[memoryview]) -> None:
        """Fills ``views``, one after another, from byte ``offset`` on. :raises ImageError: the file ends before."""
        wanted = sum(map(len, views))
        try:
            count = read_into(self._fd, offset, views)
        except OSError as error:
            raise ImageError(f"cannot be read: {error.strerror}", self.place.at(offset)) from error
        if count < wanted:
            raise ImageError(f"ends {wanted - count:,} bytes too early", self.place.at(offset + count))

    def copy_to(
        self, fd: int, offset: int, length: int, failure: Callable[[OSError], CosremasterError]
    ) -> Iterator[int]:
        """Copies ``length`` bytes from ``offset`` to where ``fd`` stands; yields what each step copied.

        Inside the kernel, where blocks may be shared, if the file systems can; by reading and writing if not. Holes
        stay holes: a new file has to be made as long as it is to be.
        An OSError of writing becomes ``failure(error)``. :raises ImageError: the file ends before.
        """
        for start, count, data in data_runs(self._fd, offset, length):
            if data:
                yield from self._copy_data(fd, start, count, failure)
            else:
                leave_hole(fd, count, failure)
                yield count

    def is_zero(self, offset: int, length: int) -> bool:
        """True when there are ``length`` bytes from ``offset`` on and all are zeros; those of holes are not read.

        A hole begins and ends with a block of the file system, so data may stand at both ends of a run of zeros.
        """
        if offset + length > self.size:
            return False
        data = (chunk for begin, count, full in data_runs(self._fd, offset, length) if full
                for chunk in self.chunks(begin, count))  # fmt: skip
        return all(chunk == _ZEROS[: len(chunk)] for chunk in data)

    def _copy_data(
        self, fd: int, offset: int, length: int, failure: Callable[[OSError], CosremasterError]
    ) -> Iterator[int]:
        """:meth:`copy_to` for a run without holes."""
        end = offset + length
        while offset < end and hasattr(os, "copy_file_range") and may_share_blocks(os.fstat(fd).st_dev):
            try:
                count = os.copy_file_range(self._fd, fd, min(COPY_STEP, end - offset), offset)
            except OSError as error:
                if error.errno in _NO_COPY:
                    break
                raise failure(error) from error
            if not count:
                break
            offset += count
            yield count
        for view in read_ahead(self.fill, offset, end - offset):
            write_all(fd, view, failure)
            yield len(view)


@cache
def may_share_blocks(device: int) -> bool:
    """False for a file system that is known to copy every byte: reading and writing is faster there than asking the
    kernel to (proc_pid_mountinfo(5))."""
    number = f"{os.major(device)}:{os.minor(device)}"
    try:
        with open("/proc/self/mountinfo", errors="replace") as file:
            lines = file.read().splitlines()
    except OSError:
        return True
    for words in map(str.split, lines):
        if words[2] == number:
            return words[words.index("-") + 1] not in _COPYING
    return True


class Spool:
    """A nameless temporary file in ``folder`` that newly encoded bytes are appended to.

    It has no name from the start (or loses it at once), so that nothing can be left behind.
    :raises OutputError: the folder cannot be written to, or is full. :raises SizeError: there are more than ``limit``
    bytes, those counted with them included.
    """

    name = "spool"

    def __init__(self, folder: Path, limit: int | None = None) -> None:
        self._place = Place((str(folder),))
        self._file: BinaryIO | None = None
        self._folder = folder
        self._limit = limit
        self._ends, self._sums = [0], [0]  # where appended runs end, and the CRC32 of everything before
        self.size = self._elsewhere = 0

    def __enter__(self) -> Spool:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()

    def __repr__(self) -> str:
        return "Spool()"

    def _open(self) -> BinaryIO:
        if self._file is None:
            try:
                import tempfile  # noqa: PLC0415 - who only reads needs none of it

                self._file = tempfile.TemporaryFile(dir=self._folder, buffering=0)  # noqa: SIM115
            except OSError as error:
                raise write_error(error, "temporary data", self._place) from error
        return self._file

    def append(self, chunks: Iterable[bytes], *, packed: bool) -> Range:
        """Writes ``chunks`` and returns the range where they lie. One writer at a time."""
        start, fd, total = self.size, self._open().fileno(), self._sums[-1]
        for chunk in chunks:
            write_all(fd, chunk, lambda error: write_error(error, "temporary data", self._place))
            total = crc32.iso_hdlc(chunk, total)
            self.size += len(chunk)
            self.count_outside(0)
        self._ends.append(self.size)
        self._sums.append(total)
        return Range(self, start, self.size - start, packed)

    def count_outside(self, count: int) -> None:
        """Takes in that ``count`` more bytes belong to what is spooled, though they stay where they are.

        :raises SizeError: together they are more than may be.
        """
        self._elsewhere += count
        if self._limit is not None and self.size + self._elsewhere > self._limit:
            raise SizeError(
                f"the packed layer passes {self._limit:,} bytes, more than one file of an ISO or cpio archive"
                " holds; put large files on the ISO's own file tree instead"
            )

    def crcs_around(self, offset: int, length: int) -> tuple[int, int] | None:
        """The CRC32 of everything before byte ``offset``, and of everything before the end of ``length`` bytes from
        there; None where no appended run begins or ends there."""
        first, last = bisect_left(self._ends, offset), bisect_left(self._ends, offset + length)
        if last == len(self._ends) or (self._ends[first], self._ends[last]) != (offset, offset + length):
            return None
        return self._sums[first], self._sums[last]

    def chunks(self, offset: int, length: int) -> Iterator[bytes]:
        """``length`` bytes from ``offset``; they were appended before."""
        fd, end = self._open().fileno(), offset + length
        while offset < end:
            data = os.pread(fd, min(CHUNK, end - offset), offset)
            if not data:
                raise OutputError("temporary data vanished while it was needed", self._place)
            yield data
            offset += len(data)

    def fill(self, offset: int, views: Sequence[memoryview]) -> None:
        """Fills ``views`` with the bytes from ``offset`` on; they were appended before."""
        try:
            count = read_into(self._open().fileno(), offset, views)
        except OSError as error:
            raise OutputError(f"temporary data cannot be read: {error.strerror}", self._place) from error
        if count < sum(map(len, views)):
            raise OutputError("temporary data vanished while it was needed", self._place)


def leave_hole(fd: int, count: int, failure: Callable[[OSError], CosremasterError]) -> None:
    """Leaves a hole of ``count`` bytes where ``fd`` stands; an OSError becomes ``failure(error)``."""
    try:
        os.lseek(fd, count, os.SEEK_CUR)
    except OSError as error:
        raise failure(error) from error


def write_all(fd: int, data: bytes | memoryview, failure: Callable[[OSError], CosremasterError]) -> None:
    """Writes all of ``data`` to ``fd``, short writes continued; an OSError becomes ``failure(error)``."""
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(fd, view) :]
        except OSError as error:
            raise failure(error) from error
