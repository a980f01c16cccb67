"""What happened to each path of a layer and of the ISO's own tree, as JSON (docs/report.md)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from cosremaster.errors import ScriptError, printable
from cosremaster.io.source import ByteSource
from cosremaster.iso.nodes import read_nodes
from cosremaster.layers.address import format_address
from cosremaster.overlay.run_outcome import ScriptOutcome
from cosremaster.records import replace
from cosremaster.remastering.fat_changes import FatChange
from cosremaster.remastering.plan import RemasterPlan
from cosremaster.remastering.plan_layers import LayerChange
from cosremaster.tree.content import PieceContent
from cosremaster.tree.nodes import Action, Node, NodeKind

SCHEMA = 1
"""Raised whenever a field of the report changes its meaning or goes away."""


def report_chunks(plan: RemasterPlan, source: ByteSource) -> Iterator[bytes]:
    """Yield the report on ``plan`` for the image in ``source``, in UTF-8, a line for each path.

    Added files are read for their digests, and so are files on the ISO that are removed or get other bytes.
    """
    first, others = (plan.changes[0] if plan.changes else None), plan.changes[1:]
    head = {
        "schema": SCHEMA,
        "layer": None if first is None else format_address(first.address),
        "files": [] if first is None else [format_address([path]) for path in first.paths],
        "repacked": None if first is None else first.repacking.noun or None,
        "superseded": None if first is None else _superseded(first),
        "packed": [
            {"layer": format_address(layer.address), "codec": layer.codec, "parts": layer.parts_values}
            for layer in plan.packed
        ],
        "identical": plan.identical,
        "size": {"before": plan.input_size, "after": plan.result.table.length},
        "warnings": list(plan.warnings),
    }
    yield json.dumps(head, indent=1).removesuffix("\n}").encode()
    yield from _list_chunks("paths", _changes(first))
    yield from _list_chunks("iso", _iso_changes(plan, source))
    if plan.fats:
        yield from _list_chunks("fats", _fat_changes(plan.fats))
    if plan.runs:
        yield from _list_chunks("runs", map(run_facts, plan.runs))
    if others:
        yield b',\n "further_layers": ['
        for number, change in enumerate(others):
            files = [format_address([path]) for path in change.paths]
            layer = json.dumps(
                {"layer": format_address(change.address), "files": files, "superseded": _superseded(change)}
            )
            yield (b",\n" if number else b"\n") + layer.removesuffix("}").encode()
            yield from _list_chunks("paths", _changes(change))
            yield b"}"
        yield b"\n ]"
    yield b"\n}\n"


def _superseded(change: LayerChange) -> dict[str, Any] | None:
    """Return which replaced entries of a layer stay in it, None for none."""
    superseding = change.superseding
    if not superseding.paths:
        return None
    return {
        "paths": [format_address([path]) for path in sorted(superseding.paths)],
        "bytes": superseding.dead,
        "unpacker": superseding.unpacker or None,
    }


def failure_chunks(error: ScriptError, outcomes: Sequence[ScriptOutcome]) -> Iterator[bytes]:
    """Yield the report on a remaster that ended with the ``error`` of a script, after those of ``outcomes`` ran."""
    head = {"schema": SCHEMA, "error": str(error), "exit_code": error.exit_status}
    yield json.dumps(head, indent=1).removesuffix("\n}").encode()
    yield from _list_chunks("runs", map(run_facts, outcomes))
    yield b"\n}\n"


def run_facts(outcome: ScriptOutcome) -> dict[str, Any]:
    """Return what came of a script, as docs/report.md lists it."""
    return {
        "script": printable(outcome.name), "layer": outcome.layer, "ids": outcome.way, "exit_code": outcome.exit_code,
        "seconds": round(outcome.seconds, 3), "network": outcome.has_network, "remembered": outcome.is_remembered,
        "added": [printable(path) for path in outcome.added],
        "changed": [printable(path) for path in outcome.changed],
        "removed": [printable(path) for path in outcome.removed],
        "leftovers": [
            {"what": leftover.name, "paths": [printable(path) for path in leftover.paths], "bytes": leftover.size,
             "left_out": outcome.is_cleaned}
            for leftover in outcome.leftovers
        ],
        "notes": list(outcome.notes),
    }  # fmt: skip


def _list_chunks(name: str, values: Iterator[dict[str, Any]]) -> Iterator[bytes]:
    """Yield the key ``name`` with a list of ``values``, a line for each."""
    yield f',\n "{name}": ['.encode()
    between = b"\n  "
    for value in values:
        yield between + json.dumps(value).encode()
        between = b",\n  "
    yield b"\n ]"


def _changes(changed: LayerChange | None) -> Iterator[dict[str, Any]]:
    """Yield a value for each path in a layer, sorted by the bytes of the paths."""
    if changed is None:
        return
    tree, edits = changed.layer.tree(), changed.edits
    new = {node.path: (node, action) for node, action in edits.additions}
    for path in sorted({*new, *edits.removed_paths, *edits.unchanged}):
        node, action = new.get(path, (None, Action.REMOVED if path in edits.removed_paths else Action.UNCHANGED))
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


def _fat_changes(changes: Iterable[FatChange]) -> Iterator[dict[str, Any]]:
    """Yield a value for each path that changes in a FAT file system, sorted by the bytes of the paths in each."""
    for change in changes:
        for path in sorted({*change.before, *change.after, *change.unchanged}):
            before, after = change.before.get(path), change.after.get(path)
            action = _UNCHANGED if path in change.unchanged else _ADDED if before is None else _EXCHANGED
            action = _REMOVED if after is None and before is not None else action
            value = {"fat": change.address, "path": format_address([path]), "action": _ISO_WORDS[action]}
            if path in change.copies:
                value["as"] = change.copies[path]
            yield value | _sides(before, after)


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
