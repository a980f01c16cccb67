"""The folder of what is remembered, indexes, runs and packed parts: files of ours alone, so nobody else says what an
image holds.

The folder belongs to us, and nobody else may look into it (0700). A file in it is believed when it is a regular file of
ours that nobody else can write. Everything is opened by the folder's descriptor and without following links.
"""

from __future__ import annotations

import os
import stat
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from io import FileIO
from typing import TYPE_CHECKING, BinaryIO

from cosremaster.layers.blobs import Blob
from cosremaster.lazy_path import make_path, path_text
from cosremaster.lazy_regex import lazy_regex
from cosremaster.records.tuples import NamedTuple

if TYPE_CHECKING:
    from pathlib import Path

SUFFIX, RUN_SUFFIX, RATES_SUFFIX, PARTS_SUFFIX = ".index", ".run", ".rates", ".parts"
"""How the names end of remembered indexes, of what scripts changed that ran in an image, of how fast work is, and of
what plans packed."""

MAX_INDEXES = 32
"""How many indexes are kept; the ones unused for longest are removed."""

MAX_BYTES = 1 << 30
"""How many bytes all indexes may take together."""

MAX_RUN_BYTES = 4 << 30
"""How many bytes all runs may take together; there are as many as indexes."""

MAX_PARTS_BYTES = 2 << 30
"""How many bytes all that plans packed may take together; there are as many files of it as indexes."""

_ALL_SUFFIXES = (SUFFIX, RUN_SUFFIX, RATES_SUFFIX, PARTS_SUFFIX)

HEAD = 1 << 14
"""Bytes of an index that :func:`list_indexes` reads."""

_OTHERS = stat.S_IRWXG | stat.S_IRWXO
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH
_UNFINISHED = lazy_regex(r"\.[0-9a-f]{16}\.part")
_UNFINISHED_BEFORE = lazy_regex(r"tmp[a-z0-9_]{8}")
"""Names of unfinished files of version 0.1, which held no lock."""

_OLD = 3600  # seconds after which nobody writes to such a file any more


class CachedIndex(NamedTuple):
    """A remembered index: its path, size in bytes, time of last use in seconds since 1970, and its first bytes."""

    path: Path
    size: int
    used: float
    head: bytes


def index_folder() -> str:
    """Return the path of the folder, which need not exist.

    On Linux it is where the XDG Base Directory Specification says; platformdirs says so too, and takes 4 ms to load.

    :raises FileNotFoundError: the user has no home directory, as a number without an account has none.
    """
    if sys.platform == "linux":
        for cache in (os.environ.get("XDG_CACHE_HOME", ""), os.path.expanduser("~/.cache")):
            if os.path.isabs(cache):
                return path_text(os.path.join(cache, "cosremaster", "index"))
        raise FileNotFoundError("there is no home directory, and XDG_CACHE_HOME is not set to an absolute path")
    from platformdirs import user_cache_path  # noqa: PLC0415 - as above

    return str(user_cache_path("cosremaster") / "index")


def read_index(name: str) -> bytes | None:
    """Return the bytes of the index ``name`` and mark it as used; None where there is none that can be believed."""
    file = open_remembered(name, MAX_BYTES)
    if file is None:
        return None
    with suppress(OSError), file:
        data = file.readall()
        with suppress(OSError):  # a disk that is mounted to be read alone
            os.utime(file.fileno())
        return data
    return None


def open_remembered(name: str, most: int = MAX_RUN_BYTES) -> FileIO | None:
    """Return the remembered file ``name``, open; None where there is none that can be believed.

    ``most``: bytes that it may have.
    """
    with suppress(OSError), _opened_folder(index_folder()) as folder:
        return _open_ours(folder, name, most)
    return None


def open_all_remembered(suffix: str, most: int) -> list[FileIO]:
    """Return the remembered files whose names end with ``suffix``, open, the one used last first; as many as are kept.

    ``most``: bytes that each may have.
    """
    files = []
    with suppress(OSError), _opened_folder(index_folder()) as folder:
        for name, _ in _newest_first(folder, suffix)[:MAX_INDEXES]:
            with suppress(OSError):
                file = _open_ours(folder, name, most)
                if file is not None:
                    files.append(file)
    return files


def _open_ours(folder: int, name: str, most: int) -> FileIO | None:
    """Return the file ``name`` of ``folder``, open; None where it cannot be believed, or has more bytes than ``most``.

    :raises OSError: it cannot be opened.
    """
    fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    file = FileIO(fd, "rb")
    status = os.fstat(fd)
    if _is_ours(status) and status.st_size <= most:
        return file
    file.close()
    return None


def has_index(name: str) -> bool:
    """Return whether there is an index ``name`` that can be believed."""
    with suppress(OSError), _opened_folder(index_folder()) as folder:
        return _is_ours(os.stat(name, dir_fd=folder, follow_symlinks=False))
    return False


def write_index(name: str, parts: Iterable[Blob]) -> None:
    """Write the file ``name``, in place of an older one, and keep the folder within its bounds.

    :raises OSError: it cannot be written.
    """
    with writing_remembered(name) as file:
        file.writelines(parts)


