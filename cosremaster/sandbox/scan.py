"""What stands in a file system now: the facts of each path by which a change is seen.

Linux updates ctime with each change and offers no call to set it, so a file whose facts are all as before was not
touched. All processes that could write are gone when this is done.
"""

from __future__ import annotations

import errno
import os
import stat

from cosremaster.records.tuples import NamedTuple

MAX_PATH = 4095
"""Bytes of the longest path that a system call takes."""


class PathFacts(NamedTuple):
    """The facts of a path; the times are nanoseconds since 1970."""

    mode: int
    uid: int
    gid: int
    size: int
    mtime: int
    ctime: int
    device: int
    inode: int
    links: int
    rdev: int
    xattrs: tuple[tuple[bytes, bytes], ...]

    @property
    def key(self) -> tuple[int, int]:
        """Device and inode, which all names of a file share."""
        return self.device, self.inode

    def is_touched_since(self, before: PathFacts) -> bool:
        """Tell whether anything happened to the path after ``before`` that a later look has to judge.

        Sizes and times of directories change with their contents; a time that a program set lies before.
        """
        if stat.S_ISDIR(self.mode) and stat.S_ISDIR(before.mode):
            return (self.mode, self.uid, self.gid, self.xattrs) != (before.mode, before.uid, before.gid, before.xattrs)
        return self != before


class PathTooLongError(Exception):
    """A script made a path that no system call takes whole."""


def read_xattrs(path: bytes) -> tuple[tuple[bytes, bytes], ...]:
    """Return the extended attributes of ``path``, sorted; none where the file system has none."""
    try:
        names = os.listxattr(path, follow_symlinks=False)
        if not names:
            return ()
        pairs = [(os.fsencode(name), os.getxattr(path, name, follow_symlinks=False)) for name in names]
    except OSError as error:
        if error.errno in (errno.ENOTSUP, errno.ENODATA, errno.EPERM, errno.EACCES):
            return ()
        raise
    return tuple(sorted(pairs))


def read_facts(path: bytes, status: os.stat_result) -> PathFacts:
    """Return the facts of ``path``, whose ``status`` is known."""
    return PathFacts(
        status.st_mode, status.st_uid, status.st_gid, status.st_size, status.st_mtime_ns, status.st_ctime_ns,
        status.st_dev, status.st_ino, status.st_nlink, status.st_rdev, read_xattrs(path),
    )  # fmt: skip


def scan_tree() -> dict[bytes, PathFacts]:
    """Return the facts of each path below the working directory, each directory before its content.

    The working directory itself has the empty path. :raises PathTooLongError: a path is too long.
    """
    facts = {b"": read_facts(b".", os.lstat(b"."))}
    pending = [b""]
    while pending:
        directory = pending.pop()
        with os.scandir(directory or b".") as entries:
            names = sorted(entry.name for entry in entries)
        for name in names:
            path = directory + b"/" + name if directory else name
            if len(path) > MAX_PATH:
                raise PathTooLongError
            status = os.lstat(path)
            facts[path] = read_facts(path, status)
            if stat.S_ISDIR(status.st_mode):
                pending.append(path)
    return facts
