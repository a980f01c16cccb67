"""What came of a remaster."""

from __future__ import annotations

from dataclasses import dataclass

from cosremaster.boot_config.values import MenuChange
from cosremaster.boot_memory.estimate import MemoryEstimate
from cosremaster.checksums.renew import ListChange
from cosremaster.errors import printable
from cosremaster.layers.address import format_address
from cosremaster.remastering.pack import PackedLayer
from cosremaster.remastering.plan import RemasterPlan
from cosremaster.tree.nodes import Action


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What a remaster did. Paths are bytes, relative to the layer's root; sizes are bytes.

    Those that begin with ``iso_`` are of the ISO's own tree; ``iso_renamed`` are pairs of the old and the new path.
    ``menus``: the boot menus whose kernel arguments were asked to change, or that look for the volume by another name
    now; ``sums``: what changed in lists of sums on the ISO. ``memory``: what it takes to boot the file that holds the
    layer (docs/memory.md), where that is an initramfs.
    ``packed``: the layers packed again, the inner first, with how many of their compressed bytes were kept.
    ``proof``: what was found true of the finished image, a line each. ``identical``: nothing had to change,
    the output is the input byte for byte.
    """

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
    menus: tuple[MenuChange, ...] = ()
    sums: tuple[ListChange, ...] = ()
    input_size: int
    output_size: int
    layer_file: str | None = None
    layer_file_size: int = 0
    packed: tuple[PackedLayer, ...] = ()
    memory: MemoryEstimate | None = None
    warnings: tuple[str, ...] = ()
    proof: tuple[str, ...]
    identical: bool


def result_of(plan: RemasterPlan, proof: tuple[str, ...]) -> Result:
    """What ``plan`` came to, once its image was written and found to be as ``proof`` says."""
    image, layer, edits = plan.image, plan.layer, plan.edits
    outer = None if layer is None else layer.address[0]
    sizes = {file.path: file.size for file in image.files} | dict(plan.result.replaced_sizes)
    return Result(
        layer=None if layer is None else format_address(layer.address),
        added=edits.paths(Action.ADDED), replaced=edits.paths(Action.REPLACED), removed=edits.removed,
        unchanged=edits.unchanged, parents=edits.paths(Action.PARENT),
        iso_added=tuple(node.path for node in plan.iso.added), iso_removed=plan.iso.removed,
        iso_renamed=tuple(plan.iso.renamed.items()), iso_exchanged=tuple(sorted(plan.iso.replaced)),
        iso_unchanged=plan.iso.unchanged, menus=plan.settings.menus, sums=plan.sums,
        input_size=image.size, output_size=plan.result.table.length,
        layer_file=None if outer is None else printable(outer), layer_file_size=0 if outer is None else sizes[outer],
        packed=plan.packed, memory=plan.memory, warnings=plan.warnings, proof=proof, identical=plan.identical,
    )  # fmt: skip
