"""Estimate the memory needed to boot what an image holds, or will hold."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from cosremaster.boot_memory.estimate import InitramfsSizes, MemoryEstimate, estimate_memory
from cosremaster.boot_memory.layers import EditedLayer, measure_initramfs
from cosremaster.iso.model import SourceImage
from cosremaster.layers.find import group_shared_paths
from cosremaster.layers.model import Layer

if TYPE_CHECKING:
    from cosremaster.boot_memory.live_systems import LiveMemory
    from cosremaster.layers.boot_facts import BootFacts
    from cosremaster.layers.root_stacks import RootStack


def estimate_packed_memory(archives: Iterable[tuple[bytes, int]]) -> dict[bytes, MemoryEstimate]:
    """Return estimates of ``archives`` (path and size in bytes) before any layer is read."""
    return {path: estimate_memory(InitramfsSizes(packed=size)) for path, size in archives}


def estimate_image_memory(image: SourceImage, layers: Sequence[Layer]) -> dict[bytes, MemoryEstimate]:
    """Return the memory needed to boot each file of ``image`` whose ``layers`` look like an initramfs (docs/memory.md).

    :param layers: all layers of the image.
    """
    sizes = {file.path: file.size for file in image.files}
    paths = dict.fromkeys(layer.address[0] for layer in layers)
    measured = ((path, measure_initramfs(layers, path, sizes[path])) for path in paths)
    return {path: estimate_memory(initramfs) for path, initramfs in measured if initramfs is not None}


def estimate_edited_memory(
    layers: Sequence[Layer], edited: Sequence[EditedLayer], size: int
) -> MemoryEstimate | None:  # fmt: skip
    """Return the memory needed to boot the file that holds the layers ``edited``; None if it looks like no initramfs.

    :param layers: all layers of the old image.
    :param size: bytes of the file in the new image.
    """
    initramfs = measure_initramfs(layers, edited[0].layer.address[0], size, edited)
    return None if initramfs is None else estimate_memory(initramfs)


def estimate_live_systems(
    image: SourceImage, stack: RootStack, facts: BootFacts, initramfs: Mapping[bytes, MemoryEstimate],
    sizes: Mapping[bytes, int] | None = None,
) -> tuple[LiveMemory, ...]:  # fmt: skip
    """Return the memory needed to boot the live system whose root is ``stack`` (docs/memory.md).

    :param facts: what ``image`` boots.
    :param initramfs: what its initramfs take, by their paths.
    :param sizes: bytes of its files by path, where they are not those of ``image``.
    """
    from cosremaster.boot_memory.live_systems import LiveSizes, estimate_live_memory  # noqa: PLC0415 - live images alone

    files = {file.path: file.size for file in image.files} if sizes is None else sizes
    names = group_shared_paths(image)
    shared = {name: need for path, need in initramfs.items() for name in names.get(path, (path,))}
    return estimate_live_memory(stack, facts, LiveSizes(files, shared))
