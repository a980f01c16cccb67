"""Edits that replace a part of something and leave the rest: bytes of a file, attributes of a directory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cosremaster.io.pieces import PieceTable
from cosremaster.records import replace
from cosremaster.tree.content import PieceContent
from cosremaster.tree.nodes import Action, Edits, Node, NodeKind
from cosremaster.tree.paths import ancestors, parent_of

NO_EDITS = Edits(frozenset(), (), (), (), ())


def with_new_contents(
    tree: Mapping[bytes, Node], edits: Edits | None, contents: Sequence[tuple[bytes, PieceTable]]
) -> Edits:  # fmt: skip
    """Return ``edits`` of ``tree`` that also give its files new bytes: ``contents`` are pairs of a path and a table.

    Mode, owner, time and extended attributes of a file stay, and so do its other names, unless ``edits`` remove them.
    """
    base = edits or NO_EDITS
    nodes = [
        replace(node, content=PieceContent(tuple(table.pieces)))
        for path, table in contents
        for node in _list_names(tree, path)
        if node.path == path or node.path not in base.removed_paths
    ]
    additions = [*base.additions, *((node, Action.REPLACED) for node in nodes)]
    return Edits(
        base.removed_paths | {node.path for node in nodes},
        tuple(sorted(additions, key=lambda addition: addition[0].path)), base.removed, base.unchanged, base.warnings,
        base.superseding,
    )  # fmt: skip


def find_lasting_directories(tree: Mapping[bytes, Node], edits: Edits) -> dict[bytes, Node]:
    """Return, by path, the new nodes of directories of ``tree`` that ``edits`` replace while they keep content.

    Where entries have an order, such a node takes the place of the old one: what is in it comes behind.
    """
    replaced = {
        node.path: node
        for node, _ in edits.additions
        if node.kind is NodeKind.DIRECTORY and node.path in edits.removed_paths
    }
    replaced = {path: node for path, node in replaced.items() if tree[path].kind is NodeKind.DIRECTORY}
    if not replaced:
        return {}
    parents = {parent_of(path) for path in tree if path and path not in edits.removed_paths}
    parents |= {directory for path in parents for directory in (b"", *ancestors(path))}
    return {path: node for path, node in replaced.items() if path in parents}


def _list_names(tree: Mapping[bytes, Node], path: bytes) -> list[Node]:
    """Return the nodes of all names of the file at ``path``, which are looked for only where it has several."""
    node = tree[path]
    if node.link is None:
        return [node]
    return [other for other in tree.values() if other.link == node.link]
