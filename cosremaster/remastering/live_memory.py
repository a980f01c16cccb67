"""The memory that a changed live system takes to boot, from what is known when it is planned."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from cosremaster.boot_memory.needs import estimate_image_memory, estimate_live_systems
from cosremaster.iso.edits import IsoEdits
from cosremaster.iso.model import SourceImage
from cosremaster.layers.root_stacks import find_root_stack
from cosremaster.remastering.layer_index import LayerIndex

if TYPE_CHECKING:
    from cosremaster.boot_memory.live_systems import LiveMemory
    from cosremaster.remastering.plan_layers import LayerChange


def plan_live_memory(
    image: SourceImage, index: LayerIndex, edits: IsoEdits, changes: Sequence[LayerChange], *, menus_change: bool
) -> tuple[LiveMemory, ...]:
    """Return the memory that boot entries of the live system take after ``edits``, which hold the ``changes``.

    Nothing where no file system of the image is known to become the root. An initramfs that nobody had to read is not
    read for this. ``menus_change``: ``edits`` change boot menus.
    """
    if image.volume is None:
        return ()
    facts = index.facts_after(edits) if menus_change else index.facts
    stack = find_root_stack(image, facts)
    if stack is None:
        return ()
    initramfs = estimate_image_memory(image, index.known_layers())
    initramfs |= {path: change.memory for change in changes for path in change.paths if change.memory is not None}
    sizes = {file.path: file.size for file in image.files if edits.new_path(file.path) is not None}
    sizes |= {path: table.length for path, table in edits.replaced.items() if path in sizes}
    sizes |= {node.path: node.content.size for node in edits.added if node.content is not None}
    return estimate_live_systems(image, stack, facts, initramfs, sizes)
