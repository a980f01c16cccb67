"""Sending a file to the disk while more of it is written, so that nobody waits for all of it at the end."""

from __future__ import annotations

import threading

from cosremaster.io.parallel import Worker
from cosremaster.io.part_files import sync_file

STEP = 1 << 23
"""Written bytes that go to the disk while others follow."""


class WriteBack:
    """Syncs the file ``fd`` on a thread of its own: some times while it is written, and once behind its last byte.

    The kernel reports an error of the disk only once: it ends the thread, and :meth:`result` raises it.
    """

    def __init__(self, fd: int) -> None:
        """Begin without a thread: a small file needs none before its end."""
        self._fd = fd
        self._pending = 0
        self._wake = threading.Event()
        self._is_whole = self._is_stopped = False
        self._worker: Worker[None] | None = None

    def add(self, count: int) -> None:
        """Count ``count`` more written bytes. Only one thread may write at a time."""
        self._pending += count
        if self._pending >= STEP:
            self._pending = 0
            self._start()

    def finish(self) -> None:
        """Sync the whole file, to which nothing is written any more."""
        self._is_whole = True
        self._start()

    def stop(self) -> None:
        """End the thread behind what it is doing: nobody wants the file."""
        self._is_stopped = True
        if self._worker is not None:
            self._wake.set()
            self._worker.join()

    def result(self) -> None:
        """Wait until the whole file is on the disk. :raises OSError: the disk reports an error, or did before."""
        assert self._is_whole
        assert self._worker is not None
        self._worker.result()

    def _start(self) -> None:
        """Let the thread sync what was written so far."""
        self._wake.set()
        if self._worker is None:
            self._worker = Worker(self._run)

    def _run(self) -> None:
        """Sync whenever it is wanted. :raises OSError: the disk reports an error."""
        is_whole = False
        while not is_whole:
            self._wake.wait()
            self._wake.clear()
            if self._is_stopped:
                return
            is_whole = self._is_whole
            sync_file(self._fd)
