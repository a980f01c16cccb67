"""Files without a name, which are opened by their descriptor, and what messages call them."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cosremaster.errors import OutputError, Place
from cosremaster.io.files import SHOWN_NAMES


def path_of_descriptor(fd: int, name: str) -> Path:
    """Return a path by which the file ``fd``, which messages call ``name``, can be opened."""
    path = Path(f"/proc/self/fd/{fd}") if os.path.isdir("/proc/self/fd") else Path(f"/dev/fd/{fd}")
    SHOWN_NAMES[str(path)] = name
    return path


@contextmanager
def keeping_bytes(data: bytes, name: str) -> Iterator[Path]:
    """Give a path by which ``data`` can be opened while the context lasts; messages call the file ``name``.

    :raises OutputError: the folder for temporary files has no room.
    """
    folder = tempfile.gettempdir()
    try:
        file = tempfile.TemporaryFile()  # noqa: SIM115 - closed below
        file.write(data)
        file.flush()
    except OSError as error:
        raise OutputError(
            f"cannot be kept in {folder}: {error.strerror} (TMPDIR names another folder)", Place((name,))
        ) from error
    with file:
        path = path_of_descriptor(file.fileno(), name)
        try:
            yield path
        finally:
            SHOWN_NAMES.pop(str(path), None)
