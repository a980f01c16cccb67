"""What commands made, as values that become JSON (docs/json.md)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from cosremaster.errors import printable
from cosremaster.reports.inspect import memory_report
from cosremaster.reports.menus import menu_changes_report
from cosremaster.reports.plan import delta_report, fat_report, list_report, printable_paths, size_report
from cosremaster.reports.roots import live_memory_report
from cosremaster.reports.runs import runs_report

if TYPE_CHECKING:
    from cosremaster.api.results import ChangedLayer, Result
    from cosremaster.api.views import Export, Extraction
    from cosremaster.remastering.pack import PackedLayer
    from cosremaster.reports.documents import (
        ChangedLayerDocument,
        ExportDocument,
        ExtractionDocument,
        PackedLayerDocument,
        ResultDocument,
    )


def result_report(result: Result, output: Path, *, is_new: bool = False) -> ResultDocument:
    """Return the ``result`` of a remaster that was written to ``output``. ``is_new``: there was no input."""
    delta = result.delta
    return {
        "schema": 1,
        "output": str(output),
        "identical": result.identical,
        "size": {"before": None if is_new else result.input_size, "after": result.output_size},
        "layers": [_layer_report(layer) for layer in result.layers],
        "iso": {
            "added": printable_paths(result.iso_added),
            "exchanged": printable_paths(result.iso_exchanged),
            "removed": printable_paths(result.iso_removed),
            "renamed": [{"before": printable(old), "after": printable(new)} for old, new in result.iso_renamed],
            "unchanged": printable_paths(result.iso_unchanged),
        },
        "fats": [fat_report(change) for change in result.fats],
        "menus": menu_changes_report(result.menus),
        "sums": [list_report(change) for change in result.sums],
        "sizes": [size_report(change) for change in result.sizes],
        "signatures": printable_paths(result.dropped_signatures),
        "packed": [_packed_report(layer) for layer in result.packed],
        "live_memory": live_memory_report(result.live_memory),
        "runs": runs_report(result.runs),
        "delta": None
        if delta is None
        else {**delta_report(delta), "base_sha256": delta.base_sha256, "sha256": delta.sha256},
        "earlier_plan": {"taken": result.taken, "kept": 0},
        "warnings": list(result.warnings),
        "proof": list(result.proof),
        "upload": result.upload or None,
    }


def _layer_report(layer: ChangedLayer) -> ChangedLayerDocument:
    """Return the changes of a layer."""
    return {
        "layer": layer.layer,
        "files": list(layer.files),
        "size": layer.size,
        "edits": {
            "added": printable_paths(layer.added),
            "replaced": printable_paths(layer.replaced),
            "removed": printable_paths(layer.removed),
            "parents": printable_paths(layer.parents),
            "unchanged": printable_paths(layer.unchanged),
        },
        "memory": None if layer.memory is None else memory_report(layer.memory),
        "repacked": layer.repacked or None,
        "superseded": printable_paths(layer.superseded),
        "superseded_bytes": layer.dead,
    }


def _packed_report(layer: PackedLayer) -> PackedLayerDocument:
    """Return a layer that was packed again."""
    return {
        "address": layer.address,
        "codec": layer.codec,
        "size": layer.size,
        "kept": layer.reused,
        "encoded": layer.encoded,
        "stored": layer.stored,
        "parts": {
            "before": {"count": layer.parts_before, "largest": layer.largest_before},
            "after": {"count": layer.parts, "largest": layer.largest_part},
        }
        if layer.parts
        else None,
    }


def extraction_report(extraction: Extraction, output: Path) -> ExtractionDocument:
    """Return what was taken out into ``output``."""
    return {
        "schema": 1,
        "output": str(output),
        "entries": extraction.entries,
        "files": extraction.files,
        "directories": extraction.directories,
        "others": extraction.others,
        "size": extraction.size,
        "mtree": None if extraction.mtree is None else str(extraction.mtree),
        "without_xattrs": printable_paths(extraction.without_xattrs),
    }


def export_report(export: Export) -> ExportDocument:
    """Return what was exported."""
    return {
        "schema": 1,
        "files": list(export.files),
        "size": None if export.sha256 is None else export.size,
        "sha256": export.sha256,
        "command": export.command,
        "layer": export.layer,
        "entry": export.entry,
    }
