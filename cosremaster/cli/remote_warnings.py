"""What is said about servers, which their readers log, as warnings on standard error."""

from __future__ import annotations

import logging

from cosremaster.cli.messages import warn


class _WarningPrinter(logging.Handler):
    """Prints each message as a warning."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print ``record``."""
        warn(record.getMessage())


def show_warnings() -> None:
    """Print from now on what is logged about servers."""
    logger = logging.getLogger("cosremaster")
    if not any(isinstance(handler, _WarningPrinter) for handler in logger.handlers):
        logger.addHandler(_WarningPrinter(logging.WARNING))
