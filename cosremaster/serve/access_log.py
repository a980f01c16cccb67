"""The access log: a JSON object in a line for each answer, written by a thread, so that no answer waits for it."""

from __future__ import annotations

import json
import queue
import threading
import time
from collections.abc import Callable
from typing import Any

LONGEST_QUEUE = 10_000
"""Lines that wait to be written. What comes above that is counted and lost: the log never holds an answer up."""


class AccessLog:
    """Writes lines by ``write``, which gets whole lines, several at once."""

    def __init__(self, write: Callable[[str], object]) -> None:
        """Begin to write."""
        self._write = write
        self._queue: queue.Queue[dict[str, Any] | None] = queue.Queue(LONGEST_QUEUE)
        self.lost = 0
        self._thread = threading.Thread(target=self._write_lines, name="access log", daemon=True)
        self._thread.start()

    def add(self, event: str, **values: Any) -> None:
        """Add a line: the time, the ``event``, and those of ``values`` that are not None."""
        line = {"time": time.time(), "event": event}
        line.update({name: value for name, value in values.items() if value is not None})
        try:
            self._queue.put_nowait(line)
        except queue.Full:
            self.lost += 1

    def _write_lines(self) -> None:
        """Write lines until there are no more."""
        is_open = True
        while is_open:
            lines = [self._queue.get()]
            while not self._queue.empty() and len(lines) < LONGEST_QUEUE:
                lines.append(self._queue.get())
            is_open = lines[-1] is not None
            text = "".join([_format_line(line) for line in lines if line is not None])
            if not text:
                continue
            try:
                self._write(text)
            except OSError:
                self.lost += len(lines)

    def close(self) -> None:
        """Write what waits, and end."""
        self._queue.put(None)
        self._thread.join()


def _format_line(line: dict[str, Any]) -> str:
    """Return ``line`` as JSON, the time as UTC."""
    seconds = line["time"]
    text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    return json.dumps({**line, "time": f"{text}.{int(seconds * 1000) % 1000:03}Z"}, separators=(",", ":")) + "\n"
