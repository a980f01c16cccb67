"""Counts of what was served, and as Prometheus reads them (text-based exposition format 0.0.4)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Metrics:
    """Counts since the start. Only the thread of the event loop changes them."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self.answers: Counter[tuple[str, int]] = Counter()
        self.sent_bytes = self.in_progress = self.cut = self.refused_tokens = self.refused_clients = 0

    def lines(self, gauges: dict[str, tuple[str, str, float]]) -> Iterator[str]:
        """Yield the lines; ``gauges``: kind, help and value of further metrics by their names."""
        yield "# HELP cosremaster_answers_total Answers by method and status."
        yield "# TYPE cosremaster_answers_total counter"
        for (method, status), count in sorted(self.answers.items()):
            yield f'cosremaster_answers_total{{method="{method}",status="{status}"}} {count}'
        own = {
            "sent_bytes_total": ("counter", "Bytes of bodies that were sent.", self.sent_bytes),
            "answers_in_progress": ("gauge", "Answers that are being sent.", self.in_progress),
            "answers_cut_total": (
                "counter",
                "Answers that were cut.",
                self.cut,
            ),
            "refused_tokens_total": ("counter", "Requests with a token that does not count.", self.refused_tokens),
            "refused_connections_total": ("counter", "Connections above a limit.", self.refused_clients),
        }
        for name, (kind, text, value) in {**own, **gauges}.items():
            yield f"# HELP cosremaster_{name} {text}"
            yield f"# TYPE cosremaster_{name} {kind}"
            yield f"cosremaster_{name} {value:g}" if isinstance(value, float) else f"cosremaster_{name} {value}"
