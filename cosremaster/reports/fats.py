"""The FAT file systems and unified kernel images of an image, as values that become JSON and as lines of text."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from cosremaster.boot.fat import count_free_bytes
from cosremaster.boot.uki import INITRAMFS, KERNEL
from cosremaster.errors import CosremasterError, printable
from cosremaster.iso.fats import LocatedFat, find_tree_copies
from cosremaster.iso.model import IsoImage
from cosremaster.iso.unified_kernels import find_unified_kernels
from cosremaster.layers.address import format_address
from cosremaster.units import format_size

if TYPE_CHECKING:
    from cosremaster.reports.documents import FatDocument, UnifiedKernelDocument


def fats_report(image: IsoImage, fats: Iterable[LocatedFat]) -> list[FatDocument]:
    """Return the FAT file systems of an image as plain values (docs/json.md)."""
    return [_describe_fat(image, fat) for fat in fats]


def _describe_fat(image: IsoImage, fat: LocatedFat) -> FatDocument:
    """Return a file system: its names, its sizes in bytes, and which of its files the tree has too."""
    try:
        free = count_free_bytes(fat.fat)
    except CosremasterError:
        free = None
    copies = find_tree_copies(image, fat)
    return {
        "name": fat.name,
        "address": format_address([fat.address]),
        "aliases": [format_address([alias]) for alias in fat.aliases],
        "kind": f"FAT{fat.fat.bpb.bits}",
        "size": fat.fat.bpb.total_size,
        "free": free,
        "files": len(fat.files),
        "copies": {printable(path): printable(original) for path, original in copies.items()},
    }


def fat_system_lines(fats: Iterable[dict[str, Any]]) -> Iterator[str]:
    """Yield a line about each file system of a :func:`fats_report`, and one about each file that the tree has too."""
    for fat in fats:
        free = "" if fat["free"] is None else f", {format_size(fat['free'])} free"
        name = fat["name"] if fat["name"] == fat["address"] else f"{fat['address']} ({fat['name']})"
        yield f"FAT file system {name}: {fat['kind']}, {format_size(fat['size'])}{free}, {fat['files']:,} files"
        for path, original in fat["copies"].items():
            yield f"  {path}: a copy of {original}"


def unified_kernels_report(image: IsoImage, fats: Iterable[LocatedFat]) -> list[UnifiedKernelDocument]:
    """Return the unified kernel images as plain values (docs/json.md); sizes are bytes, 0 where there is no part."""
    return [
        {
            "name": kernel.name,
            "system": printable(kernel.unified.system),
            "kernel": kernel.unified.sections[KERNEL][1],
            "initramfs": kernel.unified.sections.get(INITRAMFS, (0, 0))[1],
            "arguments": printable(kernel.unified.arguments),
        }
        for kernel in find_unified_kernels(image, fats, quick=True)
    ]


def unified_kernel_lines(kernels: Iterable[dict[str, Any]]) -> Iterator[str]:
    """Yield a line about each unified kernel image of a :func:`unified_kernels_report`."""
    for kernel in kernels:
        parts = [f"{noun} {format_size(kernel[noun])}" for noun in ("kernel", "initramfs") if kernel[noun]]
        parts += [f"arguments {kernel['arguments']}"] if kernel["arguments"] else []
        system = f" ({kernel['system']})" if kernel["system"] else ""
        yield f"unified kernel image {kernel['name']}: {', '.join(parts)}{system}"
