"""Ordered work on several threads with a bound on what is under way."""

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
    """How many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class CancelledError(Exception):
    """Raised by work that noticed that nobody waits for it any more."""


class StopFlag:
    """Tells work on other threads that it is no longer wanted."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def set(self) -> None:
        """Asks all work to end."""
        self._event.set()

    def check(self) -> None:
        """:raises CancelledError: the work is no longer wanted."""
        if self._event.is_set():
            raise CancelledError


def ordered_map(
    work: Callable[[Item, StopFlag], Result], items: Iterable[Item], threads: int, most: int | None = None
) -> Iterator[Result]:
    """``work(item, stop)`` for each item, in order, on ``threads`` threads.

    At most ``most`` items, twice as many when None, are under way, wait for one before them, or are at hand for the
    next thread, so memory is bounded; ``items`` is pulled from the caller's thread. An exception of ``work`` is raised
    where its result would have come. When the caller goes away, the work under way is stopped at its next
    ``stop.check()``.
    """
    stop = StopFlag()
    news: SimpleQueue[None] = SimpleQueue()
    rest = iter(items)
    waiting: deque[Worker[Result]] = deque()
    hand: list[Item] = []
    more, most = True, most or 2 * threads
    try:
        while True:
            if hand and (len(waiting) < threads or sum(not one.has_ended for one in waiting) < threads):
                waiting.append(Worker(partial(work, hand.pop(), stop), news))
            elif len(waiting) >= threads and waiting[0].has_ended:
                yield waiting.popleft().result()
            elif more and not hand and len(waiting) < most:
                more = _pull(rest, hand)
            elif waiting and waiting[0].has_ended:
                yield waiting.popleft().result()
            elif waiting:
                _next(news)
            else:
                return
    finally:
        stop.set()
        for worker in waiting:
            worker.join()


def _pull(rest: Iterator[Item], hand: list[Item]) -> bool:
    """Takes one more of ``rest`` to ``hand``; False when there is none."""
    for item in rest:
        hand.append(item)
        return True
    return False


_NAP = 0.2
"""Seconds between two looks for a signal. The kernel may hand one to any thread, and Python acts on it in the main one:
that must not sleep until the work is done."""


def _next(queue: SimpleQueue[None]) -> None:
    """Waits for something in ``queue``."""
    while True:
        with suppress(Empty):
            return queue.get(timeout=_NAP)


class Worker(Generic[Result]):
    """``work`` on a thread of its own, which puts something into ``news`` at its end. (concurrent.futures would load
    logging at every start.)"""

    def __init__(self, work: Callable[[], Result], news: SimpleQueue[None] | None = None) -> None:
        self._work: Callable[[], Result] | None = work
        self._news = news
        self._result: list[Result] = []
        self._error: BaseException | None = None
        self._ended = threading.Event()
        threading.Thread(target=self._run, name="cosremaster-work").start()

    def _run(self) -> None:
        assert self._work is not None
        try:
            self._result.append(self._work())
        except BaseException as error:  # whatever it is, it belongs to the caller
            self._error = error
        finally:
            self._work = None
            self._ended.set()
            if self._news is not None:
                self._news.put(None)

    @property
    def has_ended(self) -> bool:
        """True once there is a result."""
        return self._ended.is_set()

    def join(self) -> None:
        """Waits for its end. (Once interrupted, Thread.join takes a running thread for ended.)"""
        while not self._ended.wait(_NAP):
            pass

    def result(self) -> Result:
        """What the work returned, once; raises what it raised. Waits for its end."""
        self.join()
        if self._error is not None:
            raise self._error
        return self._result.pop()


DEPTH = 4
"""Things that may wait between a producer and its consumer."""

BATCH = 1 << 20
"""Bytes that are handed to another thread at least at once: each time it has to be woken."""


def prefetch_batches(chunks: Iterable[Item], size: Callable[[Any], int] = len) -> Iterator[Item]:
    """``chunks``, as :func:`prefetch` has them, but several are handed over at once. ``size``: bytes of one."""
    return chain.from_iterable(prefetch(_batches(chunks, size)))


def _batches(chunks: Iterable[Item], size: Callable[[Any], int]) -> Iterator[list[Item]]:
    """``chunks`` in lists of :data:`BATCH` bytes or more; those before an exception come before it."""
    batch: list[Item] = []
    held = 0
    try:
        for chunk in chunks:
            batch.append(chunk)
            held += size(chunk)
            if held >= BATCH:
                yield batch
                batch, held = [], 0
    except Exception:
        yield batch
        raise
    yield batch


def prefetch(chunks: Iterable[Item], depth: int = DEPTH) -> Iterator[Item]:
    """``chunks`` made on a thread of their own while the caller works on those before, of which ``depth`` may wait.

    An exception of ``chunks`` is raised in their place. When the caller goes away, the thread ends with its
    next chunk.
    """
    made: SimpleQueue[tuple[Item] | BaseException | None] = SimpleQueue()
    room: SimpleQueue[None] = SimpleQueue()  # holds as many as may be put into the other
    for _ in range(depth):
        room.put(None)
    wanted = True

    def produce() -> None:
        try:
            for chunk in chunks:
                room.get()
                if not wanted:
                    return
                made.put((chunk,))
            made.put(None)
        except BaseException as error:  # whatever it is, it belongs to the caller
            made.put(error)

    thread = threading.Thread(target=produce, name="cosremaster-prefetch", daemon=True)
    thread.start()
    try:
        while (item := made.get()) is not None:
            if isinstance(item, BaseException):
                try:
                    raise item
                finally:
                    del item  # its traceback holds this frame
            room.put(None)
            yield item[0]
    finally:
        wanted = False
        room.put(None)
        thread.join()
