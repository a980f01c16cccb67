"""What is said when something happens that nobody foresaw: one sentence, and a file with the details."""

from __future__ import annotations

import os
import platform
import tempfile
import traceback
from collections.abc import Sequence

from cosremaster import __version__
from cosremaster.errors import printable
from cosremaster.io.urls import shown_image_path

_LONGEST = 200  # characters of an exception that are shown

_WHERE = "https://cosremaster.example/source"


def describe_fault(error: BaseException, words: Sequence[str]) -> str:
    """Return the sentence about ``error``, a fault of the program; details go to a file that it names.

    :param words: the arguments of the program.
    """
    if isinstance(error, MemoryError):
        return "there is not enough memory"
    summary = printable(f"{type(error).__name__}: {error}".rstrip(": "))
    if len(summary) > _LONGEST:
        summary = summary[:_LONGEST] + "..."
    path = _write_details(error, words)
    attached = f" and attach {path}" if path else ""
    return f"internal fault ({summary}); nothing was changed by it. Please report it at {_WHERE}{attached}"


def _write_details(error: BaseException, words: Sequence[str]) -> str:
    """Write what a report needs into a new file and return its path; empty where none can be written."""
    lines = [
        f"cosremaster {__version__}, Python {platform.python_version()}, {platform.platform()}",
        "arguments: " + " ".join(ascii(shown_image_path(word)) for word in words),
        "".join(traceback.format_exception(error)),
    ]
    try:
        fd, path = tempfile.mkstemp(prefix="cosremaster-fault-", suffix=".txt")
        with os.fdopen(fd, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write("\n".join(lines))
    except OSError:
        return ""
    return path
