"""Progress that records how much work of each kind was done and how long it took, and passes everything on."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

from cosremaster.progress import OTHER, Advance, Progress, ShowsOutput, begin_work, expect_work, running, skip_bytes


class _CountingAdvance:
    """Counts the bytes of work of a step, and passes them on."""

    def __init__(self, advance: Advance) -> None:
        """Begin without bytes; ``advance`` gets their numbers."""
        self._advance = advance
        self.count = 0

    def __call__(self, count: int) -> None:
        """Count processed bytes."""
        self.count += count
        self._advance(count)

    def skip(self, count: int) -> None:
        """Pass on bytes that need no work."""
        skip_bytes(self._advance, count)


class RecordingProgress:
    """Progress that passes everything on to ``progress``; implements ``MeasuresRuns``."""

    def __init__(self, progress: Progress) -> None:
        """Begin without work."""
        self._progress = progress
        self._lock = threading.Lock()
        self.work_times: dict[tuple[str, str], tuple[int, float]] = {}
        """Bytes of work and seconds, by kind and method."""

    def run(self) -> AbstractContextManager[None]:
        """Begin a run."""
        return running(self._progress)

    def expect(self, kind: str, count: int) -> None:
        """Pass on that ``count`` bytes of work of a ``kind`` will follow."""
        expect_work(self._progress, kind, count)

    @contextmanager
    def work(self, title: str, total: int | None, kind: str, method: str) -> Iterator[Advance]:
        """Begin a step of work of a ``kind``."""
        with begin_work(self._progress, title, total, kind, method) as advance:
            counting, start = _CountingAdvance(advance), time.monotonic()
            yield counting
            seconds = time.monotonic() - start
        with self._lock:
            count, before = self.work_times.get((kind, method), (0, 0.0))
            self.work_times[kind, method] = (count + counting.count, before + seconds)

    def step(self, title: str, total: int | None) -> AbstractContextManager[Advance]:
        """Begin a step of other work."""
        return self.work(title, total, OTHER, "")

    def show(self, name: str, line: str) -> None:
        """Pass on a line that a script printed."""
        if isinstance(self._progress, ShowsOutput):
            self._progress.show(name, line)

    def warn(self, message: str) -> None:
        """Pass on a warning."""
        self._progress.warn(message)
