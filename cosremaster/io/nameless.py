"""Files without a name, which are opened by their descriptor where that can be, and what messages call them."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from cosremaster.errors import OutputError, Place
from cosremaster.io.descriptors import write_all
from cosremaster.io.files import SHOWN_NAMES

_FOLDERS = ("/proc/self/fd", "/dev/fd")
"""Where files are opened by descriptor. A Linux without /proc, as in the chroot of a build, has neither."""


def path_of_descriptor(fd: int, name: str) -> Path | None:
    """Return a path by which the file ``fd``, which messages call ``name``, can be opened; None where there is none."""
    for folder in _FOLDERS:
        path = Path(folder, str(fd))
        if path.exists():
            SHOWN_NAMES[str(path)] = name
            return path
    return None


def open_temporary(name: str) -> tuple[BinaryIO, Path]:
    """Return a new file, which goes away when it is closed, and a path by which it can be opened.

    It has no name where files are opened by descriptor. Messages call it ``name``. :raises OSError: it cannot be made.
    """
    file: Any = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 - who calls closes it
    path = path_of_descriptor(file.fileno(), name)
    if path is None:
        file.close()
        file = tempfile.NamedTemporaryFile(buffering=0)  # noqa: SIM115 - likewise
        path = Path(file.name)
        SHOWN_NAMES[str(path)] = name
    return file, path


@contextmanager
def keeping_bytes(data: bytes, name: str) -> Iterator[Path]:
    """Give a path by which ``data`` can be opened while the context lasts; messages call the file ``name``.

    :raises OutputError: the folder for temporary files has no room.
    """
    folder = tempfile.gettempdir()

    def failure(error: OSError) -> OutputError:
        """Return the error to raise for one of writing."""
        return OutputError(
            f"cannot be kept in {folder}: {error.strerror} (TMPDIR names another folder)", Place((name,))
        )

    try:
        file, path = open_temporary(name)
    except OSError as error:
        raise failure(error) from error
    with file:
        try:
            write_all(file.fileno(), data, failure)
            yield path
        finally:
            SHOWN_NAMES.pop(str(path), None)
