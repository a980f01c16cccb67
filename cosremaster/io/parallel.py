"""Ordered work on several threads with a bound on the memory that it takes."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import partial
from itertools import chain
from queue import Empty, SimpleQueue
from typing import Any, Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def cpu_count() -> int:
    """Return how many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class CancelledError(Exception):
    """Raised by work that was told to stop."""


class StopFlag:
    """Tells work on other threads to stop."""

    def __init__(self) -> None:
        """Make a flag that is not set."""
        self._event = threading.Event()

    def set(self) -> None:
        """Tell all work to stop."""
        self._event.set()

    @property
    def is_set(self) -> bool:
        """Whether all work is told to stop."""
        return self._event.is_set()

    def check(self) -> None:
        """Return if the flag is not set. :raises CancelledError: it is set."""
        if self._event.is_set():
            raise CancelledError


def ordered_map(
    work: Callable[[Item, StopFlag], Result], items: Iterable[Item], threads: int, limit: int | None = None,
    report: Callable[[], None] = lambda: None,
) -> Iterator[Result]:  # fmt: skip
    """Yield ``work(item, stop)`` for each item, in order, computed on ``threads`` threads.

    ``items`` is consumed by the calling thread. An exception of ``work`` is raised in the place of its result. When the
    caller closes the iterator, running work ends at its next ``stop.check()``.

    :param limit: the number of items that may be in memory at once: being worked on, waiting for an earlier one, or
        waiting for a thread; None for twice the number of threads.
    :param report: called by the calling thread when work ends, and some times in a second while it waits.
    """
    stop, pool = StopFlag(), ThreadPool(threads)
    events: SimpleQueue[None] = SimpleQueue()  # gets an item whenever a worker ends
    source = iter(items)
    workers: deque[Worker[Result]] = deque()  # in the order of their items
    pending: list[Item] = []  # at most one item, for the next free thread
    has_more, limit = True, limit or 2 * threads
    try:
        while True:
            if pending and (len(workers) < threads or sum(not worker.has_ended for worker in workers) < threads):
                workers.append(Worker(partial(work, pending.pop(), stop), events, pool.start))
            elif len(workers) >= threads and workers[0].has_ended:
                yield workers.popleft().result()
            elif has_more and not pending and len(workers) < limit:
                has_more = _pull(source, pending)
            elif workers and workers[0].has_ended:
                yield workers.popleft().result()
            elif workers:
                _wait_for(events, report)
            else:
                return
    finally:
        stop.set()
        pool.close()
        for worker in workers:
            worker.join()


class ThreadPool:
    """At most ``most`` threads, each of which makes one call after another.

    The C library keeps freed memory for the threads that used it. A thread for each call would have more of it kept:
    the next one may start before the last one has ended.
    """

    def __init__(self, most: int) -> None:
        """Begin without threads."""
        self._calls: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._most, self._count = most, 0

    def start(self, call: Callable[[], None]) -> None:
        """Let a thread make ``call``, which raises nothing, when one has ended its calls."""
        if self._count < self._most:
            self._count += 1
            threading.Thread(target=self._run, name="cosremaster-work", daemon=True).start()
        self._calls.put(call)

    def _run(self) -> None:
        """Make calls until the pool is closed."""
        while (call := self._calls.get()) is not None:
            call()
            del call  # what it holds is in memory no longer than it lasts

    def close(self) -> None:
        """End the threads when they have made the calls before."""
        for _ in range(self._count):
            self._calls.put(None)


def _start_thread(call: Callable[[], None]) -> None:
    """Make ``call`` on a thread of its own."""
    threading.Thread(target=call, name="cosremaster-work").start()


def _pull(source: Iterator[Item], pending: list[Item]) -> bool:
    """Move the next item of ``source`` to ``pending``; return False if there is none."""
    for item in source:
        pending.append(item)
        return True
    return False


POLL = 0.2
"""Seconds between two checks for a signal. The kernel may deliver one to any thread, and Python handles it in the main
thread, which must not sleep until the work is finished."""