@contextmanager
def writing_remembered(name: str) -> Iterator[BinaryIO]:
    """Give the new file ``name`` to write to; at the end of the context it takes the place of an older one.

    The folder is then kept within its bounds. What raises in the context leaves nothing.

    :raises OSError: it cannot be written.
    """
    import fcntl  # noqa: PLC0415 - only the first run with an image writes

    path = index_folder()
    _make_folder(make_path(path))
    with _opened_folder(path) as folder:
        unfinished = f".{os.urandom(8).hex()}.part"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with os.fdopen(os.open(unfinished, flags, 0o600, dir_fd=folder), "wb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX)  # says that its writer lives
                yield file
                file.flush()
                os.replace(unfinished, name, src_dir_fd=folder, dst_dir_fd=folder)
            except BaseException:
                with suppress(OSError):
                    os.unlink(unfinished, dir_fd=folder)
                raise
        _prune(folder)


def list_indexes() -> list[CachedIndex]:
    """Return all indexes that can be believed, the one unused for longest last."""
    indexes = []
    with suppress(OSError), _opened_folder(path := index_folder()) as folder:
        for name, status in _own_files(folder, SUFFIX):
            with suppress(OSError):
                fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
                with os.fdopen(fd, "rb") as file:
                    head = file.read(HEAD)
                indexes.append(CachedIndex(make_path(path) / name, status.st_size, status.st_mtime, head))
    return sorted(indexes, key=lambda index: index.used, reverse=True)


def count_free_bytes() -> int:
    """Return the free bytes of the folder's disk; 0 where they are not known, as before there is the folder."""
    with suppress(OSError), _opened_folder(index_folder()) as folder:
        status = os.fstatvfs(folder)
        return status.f_bavail * status.f_frsize
    return 0


def measure_remembered(suffix: str) -> tuple[int, int]:
    """Return how many files are remembered whose names end with ``suffix``, and their bytes."""
    with suppress(OSError), _opened_folder(index_folder()) as folder:
        sizes = [status.st_size for _, status in _own_files(folder, suffix)]
        return len(sizes), sum(sizes)
    return 0, 0


def clear_indexes() -> int:
    """Remove all that is remembered, and what killed processes left over; return how many indexes there were."""
    count = 0
    with suppress(FileNotFoundError), _opened_folder(index_folder()) as folder:
        for name, _ in list(_own_files(folder, _ALL_SUFFIXES)):
            os.unlink(name, dir_fd=folder)
            count += name.endswith(SUFFIX)
        _remove_unfinished(folder)
    return count


@contextmanager
def _opened_folder(path: str) -> Iterator[int]:
    """Open the folder ``path``, and give a descriptor of it.

    What others could write to before is emptied first: they may have put indexes there.

    :raises OSError: there is no such folder, or it is not ours.
    """
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        status = os.fstat(fd)
        if status.st_uid != os.geteuid():
            raise PermissionError(f"{path} belongs to somebody else")
        if status.st_mode & _OTHERS:
            os.fchmod(fd, 0o700)
        if status.st_mode & _OTHERS_WRITE:
            for name, _ in list(_own_files(fd, _ALL_SUFFIXES)):
                os.unlink(name, dir_fd=fd)
        yield fd
    finally:
        os.close(fd)


def _make_folder(path: Path) -> None:
    """Make the folder ``path`` with its parents, unless it is there.

    A home directory that is missing is not made, and root makes none in that of somebody else (sudo(8) may keep HOME).

    :raises OSError: it cannot be made.
    """
    home = make_path(os.path.expanduser("~"))
    parent = next(parent for parent in path.parents if parent.exists())
    if parent in home.parents and home in path.parents:
        raise FileNotFoundError(f"there is no home directory {home}")
    if not path.exists() and os.geteuid() == 0 and parent.stat().st_uid != 0:
        raise PermissionError(f"{parent} belongs to somebody else")
    path.mkdir(0o700, parents=True, exist_ok=True)


def _is_ours(status: os.stat_result) -> bool:
    """Return whether ``status`` is that of a regular file of ours, with one name, that nobody else can write."""
    is_regular = stat.S_ISREG(status.st_mode) and status.st_nlink == 1
    return is_regular and status.st_uid == os.geteuid() and not status.st_mode & _OTHERS_WRITE


def _own_files(folder: int, suffix: str | tuple[str, ...] = "") -> Iterator[tuple[str, os.stat_result]]:
    """Yield name and status of each regular file of ours in ``folder`` whose name ends with a ``suffix``."""
    for name in os.listdir(folder):
        if name.endswith(suffix):
            with suppress(FileNotFoundError):
                status = os.stat(name, dir_fd=folder, follow_symlinks=False)
                if stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid():
                    yield name, status


def _newest_first(folder: int, suffix: str) -> list[tuple[str, os.stat_result]]:
    """Return what :func:`_own_files` yields, the file that was used last first."""
    return sorted(_own_files(folder, suffix), key=lambda file: file[1].st_mtime_ns, reverse=True)


def _prune(folder: int) -> None:
    """Remove what was unused for longest beyond the bounds, and what killed processes left over."""
    for suffix, most in ((SUFFIX, MAX_BYTES), (RUN_SUFFIX, MAX_RUN_BYTES), (PARTS_SUFFIX, MAX_PARTS_BYTES)):
        size = 0
        for number, (name, status) in enumerate(_newest_first(folder, suffix)):
            size += status.st_size
            if number >= MAX_INDEXES or size > most:
                with suppress(FileNotFoundError):
                    os.unlink(name, dir_fd=folder)
    _remove_unfinished(folder)


def _remove_unfinished(folder: int) -> None:
    """Remove the files of writers that were killed: nobody has a lock on them."""
    import fcntl  # noqa: PLC0415 - as above

    for name, status in list(_own_files(folder)):
        if _UNFINISHED_BEFORE.fullmatch(name) and time.time() - status.st_mtime > _OLD:
            with suppress(OSError):
                os.unlink(name, dir_fd=folder)
        elif _UNFINISHED.fullmatch(name):
            with suppress(OSError):
                fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
                try:
                    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    os.unlink(name, dir_fd=folder)
                finally:
                    os.close(fd)
