"""What happened to each path of a layer and of the ISO's own tree, as JSON (docs/report.md)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from msgspec.structs import replace

from cosremaster.io.source import ByteSource
from cosremaster.iso.nodes import read_nodes
from cosremaster.layers.address import format_address
from cosremaster.remastering.plan import RemasterPlan
from cosremaster.tree.content import PieceContent
from cosremaster.tree.nodes import Action, Node, NodeKind

SCHEMA = 1
"""Raised whenever a field of the report changes its meaning or goes away."""


def report_chunks(plan: RemasterPlan, source: ByteSource) -> Iterator[bytes]:
    """Yield the report on ``plan`` for the image in ``source``, in UTF-8, a line for each path.

    Added files are read for their digests, and so are files on the ISO that are removed or get other bytes.
    """
    head = {
        "schema": SCHEMA,
        "layer": None if plan.layer is None else format_address(plan.layer.address),
        "identical": plan.identical,
        "size": {"before": plan.image.size, "after": plan.result.table.length},
        "warnings": list(plan.warnings),
    }
    yield json.dumps(head, indent=1).removesuffix("\n}").encode()
    for name, changes in (("paths", _changes(plan)), ("iso", _iso_changes(plan, source))):
        yield f',\n "{name}": ['.encode()
        between = b"\n  "
        for change in changes:
            yield between + json.dumps(change).encode()
            between = b",\n  "
        yield b"\n ]"
    yield b"\n}\n"


def _changes(plan: RemasterPlan) -> Iterator[dict[str, Any]]:
    """Yield a value for each path in the layer, sorted by the bytes of the paths."""
    if plan.layer is None:
        return
    tree = plan.layer.tree()
    new = {node.path: (node, action) for node, action in plan.edits.additions}
    for path in sorted({*new, *plan.edits.removed_paths, *plan.edits.unchanged}):
        node, action = new.get(path, (None, Action.REMOVED if path in plan.edits.removed_paths else Action.UNCHANGED))
        before = tree.get(path)
        change = {"path": format_address([path]), "action": _WORDS[action]}
        yield change | _sides(before, node)


def _iso_changes(plan: RemasterPlan, source: ByteSource) -> Iterator[dict[str, Any]]:
    """Yield a value for each path of the ISO's own tree, sorted by the bytes of the old paths, or else the new ones."""
    edits = plan.iso
    if edits.is_empty and not edits.unchanged:
        return
    old = {} if plan.image.volume is None else read_nodes(plan.image.volume, source)
    actions = [(path, _REMOVED) for path in old if edits.new_path(path) is None]
    actions += [(path, _RENAMED) for path in edits.renamed if path not in edits.replaced]
    actions += [(path, _EXCHANGED) for path in edits.replaced]
    actions += [(path, _ADDED) for path in edits.added_by_path]
    actions += [(path, _UNCHANGED) for path in edits.unchanged]
    for path, action in sorted(actions):
        before = None if action == _ADDED else old.get(path)
        after = edits.added_by_path[path] if action == _ADDED else None
        if action == _EXCHANGED and before is not None:
            after = replace(before, content=PieceContent(edits.replaced[path].pieces))
        change = {"path": format_address([path]), "action": _ISO_WORDS[action]}
        new = edits.new_path(path) if action in (_RENAMED, _EXCHANGED) else None
        if new is not None and new != path:
            change["to"] = format_address([new])
        yield change | _sides(before, after)


_REMOVED, _RENAMED, _EXCHANGED, _ADDED, _UNCHANGED = range(5)
_ISO_WORDS = ("removed", "renamed", "exchanged", "added", "unchanged")
"""In the order in which they happen."""

_WORDS = {
    Action.ADDED: "added",
    Action.REPLACED: "replaced",
    Action.REMOVED: "removed",
    Action.UNCHANGED: "unchanged",
    Action.PARENT: "parent",
}


def _sides(before: Node | None, after: Node | None) -> dict[str, Any]:
    """Return the attributes of an entry before and after, as far as it exists."""
    return {key: _facts(node) for key, node in (("before", before), ("after", after)) if node is not None}


def _facts(node: Node) -> dict[str, Any]:
    """Return the attributes of ``node`` that docs/report.md lists."""
    facts: dict[str, Any] = {
        "type": node.kind.noun, "mode": f"{node.mode:04o}", "uid": node.uid, "gid": node.gid, "mtime": node.mtime,
    }  # fmt: skip
    if node.content is not None:
        facts |= {"size": node.content.size, "sha256": node.content.digest().hex() or EMPTY}
    if node.kind is NodeKind.SYMLINK:
        facts["target"] = format_address([node.target])
    if node.kind in (NodeKind.CHAR, NodeKind.BLOCK):
        facts["device"] = list(node.rdev)
    return facts


EMPTY = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
"""The SHA-256 of nothing, which an index does not keep."""
