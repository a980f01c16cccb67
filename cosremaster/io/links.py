"""The symlinks that a path leads over."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator

_MOST = 40
"""Symlinks that Linux follows in a path."""


def walk_links(path: bytes) -> Iterator[tuple[bytes, os.stat_result]]:
    """Yield the symlinks that ``path`` leads over, its last name among them, with their state; none behind a fault."""
    parts = os.path.abspath(path).split(b"/")
    for _ in range(_MOST):
        for length in range(2, len(parts) + 1):
            prefix = b"/".join(parts[:length])
            try:
                status = os.lstat(prefix)
                target = os.readlink(prefix) if stat.S_ISLNK(status.st_mode) else None
            except OSError:
                return
            if target is not None:
                break
        else:
            return
        yield prefix, status
        parts = os.path.normpath(os.path.join(os.path.dirname(prefix), target, *parts[length:])).split(b"/")
