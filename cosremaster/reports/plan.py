"""A planned remaster as values that become JSON, and as lines of text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, cast

from cosremaster.checksums.renew import ListChange
from cosremaster.errors import printable
from cosremaster.io.pieces import Literal, Piece, Range, Zeros
from cosremaster.iso.edits import IsoEdits
from cosremaster.iso.layout.place import Placement
from cosremaster.layers.address import format_address
from cosremaster.layers.decoded import DecodedSource
from cosremaster.remastering.delta import DeltaFacts
from cosremaster.remastering.fat_changes import FatChange
from cosremaster.remastering.pack import RepackedLayer
from cosremaster.remastering.plan import RemasterPlan
from cosremaster.remastering.plan_layers import LayerChange
from cosremaster.remastering.size_files import SizeChange
from cosremaster.reports.inspect import memory_report
from cosremaster.reports.menus import menu_change_lines, menu_changes_report
from cosremaster.reports.roots import live_memory_lines, live_memory_report
from cosremaster.reports.run_times import time_lines, time_report
from cosremaster.reports.runs import run_lines, runs_report
from cosremaster.reports.text import (
    change_lines,
    fat_lines,
    kept_line,
    memory_lines,
    packed_line,
    parts_line,
    planned_delta_lines,
    rename_lines,
    signature_lines,
    size_lines,
    sums_lines,
    taken_line,
)
from cosremaster.tree.nodes import Action, Edits
from cosremaster.units import Lba, format_size

if TYPE_CHECKING:
    from cosremaster.reports.documents import (
        DeltaDocument,
        EarlyChangeDocument,
        EditsDocument,
        ExtentDocument,
        FatChangeDocument,
        IsoEditsDocument,
        LayerChangeDocument,
        ListChangeDocument,
        MemoryDocument,
        PackedLayerDocument,
        PartsChangeDocument,
        PiecesDocument,
        PlanDocument,
        SizeChangeDocument,
        SizesDocument,
        SupersededDocument,
    )

SCHEMA = 1
"""Raised whenever a field of :func:`plan_report` changes its meaning or goes away."""


def plan_report(plan: RemasterPlan) -> PlanDocument:
    """Return ``plan`` as plain values (docs/json.md).

    Paths are text with undecodable bytes as ``\\xNN``; sizes are bytes; LBAs count blocks of 2,048 bytes.
    """
    settings, layout = plan.settings, plan.result.layout
    return {
        "schema": SCHEMA,
        "identical": plan.identical,
        "layer": format_address(plan.changes[0].address) if plan.changes else None,
        "edits": _edits_report(plan.changes[0].edits if plan.changes else Edits(frozenset(), (), (), (), ())),
        "files": printable_paths(plan.changes[0].paths if plan.changes else ()),
        "further_layers": [_change_report(change) for change in plan.changes[1:]],
        "iso": _iso_report(plan.iso),
        "fats": [fat_report(change) for change in plan.fats],
        "menus": menu_changes_report(settings.menus),
        "renamed": [
            {"what": rename.attribute, "before": printable(rename.old), "after": printable(rename.new)}
            for rename in settings.volume_renames
        ],
        "overwritten": [
            {"offset": at, "bytes": table.length}
            for at, table in sorted(plan.result.overwrites.items(), key=lambda item: item[0])
        ],
        "sums": [list_report(change) for change in plan.sums],
        "sizes": [size_report(change) for change in plan.companions.sizes],
        "signatures": printable_paths(plan.companions.signatures),
        "layers": [_layer_report(layer) for layer in plan.packed],
        "dead": [
            {
                "layer": format_address(saving.address),
                "repacked": saving.repacking.noun or None,
                "data": saving.dead and saving.dead.data,
                "metadata": saving.dead and saving.dead.metadata,
            }
            for saving in plan.savings
        ],
        "superseded": _superseded_report(plan.changes),
        "pieces": _pieces(plan.result.table.pieces, plan),
        "image": {
            "size": {"before": plan.input_size, "after": plan.result.table.length},
            "blocks": _blocks(plan),
            "extents": [_extent(placement) for placement in layout.placements],
            "appended": [
                {"what": placement.span.label, "lba": placement.start, "blocks": placement.blocks}
                for placement in layout.appended
            ],
        },
        "runs": runs_report(plan.runs),
        "memory": _memory(plan.changes[0]) if plan.changes else None,
        "live_memory": live_memory_report(plan.live_memory),
        "delta": None if plan.delta is None else delta_report(plan.delta),
        "time": None if plan.time is None else time_report(plan.time),
        "earlier_plan": {"taken": plan.parts.taken, "kept": plan.parts.packed},
        "warnings": list(plan.warnings),
    }


def delta_report(delta: DeltaFacts) -> DeltaDocument:
    """Return the size of a delta, and what makes it large."""
    early: list[EarlyChangeDocument] = [
        {"layer": early.layer, "path": printable(early.path), "bytes": early.size} for early in delta.early
    ]
    return {"bytes": delta.size, "early": early}


def _superseded_report(changes: Sequence[LayerChange]) -> list[SupersededDocument]:
    """Return which replaced entries stay in each of the changed layers where some do."""
    return [
        {
            "layer": format_address(change.address),
            "paths": printable_paths(sorted(change.superseding.paths)),
            "bytes": change.superseding.dead,
            "unpacker": change.superseding.unpacker or None,
        }
        for change in changes
        if change.superseding.paths
    ]


def _change_report(change: LayerChange) -> LayerChangeDocument:
    """Return what happens to another layer than the first."""
    return {
        "layer": format_address(change.address), "files": printable_paths(change.paths),
        "edits": _edits_report(change.edits), "memory": _memory(change),
    }  # fmt: skip


def _memory(change: LayerChange) -> MemoryDocument | None:
    """Return what it takes to boot the file of a layer; None where it is no initramfs."""
    return None if change.memory is None else memory_report(change.memory)


def _edits_report(edits: Edits) -> EditsDocument:
    """Return the paths that ``edits`` change in the layer, by what happens to them."""
    return {
        "added": printable_paths(edits.paths(Action.ADDED)),
        "replaced": printable_paths(edits.paths(Action.REPLACED)),
        "removed": printable_paths(edits.removed),
        "parents": printable_paths(edits.paths(Action.PARENT)),
        "unchanged": printable_paths(edits.unchanged),
    }


def _iso_report(edits: IsoEdits) -> IsoEditsDocument:
    """Return the paths that ``edits`` change in the ISO's own tree, by what happens to them."""
    return {
        "added": printable_paths([node.path for node in edits.added]),
        "exchanged": printable_paths(sorted(edits.replaced)),
        "removed": printable_paths(edits.removed),
        "renamed": [{"before": printable(old), "after": printable(new)} for old, new in edits.renamed.items()],
        "unchanged": printable_paths(edits.unchanged),
    }


