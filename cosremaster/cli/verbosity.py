"""Messages of the library on standard error: ``-v`` shows what it does, ``-vv`` every step with its time."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable

from cosremaster.cli.remote_warnings import show_warnings

_INFO_FORMAT = "%(message)s"
_DEBUG_FORMAT = "%(relativeCreated)6.0f ms %(name)s: %(message)s"


class _MessageHandler(logging.Handler):
    """Messages as lines on the standard error of the moment; warnings are printed anyway (``remote_warnings``)."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write ``record`` as a line."""
        if record.levelno < logging.WARNING:
            sys.stderr.write(f"{self.format(record)}\n")


def show_messages(level: int) -> Callable[[], None]:
    """Show the library's messages from now on, with ``level`` 2 all of them, and return what ends that."""
    show_warnings()
    logger = logging.getLogger("cosremaster")
    handler = _MessageHandler()
    handler.setFormatter(logging.Formatter(_DEBUG_FORMAT if level > 1 else _INFO_FORMAT))
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG if level > 1 else logging.INFO)

    def end() -> None:
        """Show no more messages."""
        logger.removeHandler(handler)
        logger.setLevel(before)

    return end
