"""Progress that measures: how fast each kind of work is, and so how long the whole run will take.

The plan of a run says how many bytes of each kind of work are ahead (:func:`cosremaster.progress.expect_work`).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import Protocol

from cosremaster.progress import COPY, DECODE, ENCODE, OTHER, PLAN, PROOF, READ, SUM, Advance
from cosremaster.progress.events import Basis, Moved, Printed, ProgressEvent, StepBegan, StepEnded, Warned
from cosremaster.records.tuples import NamedTuple

INTERVAL = 1.0
"""Seconds between two events of the state."""

LEAST_BYTES, LEAST_SECONDS = 1 << 20, 0.02
"""Work from which on a rate is worth remembering."""

_FIRST = 0.2
"""Seconds of a step before which its own rate says nothing."""

_PROPORTIONS = {COPY: 1000.0, PROOF: 600.0, SUM: 400.0, READ: 400.0, DECODE: 50.0, ENCODE: 10.0, OTHER: 400.0}
"""How the rates of kinds relate, roughly: with them a rate is guessed that was never measured."""

_EXPANSION = 3
"""Until the plan is made, and where no earlier run tells better, so many bytes are taken to be encoded for each packed
one that is decoded: all of a layer."""

SHARE, _SHARE_UNIT = "share", 1000
"""Not a rate, but remembered with them: the time that encoding took, in thousandths of that of decoding, by the method
of decoding. Most runs change little of a layer, and those of one machine are like each other."""

_SMALL_SHARE = 0.05
"""Work that takes a smaller share of what is left does not make the estimate of it worse."""

_JITTER = 5.0
"""Percent by which the share of what is done does not fall because a rate changed."""

_RANKS: tuple[Basis, ...] = ("measured", "remembered", "guessed")


class Rates(Protocol):
    """Where rates are remembered between runs: bytes in a second, by kind and method of work."""

    def load(self) -> dict[tuple[str, str], float]:
        """Return the rates that are remembered."""
        ...

    def store(self, rates: dict[tuple[str, str], float]) -> None:
        """Remember ``rates``, beside others."""
        ...


class Estimate(NamedTuple):
    """How long work will take, and of which rates that is made; None where nothing was ever measured."""

    seconds: float
    basis: Basis


class _Step:
    """A step that runs: call it with the number of bytes that were processed."""

    __slots__ = ("kind", "method", "processed", "skipped", "start", "title", "total")

    def __init__(self, title: str, total: int | None, kind: str, method: str) -> None:
        """Begin it now."""
        self.title, self.total, self.kind, self.method = title, total, kind, method
        self.processed = self.skipped = 0
        self.start = time.monotonic()

    def __call__(self, count: int) -> None:
        """Count processed bytes."""
        self.processed += count

    def skip(self, count: int) -> None:
        """Count bytes that need no work."""
        self.skipped += count

    @property
    def work(self) -> int | None:
        """The bytes of work in all."""
        return None if self.total is None else max(self.total - self.skipped, self.processed)

    @property
    def rate(self) -> float | None:
        """Bytes in a second so far; None where that is too early to say."""
        seconds = time.monotonic() - self.start
        return self.processed / seconds if self.processed and seconds >= _FIRST else None


class MeasuredProgress:
    """Progress that calls ``report`` with :data:`events <cosremaster.progress.events.ProgressEvent>`.

    These are true from the first second: what counts are bytes fed to encoders and decoders, copied and read again,
    and the time that is left is that of the whole run. ``report`` is called on another thread too, each ``interval``
    seconds; None for the steps alone. ``rates``: remembers rates for the next run.
    """

    def __init__(
        self, report: Callable[[ProgressEvent], None], *, interval: float | None = INTERVAL, rates: Rates | None = None
    ) -> None:
        """Begin before the first step."""
        self._report, self._interval, self._store = report, interval, rates
        self._lock = threading.Lock()
        self._steps: list[_Step] = []
        self._last: _Step | None = None
        self._ahead: dict[str, int] = {}
        self._measured: dict[tuple[str, str], tuple[int, float]] = {}
        self._remembered: dict[tuple[str, str], float] = {}
        self._depth, self._percent = 0, 0.0
        self._start = time.monotonic()
        self._ticker: _Ticker | None = None

    @contextmanager
    def run(self) -> Iterator[None]:
        """Begin a run, or a part of one."""
        with self._lock:
            self._depth += 1
            if self._depth == 1:
                self._begin()
        try:
            yield
        finally:
            with self._lock:
                self._depth -= 1
                ticker = self._ticker if not self._depth else None
            if ticker is not None:
                ticker.stop()
            if not self._depth:
                self._end()

    def _begin(self) -> None:
        """Begin the outermost run: load what is remembered, and let the state be reported."""
        self._start, self._percent = time.monotonic(), 0.0
        self._ahead, self._measured = {}, {}
        self._remembered = {} if self._store is None else self._store.load()
        self._ticker = None if self._interval is None else _Ticker(self._interval, self._tick)

    def _end(self) -> None:
        """End the outermost run: what was measured well enough is remembered."""
        rates = {
            key: count / seconds
            for key, (count, seconds) in self._measured.items()
            if count >= LEAST_BYTES and seconds >= LEAST_SECONDS
        }
        rates |= self._measure_share()
        if rates and self._store is not None:
            self._store.store(rates)

    def _measure_share(self) -> dict[tuple[str, str], float]:
        """Return how long encoding took beside decoding, where enough was decoded and the plan was made."""
        decoded = {key: value for key, value in self._measured.items() if key[0] == DECODE}
        seconds = sum(spent for _, spent in decoded.values())
        if self._ahead.get(PLAN) != 0 or seconds < LEAST_SECONDS:
            return {}
        (_, method), (count, _) = max(decoded.items(), key=lambda item: item[1])
        encoding = sum(spent for (kind, _), (_, spent) in self._measured.items() if kind == ENCODE)
        return {(SHARE, method): max(encoding / seconds * _SHARE_UNIT, 1.0)} if count >= LEAST_BYTES else {}

    def expect(self, kind: str, count: int) -> None:
        """Take over that ``count`` bytes of work of a ``kind`` will follow."""
        with self._lock:
            self._ahead[kind] = max(count, 0)

    def step(self, title: str, total: int | None) -> AbstractContextManager[Advance]:
        """Begin a step of other work."""
        return self.work(title, total, OTHER, "")

    @contextmanager
    def work(self, title: str, total: int | None, kind: str, method: str) -> Iterator[Advance]:
        """Begin a step of work of a ``kind``."""
        with self.run():
            step = self._begin_step(title, total, kind, method)
            is_whole = False
            try:
                yield step
                is_whole = True
            finally:
                self._end_step(step, is_whole=is_whole)

    def warn(self, message: str) -> None:
        """Report a warning."""
        self._report(Warned(message=message))

    def show(self, name: str, line: str) -> None:
        """Report a line that a script printed."""
        self._report(Printed(script=name, line=line))

    def _begin_step(self, title: str, total: int | None, kind: str, method: str) -> _Step:
        """Begin a step, whose work is no longer ahead."""
        step = _Step(title, total, kind, method)
        with self._lock:
            self._steps.append(step)
            self._last = step
            if kind != ENCODE:  # of streams inside others that would count twice
                self._ahead[kind] = max(self._ahead.get(kind, 0) - (total or 0), 0)
        self._report(StepBegan(title=title, kind=kind, total=total))
        return step

    def _end_step(self, step: _Step, *, is_whole: bool) -> None:
        """Remove a step, and add its work to what is measured."""
        seconds = time.monotonic() - step.start
        with self._lock:
            self._steps.remove(step)
            if step.processed:
                count, before = self._measured.get((step.kind, step.method), (0, 0.0))
                self._measured[step.kind, step.method] = (count + step.processed, before + seconds)
        if is_whole:
            self._report(
                StepEnded(
                    title=step.title, kind=step.kind, processed=step.processed, skipped=step.skipped, seconds=seconds
                )
            )

    def _tick(self) -> None:
        """Report the state."""
        self._report(self.state())

    def state(self) -> Moved:
        """Return the state of the run."""
        with self._lock:
            steps, step = tuple(self._steps), self._steps[-1] if self._steps else self._last
            expected = dict(self._ahead)
        spent = time.monotonic() - self._start
        estimate = self._estimate_left(steps, expected)
        if estimate is not None and spent + estimate.seconds > 0:
            share = min(100 * spent / (spent + estimate.seconds), 99.9)
            is_jitter = share > self._percent - _JITTER  # else there is more work than was known
            self._percent = max(self._percent, share) if is_jitter else share
        percent, seconds, basis = (None, None, None) if estimate is None else (self._percent, *estimate)
        return Moved(
            title="" if step is None else step.title, kind=OTHER if step is None else step.kind,
            processed=0 if step is None else step.processed, skipped=0 if step is None else step.skipped,
            total=None if step is None else step.work, rate=step.rate if steps and step is not None else None,
            seconds=spent, percent=percent, seconds_left=seconds, basis=basis, is_planned=not expected.get(PLAN),
        )  # fmt: skip

    def _estimate_left(self, steps: tuple[_Step, ...], expected: dict[str, int]) -> Estimate | None:
        """Return how long ``steps`` and what is ``expected`` will take; None where nothing was measured."""
        parts: list[Estimate | None] = []
        for step in steps:
            work, rate = step.work, step.rate
            if work is None:
                continue
            if step.kind == DECODE and work <= step.processed:
                return None  # all is read, which is done ahead, and nobody knows how much of it waits to be decoded
            if rate is not None:
                parts.append(Estimate((work - step.processed) / rate, "measured"))
            elif work > step.processed:
                parts.append(self.estimate(step.kind, step.method, work - step.processed))
        ahead = {kind: count for kind, count in expected.items() if count and kind != PLAN}
        decoding = sum(step.total or 0 for step in steps if step.kind == DECODE) + ahead.get(DECODE, 0)
        if expected.get(PLAN) and not decoding and not self._has_packed(steps):
            return None  # the large part of the work is not known yet
        if expected.get(PLAN) and decoding and ENCODE not in ahead:
            parts.append(self._guess_encoding(steps, decoding))
        parts += [self.estimate(kind, "", count) for kind, count in ahead.items()]
        if not all(parts) or not parts:
            return None
        estimates = [part for part in parts if part is not None]
        seconds = sum(part.seconds for part in estimates)
        large = [part.basis for part in estimates if part.seconds >= _SMALL_SHARE * seconds]
        return Estimate(seconds, max(large, key=_RANKS.index))

    def _guess_encoding(self, steps: tuple[_Step, ...], decoding: int) -> Estimate | None:
        """Return about how long encoding will take, of which nobody knows yet how much there is.

        As in an earlier run; without one, as if all were encoded that is behind ``decoding`` packed bytes.
        """
        methods = [step.method for step in steps if step.kind == DECODE]
        share = next(
            (self._remembered[SHARE, method] for method in methods if (SHARE, method) in self._remembered), None
        )
        if share is None:
            most = self.estimate(ENCODE, "", _EXPANSION * decoding)
            return None if most is None else most._replace(basis="guessed")
        reading = self.estimate(DECODE, methods[0], decoding)
        return None if reading is None else Estimate(reading.seconds * share / _SHARE_UNIT, "guessed")

    def _has_packed(self, steps: tuple[_Step, ...]) -> bool:
        """Return whether one of ``steps``, or one before them, encodes."""
        with self._lock:
            return any(step.kind == ENCODE for step in steps) or any(kind == ENCODE for kind, _ in self._measured)

    def estimate(self, kind: str, method: str, count: int) -> Estimate | None:
        """Return how long ``count`` bytes of work of a ``kind`` take; an empty ``method`` is any."""
        measured = self._measured_rates()
        for rates, basis in ((measured, _RANKS[0]), (self._remembered, _RANKS[1])):
            rate = rates.get((kind, method)) or _mean_rate(rates, kind)
            if rate:
                return Estimate(count / rate, basis)
        for (other, _), rate in measured.items():
            return Estimate(count / rate * _PROPORTIONS.get(other, 1.0) / _PROPORTIONS.get(kind, 1.0), "guessed")
        return None

    def _measured_rates(self) -> dict[tuple[str, str], float]:
        """Return the rates of this run, those of running steps too."""
        with self._lock:
            running = {(step.kind, step.method): step.rate for step in self._steps}
            ended = {key: count / seconds for key, (count, seconds) in self._measured.items() if seconds > 0}
        return ended | {key: rate for key, rate in running.items() if rate is not None}


def _mean_rate(rates: dict[tuple[str, str], float], kind: str) -> float | None:
    """Return the rate of any method of ``kind``; of several the lowest, so that an estimate promises nothing."""
    return min((rate for (other, _), rate in rates.items() if other == kind), default=None)


class _Ticker:
    """Calls a function at intervals, on a thread of its own."""

    def __init__(self, interval: float, call: Callable[[], None]) -> None:
        """Start the thread."""
        self._interval, self._call = interval, call
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="cosremaster-progress", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        """Call until somebody stops it, or nobody hears it any more."""
        with suppress(OSError, ValueError):  # standard error was closed
            while not self._ended.wait(self._interval):
                self._call()

    def stop(self) -> None:
        """End the thread."""
        self._ended.set()
        self._thread.join()
