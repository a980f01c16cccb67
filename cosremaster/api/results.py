"""The plan and the result of a remaster, as callers get them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cosremaster.errors import printable
from cosremaster.layers.address import format_address
from cosremaster.records.lazy_dataclass import dataclass, field
from cosremaster.tree.nodes import Action

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cosremaster.boot_config.menu_change import MenuChange
    from cosremaster.boot_memory.estimate import MemoryEstimate
    from cosremaster.boot_memory.live_systems import LiveMemory
    from cosremaster.checksums.renew import ListChange
    from cosremaster.overlay.run_outcome import ScriptOutcome
    from cosremaster.remastering.delta import DeltaFacts
    from cosremaster.remastering.fat_changes import FatChange
    from cosremaster.remastering.pack import PackedLayer
    from cosremaster.remastering.plan import RemasterPlan
    from cosremaster.remastering.plan_layers import LayerChange
    from cosremaster.remastering.prepare import PreparedStream
    from cosremaster.remastering.size_files import SizeChange


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangedLayer:
    """The changes of a layer; its paths are bytes, relative to its root.

    ``layer``: its address; of an initramfs of several archives that of the file where more than one of them changes.
    ``files``: the files on the image that hold it, its own first, then hard links and files of equal bytes; ``size``:
    bytes of such a file after the changes; ``memory``: what it takes to boot one; ``repacked``: ``"metadata"``, or
    ``"data"`` for both, where these were written anew too. ``superseded``: those of ``replaced`` whose old entries
    stay in the archive, ``dead`` bytes of them. The others are as in :class:`Changes`.
    """

    layer: str
    files: tuple[str, ...]
    size: int
    added: tuple[bytes, ...] = ()
    replaced: tuple[bytes, ...] = ()
    removed: tuple[bytes, ...] = ()
    unchanged: tuple[bytes, ...] = ()
    parents: tuple[bytes, ...] = ()
    memory: MemoryEstimate | None = None
    repacked: str = ""
    superseded: tuple[bytes, ...] = ()
    dead: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """The changes of a remaster. Paths are bytes, relative to the root of the layer; sizes are in bytes.

    ``layers``: every layer that was meant, in the order of the request. What stands beside them is that of the first:
    ``layer``: the address of the changed layer. ``added``, ``replaced``, ``removed``, ``unchanged`` (already there) and
    ``parents`` (made for additions) are paths in it. Those that begin with ``iso_`` are paths on the ISO's own tree;
    ``iso_renamed`` has pairs of the old and the new path.

    ``fats``: the changes in FAT file systems on the image, but for their boot menus.

    ``menus``: the boot menus, where kernel arguments or the volume changed; ``sums``: the changed lists of checksums on
    the ISO; ``sizes``: sizes of file systems that files on the ISO tell, such as ``filesystem.size``, before and after;
    ``dropped_signatures``: paths of signatures and dm-verity hashes that left with ``drop_signatures``;
    ``live_memory``: what the boot entries of a live system take whose root changed (docs/memory.md); ``runs``: what
    came of scripts (docs/run.md).
    ``layer_file``: the file on the image that holds the layer, with its new size; ``packed``: the layers that
    were compressed again, the inner first; ``memory``: what it takes to boot that file (docs/memory.md), where it is an
    initramfs. ``taken``: decoded bytes that were not compressed again, because an earlier plan had kept what became of
    them. ``delta``: of the delta that was written or planned, where one was asked for, in place of an image of
    ``output_size`` bytes. ``identical``: nothing changes, the output is the input byte for byte.
    """

    layers: tuple[ChangedLayer, ...] = ()
    layer: str | None
    added: tuple[bytes, ...] = ()
    replaced: tuple[bytes, ...] = ()
    removed: tuple[bytes, ...] = ()
    unchanged: tuple[bytes, ...] = ()
    parents: tuple[bytes, ...] = ()
    iso_added: tuple[bytes, ...] = ()
    iso_removed: tuple[bytes, ...] = ()
    iso_renamed: tuple[tuple[bytes, bytes], ...] = ()
    iso_exchanged: tuple[bytes, ...] = ()
    iso_unchanged: tuple[bytes, ...] = ()
    fats: tuple[FatChange, ...] = ()
    menus: tuple[MenuChange, ...] = ()
    sums: tuple[ListChange, ...] = ()
    sizes: tuple[SizeChange, ...] = ()
    dropped_signatures: tuple[bytes, ...] = ()
    live_memory: tuple[LiveMemory, ...] = ()
    runs: tuple[ScriptOutcome, ...] = ()
    input_size: int
    output_size: int
    layer_file: str | None = None
    layer_file_size: int = 0
    packed: tuple[PackedLayer, ...] = ()
    memory: MemoryEstimate | None = None
    warnings: tuple[str, ...] = ()
    delta: DeltaFacts | None = None
    taken: int = 0
    identical: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Result(Changes):
    """The result of a remaster: its changes, and what was proved of the finished image.

    ``proof``: a line for each thing that was found true when the image was read again. ``upload``: the shell command
    that imports the output into MAAS, where a recipe says how; else empty. ``sha256``: of the image that was written,
    in hexadecimal digits, where that was wanted; else empty.
    """

    proof: tuple[str, ...]
    upload: str = ""
    sha256: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedLayer:
    """What a preparation did to a layer; sizes are in bytes.

    ``layer``: its address, or that of its file where several archives share a stream; ``codec``: name of the
    compression. ``reason``: why it stays as it is, as the end of a sentence about it; None where it was cut. ``parts``:
    the blocks or frames that can be compressed one without the others, before and after; ``largest_part``: decoded
    bytes of the largest, which a later change of one place compresses again at most (0: all that follows the change);
    ``packed``: bytes of the compressed stream.
    """

    layer: str
    codec: str
    reason: str | None
    parts: tuple[int, int]
    largest_part: tuple[int, int]
    packed: tuple[int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Preparation:
    """The result of a preparation (docs/prepare.md); sizes are in bytes.

    ``layers``: every layer that was looked at; ``identical``: there was nothing to do, and the output is the input.
    ``seconds``: how long it took. ``proof``: as in :class:`Result`.
    """

    layers: tuple[PreparedLayer, ...]
    input_size: int
    output_size: int
    seconds: float
    identical: bool
    warnings: tuple[str, ...] = ()
    proof: tuple[str, ...]


def make_preparation(plan: RemasterPlan, proof: tuple[str, ...], seconds: float) -> Preparation:
    """Return ``plan``, which was written in ``seconds``, as callers get it."""
    return Preparation(
        layers=tuple(map(_prepared_layer, plan.prepared)), input_size=plan.input_size,
        output_size=plan.result.table.length, seconds=seconds, identical=plan.identical, warnings=plan.warnings,
        proof=proof,
    )  # fmt: skip


def _prepared_layer(stream: PreparedStream) -> PreparedLayer:
    """Return ``stream`` as callers get it."""
    count, largest = stream.before
    packed = stream.packed
    return PreparedLayer(
        layer=format_address(stream.address), codec=stream.codec, reason=stream.reason or None,
        parts=(count, count if packed is None else packed.parts),
        largest_part=(largest, largest if packed is None else packed.largest_part),
        packed=(stream.size, stream.size if packed is None else packed.table.length),
    )  # fmt: skip


def changes_of_plan(plan: RemasterPlan) -> dict[str, Any]:
    """Return the fields of :class:`Changes` for ``plan``."""
    image = plan.image
    new = {layer.address[0]: layer.packed.table.length for layer in plan.packed if len(layer.address) == 1}
    changed = {change.paths[0] for change in plan.changes}
    old = {file.path: file.size for file in image.files if file.path in changed} if changed else {}
    sizes = new | old | dict(plan.result.replaced_sizes)
    layers = tuple(_changed_layer(change, sizes) for change in plan.changes)
    first = layers[0] if layers else None
    names = ("layer", "added", "replaced", "removed", "unchanged", "parents", "memory")
    return {
        "layers": layers,
        **({"layer": None} if first is None else {name: getattr(first, name) for name in names}),
        "iso_added": tuple(node.path for node in plan.iso.added), "iso_removed": plan.iso.removed,
        "iso_renamed": tuple(plan.iso.renamed.items()), "iso_exchanged": tuple(sorted(plan.iso.replaced)),
        "iso_unchanged": plan.iso.unchanged, "fats": plan.fats, "menus": plan.settings.menus, "sums": plan.sums,
        "sizes": plan.companions.sizes, "dropped_signatures": plan.companions.signatures,
        "live_memory": plan.live_memory, "runs": plan.runs,
        "input_size": plan.input_size, "output_size": plan.result.table.length,
        "layer_file": None if first is None else first.files[0],
        "layer_file_size": 0 if first is None else first.size,
        "packed": tuple(layer.summary for layer in plan.packed),
        "warnings": plan.warnings, "delta": plan.delta, "taken": plan.parts.taken, "identical": plan.identical,
    }  # fmt: skip


def _changed_layer(change: LayerChange, sizes: Mapping[bytes, int]) -> ChangedLayer:
    """Return ``change`` as callers get it; ``sizes``: bytes of the files of the new image that exist."""
    edits = change.edits
    return ChangedLayer(
        layer=format_address(change.address), files=tuple(printable(path) for path in change.paths),
        size=sizes.get(change.paths[0], 0), added=edits.paths(Action.ADDED), replaced=edits.paths(Action.REPLACED),
        removed=edits.removed, unchanged=edits.unchanged, parents=edits.paths(Action.PARENT), memory=change.memory,
        repacked=change.repacking.noun, superseded=tuple(sorted(change.superseding.paths)),
        dead=change.superseding.dead,
    )  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan(Changes):
    """The changes that a remaster would make, with exact sizes; nothing is written.

    ``kept``: compressed bytes that are kept for the run that follows. ``lines``: the plan as text; ``values``: as plain
    values for JSON (docs/json.md).
    """

    kept: int = 0
    lines: tuple[str, ...] = field(repr=False, compare=False)
    values: dict[str, Any] = field(repr=False, compare=False)


def make_plan(plan: RemasterPlan) -> Plan:
    """Return ``plan`` as callers get it."""
    from cosremaster.reports.plan import plan_lines, plan_report  # noqa: PLC0415 - a remaster shows no plan

    return Plan(
        **changes_of_plan(plan), kept=plan.parts.packed, lines=tuple(plan_lines(plan)), values=dict(plan_report(plan))
    )
