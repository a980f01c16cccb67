"""Runs the command as on a system that has only what POSIX demands: `python -m tests.support.bare_system ARGUMENTS`.

macOS, the BSDs and the first WSL lack some calls of Linux, each another set; here all are taken away, and /proc too.
"""

from __future__ import annotations

import builtins
import os
import runpy
import sys
from typing import Any

MISSING = (
    "copy_file_range",
    "SEEK_DATA",
    "SEEK_HOLE",
    "posix_fadvise",
    "posix_fallocate",
    "sched_getaffinity",
    "preadv",
    "pwritev",
    "sendfile",
    "splice",
    "memfd_create",
    "fdatasync",
    "listxattr",
    "getxattr",
    "setxattr",
    "removexattr",
    "pidfd_open",
    "unshare",
    "setns",
    "O_TMPFILE",
    "O_PATH",
    "O_DIRECT",
    "renameat2",
    "sync_file_range",
)
"""Members of the os module that some system with Python 3.10 or newer lacks."""


def _hide_proc() -> None:
    """Make /proc empty for those who open files or look whether they exist."""
    real_open, real_stat, real_os_open = builtins.open, os.stat, os.open

    def refuse(path: Any) -> None:
        """Raise what the system would. :raises FileNotFoundError: ``path`` is in /proc."""
        if isinstance(path, str | bytes | os.PathLike) and os.fsencode(path).startswith(b"/proc"):
            raise FileNotFoundError(2, "No such file or directory", path)

    def open_file(path: Any, *arguments: Any, **options: Any) -> Any:
        """Open a file that is not in /proc."""
        refuse(path)
        return real_open(path, *arguments, **options)

    def open_descriptor(path: Any, *arguments: Any, **options: Any) -> int:
        """Open a file that is not in /proc."""
        refuse(path)
        return real_os_open(path, *arguments, **options)

    def look_at(path: Any, *arguments: Any, **options: Any) -> os.stat_result:
        """Return the facts of a file that is not in /proc."""
        refuse(path)
        return real_stat(path, *arguments, **options)

    # static, because pathlib of Python 3.10 takes os.stat into a class, where a plain function is a method
    builtins.open, os.open, os.stat = open_file, open_descriptor, staticmethod(look_at)  # type: ignore[assignment]


if __name__ == "__main__":
    for member in MISSING:
        if hasattr(os, member):
            delattr(os, member)
    _hide_proc()
    sys.argv[0] = "cosremaster"
    runpy.run_module("cosremaster", run_name="__main__")
