"""Looks at the files and folders that sites are made of: what several have in common is looked at once for all."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from weakref import WeakValueDictionary

from cosremaster.records.tuples import NamedTuple
from cosremaster.serve.fingerprint import Fingerprint, take_fingerprint

EARLY = 0.75
"""The part of the time for which a look counts, after which a quick one may be taken again, before anybody waits."""


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
