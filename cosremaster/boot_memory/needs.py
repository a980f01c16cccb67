"""The memory it takes to boot what an image holds, or will hold."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from cosremaster.boot_memory.estimate import Estimate, Initramfs, estimate
from cosremaster.boot_memory.layers import Edited, initramfs_of
from cosremaster.iso.model import IsoImage
from cosremaster.layers.model import Layer


def packed_needs(archives: Iterable[tuple[bytes, int]]) -> dict[bytes, Estimate]:
    """What is known of the ``archives``, paths and sizes in bytes, before anything is read but a few first bytes."""
    return {path: estimate(Initramfs(packed=size)) for path, size in archives}


def memory_needs(image: IsoImage, layers: Sequence[Layer]) -> dict[bytes, Estimate]:
    """The memory it takes to boot each file of the image whose ``layers`` look like an initramfs (docs/memory.md)."""
    sizes = {file.path: file.size for file in image.files}
    paths = dict.fromkeys(layer.address[0] for layer in layers)
    initramfs = ((path, initramfs_of(layers, path, sizes[path])) for path in paths)
    return {path: estimate(one) for path, one in initramfs if one is not None}


def memory_need(layers: Sequence[Layer], edited: Edited, size: int) -> Estimate | None:
    """The memory it takes to boot the file that holds the ``edited`` one of ``layers`` and has ``size`` bytes now.

    None: it does not look like an initramfs.
    """
    one = initramfs_of(layers, edited.layer.address[0], size, edited)
    return None if one is None else estimate(one)
