"""A file in memory that the processes of a server share: how they serve, what each counts, and whose turn is to write.

Its lock is one of POSIX on a byte, which the kernel takes from a process that dies.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import tempfile
from collections.abc import Callable
from contextlib import suppress

from cosremaster.errors import OutputError
from cosremaster.io.descriptors import write_all
from cosremaster.serve.access_log import TornLineError
from cosremaster.serve.metrics import CELL, ROW, Metrics

_HEAD = 4
"""Numbers before the rows: whether a write is under way, how many rows, the bytes of the setup, and nothing."""


class SharedState:
    """What processes share. It keeps the descriptor ``fd`` open."""

    def __init__(self, fd: int) -> None:
        """Open what :meth:`create` made."""
        self.fd = fd
        self._cells = memoryview(mmap.mmap(fd, 0)).cast("q")

    @classmethod
    def create(cls, processes: int, setup: bytes) -> SharedState:
        """Return a new one for so many ``processes``, which read ``setup``. :raises OutputError: no memory is free."""
        try:
            fd = _open_nameless()
        except OSError as error:
            raise _explain(error) from error
        try:
            padded = setup + bytes(-len(setup) % CELL)
            head = memoryview(bytearray(_HEAD * CELL)).cast("q")
            head[1], head[2] = processes, len(setup)
            write_all(fd, bytes(head) + bytes(processes * ROW * CELL) + padded, _explain)
            return cls(fd)
        except BaseException:
            os.close(fd)
            raise

    @property
    def processes(self) -> int:
        """How many processes share it."""
        return self._cells[1]

    @property
    def setup(self) -> bytes:
        """What the processes were told."""
        start = _HEAD + self.processes * ROW
        return bytes(self._cells[start:])[: self._cells[2]]

    def metrics(self, index: int) -> Metrics:
        """Return the counts of all, those of process ``index`` to be changed."""
        starts = range(_HEAD, _HEAD + self.processes * ROW, ROW)
        return Metrics([self._cells[start : start + ROW] for start in starts], index)

    def in_turn(self, write: Callable[[str], object]) -> Callable[[str], None]:
        """Return what writes lines by ``write``, while no other process does.

        A line that another did not complete, as it was killed, is ended first.
        """

        def write_in_turn(text: str) -> None:
            """Write ``text`` when it is this process's turn."""
            fcntl.lockf(self.fd, fcntl.LOCK_EX, 1)
            try:
                is_torn, self._cells[0] = self._cells[0], 1
                try:
                    write(f"\n{text}" if is_torn else text)
                except TornLineError as error:  # whoever writes next ends it
                    raise OSError(error.errno, error.strerror) from error
                except OSError:
                    self._cells[0] = is_torn
                    raise
                self._cells[0] = 0
            finally:
                fcntl.lockf(self.fd, fcntl.LOCK_UN, 1)

        return write_in_turn

    def close(self) -> None:
        """Close the descriptor; the memory goes with the process."""
        os.close(self.fd)


def _explain(error: OSError) -> OutputError:
    """Return ``error`` as one of ours."""
    return OutputError(f"server processes cannot share memory: {error.strerror}")


def _open_nameless() -> int:
    """Return the descriptor of a new file, in memory where there are such. :raises OSError: it cannot be made."""
    if hasattr(os, "memfd_create"):
        with suppress(OSError):  # a filter of system calls may refuse it
            return os.memfd_create("cosremaster-serve")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())
