"""Blocks of a remote file that were fetched already, in a bounded temporary file."""

from __future__ import annotations

import errno
import os
import tempfile
import threading
from collections import OrderedDict
from contextlib import suppress
from typing import BinaryIO
from weakref import WeakSet

from cosremaster.errors import OutputError, Place

BLOCK_SIZE = 1 << 16
"""Bytes of a block: directories and tables stand close together, so a request for less would come again."""

MAX_BYTES = 8 << 30
"""How many bytes are kept of a file at most; never more than half of what the disk has free."""

_MARGIN_SHARE = 64
"""A file takes more of the disk than its bytes, for where they are: a part of them of which this is the inverse."""

_IN_MEMORY = 256
"""Blocks that are kept where the folder for temporary files cannot be written."""


def cannot_keep(error: OSError, place: Place) -> OutputError:
    """Return the error for a file at ``place`` whose bytes cannot be kept because of ``error``."""
    folder = tempfile.gettempdir()
    return OutputError(f"cannot be kept in {folder}: {error.strerror} (TMPDIR names another folder)", place)


class FetchedBlocks:
    """Blocks by number, in a nameless temporary file; those unused for longest make room for new ones.

    ``limit``: bytes at most; None for as many as fit on half of the free disk, with :data:`MAX_BYTES` as the most.
    Where the disk has no room, a few are kept in memory. It is for a single thread at a time; :func:`make_room` may be
    called by another.
    """

    def __init__(self, limit: int | None = None) -> None:
        """Begin without a block; the file is made with the first."""
        self._limit = limit
        self._file: BinaryIO | None = None
        self._slots: OrderedDict[int, int] = OrderedDict()
        self._lengths: dict[int, int] = {}
        self._memory: OrderedDict[int, bytes] = OrderedDict()
        self._count = 0
        self._is_broken = self._keeps_all = False
        self._lock = threading.Lock()
        _OPEN.add(self)

    def keep_all(self, size: int) -> None:
        """Keep all blocks of a file of ``size`` bytes from now on; :meth:`store` fails where they have no room."""
        self._limit, self._keeps_all, self._is_broken = size + BLOCK_SIZE, True, False

    def close(self) -> None:
        """Give up all blocks."""
        _OPEN.discard(self)
        self._slots.clear()
        self._memory.clear()
        if self._file is not None:
            with suppress(OSError):  # nobody needs the data any more
                self._file.close()

    def __contains__(self, number: int) -> bool:
        """Return whether block ``number`` is here."""
        return number in self._slots or number in self._memory

    def read(self, number: int) -> bytes | None:
        """Return block ``number``; None if it is not here."""
        if number in self._memory:
            self._memory.move_to_end(number)
            return self._memory[number]
        with self._lock:
            return self._read(number)

    def _read(self, number: int) -> bytes | None:
        """Return block ``number`` of the file; None if it is not there."""
        slot = self._slots.get(number)
        if slot is None or self._file is None:
            return None
        length = self._lengths[number]
        try:
            data = os.pread(self._file.fileno(), length, slot * BLOCK_SIZE)
        except OSError:
            data = b""
        if len(data) < length:
            del self._slots[number]
            return None
        self._slots.move_to_end(number)
        return data

    def store(self, number: int, data: bytes) -> None:
        """Keep ``data`` as block ``number``. :raises OSError: it cannot be, and all are to be kept."""
        if not self._is_broken:
            try:
                with self._lock:
                    self._write(number, data)
                return
            except OSError:
                if self._keeps_all:
                    raise
                self._is_broken = True  # those that are on the disk stay there
        self._memory[number] = data
        while len(self._memory) > _IN_MEMORY:
            self._memory.popitem(last=False)

    def _write(self, number: int, data: bytes) -> None:
        """Write a block to a free place of the file, or to that of the block that was unused for longest."""
        if self._file is None:
            self._file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 - it lives as long as the blocks
            if self._limit is None:
                status = os.fstatvfs(self._file.fileno())
                self._limit = min(MAX_BYTES, status.f_bavail * status.f_frsize // 2)
        assert self._limit is not None
        if number in self._slots:
            slot = self._slots.pop(number)
        elif self._slots and self._count * BLOCK_SIZE >= self._limit:
            _, slot = self._slots.popitem(last=False)
        else:
            slot = self._count
            self._count += 1
        if os.pwrite(self._file.fileno(), data, slot * BLOCK_SIZE) < len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._slots[number], self._lengths[number] = slot, len(data)

    def bound(self, device: int, spare: int) -> int:
        """Take no more than ``spare`` bytes beyond what is kept on the disk ``device``; give up some where it is < 0.

        Return how many bytes others may take.
        """
        with self._lock:
            if self._file is None or self._limit is None or self._keeps_all:
                return spare
            if os.fstat(self._file.fileno()).st_dev != device:
                return spare
            before = self._count
            self._limit = min(self._limit, max(0, before * BLOCK_SIZE + spare))
            count = min(before, self._limit // BLOCK_SIZE)
            if count < before:
                os.ftruncate(self._file.fileno(), count * BLOCK_SIZE)
                for number in [number for number, slot in self._slots.items() if slot >= count]:
                    del self._slots[number]
                self._count = count
            return spare - (self._limit - before * BLOCK_SIZE)


_OPEN: WeakSet[FetchedBlocks] = WeakSet()


def make_room(fd: int, length: int) -> None:
    """Let ``length`` bytes more fit into the file ``fd``, as far as blocks take their place: those can come again."""
    status, device = os.fstatvfs(fd), os.fstat(fd).st_dev
    spare = status.f_bavail * status.f_frsize - length - length // _MARGIN_SHARE - BLOCK_SIZE
    for blocks in list(_OPEN):
        spare = blocks.bound(device, spare)
