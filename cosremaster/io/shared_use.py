"""Something that several use at a time, and that closes behind the last of them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from cosremaster.errors import UsageError


class SharedUse:
    """Counts who uses something; ``close`` is called when its owner closed it, and nobody else uses it any more.

    Any thread may use it and end.
    """

    def __init__(self, close: Callable[[], None], noun: str) -> None:
        """Begin with the owner alone; ``noun`` is what messages call it."""
        self._close, self._noun = close, noun
        self._lock = threading.Lock()
        self._count, self._holders, self._is_closed = 1, 0, False

    def begin(self) -> None:
        """Count a new user. :raises UsageError: the owner closed it, and nobody holds it (:meth:`holding`)."""
        with self._lock:
            if self._is_closed and not self._holders:
                raise UsageError(f"{self._noun} is closed")
            self._count += 1

    def end(self) -> None:
        """Count a user less."""
        with self._lock:
            self._count -= 1
            is_last = not self._count
        if is_last:
            self._close()

    @contextmanager
    def using(self) -> Iterator[None]:
        """Use it while the context lasts. :raises UsageError: the owner closed it."""
        self.begin()
        try:
            yield
        finally:
            self.end()

    @contextmanager
    def holding(self) -> Iterator[None]:
        """Let users begin while the context lasts, also once the owner closed it. Raises as :meth:`using`."""
        with self.using():
            with self._lock:
                self._holders += 1
            try:
                yield
            finally:
                with self._lock:
                    self._holders -= 1

    def close(self) -> None:
        """Let no new user begin, but where it is held. The owner calls it, any number of times."""
        with self._lock:
            if self._is_closed:
                return
            self._is_closed = True
        self.end()
