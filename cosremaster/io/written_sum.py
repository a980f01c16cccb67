"""The SHA-256 of a file that is being written: taken from what the file holds, a little behind the writer."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable
from pathlib import Path

from cosremaster.errors import ProofError
from cosremaster.io.descriptors import STEP, aligned_buffer
from cosremaster.io.parallel import StopFlag, Worker
from cosremaster.io.source import ByteSource, open_file


class WrittenSum:
    """Sums the file ``path`` on a thread of its own, from its first byte to its last, as far as it is written.

    The bytes are read again, so that what is summed is what the file holds and not what was meant to be written.
    """

    def __init__(self, path: Path) -> None:
        """Begin without a thread."""
        self._path = path
        self._written = self._summed = 0
        self._is_whole = False
        self._wake, self._stop = threading.Event(), StopFlag()
        self._worker: Worker[str] | None = None

    def add(self, count: int) -> None:
        """Count ``count`` more bytes behind those before, which are written. Only one thread may write."""
        self._written += count
        self._start()

    def finish(self) -> None:
        """Let the sum end with the bytes that were counted: the file is as long as they are."""
        self._is_whole = True
        self._start()

    def result(self, advance: Callable[[int], None]) -> str:
        """Wait for the digest and return it in hexadecimal digits; ``advance`` gets the numbers of summed bytes.

        :raises ImageError: the file cannot be read. :raises ProofError: it is shorter than what was written.
        """
        assert self._is_whole
        assert self._worker is not None
        reported = 0

        def report() -> None:
            """Tell of what was summed since the last time."""
            nonlocal reported
            summed = self._summed
            advance(summed - reported)
            reported = summed

        self._worker.join(report)
        report()
        return self._worker.result()

    def stop(self) -> None:
        """End the thread: nobody wants the digest."""
        self._stop.set()
        if self._worker is not None:
            self._wake.set()
            self._worker.join()

    def _start(self) -> None:
        """Let the thread sum what was written so far."""
        self._wake.set()
        if self._worker is None:
            self._worker = Worker(self._run)

    def _run(self) -> str:
        """Return the digest. Raises as :meth:`result`."""
        with open_file(self._path) as file:
            return self._sum(file)

    def _sum(self, file: ByteSource) -> str:
        """Return the digest of ``file``. Raises as :meth:`result`."""
        digest, buffer = hashlib.sha256(), aligned_buffer(STEP)
        while True:
            self._stop.check()
            is_whole = self._is_whole
            view = buffer[: self._readable(file) - self._summed]
            if view:
                file.read_into(self._summed, [view])
                digest.update(view)
                self._summed += len(view)
            elif not is_whole:
                self._wake.wait()
                self._wake.clear()
            elif self._summed < self._written:
                raise ProofError("is shorter than what was written", file.place.at(self._summed))
            else:
                return digest.hexdigest()

    def _readable(self, file: ByteSource) -> int:
        """Return how many bytes can be read: a hole is in the file only when something follows, or at the end."""
        assert file.descriptor is not None
        return min(self._written, os.fstat(file.descriptor).st_size)
