"""Copying an image's front while it is still being planned what will stand in the new one.

Most of an image stays where it is, and copying it takes longer than the plan that says so. Whoever begins early may
have copied too much: it is cut off again.
"""

from __future__ import annotations

import os
import threading

from cosremaster.errors import CosremasterError
from cosremaster.files import LEAST_HOLE, STEP, FileSource, aligned, may_share, runs_of
from cosremaster.pieces import Literal, PieceTable, Range, Zeros


class HeadStart:
    """Copies ``source`` from its beginning on to the same offsets of ``fd``, an empty file, on a thread of its own.

    Holes stay holes. Where the file systems may share blocks nothing is copied: that is no work then. An error ends
    it; who writes the file in earnest will meet it again.
    """

    def __init__(self, source: FileSource, fd: int) -> None:
        self._source, self._fd = source, fd
        self._wanted, self._copied = True, 0
        self._thread = threading.Thread(target=self._run, name="cosremaster-headstart", daemon=True)
        if not may_share(os.fstat(fd).st_dev):
            self._thread.start()

    def _run(self) -> None:
        try:
            self._copy()
        except (OSError, CosremasterError):
            self._copied = 0

    def _copy(self) -> None:
        source = self._source
        buffer = aligned(min(STEP, source.size))
        for begin, length, data in runs_of(source.fileno(), 0, source.size):
            end = begin + length
            for at in range(begin, end, STEP) if data else ():
                if not self._wanted:
                    return
                view = buffer[: min(STEP, end - at)]
                source.read_into(at, [view])
                done = 0
                while done < len(view):
                    done += os.pwrite(self._fd, view[done:], at + done)
                self._copied = at + done
            self._copied = end

    def stop(self) -> None:
        """Ends copying."""
        self._wanted = False
        if self._thread.is_alive():
            self._thread.join()

    def kept(self, table: PieceTable) -> int:
        """Ends copying; returns the length in bytes of the front of the file that ``table`` has from the same places,
        but for small pieces of other bytes between. What is behind that is to be cut off.
        """
        self.stop()
        return min(self._copied, _front(table, self._source))


def _front(table: PieceTable, source: FileSource) -> int:
    """How many bytes from the beginning on are those of ``source`` in their old places, or will be written over."""
    at = 0
    for piece in table.pieces:
        same = isinstance(piece, Range) and piece.source is source and piece.offset == at
        written = isinstance(piece, Literal) or (isinstance(piece, Zeros) and piece.length < LEAST_HOLE)
        if not (same or written):
            break
        at += piece.length
    return at
