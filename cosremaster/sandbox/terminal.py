"""The user's terminal and the terminal of a shell inside, with bytes passed on between them.

The shell never holds the user's own terminal, so nothing inside can put input into it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import termios
import tty
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any

_BLOCK = 1 << 14


class TerminalRelay:
    """Passes bytes between this process's standard streams and ``master``, a terminal inside, which it closes.

    While its context lasts, the user's terminal passes each key on as it is, Ctrl-C too.
    """

    def __init__(self, master: int) -> None:
        """Take over ``master``."""
        self._master = master
        self._saved: list[Any] | None = None
        self._old_handler: Callable[[int, FrameType | None], Any] | int | None = None
        self.descriptors = {0, master}

    def __enter__(self) -> TerminalRelay:
        """Begin to pass on."""
        self._saved = termios.tcgetattr(0)
        tty.setraw(0)
        self._copy_size()
        with contextlib.suppress(ValueError):  # a thread that is not the main one gets no signals
            self._old_handler = signal.signal(signal.SIGWINCH, lambda number, frame: self._copy_size())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Give the terminal back as it was."""
        if self._old_handler is not None:
            signal.signal(signal.SIGWINCH, self._old_handler)
        assert self._saved is not None
        termios.tcsetattr(0, termios.TCSADRAIN, self._saved)
        os.close(self._master)

    def _copy_size(self) -> None:
        """Give the terminal inside the size of the user's."""
        with contextlib.suppress(OSError):
            fcntl.ioctl(self._master, termios.TIOCSWINSZ, fcntl.ioctl(0, termios.TIOCGWINSZ, bytes(8)))

    def pass_on(self, fd: int) -> None:
        """Pass on what can be read from ``fd``, one of :attr:`descriptors`; one that ends is no longer among them."""
        try:
            data = os.read(fd, _BLOCK)
        except OSError:  # EIO: nobody inside has the terminal open any more
            data = b""
        if not data:
            self.descriptors.discard(fd)
        target, view = (self._master if fd == 0 else 1), memoryview(data)
        while view:
            try:
                view = view[os.write(target, view) :]
            except OSError:
                return