def fat_report(change: FatChange) -> FatChangeDocument:
    """Return the paths that change in a FAT file system, by what happens to them."""
    return {
        "fat": change.name,
        "address": change.address,
        "added": printable_paths(change.added),
        "exchanged": printable_paths(change.exchanged),
        "removed": printable_paths(change.removed),
        "unchanged": printable_paths(change.unchanged),
        "copies": {printable(path): original for path, original in sorted(change.copies.items())},
    }


def list_report(change: ListChange) -> ListChangeDocument:
    """Return how many lines of a list of checksums change."""
    return {
        "path": printable(change.path), "rewritten": change.rewritten, "added": change.added,
        "dropped": change.dropped, "renamed": change.renamed,
    }  # fmt: skip


def size_report(change: SizeChange) -> SizeChangeDocument:
    """Return a size in bytes that a file on the ISO tells."""
    return {
        "path": printable(change.path), "of": printable(change.of), "before": change.before, "after": change.after,
    }  # fmt: skip


def _layer_report(layer: RepackedLayer) -> PackedLayerDocument:
    """Return a layer that was packed again, with sizes in bytes."""
    return {
        "address": format_address(layer.address), "codec": layer.codec, "size": layer.packed.table.length,
        "kept": layer.packed.reused, "encoded": layer.packed.encoded, "stored": layer.packed.stored,
        "parts": cast("PartsChangeDocument | None", layer.parts_values),
    }  # fmt: skip


def _superseded_lines(report: PlanDocument) -> Iterator[str]:
    """Yield a line for each layer in which replaced entries stay."""
    for superseded in report["superseded"]:
        count = len(superseded["paths"])
        yield (
            f"{superseded['layer']}: {count:,} replaced {'entry stays' if count == 1 else 'entries stay'} superseded,"
            f" {superseded['bytes']:,} bytes; --supersede never takes them out"
        )


