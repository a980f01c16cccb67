"""Signals that end a run, while a file gets its name: they wait until it is known what became of it.

Else Ctrl-C could come between a name on the disk and the note that it is there, and neither would be true.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

_SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1")
"""Those whose handlers may raise; one that has no handler in Python ends the process as ever."""


class _Depth:
    """How many contexts are open on the main thread, and whether signals wait until the last of them ends."""

    opened = 0
    is_held = False


@contextmanager
def finishing_names() -> Iterator[None]:
    """Let signals wait for the end of the context from the moment when :func:`hold_signals` is called in it.

    Until then they come as ever. Signals come to the main thread alone, so others have nothing to wait for.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    import signal  # noqa: PLC0415 - a command that only reads needs none of it

    waiting: list[int] = []
    before: dict[int, Callable[[int, FrameType | None], Any]] = {}

    def receive(number: int, frame: FrameType | None) -> None:
        """Keep the signal where it has to wait, and handle it else."""
        if _Depth.is_held:
            waiting.append(number)
        else:
            before[number](number, frame)

    _Depth.opened += 1
    try:
        for name in _SIGNALS:
            number = getattr(signal, name, None)
            handler = None if number is None else signal.getsignal(number)
            if number is not None and callable(handler):
                before[number] = handler
                signal.signal(number, receive)
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        _Depth.opened -= 1
        if not _Depth.opened:
            _Depth.is_held = False
        for number in waiting:  # in an outer context it waits on
            before[number](number, None)


def hold_signals() -> None:
    """Let signals wait from here on, up to the end of the outermost :func:`finishing_names`, if this is in one."""
    if _Depth.opened and threading.current_thread() is threading.main_thread():
        _Depth.is_held = True