def _wait_for(queue: SimpleQueue[None], report: Callable[[], None]) -> None:
    """Wait until ``queue`` holds an item, and remove it; call ``report`` meanwhile, and then."""
    while True:
        with suppress(Empty):
            queue.get(timeout=POLL)
            report()
            return
        report()


class Worker(Generic[Result]):
    """Runs ``work`` on a thread of its own, or as ``start`` does, and puts an item into ``events`` at its end.

    (concurrent.futures would load logging at every start.)
    """

    def __init__(
        self, work: Callable[[], Result], events: SimpleQueue[None] | None = None,
        start: Callable[[Callable[[], None]], None] = _start_thread,
    ) -> None:  # fmt: skip
        """Start the work."""
        self._work: Callable[[], Result] | None = work
        self._events = events
        self._result: list[Result] = []
        self._error: BaseException | None = None
        self._ended = threading.Event()
        start(self._run)

    def _run(self) -> None:
        """Do the work and keep its result or its exception."""
        assert self._work is not None
        try:
            self._result.append(self._work())
        except BaseException as error:  # of any kind: it is raised where the result is taken
            self._error = error
        finally:
            self._work = None
            self._ended.set()
            if self._events is not None:
                self._events.put(None)

    @property
    def has_ended(self) -> bool:
        """Whether there is a result."""
        return self._ended.is_set()

    def join(self, report: Callable[[], None] = lambda: None) -> None:
        """Wait for the end of the work, and call ``report`` meanwhile, some times in a second.

        (After an interruption Thread.join takes a running thread for ended.)
        """
        while not self._ended.wait(POLL):
            report()

    def result(self) -> Result:
        """Wait for the end of the work and return its result, once; raise the exception of the work."""
        self.join()
        if self._error is not None:
            raise self._error
        return self._result.pop()


DEPTH = 4
"""Items that may wait between a producer and its consumer."""

BATCH = 1 << 20
"""The least bytes that are handed to another thread at once, since each time it has to be woken."""


def prefetch_batches(chunks: Iterable[Item], size: Callable[[Any], int] = len) -> Iterator[Item]:
    """Yield ``chunks`` as :func:`prefetch` does, but hand several over at once.

    :param size: returns the bytes of a chunk.
    """
    return chain.from_iterable(prefetch(in_batches(chunks, size)))


def in_batches(chunks: Iterable[Item], size: Callable[[Any], int]) -> Iterator[list[Item]]:
    """Yield ``chunks`` in lists of :data:`BATCH` bytes or more; an exception comes behind the chunks before it."""
    batch: list[Item] = []
    total = 0
    try:
        for chunk in chunks:
            batch.append(chunk)
            total += size(chunk)
            if total >= BATCH:
                yield batch
                batch, total = [], 0
    except Exception:
        yield batch
        raise
    yield batch


def prefetch(chunks: Iterable[Item], depth: int = DEPTH) -> Iterator[Item]:
    """Yield ``chunks``, made on a thread of their own while the caller works on those before.

    An exception of ``chunks`` is raised in their place. When the caller closes the iterator, the thread ends with its
    next chunk.

    :param depth: the number of chunks that may wait for the caller.
    """
    produced: SimpleQueue[tuple[Item] | BaseException | None] = SimpleQueue()
    slots: SimpleQueue[None] = SimpleQueue()  # holds as many items as may be put into ``produced``
    for _ in range(depth):
        slots.put(None)
    is_closed = False

    def produce() -> None:
        """Put all chunks into ``produced``, and None or the exception at the end."""
        try:
            for chunk in chunks:
                slots.get()
                if is_closed:
                    return
                produced.put((chunk,))
            produced.put(None)
        except BaseException as error:  # of any kind: it is raised in the caller's thread
            produced.put(error)

    thread = threading.Thread(target=produce, name="cosremaster-prefetch", daemon=True)
    thread.start()
    try:
        while (item := produced.get()) is not None:
            if isinstance(item, BaseException):
                try:
                    raise item
                finally:
                    del item  # its traceback holds this frame
            slots.put(None)
            yield item[0]
    finally:
        is_closed = True
        slots.put(None)
        thread.join()
