"""Copying an image's front while it is still being planned what will stand in the new one.

Most of an image stays where it is, and copying it takes longer than the plan that says so. Whoever begins early may
have copied too much: it is cut off again.
"""

from __future__ import annotations

import os
from contextlib import suppress

from cosremaster.io.descriptors import MIN_HOLE, data_runs, may_share_blocks
from cosremaster.io.parallel import Worker
from cosremaster.io.pieces import Piece, PieceTable, Range
from cosremaster.io.source import ByteSource

STEP = 1 << 25
"""Bytes that are copied at once."""

ROOM = 3
"""So many times the image there must be free: for this copy, for what is packed, and for what is added."""


class Precopy:
    """Copies ``source`` from its beginning on to the same offsets of ``fd``, an empty file, on a thread of its own.

    Holes stay holes. It is done inside the kernel, in large steps: after each this thread has to wait for those that
    plan. Where that is not possible nothing is copied, and where blocks may be shared neither: that is no work later.
    Nor is anything where it might take the room from what is being packed meanwhile. An error ends it; who writes the
    file in earnest will meet it again.
    """

    def __init__(self, source: ByteSource, fd: int) -> None:
        self._source = source
        self._wanted, self._copied = True, 0
        self._worker: Worker[None] | None = None
        self._source_fd = source.descriptor if hasattr(os, "copy_file_range") else None
        if self._source_fd is not None and _has_room(fd, source.size) and not may_share_blocks(os.fstat(fd).st_dev):
            # A descriptor of its own: whoever closes the other one may be interrupted before this thread has ended.
            self._fd = os.dup(fd)
            self._worker = Worker(self._run)

    def _run(self) -> None:
        try:
            self._copy()
        except OSError:
            self._copied = 0
            with suppress(OSError):
                os.ftruncate(self._fd, 0)
        finally:
            os.close(self._fd)

    def _copy(self) -> None:
        source, fd = self._source_fd, self._fd
        assert source is not None
        for begin, length, data in data_runs(source, 0, self._source.size):
            at, end = (begin, begin + length) if data else (begin + length, begin + length)
            while at < end:
                if not self._wanted:
                    return
                count = os.copy_file_range(source, fd, min(STEP, end - at), at, at)
                if not count:
                    return
                at += count
                self._copied = at
            self._copied = end

    def stop(self) -> None:
        """Ends copying."""
        self._wanted = False
        if self._worker is not None:
            self._worker.join()

    def reusable_front(self, table: PieceTable) -> int:
        """Ends copying; returns the length in bytes of the front of the file that ``table`` has from the same places,
        but for small pieces of other bytes between. What is behind that is to be cut off.
        """
        self.stop()
        return min(self._copied, _front(table, self._source))


def _has_room(fd: int, size: int) -> bool:
    """True when the file system of ``fd`` has room for several files of ``size`` bytes."""
    room = os.fstatvfs(fd)
    return room.f_bavail * room.f_frsize >= ROOM * size


def is_in_place(piece: Piece, source: ByteSource, at: int) -> bool:
    """True when ``piece``, which is to stand at ``at``, stands there in ``source``."""
    return isinstance(piece, Range) and piece.source is source and piece.offset == at


def _front(table: PieceTable, source: ByteSource) -> int:
    """How many bytes from the beginning on are those of ``source`` in their old places, or will be written over."""
    at = 0
    for piece in table.pieces:
        if piece.length >= MIN_HOLE and not is_in_place(piece, source, at):
            break
        at += piece.length
    return at
