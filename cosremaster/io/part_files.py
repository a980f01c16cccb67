"""Files and folders under temporary names beside what they become, locked while the program that makes them lives.

A program that is killed leaves them behind. The next one that writes to the same folder finds them unlocked and removes
them (flock(2): the kernel drops a lock with its last descriptor).
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path

PREFIX, SUFFIX = ".cosremaster-", ".part"
_TRIES = 100


def part_path(folder: Path) -> Path:
    """Return a temporary name in ``folder`` that nobody else has."""
    return folder / f"{PREFIX}{os.urandom(8).hex()}{SUFFIX}"


def lock_part(fd: int) -> bool:
    """Lock the file or folder ``fd`` unless another program has; return whether that was possible."""
    try:
        import fcntl  # noqa: PLC0415 - a command that only reads needs none of it

        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (ImportError, OSError):
        return False
    return True


def is_locked_elsewhere(fd: int) -> bool:
    """Lock the file or folder ``fd``; return whether another program has it locked. Some file systems know no locks."""
    try:
        import fcntl  # noqa: PLC0415 - as above

        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except (ImportError, OSError):
        return False
    return False


class PartFile:
    """A new file under a temporary name in ``folder``; ``fd`` reads and writes it.

    :raises OSError: no file can be made there.
    """

    def __init__(self, folder: Path) -> None:
        """Make and lock the file, after what killed programs left in ``folder`` was removed."""
        remove_stale_parts(folder)
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        for _ in range(_TRIES):
            self.path, self.fd = part_path(folder), -1
            try:
                self.fd = os.open(self.path, flags, 0o666)
                lock_part(self.fd)
                if _is_at(self.fd, self.path):
                    return
            except BaseException as error:
                if not isinstance(error, OSError):  # an interruption, maybe before the descriptor was kept
                    self.close()
                raise
            os.close(self.fd)  # somebody took it for stale before it was locked
        raise FileNotFoundError(2, "temporary files vanish", str(folder))

    def close(self) -> None:
        """Close the file and remove its temporary name; what has another name stays."""
        fd, self.fd = self.fd, -1
        with suppress(OSError):  # a name that stays is removed by the next program
            self.path.unlink(missing_ok=True)
        if fd >= 0:
            os.close(fd)


def _is_at(fd: int, path: Path) -> bool:
    """Return whether the file ``fd`` has the name ``path``."""
    try:
        status, named = os.fstat(fd), os.lstat(path)
    except OSError:
        return False
    return (status.st_dev, status.st_ino) == (named.st_dev, named.st_ino)


def remove_stale_parts(folder: Path) -> None:
    """Remove the temporary files and folders in ``folder`` that killed programs of this user left."""
    try:
        with os.scandir(folder) as entries:
            paths = [Path(entry.path) for entry in entries if is_part_name(entry.name)]
    except OSError:
        return
    for path in paths:
        with suppress(OSError):
            _remove_if_stale(path)


def is_part_name(name: str) -> bool:
    """Return whether ``name`` is one of ours for an unfinished file or folder."""
    return name.startswith(PREFIX) and name.endswith(SUFFIX)


def _remove_if_stale(path: Path) -> None:
    """Remove ``path`` if it belongs to this user and no program has locked it. :raises OSError: nobody can tell."""
    status = os.lstat(path)
    is_folder = stat.S_ISDIR(status.st_mode)
    if status.st_uid != os.geteuid() or not (is_folder or stat.S_ISREG(status.st_mode)):
        return
    kind = os.O_RDONLY | os.O_DIRECTORY if is_folder else os.O_RDWR  # NFS locks what is open for writing alone
    fd = os.open(path, kind | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        if lock_part(fd) and _is_at(fd, path):
            if is_folder:
                remove_tree(path)
            else:
                path.unlink()
    finally:
        os.close(fd)


def remove_tree(folder: Path) -> None:
    """Remove a half-made folder, directories without permissions included."""
    import shutil  # noqa: PLC0415 - as above

    for path, names, _ in os.walk(folder):
        for name in names:
            if not os.path.islink(os.path.join(path, name)):
                os.chmod(os.path.join(path, name), 0o700)
    shutil.rmtree(folder, ignore_errors=True)


def sync_folder(folder: Path) -> None:
    """Wait until the names in ``folder`` are on the disk (fsync(2)). :raises OSError: the disk reports an error."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        sync_file(fd)
    finally:
        os.close(fd)


def sync_file(fd: int) -> None:
    """Wait until the bytes of ``fd`` are on the disk. :raises OSError: the disk reports an error."""
    import errno  # noqa: PLC0415 - as above

    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS):  # a file system that has nothing to sync
            raise
