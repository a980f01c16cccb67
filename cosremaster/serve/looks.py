"""Looks at the files and folders that sites are made of: what several have in common is looked at once for all."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from weakref import WeakValueDictionary

from cosremaster.errors import CosremasterError
from cosremaster.io.remote import RemoteSource
from cosremaster.io.urls import AbsentFileError, ChangedFileError
from cosremaster.lazy_log import LazyLogger
from cosremaster.records.tuples import NamedTuple
from cosremaster.serve.fingerprint import Fingerprint, take_fingerprint

LONGEST_WAIT = 5.0
"""Seconds for which is waited until a server says whether a file is still the same."""
EARLY = 0.75
"""The part of the time for which a look counts, after which a quick one may be taken again, before anybody waits."""


_SAME, _CHANGED = Fingerprint(b"same", 0), Fingerprint(b"changed", 0)
_LOG = LazyLogger(__name__)


class Look(NamedTuple):
    """What was seen. It counts before ``until``; from ``renewal`` on it is worth another (both of time.monotonic)."""

    state: Fingerprint
    renewal: float
    until: float


class Pace(NamedTuple):
    """How often is looked: a look counts for ``interval`` seconds, or ``share`` times as long as it took."""

    interval: float
    share: float


class Watched:
    """A file or folder of this machine. Threads may share it."""

    __slots__ = ("__weakref__", "_last", "_lock", "path")

    def __init__(self, path: Path) -> None:
        """Begin without a look."""
        self.path = path
        self._lock = threading.Lock()
        self._last: Look | None = None

    def look(self, pace: Pace) -> Look:
        """Return the last look; where it is worth another, or there was none, another."""
        with self._lock:
            if self._last is not None and time.monotonic() < self._last.renewal:
                return self._last
            return self._look(pace)

    def look_again(self, pace: Pace) -> Look:
        """Return a look that begins now."""
        with self._lock:
            return self._look(pace)

    def _look(self, pace: Pace) -> Look:
        """Look."""
        begun = time.monotonic()
        state = take_fingerprint([self.path])
        now = time.monotonic()
        duration, early = pace.share * (now - begun), EARLY * pace.interval
        until = now + max(pace.interval, duration)
        self._last = Look(state, now + early if duration <= early else until, until)
        return self._last


class WatchedUrl:
    """A file on another machine, which a thread asks for: nobody waits long for a server. Threads may share it."""

    def __init__(self, source: RemoteSource, interval: float) -> None:
        """Begin with ``source`` as it was just opened; an answer counts for ``interval`` seconds."""
        self._source, self._interval = source, interval
        self._lock = threading.Lock()
        self._asking: threading.Event | None = None
        self._answer = self._make_look(_SAME)

    def look(self, _: Pace) -> Look:
        """Return what the server said last. Where that is too old it is asked; if it says nothing, nothing changed."""
        with self._lock:
            if time.monotonic() < self._answer.renewal or self.is_changed:
                return self._answer
            if self._asking is None:
                self._asking = threading.Event()
                threading.Thread(target=self._ask, args=(self._asking,), name="ask", daemon=True).start()
            asking = self._asking
        if time.monotonic() >= self._answer.until and not asking.wait(LONGEST_WAIT):
            with self._lock:
                self._answer = self._make_look(self._answer.state)
        return self._answer

    @property
    def is_changed(self) -> bool:
        """Whether the server has another file now, or none."""
        return self._answer.state == _CHANGED

    def _ask(self, asked: threading.Event) -> None:
        """Ask the server, note what it says, and end the waiting of others."""
        state = _SAME
        try:
            self._source.check_current()
        except (AbsentFileError, ChangedFileError):
            state = _CHANGED
        except CosremasterError as error:
            _LOG.info("a base is asked for in vain: %s", error)
        with self._lock:
            self._answer, self._asking = self._make_look(state), None
        asked.set()

    def _make_look(self, state: Fingerprint) -> Look:
        """Return ``state`` as what was seen now."""
        now = time.monotonic()
        return Look(state, now + EARLY * self._interval, now + self._interval)


class WatchedFiles:
    """Files and folders that are looked at while somebody holds them: once, whoever asks. Threads may share it."""

    def __init__(self) -> None:
        """Begin without any."""
        self._lock = threading.Lock()
        self._files: WeakValueDictionary[Path, Watched] = WeakValueDictionary()

    def find(self, paths: Iterable[Path]) -> tuple[Watched, ...]:
        """Return those at ``paths``."""
        with self._lock:
            return tuple(self._files.setdefault(path, Watched(path)) for path in paths)


def join_looks(looks: Iterable[Look]) -> Look:
    """Return ``looks`` at several files as one, which counts no longer than each of them."""
    looks = tuple(looks)
    digest = hashlib.sha256(b"".join(look.state.digest for look in looks)).digest()
    state = Fingerprint(digest, max((look.state.changed for look in looks), default=0))
    renewal = min((look.renewal for look in looks), default=0.0)
    return Look(state, renewal, min((look.until for look in looks), default=0.0))
