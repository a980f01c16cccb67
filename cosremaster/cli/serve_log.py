"""Where the access log of `cosremaster serve` goes."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from cosremaster.errors import OutputError


def open_log(path: Path | None) -> Callable[[str], object]:
    """Return what appends text to ``path``, or to standard output. :raises OutputError: it cannot be opened."""
    if path is None:
        return _write_output
    try:
        return path.open("a", encoding="utf-8", buffering=1).write
    except OSError as error:
        raise OutputError(f"--log {path}: {error.strerror}") from error


def _write_output(text: str) -> None:
    """Write ``text`` to standard output."""
    sys.stdout.write(text)
    sys.stdout.flush()
