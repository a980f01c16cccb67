"""What is said about servers, which their readers log, as warnings on standard error."""

from __future__ import annotations

import logging
import sys


class _WarningPrinter(logging.Handler):
    """Prints each message as a warning."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print ``record``."""
        sys.stderr.write(f"warning: {record.getMessage()}\n")


def show_warnings() -> None:
    """Print from now on what is logged about servers."""
    logger = logging.getLogger("cosremaster")
    if not any(isinstance(handler, _WarningPrinter) for handler in logger.handlers):
        logger.addHandler(_WarningPrinter(logging.WARNING))
