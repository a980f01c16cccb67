"""Entries inside an image as JSON values and as lines."""

from __future__ import annotations

import stat
import time
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from cosremaster.browse.entry import FileEntry
from cosremaster.browse.extents import LISTED, DataExtent
from cosremaster.errors import printable, printable_lines
from cosremaster.tree.nodes import NodeKind, Row
from cosremaster.tree.xattrs import format_xattr

_SYMLINK, _DEVICES = int(NodeKind.SYMLINK), (int(NodeKind.CHAR), int(NodeKind.BLOCK))
_KIND_BITS = 0o170000
SCHEMA = 1
"""Raised whenever a field of :func:`describe_entry` changes its meaning or goes away (docs/json.md)."""


def describe_entry(entry: FileEntry) -> dict[str, Any]:
    """Return ``entry`` as plain values; docs/json.md describes the fields."""
    placed: dict[str, Any] = {}
    if entry.extents is not None:
        placed = {"extents": [_describe_extent(extent) for extent in entry.extents], "implied": entry.is_implied}
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
        **placed,
    }


def _describe_extent(extent: DataExtent) -> dict[str, Any]:
    """Return ``extent`` as plain values."""
    return {
        "start": extent.start,
        "length": extent.length,
        "holder": extent.holder,
        "offset": extent.offset,
        "lba": extent.lba,
        "packed": extent.packed,
    }


def format_long_lines(row: Row, start: int, *, human: bool = False) -> list[str]:
    """Return the nodes of ``row`` as ``ls -l`` shows them, with numeric owners, UTC, and ``@`` for extended attributes.

    :param start: bytes of their paths that the names in the listing lack. :param human: sizes as of ``ls -lh``.
    """
    prefix = printable(row.prefix[start:])
    lines: list[str] = []
    last, minute = None, ""  # neighbours often have the same time
    names = printable_lines(row.names).split("\n")
    for name, (mode, uid, gid, mtime, size, target, device, has_xattrs) in zip(names, row.facts, strict=False):
        kind = mode & _KIND_BITS
        if mtime != last:
            last, minute = mtime, _format_minute(mtime // 60)
        head = _format_owner(mode, uid, gid, has_xattrs)
        if kind in _DEVICES:
            numbers = f"{device[0]}, {device[1]}"
            lines.append(f"{head} {numbers:>10} {minute} {prefix}{name}")
        else:
            arrow = f" -> {printable(target)}" if kind == _SYMLINK else ""
            lines.append(f"{head} {size if not human else format_short(size):>10} {minute} {prefix}{name}{arrow}")
    return lines


@lru_cache(1024)
def format_short(size: int) -> str:
    """Return ``size`` bytes as ``ls -h`` does: powers of 1,024, rounded up, a decimal below 10."""
    if size < 1024:
        return str(size)
    scale, unit = next((1 << 10 * power, unit) for power, unit in enumerate("KMGTPEZ", 1) if size <= 1023 << 10 * power)
    tenths = -(-10 * size // scale)
    return f"{tenths // 10}.{tenths % 10}{unit}" if tenths < 100 else f"{-(-size // scale)}{unit}"


def format_time(seconds: int) -> str:
    """Return a time in seconds since 1970 for people, in UTC; the number where no calendar has it."""
    try:
        return time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(seconds))
    except (OverflowError, ValueError, OSError):
        return str(seconds)


@lru_cache(1024)
def _format_owner(mode: int, uid: int, gid: int, has_xattrs: bool) -> str:
    """Return type, mode, a mark for extended attributes and owners as ``ls -l`` shows them."""
    mark = "@" if has_xattrs else ""
    return f"{stat.filemode(mode)}{mark} {uid:>{5 - len(mark)}} {gid:>5}"


@lru_cache(1024)
def _format_minute(minute: int) -> str:
    """Return a time in UTC, in minutes since 1970, for people."""
    return time.strftime("%Y-%m-%d %H:%M", time.gmtime(60 * minute))


def stat_lines(entry: FileEntry) -> Iterator[str]:
    """Yield all facts about ``entry``."""
    yield f"{entry.address}: {entry.noun}"
    if entry.is_implied:
        yield "  without mode, owner and time: only what is in it names it"
    else:
        yield f"  mode {entry.mode:04o} ({entry.mode_text}), owner {entry.uid}:{entry.gid}"
        yield f"  mtime {entry.mtime} ({format_time(entry.mtime)} UTC)"
    if entry.target is not None:
        yield f"  target {printable(entry.target)}"
    if entry.device is not None:
        yield f"  device {entry.device[0]}:{entry.device[1]}"
    for name, value in entry.xattrs:
        yield f"  attribute {format_xattr(name, value)}"
    if entry.sha256 is not None:
        yield f"  {entry.size:,} bytes, SHA-256 {entry.sha256}"
    elif entry.type == "file":
        yield f"  {entry.size:,} bytes, no SHA-256: its holes would take too long to be read"
    if entry.contains is not None:
        yield f"  contains {entry.contains}"
    extents = entry.extents or ()
    for extent in extents[:LISTED]:
        yield f"  {extent.describe()}"
    if len(extents) > LISTED:
        yield f"  and {len(extents) - LISTED:,} more extents (--json has all)"
