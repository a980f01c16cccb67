"""Streams made side by side: their order, the bytes in memory, errors and the end."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

import pytest

from cosremaster.io.ordered_streams import ordered_streams


@dataclass
class Scale:
    """Counts the bytes in memory."""

    held: int = 0
    most: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, count: int) -> None:
        """Count bytes that came, or with a negative number left."""
        with self.lock:
            self.held += count
            self.most = max(self.most, self.held)


@dataclass
class Source:
    """A source of ``size`` bytes, each of which makes a part of ``weight`` bytes."""

    number: int
    size: int = 4
    weight: int = 1
    scale: Scale = field(default_factory=Scale)
    pause: float = 0
    loads: list[int] = field(default_factory=list)

    def load(self) -> None:
        """Note who loaded it."""
        self.loads.append(threading.get_ident())
        self.scale.add(self.size)

    def parts(self, release: Callable[[int], None]) -> Iterator[tuple[int, tuple[int, int]]]:
        """Yield numbered parts."""
        for part in range(self.size):
            time.sleep(self.pause)
            release(1)
            self.scale.add(self.weight - 1)
            yield self.weight, (self.number, part)


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("room", [0, 3, 1000])
def test_parts_come_in_order_whatever_the_room(threads: int, room: int) -> None:
    sources = [Source(number, pause=0.001 * (number % 2)) for number in range(12)]
    parts = list(ordered_streams(sources, threads, room))
    assert parts == [(number, part) for number in range(12) for part in range(4)]
    assert {tuple(source.loads) for source in sources} == {(threading.get_ident(),)}


@pytest.mark.parametrize(("size", "weight"), [(10, 10), (100, 10), (10, 1)])
def test_the_bytes_in_memory_are_bounded(size: int, weight: int) -> None:
    """The reader is slow, so that the threads would run far ahead."""
    scale, threads, room = Scale(), 3, 120
    for part in ordered_streams((Source(number, size, weight, scale) for number in range(8)), threads, room):
        time.sleep(0.0005)
        scale.add(-weight)
        assert part
    assert scale.held == 0
    # a part for each thread and for the reader, and the parts of a released byte each
    assert scale.most <= room + (threads + 1) * (weight + 1)


def test_a_stream_is_made_while_the_one_before_is() -> None:
    together = threading.Barrier(2, timeout=10)

    class Meeting(Source):
        def parts(self, release: Callable[[int], None]) -> Iterator[tuple[int, tuple[int, int]]]:
            for size, part in super().parts(release):
                yield size, part
                if part[1] == self.size // 2:
                    together.wait()

    parts = list(ordered_streams([Meeting(number) for number in range(6)], 2, 12))
    assert parts == [(number, part) for number in range(6) for part in range(4)]


def test_a_source_larger_than_the_room_is_loaded_alone() -> None:
    scale = Scale()
    for _ in ordered_streams((Source(number, 50, 1, scale) for number in range(4)), 2, 20):
        scale.add(-1)
    assert scale.most <= 50 + 3


class Failing(Source):
    """Fails behind its first part."""

    def parts(self, release: Callable[[int], None]) -> Iterator[tuple[int, tuple[int, int]]]:
        """Yield a part, and fail."""
        yield 1, (self.number, 0)
        raise KeyError


class Unreadable(Source):
    """Cannot be loaded."""

    def load(self) -> None:
        """Fail."""
        raise KeyError


def _broken_sources() -> Iterator[Source]:
    yield Source(0)
    raise KeyError


@pytest.mark.parametrize(
    ("sources", "parts"),
    [
        (lambda: [Source(0), Failing(1), Source(2)], 5),
        (lambda: [Source(0), Unreadable(1), Source(2)], 4),
        (_broken_sources, 4),
        (lambda: [Unreadable(0)], 0),
    ],
)
def test_errors_come_behind_the_parts_before_them(sources: Callable[[], Iterable[Source]], parts: int) -> None:
    seen: list[tuple[int, int]] = []
    with pytest.raises(KeyError):
        for part in ordered_streams(sources(), 2, 100):
            seen.append(part)
    assert seen == [(0, 0), (0, 1), (0, 2), (0, 3), (1, 0)][:parts]


def test_who_goes_away_ends_the_work() -> None:
    before = set(threading.enumerate())
    parts = ordered_streams((Source(number, 1000) for number in range(50)), 3, 5000)
    assert [next(parts), next(parts)] == [(0, 0), (0, 1)]
    assert set(threading.enumerate()) - before
    parts.close()  # type: ignore[attr-defined]
    for thread in set(threading.enumerate()) - before:
        thread.join(10)
    assert set(threading.enumerate()) <= before
