"""Nodes as JSON values and as lines of text."""

from __future__ import annotations

import stat
import time
from collections.abc import Iterator
from typing import Any

from cosremaster.browse.container import NodeRef
from cosremaster.errors import printable
from cosremaster.tree.nodes import Node, NodeKind

SCHEMA = 1
"""Raised whenever a field of :func:`describe_node` changes its meaning or goes away (docs/json.md)."""

_TYPES = {
    NodeKind.FIFO: "fifo", NodeKind.CHAR: "char", NodeKind.DIRECTORY: "directory", NodeKind.BLOCK: "block",
    NodeKind.FILE: "file", NodeKind.SYMLINK: "symlink", NodeKind.SOCKET: "socket",
}  # fmt: skip


def describe_node(reference: NodeRef) -> dict[str, Any]:
    """Return a node as plain values; docs/json.md describes the fields."""
    node = reference.node
    return {
        "address": reference.address,
        "path": printable(node.path),
        "type": _TYPES[node.kind],
        "mode": f"{node.mode:04o}",
        "uid": node.uid,
        "gid": node.gid,
        "mtime": node.mtime,
        "size": data_size(node),
        "target": printable(node.target) if node.kind is NodeKind.SYMLINK else None,
        "device": list(node.rdev) if node.kind in (NodeKind.CHAR, NodeKind.BLOCK) else None,
    }


def data_size(node: Node) -> int:
    """Return the bytes of a file's data or a symlink's text; 0 for other nodes."""
    if node.kind is NodeKind.SYMLINK:
        return len(node.target)
    return node.content.size if node.content is not None else 0


def format_time(mtime: int) -> str:
    """Return a time in UTC for people."""
    return time.strftime("%Y-%m-%d %H:%M", time.gmtime(mtime))


def format_long_line(node: Node, name: str) -> str:
    """Return ``node`` as ``ls -l`` shows it, with numeric owners and UTC."""
    size = f"{node.rdev[0]}, {node.rdev[1]}" if node.kind in (NodeKind.CHAR, NodeKind.BLOCK) else str(data_size(node))
    arrow = f" -> {printable(node.target)}" if node.kind is NodeKind.SYMLINK else ""
    mode = stat.filemode(node.kind | node.mode)
    return f"{mode} {node.uid:>5} {node.gid:>5} {size:>10} {format_time(node.mtime)} {name}{arrow}"


def stat_lines(reference: NodeRef, digest: str | None, contains: str | None) -> Iterator[str]:
    """Yield lines with all attributes of a node.

    ``digest`` is its SHA-256, ``contains`` the kind of container it is.
    """
    node = reference.node
    yield f"{reference.address}: {node.kind.noun}"
    yield f"  mode {node.mode:04o} ({stat.filemode(node.kind | node.mode)}), owner {node.uid}:{node.gid}"
    yield f"  mtime {node.mtime} ({time.strftime('%Y-%m-%d %H:%M:%S', time.gmtime(node.mtime))} UTC)"
    if node.kind is NodeKind.SYMLINK:
        yield f"  target {printable(node.target)}"
    if node.kind in (NodeKind.CHAR, NodeKind.BLOCK):
        yield f"  device {node.rdev[0]}:{node.rdev[1]}"
    if digest is not None:
        yield f"  {data_size(node):,} bytes, SHA-256 {digest}"
    if contains is not None:
        yield f"  contains {contains}"
