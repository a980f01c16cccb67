"""Reading from and writing to file descriptors: holes, short reads and writes, blocks that file systems can share."""

from __future__ import annotations

import errno
import mmap
import os
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from itertools import cycle
from typing import TypeAlias

from cosremaster.errors import CosremasterError, OutputError, Place
from cosremaster.io.pieces import Buffers

Filler: TypeAlias = Callable[[int, Sequence[memoryview]], None]
"""Fills buffers, one after another, with the bytes from an offset on."""

Failure: TypeAlias = Callable[[OSError], CosremasterError]
"""Makes the error to raise from the one of the system."""

STEP = 1 << 20
"""Bytes that are read ahead at once."""

AHEAD = 3
"""Parts that were read ahead and wait until the caller works on them."""

BUFFERS = AHEAD + 2
"""Buffers for reading ahead: one is being filled, the caller works on one, the others wait."""

_WORTH_A_THREAD = 8 << 20  # bytes

MIN_HOLE = 1 << 16
"""Bytes of the smallest hole that is kept as a hole."""

_MAX_BUFFERS = 1024  # that one preadv takes (IOV_MAX, limits.h)
_COPYING = frozenset(("ext2", "ext3", "ext4", "tmpfs", "vfat", "exfat"))


def data_runs(fd: int, offset: int, length: int) -> Iterator[tuple[int, int, bool]]:
    """Yield the runs of data and holes in ``length`` bytes of a file from ``offset`` on (lseek(2), SEEK_HOLE).

    Each run is its offset, its length in bytes, and whether it holds data. Holes below :data:`MIN_HOLE` count as data,
    and so does everything where the system reports no holes.
    """
    end, begin = offset + length, offset
    while offset < end:
        data = _next_data(fd, offset, end)
        if data - offset >= MIN_HOLE:
            if offset > begin:
                yield begin, offset - begin, True
            yield offset, data - offset, False
            begin = data
        offset = _next_hole(fd, data, end)
    if end > begin:
        yield begin, end - begin, True


def _next_data(fd: int, offset: int, end: int) -> int:
    """Return the first offset at or behind ``offset`` that holds data; ``end`` where there is none before it."""
    if not hasattr(os, "SEEK_DATA"):
        return offset
    try:
        return min(end, os.lseek(fd, offset, os.SEEK_DATA))
    except OSError as error:
        return end if error.errno == errno.ENXIO else offset


def _next_hole(fd: int, offset: int, end: int) -> int:
    """Return the first offset behind ``offset`` that holds no data; ``end`` where there is none before it.

    Block devices and some systems do not know SEEK_HOLE: all is data there.
    """
    if not hasattr(os, "SEEK_HOLE"):
        return end
    try:
        return min(end, os.lseek(fd, offset, os.SEEK_HOLE)) if offset < end else end
    except OSError:
        return end


def aligned_buffer(size: int) -> memoryview:
    """Return a buffer of ``size`` bytes that begins with a page, to be filled again and again.

    The kernel copies into it up to three times as fast as into a bytearray, which begins 16 bytes behind a page.
    """
    return memoryview(mmap.mmap(-1, max(size, 1)))[:size]


def read_ahead(fill: Filler, offset: int, length: int) -> Iterator[memoryview]:
    """Yield ``length`` bytes from ``offset`` on in parts, each valid until the next is taken.

    Many bytes are read on a thread of their own while the caller works on the parts before.
    """
    buffers = [aligned_buffer(min(STEP, length)) for _ in range(BUFFERS if length >= _WORTH_A_THREAD else 1)]

    def parts() -> Iterator[memoryview]:
        """Fill the buffers in turn."""
        for start, buffer in zip(range(0, length, STEP), cycle(buffers)):
            view = buffer[: length - start]
            fill(offset + start, [view])
            yield view

    if len(buffers) == 1:
        return parts()
    from cosremaster.io.parallel import prefetch  # noqa: PLC0415 - a plain listing needs none of it

    return prefetch(parts(), AHEAD)


def read_into(fd: int, offset: int, views: Sequence[memoryview]) -> int:
    """Fill ``views``, one after another, from byte ``offset`` of ``fd`` on; return how many bytes there were.

    :raises OSError: a read fails.
    """
    start = offset
    if len(views) <= _MAX_BUFFERS:
        offset += _read_once(fd, views, offset)
        if offset - start == sum(map(len, views)):  # the usual case
            return offset - start
    buffers = Buffers(views)
    buffers.take(offset - start)
    while buffers.length:
        batch = buffers.take_buffers(_MAX_BUFFERS)
        count = _read_once(fd, batch, offset)
        if not count:
            break
        offset += count
        buffers.put_back(batch, count)
    return offset - start


def _read_once(fd: int, views: Sequence[memoryview], offset: int) -> int:
    """Fill ``views`` from byte ``offset`` of ``fd`` on by one call; return the number of bytes, which may be fewer.

    Where the system has no preadv(2), one of them alone is filled.
    """
    if hasattr(os, "preadv"):
        return os.preadv(fd, views, offset)
    view = next(filter(None, views), memoryview(b""))
    data = os.pread(fd, len(view), offset)
    view[: len(data)] = data
    return len(data)


def write_error(error: OSError, subject: str, place: Place) -> OutputError:
    """Return the error to raise when writing ``subject`` failed with ``error``."""
    return OutputError(f"cannot write {subject}: {error.strerror or error}", place)


def leave_hole(fd: int, count: int, failure: Failure) -> None:
    """Move the position of ``fd`` forward by ``count`` bytes; an OSError becomes ``failure(error)``."""
    try:
        os.lseek(fd, count, os.SEEK_CUR)
    except OSError as error:
        raise failure(error) from error


def write_all(fd: int, data: bytes | memoryview, failure: Failure) -> None:
    """Write all of ``data`` to ``fd``, in several steps if writes are short; an OSError becomes ``failure(error)``."""
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(fd, view) :]
        except OSError as error:
            raise failure(error) from error


@cache
def may_share_blocks(device: int) -> bool:
    """Return False for a file system that is known to copy every byte (proc_pid_mountinfo(5))."""
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
