"""Streams that are made on several threads and read one after the other, with a bound on the bytes that wait.

The stream that is read goes on as it is read. Those behind it run ahead as far as there is room. Half a stream for each
of them is enough for all threads to work: when a stream is read to its end, the next one is half made.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Generic, Protocol, TypeVar

from cosremaster.io.parallel import POLL, StopFlag, ThreadPool

Part = TypeVar("Part")
Made_co = TypeVar("Made_co", covariant=True)


class StreamSource(Protocol[Made_co]):
    """What a stream is made from."""

    @property
    def size(self) -> int:
        """The bytes that it has in memory once it is loaded."""
        ...

    def load(self) -> None:
        """Read these bytes; called in order, by the thread that reads the streams."""
        ...

    def parts(self, release: Callable[[int], None]) -> Iterator[tuple[int, Made_co]]:
        """Yield the bytes of each part of the stream, and the part; ``release``: is told how many bytes of the source
        are in memory no longer."""
        ...


def ordered_streams(sources: Iterable[StreamSource[Part]], threads: int, room: int) -> Iterator[Part]:
    """Yield the parts of all streams, in order, made on ``threads`` threads.

    An exception of ``sources`` or of a stream is raised behind the parts before it. When the caller closes the
    iterator, running work ends with its next part.

    :param room: bytes of sources and parts that may be in memory, beside a part for each thread and for the caller. A
        larger source is loaded when nothing else is in memory. The parts of a stream take an even share of the room at
        most: the C library keeps freed memory for the thread that took it.
    """
    streams = _OrderedStreams[Part](threads, room)
    pending = iter(sources)
    source = streams.start(None, pending)
    try:
        while streams.is_busy() or source is not None:
            if source is not None and streams.has_room(source.size):
                source = streams.start(source, pending)
            elif streams.has_part():
                yield streams.take()
            else:
                streams.wait(None if source is None else source.size)
    finally:
        streams.close()


class _OrderedStream(Generic[Part]):
    """A stream that is being made: the parts that wait with their bytes, and what ended it."""

    def __init__(self, loaded: int = 0) -> None:
        """Begin without parts; ``loaded``: the bytes of its source."""
        self.parts: deque[tuple[int, Part]] = deque()
        self.waiting, self.loaded = 0, loaded
        self.has_ended = False
        self.error: BaseException | None = None


class _OrderedStreams(Generic[Part]):
    """The streams that are under way, in order, and the bytes that they have in memory."""

    def __init__(self, threads: int, room: int) -> None:
        """Begin without streams."""
        self._room, self._share = room, room // threads
        self._limit = threads + 1  # one more is loaded for the thread that ends first
        self._pool = ThreadPool(threads)
        self._streams: deque[_OrderedStream[Part]] = deque()
        self._changed = threading.Condition()
        self._stop = StopFlag()
        self._held = 0

    def is_busy(self) -> bool:
        """Return whether there are streams. :raises BaseException: what ended the first, once its parts are taken."""
        with self._changed:
            while self._streams and self._streams[0].has_ended and not self._streams[0].parts:
                error = self._streams.popleft().error
                self._changed.notify_all()
                if error is not None:
                    raise error
            return bool(self._streams)

    def has_room(self, size: int) -> bool:
        """Return whether a source of ``size`` bytes may be loaded."""
        with self._changed:
            return self._admits(size)

    def _admits(self, size: int) -> bool:
        """Return what :meth:`has_room` does; the lock is held."""
        running = sum(not stream.has_ended for stream in self._streams)
        return not self._streams or (running < self._limit and self._held + size <= self._room)

    def start(
        self, source: StreamSource[Part] | None, pending: Iterator[StreamSource[Part]]
    ) -> StreamSource[Part] | None:
        """Load ``source`` and begin its stream; return the next of ``pending``, None behind the last or an error."""
        try:
            if source is not None:
                source.load()
                self._begin(source)
            return next(pending, None)
        except Exception as error:  # of any kind: it is raised behind the parts before it
            failed = _OrderedStream[Part]()
            failed.has_ended, failed.error = True, error
            self._streams.append(failed)
            return None

    def _begin(self, source: StreamSource[Part]) -> None:
        """Let a thread make the stream of ``source``, which is loaded."""
        stream = _OrderedStream[Part](source.size)
        with self._changed:
            self._streams.append(stream)
            self._held += stream.loaded
        self._pool.start(lambda: self._make(stream, source))

    def _make(self, stream: _OrderedStream[Part], source: StreamSource[Part]) -> None:
        """Make ``stream``, and keep its parts or what ended it."""
        try:
            for size, part in source.parts(lambda count: self._release(stream, count)):
                self._put(stream, size, part)
        except BaseException as error:  # of any kind: it is raised where the next part would be
            stream.error = error
        finally:
            with self._changed:
                self._held -= stream.loaded
                stream.loaded, stream.has_ended = 0, True
                self._changed.notify_all()

    def _release(self, stream: _OrderedStream[Part], count: int) -> None:
        """Note that ``count`` bytes of the source of ``stream`` left memory."""
        with self._changed:
            self._held -= count
            stream.loaded -= count
            self._changed.notify_all()

    def _put(self, stream: _OrderedStream[Part], size: int, part: Part) -> None:
        """Add ``part`` to ``stream`` when there is room. :raises CancelledError: nobody reads it any more."""
        with self._changed:
            while not self._stop.is_set and not self._has_room_for(stream, size):
                self._changed.wait()
            self._stop.check()
            stream.parts.append((size, part))
            stream.waiting += size
            self._held += size
            if stream is self._streams[0]:
                self._changed.notify_all()

    def _has_room_for(self, stream: _OrderedStream[Part], size: int) -> bool:
        """Return whether ``size`` bytes more may wait in ``stream``; the lock is held."""
        if stream is self._streams[0] and not stream.waiting:
            return True
        return self._held + size <= self._room and stream.waiting + size <= self._share

    def has_part(self) -> bool:
        """Return whether a part of the first stream waits."""
        return bool(self._streams[0].parts)

    def take(self) -> Part:
        """Return the next part of the first stream, which waits."""
        with self._changed:
            size, part = self._streams[0].parts.popleft()
            self._streams[0].waiting -= size
            self._held -= size
            self._changed.notify_all()
            return part

    def wait(self, size: int | None) -> None:
        """Wait until the first stream has a part or ends, or a source of ``size`` bytes may be loaded; or some time.

        (The kernel may deliver a signal to any thread, and Python handles it in the main thread.)
        """
        with self._changed:
            first = self._streams[0]
            if not (first.parts or first.has_ended or (size is not None and self._admits(size))):
                self._changed.wait(POLL)

    def close(self) -> None:
        """End all work, and wait for its end."""
        self._stop.set()
        self._pool.close()
        with self._changed:
            self._changed.notify_all()
            while not all(stream.has_ended for stream in self._streams):
                self._changed.wait(POLL)
