"""Counts of what was served, and as Prometheus reads them (text-based exposition format 0.0.4).

They are numbers in a row of memory, of which each worker process has its own and reads those of all. A row stays when
its process dies, so that what was counted never becomes less.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_COUNTERS = (
    *("sent_bytes", "cut", "refused_tokens", "refused_clients", "plans_made", "plans_failed"),
    *("planning_microseconds", "lost_lines"),
)
_GAUGES = ("is_accepting", "connections", "in_progress", "planned_sites")
_NUMBERS = (*_COUNTERS, *_GAUGES)
_METHODS = ("GET", "HEAD", "other")
_STATUSES = 600
_BUCKETS = 1024
"""Numbers of a row by which connections are counted for each client, whose bucket is a hash of its address."""

_FIRST_ANSWERS = len(_NUMBERS)
_FIRST_BUCKET = _FIRST_ANSWERS + len(_METHODS) * _STATUSES

CELL = 8
"""Bytes of a number."""
ROW = _FIRST_BUCKET + _BUCKETS
"""Numbers of a row."""

_TEXTS = {
    "sent_bytes_total": ("counter", "Bytes of bodies that were sent.", "sent_bytes"),
    "answers_in_progress": ("gauge", "Answers that are being sent.", "in_progress"),
    "answers_cut_total": ("counter", "Answers that were cut.", "cut"),
    "refused_tokens_total": ("counter", "Requests with a token that does not count.", "refused_tokens"),
    "refused_connections_total": ("counter", "Connections above a limit.", "refused_clients"),
    "planned_sites": ("gauge", "Sites whose images are planned and kept.", "planned_sites"),
    "plans_total": ("counter", "Images that were planned.", "plans_made"),
    "plan_failures_total": ("counter", "Images that could not be planned.", "plans_failed"),
    "planning_seconds_total": ("counter", "Time that planning took.", "planning_microseconds"),
    "log_lines_lost_total": ("counter", "Lines of the log that could not be written.", "lost_lines"),
}
"""Kind, help and number of a metric by its name."""


class _Number:
    """An attribute that is a number in the row of its :class:`Metrics`."""

    def __set_name__(self, owner: type, name: str) -> None:
        """Take the place of ``name`` in a row."""
        self._place = _NUMBERS.index(name)

    def __get__(self, metrics: Metrics, owner: type) -> int:
        """Return the number."""
        return metrics.own[self._place]

    def __set__(self, metrics: Metrics, value: int) -> None:
        """Change the number."""
        metrics.own[self._place] = value


class Metrics:
    """Counts since the start, and what is now. Only the thread of the event loop changes what answers change."""

    sent_bytes, cut, refused_tokens, refused_clients = _Number(), _Number(), _Number(), _Number()
    plans_made, plans_failed, planning_microseconds, lost_lines = _Number(), _Number(), _Number(), _Number()
    is_accepting, connections, in_progress, planned_sites = _Number(), _Number(), _Number(), _Number()

    def __init__(self, rows: Sequence[memoryview] = (), own: int = 0) -> None:
        """Count in row ``own`` of the ``rows``, those of all processes; without any, for this process alone."""
        self.rows = tuple(rows) or (memoryview(bytearray(ROW * CELL)).cast("q"),)
        self.own = self.rows[own]
        self.others = tuple(row for number, row in enumerate(self.rows) if number != own)

    @property
    def answers(self) -> Counter[tuple[str, int]]:
        """The answers of this process by method and status."""
        return _read_answers([self.own])

    def count_answer(self, method: str, status: int, sent: int) -> None:
        """Count an answer with ``sent`` bytes of a body."""
        own = self.own
        own[0] += sent  # sent_bytes
        own[_FIRST_ANSWERS + (0 if method == "GET" else 1 if method == "HEAD" else 2) * _STATUSES + status] += 1

    def add_connection(self, client: int, count: int) -> None:
        """Count ``count`` more connections, of the client with the hash ``client``."""
        self.own[_FIRST_BUCKET + client % _BUCKETS] += count
        self.connections += count

    def count_elsewhere(self, client: int) -> int:
        """Return how many connections the client with the hash ``client`` has in other processes."""
        place = _FIRST_BUCKET + client % _BUCKETS
        return sum(row[place] for row in self.others)

    def total(self, name: str) -> int:
        """Return the number ``name`` of all processes."""
        place = _NUMBERS.index(name)
        return sum(row[place] for row in self.rows)

    def fewest_elsewhere(self) -> int | None:
        """Return the connections of the other process that has the fewest; None where no other takes any."""
        accepting, connections = _NUMBERS.index("is_accepting"), _NUMBERS.index("connections")
        return min((row[connections] for row in self.others if row[accepting]), default=None)

    def end_process(self) -> None:
        """Forget what was now in a process that is no more; what it counted stays."""
        for place in (*range(len(_COUNTERS), _FIRST_ANSWERS), *range(_FIRST_BUCKET, ROW)):
            self.own[place] = 0

    def lines(self, gauges: dict[str, tuple[str, int]]) -> Iterator[str]:
        """Yield the lines, for all processes; ``gauges``: help and value of further metrics by their names."""
        yield "# HELP cosremaster_answers_total Answers by method and status."
        yield "# TYPE cosremaster_answers_total counter"
        for (method, status), count in sorted(_read_answers(self.rows).items()):
            yield f'cosremaster_answers_total{{method="{method}",status="{status}"}} {count}'
        for name, (text, value) in gauges.items():
            yield from _format_number(name, "gauge", text, value)
        for name, (kind, text, number) in _TEXTS.items():
            total = self.total(number)
            yield from _format_number(name, kind, text, total / 1e6 if number == "planning_microseconds" else total)


def _format_number(name: str, kind: str, text: str, value: float) -> Iterator[str]:
    """Yield the lines of a metric."""
    yield f"# HELP cosremaster_{name} {text}"
    yield f"# TYPE cosremaster_{name} {kind}"
    yield f"cosremaster_{name} {value:g}" if isinstance(value, float) else f"cosremaster_{name} {value}"


def _read_answers(rows: Sequence[memoryview]) -> Counter[tuple[str, int]]:
    """Return the answers in ``rows`` by method and status."""
    answers = Counter[tuple[str, int]]()
    for row in rows:
        for place, count in enumerate(row[_FIRST_ANSWERS:_FIRST_BUCKET].tolist()):
            if count:
                answers[_METHODS[place // _STATUSES], place % _STATUSES] += count
    return answers
