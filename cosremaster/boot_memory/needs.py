"""Estimate the memory needed to boot what an image holds, or will hold."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from cosremaster.boot_memory.estimate import InitramfsSizes, MemoryEstimate, estimate_memory
from cosremaster.boot_memory.layers import EditedLayer, measure_initramfs
from cosremaster.iso.model import SourceImage
from cosremaster.layers.model import Layer


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
