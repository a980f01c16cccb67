"""What happened to each path of a layer, as JSON (docs/report.md)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from cosremaster.layers.address import format_address
from cosremaster.layers.tree import LayerTree
from cosremaster.nodes import Action, Kind, Node
from cosremaster.pipeline import Plan

SCHEMA = 1
"""Raised whenever a field of the report changes its meaning or goes away."""


def report_chunks(plan: Plan) -> Iterator[bytes]:
    """The report on ``plan`` in UTF-8, a line for each path. Files that come are read for their digests."""
    head = {
        "schema": SCHEMA,
        "layer": None if plan.layer is None else format_address(plan.layer.address),
        "identical": plan.identical,
        "size": {"before": plan.image.size, "after": plan.result.table.length},
        "warnings": list(plan.warnings),
    }
    yield json.dumps(head, indent=1).removesuffix("\n}").encode() + b',\n "paths": ['
    between = b"\n  "
    for change in _changes(plan):
        yield between + json.dumps(change).encode()
        between = b",\n  "
    yield b"\n ]\n}\n"


def _changes(plan: Plan) -> Iterator[dict[str, Any]]:
    """One value for each path, sorted by the paths' bytes."""
    if plan.layer is None:
        return
    tree = LayerTree(plan.layer)
    new = {node.path: (node, action) for node, action in plan.edits.new}
    for path in sorted({*new, *plan.edits.gone, *plan.edits.unchanged}):
        node, action = new.get(path, (None, Action.REMOVED if path in plan.edits.gone else Action.UNCHANGED))
        before = tree.get(path)
        change = {"path": format_address([path]), "action": _WORDS[action]}
        yield change | {key: _facts(one) for key, one in (("before", before), ("after", node)) if one is not None}


_WORDS = {
    Action.ADDED: "added",
    Action.REPLACED: "replaced",
    Action.REMOVED: "removed",
    Action.UNCHANGED: "unchanged",
    Action.PARENT: "parent",
}


def _facts(node: Node) -> dict[str, Any]:
    """What a node is: the fields that docs/report.md lists."""
    facts: dict[str, Any] = {
        "type": node.kind.noun, "mode": f"{node.mode:04o}", "uid": node.uid, "gid": node.gid, "mtime": node.mtime,
    }  # fmt: skip
    if node.content is not None:
        facts |= {"size": node.content.size, "sha256": node.content.digest().hex() or EMPTY}
    if node.kind is Kind.SYMLINK:
        facts["target"] = format_address([node.target])
    if node.kind in (Kind.CHAR, Kind.BLOCK):
        facts["device"] = list(node.rdev)
    return facts


EMPTY = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
"""The SHA-256 of nothing, which an index does not keep."""
