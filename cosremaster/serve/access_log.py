"""The access log: a JSON object in a line for each answer, written by a thread, so that no answer waits for it.

The thread wakes some times a second. Were it woken by each line, it would take the interpreter's lock from the answers
for each: 64 clients got little more than half of their answers then.
"""

from __future__ import annotations

import json
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

LONGEST_QUEUE = 10_000
"""Lines that wait to be written. What comes above that is counted and lost: the log never holds an answer up."""

GATHERING = 0.05
"""Seconds between the first line that waits and its writing; what comes meanwhile is written together with it."""


class AccessLog:
    """Writes lines by ``write``, which gets whole lines, several at once."""

    def __init__(self, write: Callable[[str], object]) -> None:
        """Begin to write."""
        self._write = write
        self._waiting: deque[dict[str, Any]] = deque()
        self._has_waiting, self._is_closed = threading.Event(), threading.Event()
        self.lost = 0
        self._thread = threading.Thread(target=self._write_lines, name="access log", daemon=True)
        self._thread.start()

    def add(self, event: str, **values: Any) -> None:
        """Add a line: the time, the ``event``, and those of ``values`` that are not None."""
        line = {"time": time.time(), "event": event}
        line.update({name: value for name, value in values.items() if value is not None})
        if len(self._waiting) >= LONGEST_QUEUE:
            self.lost += 1
            return
        self._waiting.append(line)
        if not self._has_waiting.is_set():
            self._has_waiting.set()

    def _write_lines(self) -> None:
        """Write lines until the log is closed."""
        while not self._is_closed.is_set():
            self._has_waiting.wait()
            self._is_closed.wait(GATHERING)
            self._has_waiting.clear()  # what is added from here on sets it again
            self._write_waiting()
        self._write_waiting()

    def _write_waiting(self) -> None:
        """Write the lines that wait."""
        lines = [self._waiting.popleft() for _ in range(len(self._waiting))]
        if not lines:
            return
        try:
            self._write("".join(map(_format_line, lines)))
        except OSError:
            self.lost += len(lines)

    def close(self) -> None:
        """Write what waits, and end."""
        self._is_closed.set()
        self._has_waiting.set()
        self._thread.join()


def _format_line(line: dict[str, Any]) -> str:
    """Return ``line`` as JSON, the time as UTC."""
    seconds = line["time"]
    text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    return json.dumps({**line, "time": f"{text}.{int(seconds * 1000) % 1000:03}Z"}, separators=(",", ":")) + "\n"
