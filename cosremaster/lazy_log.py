"""Loggers of the standard library that cost nothing where nobody listens.

``logging`` takes as long to load as a whole listing does. Who wants messages has loaded it: a program that sets up a
handler, or the command with ``-v``. Where it is not loaded there are no handlers, so nothing is lost.
"""

from __future__ import annotations

import sys


class LazyLogger:
    """What ``logging.getLogger(name)`` returns, as far as it is used here; the logger is asked for at each message."""

    __slots__ = ("_name",)

    def __init__(self, name: str) -> None:
        """Remember the name of the logger, that of a module."""
        self._name = name

    def info(self, message: str, *values: object) -> None:
        """Log what somebody who waits wants to know; ``values`` are put into ``message`` only if it is shown."""
        get_logger = getattr(sys.modules.get("logging"), "getLogger", None)  # another thread may just be loading it
        if get_logger is not None:
            get_logger(self._name).info(message, *values, stacklevel=2)

    def debug(self, message: str, *values: object) -> None:
        """Log what somebody who looks for a fault wants to know; as :meth:`info`."""
        get_logger = getattr(sys.modules.get("logging"), "getLogger", None)  # another thread may just be loading it
        if get_logger is not None:
            get_logger(self._name).debug(message, *values, stacklevel=2)
