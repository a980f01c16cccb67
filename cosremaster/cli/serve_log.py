"""Where the access log of `cosremaster serve` goes."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

from cosremaster.errors import OutputError
from cosremaster.serve.access_log import write_lines


def open_log(path: Path | None) -> Callable[[str], object]:
    """Return what appends text to ``path``, or to standard output. :raises OutputError: it cannot be opened.

    Nothing of a file is kept back: what a full disk does not take is lost, and later lines are whole.
    """
    if path is None:
        return _write_output
    try:
        return partial(write_lines, os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o666))
    except OSError as error:
        raise OutputError(f"--log {path}: {error.strerror}") from error


def _write_output(text: str) -> None:
    """Write ``text`` to standard output."""
    sys.stdout.write(text)
    sys.stdout.flush()
