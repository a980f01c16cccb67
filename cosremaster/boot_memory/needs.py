"""The memory it takes to boot what an image holds, or will hold."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from cosremaster.boot_memory.estimate import InitramfsSizes, MemoryEstimate, estimate_memory
from cosremaster.boot_memory.layers import EditedLayer, measure_initramfs
from cosremaster.iso.model import SourceImage
from cosremaster.layers.model import Layer


def estimate_packed_memory(archives: Iterable[tuple[bytes, int]]) -> dict[bytes, MemoryEstimate]:
    """What is known of the ``archives``, paths and sizes in bytes, before anything is read but a few first bytes."""
    return {path: estimate_memory(InitramfsSizes(packed=size)) for path, size in archives}


def estimate_image_memory(image: SourceImage, layers: Sequence[Layer]) -> dict[bytes, MemoryEstimate]:
    """The memory it takes to boot each file of the image whose ``layers`` look like an initramfs (docs/memory.md)."""
    sizes = {file.path: file.size for file in image.files}
    paths = dict.fromkeys(layer.address[0] for layer in layers)
    initramfs = ((path, measure_initramfs(layers, path, sizes[path])) for path in paths)
    return {path: estimate_memory(one) for path, one in initramfs if one is not None}


def estimate_edited_memory(layers: Sequence[Layer], edited: EditedLayer, size: int) -> MemoryEstimate | None:
    """The memory it takes to boot the file that holds the ``edited`` one of ``layers`` and has ``size`` bytes now.

    None: it does not look like an initramfs.
    """
    one = measure_initramfs(layers, edited.layer.address[0], size, edited)
    return None if one is None else estimate_memory(one)
