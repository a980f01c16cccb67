"""Worker processes that serve from one socket: started, watched, replaced when they die, and ended together.

A worker ends when its pipe from here does, so none is left over whatever becomes of this process. Its pipe to here
says that it is ready, and, as it ends with the worker, that it died.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from types import FrameType

from cosremaster.errors import OutputError
from cosremaster.records.tuples import NamedTuple

READY = b"."
"""What a worker writes into its pipe."""

STEADY = 10.0
"""Seconds after which a worker did not die at once."""
MOST_QUICK_ENDS = 5
"""Times that a worker dies at once before all end."""
LONGEST_PAUSE = 10.0
"""Seconds between two such times, at most."""
END_MARGIN = 10.0
"""Seconds for which workers may end beyond the time that their answers have."""
QUICK_END = 5.0
"""Seconds for which workers may end that are to end at once."""


class WorkerStart(NamedTuple):
    """How a worker is started: by ``argv``, and behind that its number and four descriptors, which it inherits.

    These are the socket ``listener``, the memory ``state``, and the pipes from here and to here.
    """

    argv: Sequence[str]
    listener: int
    state: int


class PoolEvents(NamedTuple):
    """What is called when something happens: all are ready for the first time; a worker died; the end begins."""

    on_ready: Callable[[], object]
    on_death: Callable[[int, str], object]
    on_stop: Callable[[], object]


class ServerWorker:
    """A worker process. ``index``: its number, which that of its successor is too."""

    is_ready = False

    def __init__(self, index: int, start: WorkerStart) -> None:
        """Start it. :raises OutputError: the system has no room for it."""
        self.index, self.begun = index, time.monotonic()
        theirs, self._control = os.pipe()
        self.fd, ready = os.pipe()
        fds = (start.listener, start.state, theirs, ready)
        try:
            self.process = subprocess.Popen(
                [*start.argv, str(index), *map(str, fds)], stdin=subprocess.DEVNULL, pass_fds=fds,
                start_new_session=True,  # Ctrl-C is for this process, which passes it on
            )  # fmt: skip
        except OSError as error:
            os.close(self.fd)
            os.close(self._control)
            raise OutputError(f"no server process can be started: {error.strerror}") from error
        finally:
            os.close(theirs)
            os.close(ready)

    def end(self) -> str:
        """Close what belongs to the process, which is ending, and return how it ended."""
        os.close(self.fd)
        os.close(self._control)
        try:
            code = self.process.wait(QUICK_END)
        except subprocess.TimeoutExpired:
            self.process.kill()
            code = self.process.wait()
        if code >= 0:
            return f"ended with code {code}"
        with contextlib.suppress(ValueError):
            return f"was ended by {signal.Signals(-code).name}"
        return f"was ended by signal {-code}"


class WorkerPool:
    """Keeps ``count`` workers running. ``grace``: seconds that their answers have when they end."""

    def __init__(self, start: WorkerStart, count: int, grace: float, events: PoolEvents) -> None:
        """Keep the arguments."""
        self._start_of_each, self._count, self._grace, self._events = start, count, grace, events
        self._workers: dict[int, ServerWorker] = {}
        self._quick_ends = dict.fromkeys(range(count), 0)
        self._due = dict.fromkeys(range(count), 0.0)
        """When workers that are not running are to be started."""
        self._signals: list[int] = []
        self._deadline: float | None = None
        """When workers that did not end are killed; None while all is to go on."""
        self._has_begun = False
        self._failure: OutputError | None = None

    def run(self) -> None:
        """Keep the workers running until SIGTERM or SIGINT, and end them; a second SIGINT ends them at once.

        :raises OutputError: they cannot be started, or die again and again.
        """
        with selectors.DefaultSelector() as self._selector, self._noted_signals():
            try:
                while self._deadline is None or self._workers:
                    self._take_step()
            finally:
                self._kill_all()
        if self._failure is not None:
            raise self._failure

    @contextlib.contextmanager
    def _noted_signals(self) -> Iterator[None]:
        """Note signals while the context lasts, and wake the selector for them."""
        reader, writer = os.pipe()
        os.set_blocking(writer, False)
        os.set_blocking(reader, False)

        def note(number: int, _: FrameType | None) -> None:
            """Note the signal."""
            self._signals.append(number)
            with contextlib.suppress(BlockingIOError):
                os.write(writer, b".")

        self._selector.register(reader, selectors.EVENT_READ)
        before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
            os.close(reader)
            os.close(writer)

    def _take_step(self) -> None:
        """Start what is due, wait until something happens, and act on it."""
        for index in [index for index, due in self._due.items() if due <= time.monotonic()]:
            self._start(index)
        for key, _ in self._selector.select(self._find_timeout()):
            data = os.read(key.fd, 64)
            if key.data is not None:
                self._hear(key.data, data)
        while self._signals:
            number = self._signals.pop(0)
            if self._deadline is None:
                self._end_all(signal.SIGTERM, self._grace + END_MARGIN)
            elif number == signal.SIGINT:
                self._end_all(signal.SIGINT, QUICK_END)
        if self._deadline is not None and time.monotonic() >= self._deadline:
            self._kill_all()

    def _find_timeout(self) -> float | None:
        """Return for how many seconds nothing is to be done; None where nothing is planned."""
        times = [*self._due.values(), *([] if self._deadline is None else [self._deadline])]
        return max(0.0, min(times) - time.monotonic()) if times else None

    def _start(self, index: int) -> None:
        """Start the worker ``index``. :raises OutputError: it cannot be, and none was ready before."""
        del self._due[index]
        try:
            worker = ServerWorker(index, self._start_of_each)
        except OutputError as error:
            if not self._has_begun:
                raise
            self._events.on_death(index, error.message)
            self._plan_restart(index, was_ready=False, is_quick=True)
            return
        self._workers[index] = worker
        self._selector.register(worker.fd, selectors.EVENT_READ, worker)

    def _hear(self, worker: ServerWorker, data: bytes) -> None:
        """Act on what came from ``worker``: it is ready, or dead."""
        if data:
            worker.is_ready = True
            if not self._has_begun and sum(each.is_ready for each in self._workers.values()) == self._count:
                self._has_begun = True
                self._events.on_ready()
            return
        self._selector.unregister(worker.fd)
        del self._workers[worker.index]
        how = f"server process {worker.process.pid} {worker.end()}"
        if self._deadline is not None or self._signals:
            self._events.on_death(worker.index, "")
            return
        self._events.on_death(worker.index, f"{how}; another takes its place" if self._has_begun else how)
        if not self._has_begun:
            self._fail(f"{how} before it was ready")
            return
        is_quick = time.monotonic() - worker.begun < STEADY
        self._plan_restart(worker.index, was_ready=worker.is_ready, is_quick=is_quick)
        if is_quick and self._is_hopeless(worker):
            self._fail(f"server processes die again and again; the last, {how}")

    def _plan_restart(self, index: int, *, was_ready: bool, is_quick: bool) -> None:
        """Let the worker ``index`` be started again: soon, and later each time that it died at once."""
        count = self._quick_ends[index] = self._quick_ends[index] + 1 if is_quick else 0
        pause = 0.0 if count == 0 or (count == 1 and was_ready) else min(0.25 * 2**count, LONGEST_PAUSE)
        self._due[index] = time.monotonic() + pause

    def _is_hopeless(self, worker: ServerWorker) -> bool:
        """Return whether ``worker`` died at once too often.

        Where it cannot become ready, and others serve, it is tried on: the fleet's file may have faults for a while.
        """
        is_served = any(each.is_ready for each in self._workers.values())
        return self._quick_ends[worker.index] >= MOST_QUICK_ENDS and (worker.is_ready or not is_served)

    def _fail(self, reason: str) -> None:
        """End all, for ``reason``."""
        self._failure = OutputError(reason)
        self._end_all(signal.SIGTERM, self._grace + END_MARGIN)

    def _end_all(self, number: signal.Signals, seconds: float) -> None:
        """Send the signal ``number`` to all workers, and give them so many ``seconds``."""
        self._due.clear()
        if self._deadline is None:
            self._events.on_stop()
        self._deadline = time.monotonic() + seconds
        for worker in self._workers.values():
            worker.process.send_signal(number)

    def _kill_all(self) -> None:
        """End what is running still."""
        for worker in list(self._workers.values()):
            worker.process.kill()
            self._selector.unregister(worker.fd)
            worker.end()
        self._workers.clear()
