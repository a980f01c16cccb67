"""A planned remaster as values that become JSON, and as lines of text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import Any

from cosremaster.errors import printable
from cosremaster.io.pieces import Literal, Piece, Range, Zeros
from cosremaster.iso.layout.place import Placement
from cosremaster.layers.address import format_address
from cosremaster.layers.decoded import DecodedSource
from cosremaster.remastering.plan import RemasterPlan
from cosremaster.reports.inspect import memory_report
from cosremaster.reports.menus import menu_change_lines, menu_changes_report
from cosremaster.reports.text import change_lines, memory_lines, packed_line, rename_lines, sums_lines
from cosremaster.tree.nodes import Action
from cosremaster.units import SECTORS_PER_BLOCK, Sector, format_size

SCHEMA = 1
"""Raised whenever a field of :func:`plan_report` changes its meaning or goes away."""


def plan_report(plan: RemasterPlan) -> dict[str, Any]:
    """``plan`` as plain values. Paths are text with undecodable bytes as ``\\xNN``; sizes are bytes; LBAs blocks."""
    edits, layer = plan.edits, plan.layer
    return {
        "schema": SCHEMA,
        "identical": plan.identical,
        "layer": None if layer is None else format_address(layer.address),
        "edits": {
            "added": _shown(edits.paths(Action.ADDED)),
            "replaced": _shown(edits.paths(Action.REPLACED)),
            "removed": _shown(edits.removed),
            "parents": _shown(edits.paths(Action.PARENT)),
            "unchanged": _shown(edits.unchanged),
        },
        "iso": {
            "added": _shown([node.path for node in plan.iso.added]),
            "exchanged": _shown(sorted(plan.iso.replaced)),
            "removed": _shown(plan.iso.removed),
            "renamed": [{"before": printable(old), "after": printable(new)} for old, new in plan.iso.renamed.items()],
            "unchanged": _shown(plan.iso.unchanged),
        },
        "menus": menu_changes_report(plan.settings.menus),
        "renamed": [
            {"what": one.attribute, "before": printable(one.old), "after": printable(one.new)}
            for one in plan.settings.volume_renames
        ],
        "overwritten": [{"offset": at, "bytes": len(data)} for at, data in sorted(plan.settings.overwritten.items())],
        "sums": [
            {
                "path": printable(one.path),
                "rewritten": one.rewritten,
                "added": one.added,
                "dropped": one.dropped,
                "renamed": one.renamed,
            }
            for one in plan.sums
        ],
        "layers": [
            {
                "address": format_address(one.address),
                "codec": one.codec,
                "size": one.packed.table.length,
                "kept": one.packed.reused,
                "encoded": one.packed.encoded,
                "stored": one.packed.stored,
            }
            for one in plan.packed
        ],
        "pieces": _pieces(plan.result.table.pieces, plan),
        "image": {
            "size": {"before": plan.image.size, "after": plan.result.table.length},
            "blocks": _blocks(plan),
            "extents": [_extent(one) for one in plan.result.layout.placements],
            "appended": [
                {"what": one.span.label, "lba": one.start, "blocks": one.blocks} for one in plan.result.layout.appended
            ],
        },
        "memory": None if plan.memory is None else memory_report(plan.memory),
        "warnings": list(plan.warnings),
    }


def _blocks(plan: RemasterPlan) -> dict[str, int]:
    """Return the volume space size before and after; 0 for an image without a volume."""
    before = 0 if plan.image.volume is None else plan.image.volume.blocks
    after = plan.result.layout.map_end(Sector(before * SECTORS_PER_BLOCK)) // SECTORS_PER_BLOCK if before else 0
    return {"before": before, "after": after}


def _shown(paths: Sequence[bytes]) -> list[str]:
    return [printable(path) for path in paths]


def _pieces(pieces: Sequence[Piece], plan: RemasterPlan) -> dict[str, dict[str, int]]:
    """How many pieces of each kind the new image has, and their bytes."""
    counts, sizes = Counter[str](), Counter[str]()
    for piece in pieces:
        kind = _kind(piece, plan)
        counts[kind] += 1
        sizes[kind] += piece.length
    return {kind: {"pieces": counts[kind], "bytes": sizes[kind]} for kind in sorted(counts)}


def _kind(piece: Piece, plan: RemasterPlan) -> str:
    match piece:
        case Literal():
            return "made"
        case Zeros():
            return "zeros"
        case Range(source=source):
            if source is plan.image.source.source:
                return "input"
            if isinstance(source, DecodedSource):
                return "decoded"
            return "spool" if source.name == "spool" else "files"


def _extent(one: Placement) -> dict[str, Any]:
    return {
        "what": one.span.label,
        "before": {"lba": one.span.start, "blocks": one.span.blocks},
        "after": {"lba": one.start, "blocks": one.blocks},
    }


def plan_lines(plan: RemasterPlan) -> Iterator[str]:
    """``plan`` for people."""
    report = plan_report(plan)
    if plan.identical:
        yield "nothing changes: the output would be the input, byte for byte"
    edits = plan.edits
    if plan.layer is not None:
        yield f"layer {report['layer']}"
        for mark, action in (("+", Action.ADDED), ("~", Action.REPLACED), ("d", Action.PARENT)):
            yield from change_lines(mark, edits.paths(action))
        yield from change_lines("-", edits.removed)
        yield from change_lines("=", edits.unchanged)
    if not plan.iso.is_empty or plan.iso.unchanged:
        yield "the ISO's own tree"
        yield from change_lines("+", (node.path for node in plan.iso.added))
        yield from change_lines("~", sorted(plan.iso.replaced))
        yield from change_lines("-", plan.iso.removed)
        yield from rename_lines(plan.iso.renamed.items())
        yield from change_lines("=", plan.iso.unchanged)
    yield from (
        f"{name.attribute}: {printable(name.old)} -> {printable(name.new)}" for name in plan.settings.volume_renames
    )
    yield from menu_change_lines(plan.settings.menus)
    yield from sums_lines(plan.sums)
    for one in plan.packed:
        yield packed_line(one.address, one.codec, one.packed)
    if plan.memory is not None and plan.layer is not None:
        yield from memory_lines(printable(plan.layer.address[0]), plan.memory)
    yield "pieces of the new image:"
    for kind, sums in report["pieces"].items():
        yield f"  {kind:8} {sums['pieces']:>7,} pieces, {sums['bytes']:,} bytes"
    size = report["image"]["size"]
    yield f"image: {format_size(size['before'])} -> {format_size(size['after'])}"
    for extent in report["image"]["extents"]:
        before, after = extent["before"], extent["after"]
        if before != after:
            yield (
                f"  {extent['what']}: blocks {before['lba']:,} to {before['lba'] + before['blocks'] - 1:,}"
                f" -> {after['lba']:,} to {after['lba'] + after['blocks'] - 1:,}"
            )
    yield from _appended_lines(plan.result.layout.appended)
    for warning in plan.warnings:
        yield f"warning: {warning}"


def _appended_lines(appended: Iterable[Placement]) -> Iterator[str]:
    """New blocks; a line for things of one kind, one behind the other."""
    for what, group in groupby(sorted(appended, key=lambda one: one.start), key=lambda one: one.span.label):
        found = list(group)
        many = f" ({len(found):,})" if len(found) > 1 else ""
        last = max(found[-1].start, found[-1].end - 1)
        yield f"  {what}{many}: new blocks {found[0].start:,} to {last:,}"
