"""Copying the front of an image while the plan for the new one is still being made.

Most of an image stays where it is, and copying it takes longer than planning. A copy that began early may have copied
too much: the surplus is cut off again.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress

from cosremaster.io.descriptors import MIN_HOLE, data_runs, may_share_blocks
from cosremaster.io.parallel import Worker
from cosremaster.io.pieces import Piece, PieceTable, Range
from cosremaster.io.source import ByteSource

STEP = 1 << 24
"""Bytes that are copied in one call: so many too much at most, when the plan is ready."""

FREE_SPACE_FACTOR = 3
"""The free space that is required, in sizes of the image: for this copy, for packed data, and for added files."""


class Precopy:
    """Copies ``source`` from its beginning on to the same offsets of ``fd``, an empty file, on a thread of its own.

    The kernel copies in steps of :data:`STEP` bytes, so that the planning threads get the interpreter lock in between;
    holes stay holes. Nothing is copied where copy_file_range(2) is missing, where the file system can share blocks
    (copying takes no time later), or where the free space is less than :data:`FREE_SPACE_FACTOR` times the image.
    An error ends the copy: the writer of the file will meet it again.

    ``limit``: the bytes that may be copied; None for all. ``advance`` is called with the bytes of each step.
    """

    def __init__(
        self, source: ByteSource, fd: int, limit: int | None = None, advance: Callable[[int], None] = lambda count: None
    ) -> None:
        """Start the thread, if copying early gains anything."""
        self._source, self._advance = source, advance
        self._copied, self._limit = 0, source.size if limit is None else limit
        self._worker: Worker[None] | None = None
        self._source_fd = source.descriptor if hasattr(os, "copy_file_range") else None
        with suppress(OSError):
            if self._source_fd is not None and _has_room(fd, source.size) and not may_share_blocks(os.fstat(fd).st_dev):
                # A descriptor of its own: closing the other one may be interrupted before this thread has ended.
                self._fd = os.dup(fd)
                self._worker = Worker(self._run)

    def _run(self) -> None:
        """Copy; after an error the file is empty again."""
        try:
            self._copy()
        except OSError:
            self._copied = 0
            with suppress(OSError):
                os.ftruncate(self._fd, 0)
        finally:
            os.close(self._fd)

    def _copy(self) -> None:
        """Copy run by run until the end, or until it is stopped."""
        source, fd = self._source_fd, self._fd
        assert source is not None
        for begin, length, is_data in data_runs(source, 0, self._source.size):
            offset, end = (begin, begin + length) if is_data else (begin + length, begin + length)
            while offset < end:
                room = self._limit - offset
                count = os.copy_file_range(source, fd, min(STEP, end - offset, room), offset, offset) if room > 0 else 0
                if not count:
                    return
                offset += count
                self._copied = offset
                self._advance(count)
            self._copied = end

    @property
    def is_copying(self) -> bool:
        """Whether copying early gains anything."""
        return self._worker is not None

    def stop(self) -> None:
        """End the copy."""
        self._limit = 0
        if self._worker is not None:
            self._worker.join()

    def reusable_front(self, table: PieceTable) -> int:
        """End the copy and return the length in bytes of its front that ``table`` takes from the same offsets.

        Small pieces of other bytes in it do not matter, as they are written over. Everything behind is to be cut off.
        """
        self.stop()
        return min(self._copied, _front_length(table, self._source))

    def reach(self, table: PieceTable) -> int:
        """Return how many bytes of the front of ``table`` are copied so far, while the copy goes on."""
        return min(self._copied, _front_length(table, self._source))

    def complete_front(self, table: PieceTable, report: Callable[[int], None]) -> int:
        """Copy on as far as ``table`` takes the same bytes, and return what :meth:`reusable_front` does.

        ``report`` is called with the bytes that are copied so far.
        """
        front = self._limit = _front_length(table, self._source)
        if self._worker is not None:
            self._worker.join(lambda: report(min(self._copied, front)))
        return min(self._copied, front)


def _has_room(fd: int, size: int) -> bool:
    """Return whether the file system of ``fd`` has room for several files of ``size`` bytes."""
    status = os.fstatvfs(fd)
    return status.f_bavail * status.f_frsize >= FREE_SPACE_FACTOR * size


def is_in_place(piece: Piece, source: ByteSource, offset: int) -> bool:
    """Return whether ``piece``, which is to be written at ``offset``, has that offset in ``source`` too."""
    return isinstance(piece, Range) and piece.source is source and piece.offset == offset


def _front_length(table: PieceTable, source: ByteSource) -> int:
    """Return how many bytes from the beginning on keep their offsets in ``source`` or will be written over."""
    offset = 0
    for piece in table.pieces:
        if piece.length >= MIN_HOLE and not is_in_place(piece, source, offset):
            break
        offset += piece.length
    return offset
