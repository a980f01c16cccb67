"""The access log: a JSON object in a line for each answer, written by a thread, so that no answer waits for it.

The thread wakes some times a second, and has nothing to do but to write: were it woken by each line, or did it format
lines, it would take the interpreter's lock from the answers, each time for milliseconds.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable
from functools import lru_cache
from json.encoder import encode_basestring_ascii as quote
from typing import TypeAlias

from cosremaster.serve.metrics import Metrics

__all__ = ["AccessLog", "TornLineError", "format_members", "quote", "write_lines"]

Value: TypeAlias = "str | int | float | None"

LONGEST_QUEUE = 10_000
"""Lines that wait to be written. What comes above that is counted and lost: the log never holds an answer up."""

GATHERING = 0.05
"""Seconds between the first line that waits and its writing; what comes meanwhile is written together with it."""


class TornLineError(OSError):
    """A line was written in part."""


def write_lines(fd: int, text: str) -> None:
    """Write ``text``, whole lines, to ``fd``.

    :raises TornLineError: the disk took a part of a line. :raises OSError: it took none, or whole lines alone.
    """
    data = text.encode("utf-8", "backslashreplace")
    start = 0
    try:
        while start < len(data):
            start += os.write(fd, data[start:])
    except OSError as error:
        if start and data[start - 1 : start] != b"\n":
            raise TornLineError(error.errno, error.strerror) from error
        raise


class AccessLog:
    """Writes lines by ``write``, which gets whole lines, several at once. ``metrics`` count those that are lost."""

    def __init__(self, write: Callable[[str], object], metrics: Metrics | None = None) -> None:
        """Begin to write."""
        self._write, self.metrics = write, metrics or Metrics()
        self._waiting: deque[str] = deque()
        self._is_torn = False
        self._has_waiting, self._is_closed = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._write_lines, name="access log", daemon=True)
        self._thread.start()

    def add(self, event: str, **values: Value) -> None:
        """Add a line: the time, the ``event``, and those of ``values`` that are not None."""
        self.add_members(event, format_members(**values))

    def add_members(self, event: str, members: str) -> None:
        """Add a line: the time, the ``event``, and what :func:`format_members` returns, or the same by hand."""
        if len(self._waiting) >= LONGEST_QUEUE:
            self.metrics.lost_lines += 1
            return
        seconds = time.time()
        self._waiting.append(
            f'{{"time":"{_format_second(int(seconds))}.{int(seconds * 1000) % 1000:03}Z","event":"{event}"{members}}}\n'
        )
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
            self._write("".join(("\n" if self._is_torn else "", *lines)))
            self._is_torn = False
        except OSError as error:
            self._is_torn |= isinstance(error, TornLineError)
            self.metrics.lost_lines += len(lines)

    def close(self) -> None:
        """Write what waits, and end."""
        self._is_closed.set()
        self._has_waiting.set()
        self._thread.join()


def format_members(**values: Value) -> str:
    """Return those of ``values`` that are not None as members of a JSON object, each behind a comma.

    It takes a fifth of what json.dumps does.
    """
    return "".join(
        f',"{name}":{quote(value) if isinstance(value, str) else repr(value)}'
        for name, value in values.items()
        if value is not None
    )


@lru_cache(2)
def _format_second(seconds: int) -> str:
    """Return ``seconds`` since 1970 as date and time of the day."""
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
