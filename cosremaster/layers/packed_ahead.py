"""Plain bytes of a slow stream, kept as the deflate blocks that a gzip stream of them has.

ISA-L deflates as fast as zstd packs at its first level: so where such a stream is wanted, its blocks are what is kept,
and all of them that no edit touches become part of it.
"""

from __future__ import annotations

import threading
from array import array
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import suppress
from queue import SimpleQueue
from typing import TYPE_CHECKING

from cosremaster.codecs.gzip.deflate import DEFLATE_BLOCK, WINDOW, DeflatedBlock, deflate_block, inflate_block
from cosremaster.crc import crc32
from cosremaster.errors import OutputError, Place
from cosremaster.io.pieces import Range
from cosremaster.io.spool import Spool
from cosremaster.layers.kept_plain import KeptPlain, LastBlock

if TYPE_CHECKING:
    from cosremaster.layers.kept_plain import Deflating, PlainKeeper


_POLL = 0.2
"""Seconds between two looks for a signal while a block is waited for."""


class _Task:
    """A block of ``plain`` bytes to be deflated behind those in ``before``; its result, None after an error."""

    __slots__ = ("before", "ended", "packed", "plain")

    def __init__(self, plain: bytes, before: bytes) -> None:
        """Begin without a result."""
        self.plain, self.before = plain, before
        self.packed: bytes | None = None
        self.ended = threading.Event()


class _Deflaters:
    """Threads that deflate blocks, whose results are taken in order."""

    def __init__(self, deflating: Deflating) -> None:
        """Start the threads."""
        self._coder, self._level, threads = deflating
        self._most = 2 * threads
        self._tasks: deque[_Task] = deque()
        self._queue: SimpleQueue[_Task | None] = SimpleQueue()
        self._threads = [
            threading.Thread(target=self._run, name="cosremaster-ahead", daemon=True) for _ in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    def _run(self) -> None:
        """Do one task after another."""
        while (task := self._queue.get()) is not None:
            with suppress(Exception):  # of any kind: the bytes are then decoded again
                task.packed = deflate_block(self._coder, self._level, task.plain, task.before)
            task.ended.set()

    def put(self, plain: bytes, before: bytes) -> None:
        """Give them the next block."""
        task = _Task(plain, before)
        self._tasks.append(task)
        self._queue.put(task)

    def take(self, *, waits: bool) -> Iterator[_Task]:
        """Yield the tasks that have ended, in order; so many that there is room, or all if it ``waits``."""
        while self._tasks and (waits or len(self._tasks) >= self._most or self._tasks[0].ended.is_set()):
            task = self._tasks.popleft()
            while not task.ended.wait(_POLL):
                pass
            yield task

    def close(self) -> None:
        """End the threads when they have done what they were given."""
        for _ in self._threads:
            self._queue.put(None)
        for thread in self._threads:
            thread.join()


class DeflatedPlain(KeptPlain):
    """The plain bytes of one stream as deflate blocks of :data:`DEFLATE_BLOCK`, each behind the bytes before it."""

    def __init__(self, keeper: PlainKeeper, spool: Spool, windows: Spool, deflating: Deflating) -> None:
        """Begin with no bytes; ``windows`` keeps the last bytes of each block, which the next refers to."""
        super().__init__(keeper, spool)
        self.coder, self.level, _ = self._deflating = deflating
        self._windows = windows
        self._crcs = array("I")

    def watch(self, chunks: Iterable[bytes]) -> Iterator[bytes]:
        """Yield ``chunks`` unchanged, and keep them; what cannot be written ends keeping and nothing else."""
        deflaters = _Deflaters(self._deflating)
        try:
            batch: list[memoryview] = []
            size, is_kept, before = 0, True, b""
            for chunk in chunks:
                rest = memoryview(chunk)
                while is_kept and rest:
                    part, rest = rest[: DEFLATE_BLOCK - size], rest[DEFLATE_BLOCK - size :]
                    batch.append(part)
                    size += len(part)
                    if size == DEFLATE_BLOCK:
                        block = b"".join(batch)
                        deflaters.put(block, before)
                        before, batch, size = block[-WINDOW:], [], 0
                        is_kept = self._keep(deflaters.take(waits=False))
                yield chunk
            if is_kept and size:
                deflaters.put(b"".join(batch), before)
            self._has_ended = is_kept and self._keep(deflaters.take(waits=True))
        finally:
            deflaters.close()

    def _keep(self, tasks: Iterable[_Task]) -> bool:
        """Keep the blocks of ``tasks``; return False where that cannot be."""
        for task in tasks:
            if task.packed is None or not self._append(task.packed, len(task.plain)):
                return False
            window = task.plain[-WINDOW:]
            try:
                if not self._keeper.take(len(window)):
                    return False
                self._windows.append([window], packed=False)
            except (OSError, OutputError):
                return False
            self._crcs.append(crc32(task.plain))
        return True

    @property
    def ahead(self) -> DeflatedPlain:
        """The deflate blocks, which are these."""
        return self

    def block_at(self, offset: int) -> DeflatedBlock | None:
        """Return the whole block that begins at plain byte ``offset``; None where none does, or not all is kept."""
        number, rest = divmod(offset, DEFLATE_BLOCK)
        if rest or not self.is_complete or number >= len(self._ranges):
            return None
        length = self._starts[number + 1] - offset
        return DeflatedBlock(self._ranges[number], length, self._crcs[number], self._window_of(number))

    def _window_of(self, number: int) -> Range:
        """Return the last plain bytes of the block at place ``number``."""
        length = min(WINDOW, self._starts[number + 1] - self._starts[number])
        return Range(self._windows, number * WINDOW, length)

    def _block(self, number: int) -> bytes:
        """Return the plain bytes of the block at place ``number``; each thread keeps the last."""
        block: LastBlock | None = getattr(self._thread, "block", None)
        if block is None or block.number != number:
            stored = self._ranges[number]
            before = self._window_of(number - 1).read(0, WINDOW) if number else b""
            length = self._starts[number + 1] - self._starts[number]
            plain = inflate_block(stored.read(0, stored.length), before, length)
            if len(plain) != length or crc32(plain) != self._crcs[number]:
                raise OutputError("temporary data are damaged", Place((str(self._keeper.folder),)))
            self._thread.block = block = LastBlock(number, plain)
        return block.plain
