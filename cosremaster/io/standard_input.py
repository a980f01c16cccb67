"""Standard input as an image: it is kept in a nameless temporary file, as an image is read at any offset."""

from __future__ import annotations

import os
import stat
import tempfile
from functools import cache
from pathlib import Path
from typing import BinaryIO

from cosremaster.errors import ImageError, OutputError, Place, UsageError
from cosremaster.io.descriptors import write_all
from cosremaster.io.nameless import open_temporary, path_of_descriptor
from cosremaster.io.streams import CHUNK

NAME = "-"
"""What standard input is called on the command line and in messages."""

_PLACE = Place(("standard input",))
_KEPT: list[BinaryIO] = []
"""The temporary file, which lives as long as the process."""


@cache
def keep_standard_input() -> Path:
    """Return a path by which the bytes of standard input can be opened, again and again.

    A file that standard input was redirected from is opened itself.

    :raises UsageError: it is a terminal. :raises ImageError: it cannot be read.
    :raises OutputError: the folder for temporary files has no room.
    """
    if os.isatty(0):
        raise UsageError("standard input is a terminal, and - wants an image there")
    try:
        if stat.S_ISREG(os.fstat(0).st_mode) and os.lseek(0, 0, os.SEEK_CUR) == 0:
            path = path_of_descriptor(0, NAME)
            if path is not None:
                return path
    except OSError as error:
        raise ImageError(f"cannot be read: {error.strerror}", _PLACE) from error
    return _copy_to_file()


def _copy_to_file() -> Path:
    """Return the path of a temporary file with all bytes of standard input."""
    folder = tempfile.gettempdir()

    def failure(error: OSError) -> OutputError:
        """Return the error to raise for one of writing."""
        return OutputError(f"cannot be kept in {folder}: {error.strerror} (TMPDIR names another folder)", _PLACE)

    try:
        file, path = open_temporary(NAME)
    except OSError as error:
        raise failure(error) from error
    _KEPT.append(file)
    while True:
        try:
            data = os.read(0, CHUNK)
        except OSError as error:
            raise ImageError(f"cannot be read: {error.strerror}", _PLACE) from error
        if not data:
            return path
        write_all(file.fileno(), data, failure)
