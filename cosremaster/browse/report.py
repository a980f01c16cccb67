"""Entries inside an image as JSON values and as lines."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from cosremaster.browse.entry import FileEntry
from cosremaster.errors import printable
from cosremaster.tree.xattrs import format_xattr

SCHEMA = 1
"""Raised whenever a field of :func:`describe_entry` changes its meaning or goes away (docs/json.md)."""


def describe_entry(entry: FileEntry) -> dict[str, Any]:
    """Return ``entry`` as plain values; docs/json.md describes the fields."""
    return {
        "address": entry.address,
        "path": printable(entry.path),
        "type": entry.type,
        "mode": f"{entry.mode:04o}",
        "uid": entry.uid,
        "gid": entry.gid,
        "mtime": entry.mtime,
        "size": entry.size,
        "target": None if entry.target is None else printable(entry.target),
        "device": None if entry.device is None else list(entry.device),
        "xattrs": {printable(name): f"0x{value.hex()}" for name, value in entry.xattrs},
    }


def format_long_line(entry: FileEntry, name: str) -> str:
    """Return ``entry`` as ``ls -l`` shows it, with numeric owners, UTC, and ``@`` for extended attributes."""
    mark = "@" if entry.xattrs else ""
    size = str(entry.size) if entry.device is None else f"{entry.device[0]}, {entry.device[1]}"
    arrow = "" if entry.target is None else f" -> {printable(entry.target)}"
    mtime = time.strftime("%Y-%m-%d %H:%M", time.gmtime(entry.mtime))
    return f"{entry.mode_text}{mark} {entry.uid:>{5 - len(mark)}} {entry.gid:>5} {size:>10} {mtime} {name}{arrow}"


def stat_lines(entry: FileEntry) -> Iterator[str]:
    """Yield all facts about ``entry``."""
    yield f"{entry.address}: {entry.noun}"
    yield f"  mode {entry.mode:04o} ({entry.mode_text}), owner {entry.uid}:{entry.gid}"
    yield f"  mtime {entry.mtime} ({time.strftime('%Y-%m-%d %H:%M:%S', time.gmtime(entry.mtime))} UTC)"
    if entry.target is not None:
        yield f"  target {printable(entry.target)}"
    if entry.device is not None:
        yield f"  device {entry.device[0]}:{entry.device[1]}"
    for name, value in entry.xattrs:
        yield f"  attribute {format_xattr(name, value)}"
    if entry.sha256 is not None:
        yield f"  {entry.size:,} bytes, SHA-256 {entry.sha256}"
    if entry.contains is not None:
        yield f"  contains {entry.contains}"
