"""Entries inside an image as JSON values and as lines."""

from __future__ import annotations

import stat
import time
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from cosremaster.browse.entry import FileEntry
from cosremaster.errors import printable
from cosremaster.tree.nodes import Node, NodeKind
from cosremaster.tree.xattrs import format_xattr

_SYMLINK, _DEVICES = NodeKind.SYMLINK, (NodeKind.CHAR, NodeKind.BLOCK)
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


def format_long_line(node: Node, name: str) -> str:
    """Return ``node`` as ``ls -l`` shows it, with numeric owners, UTC, and ``@`` for extended attributes."""
    kind, content = node.kind, node.content
    arrow = ""
    size = str(len(node.target) if content is None else content.size)
    if kind is _SYMLINK:
        arrow = f" -> {printable(node.target)}"
    elif kind in _DEVICES:
        size = f"{node.rdev[0]}, {node.rdev[1]}"
    head = _format_owner(kind | node.mode, node.uid, node.gid, "@" if node.xattrs else "")
    return f"{head} {size.rjust(10)} {_format_minute(node.mtime // 60)} {name}{arrow}"


@lru_cache(1024)
def _format_owner(mode: int, uid: int, gid: int, mark: str) -> str:
    """Return type, mode, ``mark`` and owners as ``ls -l`` shows them."""
    return f"{stat.filemode(mode)}{mark} {uid:>{5 - len(mark)}} {gid:>5}"


@lru_cache(1024)
def _format_minute(minute: int) -> str:
    """Return a time in UTC, in minutes since 1970, for people."""
    return time.strftime("%Y-%m-%d %H:%M", time.gmtime(60 * minute))


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