def _dead_lines(report: PlanDocument) -> Iterator[str]:
    """Yield lines about bytes of removed files that stay."""
    for dead in report["dead"]:
        if dead["repacked"]:
            yield f"{dead['layer']}: {dead['repacked']} repacked"
        if dead["data"] is None:
            yield f"{dead['layer']}: what --repack would save is not counted for so many inodes"
            continue
        if dead["data"]:
            yield f"{dead['layer']}: {dead['data']:,} bytes of data are of removed files; --repack saves them"
        if dead["metadata"]:
            yield (
                f"{dead['layer']}: about {dead['metadata']:,} bytes of metadata are of removed files; --repack-metadata"
                " saves them, as --repack does"
            )


def _blocks(plan: RemasterPlan) -> SizesDocument:
    """Return the volume space size before and after; 0 for an image without a volume."""
    before = 0 if plan.image.volume is None else plan.image.volume.blocks
    after = plan.result.layout.map_volume_end(Lba(before)) if before else 0
    return {"before": before, "after": after}


def printable_paths(paths: Sequence[bytes]) -> list[str]:
    """Return paths as text."""
    return [printable(path) for path in paths]


def _pieces(pieces: Sequence[Piece], plan: RemasterPlan) -> dict[str, PiecesDocument]:
    """Count the pieces of each kind in the new image, and their bytes."""
    counts, sizes = Counter[str](), Counter[str]()
    for piece in pieces:
        kind = _kind(piece, plan)
        counts[kind] += 1
        sizes[kind] += piece.length
    return {kind: {"pieces": counts[kind], "bytes": sizes[kind]} for kind in sorted(counts)}


def _kind(piece: Piece, plan: RemasterPlan) -> str:
    """Name where the bytes of a piece come from."""
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


def _extent(placement: Placement) -> ExtentDocument:
    """Return where an extent stood and where it will stand."""
    return {
        "what": placement.span.label,
        "before": {"lba": placement.span.start, "blocks": placement.span.blocks},
        "after": {"lba": placement.start, "blocks": placement.blocks},
    }


def plan_lines(plan: RemasterPlan) -> Iterator[str]:
    """Yield ``plan`` as lines for people."""
    report = plan_report(plan)
    yield from run_lines(plan.runs)
    if plan.identical:
        yield "nothing changes: the output would be the input, byte for byte"
    for change in plan.changes:
        edits = change.edits
        yield f"layer {', '.join(format_address(address) for address in (change.address, *_others(change)))}"
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
    yield from fat_lines(plan.fats)
    yield from (
        f"{name.attribute}: {printable(name.old)} -> {printable(name.new)}" for name in plan.settings.volume_renames
    )
    yield from menu_change_lines(plan.settings.menus)
    yield from size_lines(plan.companions.sizes)
    yield from signature_lines(plan.companions.signatures)
    yield from sums_lines(plan.sums)
    for packed in plan.packed:
        yield packed_line(packed.summary)
        yield from filter(None, (parts_line(packed.summary),))
    yield from _dead_lines(report)
    yield from _superseded_lines(report)
    for change in {change.paths[0]: change for change in plan.changes}.values():
        if change.memory is not None:
            yield from memory_lines(printable(change.paths[0]), change.memory)
    yield from live_memory_lines(plan.live_memory)
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
    yield from planned_delta_lines(plan.delta)
    yield from filter(None, (taken_line(plan.parts.taken), kept_line(plan.parts)))
    yield from time_lines(plan.time)
    for warning in plan.warnings:
        yield f"warning: {warning}"


def _others(change: LayerChange) -> Iterator[tuple[bytes]]:
    """Yield the addresses of the other files that hold the layer."""
    yield from ((path,) for path in change.paths[1:])


def _appended_lines(appended: Iterable[Placement]) -> Iterator[str]:
    """Yield lines about new blocks; neighbours of one kind share a line."""
    for what, group in groupby(
        sorted(appended, key=lambda placement: placement.start), key=lambda placement: placement.span.label
    ):
        placements = list(group)
        many = f" ({len(placements):,})" if len(placements) > 1 else ""
        last = max(placements[-1].start, placements[-1].end - 1)
        yield f"  {what}{many}: new blocks {placements[0].start:,} to {last:,}"
