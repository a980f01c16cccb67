"""Order files so that their data are read once, front to back."""

from __future__ import annotations

from collections.abc import Iterable

from cosremaster.io.pieces import Range
from cosremaster.tree.nodes import Node, NodeKind


def files_in_order(nodes: Iterable[Node]) -> list[Node]:
    """Return the regular files among ``nodes`` in the order of their data; all names of a hard-linked file side by
    side.
    """
    return sorted((node for node in nodes if node.kind is NodeKind.FILE), key=_data_place)


def _data_place(node: Node) -> tuple[str, int, bytes]:
    """Return the sort key of a file: the source and offset of its first byte."""
    pieces = node.content.table().pieces if node.content is not None else ()
    first = pieces[0] if pieces else None
    return (first.source.name, first.offset, node.path) if isinstance(first, Range) else ("", 0, node.path)
