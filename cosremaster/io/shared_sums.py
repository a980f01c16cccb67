"""SHA-256 of files that have long ranges of one base in common: what they begin with alike is summed once.

The state of SHA-256 behind a beginning stands for its bytes. Where a file goes on as another did behind the same bytes,
with the same range of the base, it takes the other's state over.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, cast

from cosremaster.io.descriptors import STEP, aligned_buffer
from cosremaster.io.parallel import StopFlag, Worker
from cosremaster.io.pieces import PieceTable, Range
from cosremaster.io.source import ByteSource, open_file

if TYPE_CHECKING:
    from hashlib import _Hash

MIN_SHARED = 1 << 20
"""Bytes of the least range of the base whose state is kept."""

MOST_STATES = 256
"""States that are kept at once."""


StateKey: TypeAlias = tuple[bytes, int, int]
"""The SHA-256 of what stands before a range of the base, and the range: its offset and its length."""


class SharedSums:
    """Sums files that are made from ``base``; several threads may. It keeps the states that others can begin with.

    ``adlers``: the Adler-32 of ranges of the base, by offset and length.
    """

    def __init__(self, base: ByteSource) -> None:
        """Begin without states."""
        self._base = base
        self._states: dict[StateKey, _Hash] = {}
        self.adlers: dict[tuple[int, int], int] = {}

    def sum(self, table: PieceTable, file: ByteSource, stop: StopFlag) -> str:
        """Return the SHA-256 of ``file``, which was made of ``table``, in hexadecimal digits.

        New bytes are read from ``file``; so are long ranges of the base where each read of that may be a request.
        :raises ImageError: a read fails. :raises CancelledError: ``stop`` is set.
        """
        digest, offset = hashlib.sha256(), 0
        for piece in table.pieces:
            source, start, key = file, offset, cast("StateKey | None", None)
            if isinstance(piece, Range) and piece.source is self._base and piece.length >= MIN_SHARED:
                source, start = (file, offset) if self._base.is_far else (self._base, piece.offset)
                key = (digest.digest(), piece.offset, piece.length)
            state = None if key is None else self.find_state(key)
            if state is not None:
                digest = state
            else:
                for view in views_of(source, start, piece.length, stop):
                    digest.update(view)
                if key is not None:
                    self.keep_state(key, digest)
            offset += piece.length
        return digest.hexdigest()

    def find_state(self, key: StateKey) -> _Hash | None:
        """Return the state of SHA-256 behind a range of the base, to go on with; None where it is not known."""
        state = self._states.pop(key, None)
        if state is None:
            return None
        self._states[key] = state  # what was wanted last stays longest
        return state.copy()

    def keep_state(self, key: StateKey, digest: _Hash) -> None:
        """Keep the state ``digest`` for files that come as far with the same bytes."""
        for oldest in list(self._states)[: max(len(self._states) - MOST_STATES + 1, 0)]:
            self._states.pop(oldest, None)
        self._states[key] = digest.copy()

    def start(self) -> FileSum:
        """Return what sums a file on a thread of its own."""
        return FileSum(self)


def views_of(
    source: ByteSource, offset: int, length: int, stop: StopFlag, buffer: memoryview | None = None
) -> Iterator[memoryview]:  # fmt: skip
    """Yield ``length`` bytes of ``source`` from ``offset`` on, each part valid until the next is taken.

    ``buffer``: where they are put; a new one takes longer to be filled the first time, as its pages are made then.
    Raises as :meth:`SharedSums.sum`.
    """
    buffer = aligned_buffer(min(STEP, length)) if buffer is None else buffer
    for start in range(0, length, len(buffer) or 1):
        stop.check()
        view = buffer[: length - start]
        source.read_into(offset + start, [view])
        yield view


class FileSum:
    """The SHA-256 of a file, taken beside other work."""

    def __init__(self, sums: SharedSums) -> None:
        """Begin without a file."""
        self._sums, self._stop = sums, StopFlag()
        self._worker: Worker[str] | None = None
        self.digits = ""
        """The hexadecimal digits, when :meth:`wait` has ended; empty where nothing was summed."""

    def begin(self, table: PieceTable, path: Path) -> None:
        """Begin to sum the file ``path``, which was written as ``table`` says."""
        self._worker = Worker(lambda: self._sum(table, path))

    def _sum(self, table: PieceTable, path: Path) -> str:
        """Return the digest. Raises as :meth:`SharedSums.sum`."""
        with open_file(path) as file:
            return self._sums.sum(table, file, self._stop)

    def wait(self) -> None:
        """Wait for the digest, if something is summed. :raises ImageError: a read fails."""
        worker, self._worker = self._worker, None
        if worker is not None:
            self.digits = worker.result()

    def stop(self) -> None:
        """End the thread: nobody wants the digest."""
        self._stop.set()
        if self._worker is not None:
            self._worker.join()
