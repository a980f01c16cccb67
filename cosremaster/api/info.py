"""The facts about an image, as callers get them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from cosremaster.errors import printable
from cosremaster.reports.inspect import inspect_report, layer_report
from cosremaster.reports.menus import menu_lines
from cosremaster.reports.text import image_lines, layer_lines, memory_lines
from cosremaster.units import format_size

if TYPE_CHECKING:
    from cosremaster.boot_config.boot_menus import BootMenus
    from cosremaster.boot_memory.estimate import MemoryEstimate
    from cosremaster.iso.model import SourceImage
    from cosremaster.layers.find import ArchiveFile
    from cosremaster.layers.model import Layer


@dataclass(frozen=True, slots=True)
class LayerInfo:
    """A layer of an image; sizes are in bytes.

    ``address``: as in ``"live.cgz::rootfs.cxz"``; ``codec``: name of the compression, with its ``parameters`` in words;
    ``format``: of the archive; ``entries``: how many it has; ``packed`` and ``size``: compressed and decoded.
    ``looks_like``: ``system``, ``initramfs`` or ``archive``; ``chosen``: additions go to this layer.
    """

    address: str
    codec: str
    parameters: str
    format: str
    entries: int
    packed: int
    size: int
    looks_like: str
    chosen: bool


@dataclass(frozen=True, slots=True)
class ArchiveInfo:
    """A file on an image that begins like an archive; ``size`` is in bytes."""

    path: str
    codec: str
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageInfo:
    """The facts about an image; sizes are in bytes.

    ``kind``: ``iso9660`` or ``initramfs``; ``volume_id``: empty without a volume. ``archives``: the files that begin
    like archives; ``layers``: None unless they were read; ``root_layer``: the address of the layer that additions go
    to, and else ``root_problem`` says why there is none. ``memory``: what it takes to boot each initramfs, by its
    path. ``lines``: these facts and more as text; ``values``: as plain values for JSON (docs/json.md).
    """

    path: str
    kind: str
    size: int
    volume_id: str
    archives: tuple[ArchiveInfo, ...]
    layers: tuple[LayerInfo, ...] | None
    root_layer: str | None
    root_problem: str
    memory: dict[str, MemoryEstimate]
    lines: tuple[str, ...] = field(repr=False, compare=False)
    values: dict[str, Any] = field(repr=False, compare=False)


def info_lines(
    image: SourceImage, archives: tuple[ArchiveFile, ...], layers: tuple[Layer, ...] | None, chosen: Layer | None,
    menus: BootMenus | None, memory: dict[bytes, MemoryEstimate],
) -> Iterator[str]:  # fmt: skip
    """Yield the facts about ``image`` as lines of text."""
    yield from image_lines(image)
    if menus is not None:
        yield from menu_lines(menus)
    if layers is None:
        for archive in archives:
            yield f"archive {printable(archive.path)}: {archive.codec}, {format_size(archive.size)}; --deep reads it"
    else:
        yield from layer_lines(layers, chosen)
    for path, need in memory.items():
        yield from memory_lines(printable(path), need)
        for warning in need.warnings:
            yield f"warning: {printable(path)} {warning}"


def make_info(
    image: SourceImage, archives: tuple[ArchiveFile, ...], layers: tuple[Layer, ...] | None, chosen: Layer | None,
    menus: BootMenus | None, memory: dict[bytes, MemoryEstimate], root_problem: str,
) -> ImageInfo:  # fmt: skip
    """Return the facts about ``image``."""
    infos = None if layers is None else layer_infos(layers, chosen)
    lines = list(info_lines(image, archives, layers, chosen, menus, memory))
    if root_problem:
        lines.append(f"--add has no layer to go to: {root_problem}")
    return ImageInfo(
        path=str(image.place), kind=image.kind, size=image.size,
        volume_id="" if image.volume is None else image.volume.volume_id,
        archives=tuple(ArchiveInfo(printable(archive.path), archive.codec, archive.size) for archive in archives),
        layers=infos, root_layer=next((info.address for info in infos or () if info.chosen), None),
        root_problem=root_problem, memory={printable(path): need for path, need in memory.items()},
        values=inspect_report(image, archives, layers, chosen, menus), lines=tuple(lines),
    )  # fmt: skip


def layer_infos(layers: tuple[Layer, ...], chosen: Layer | None) -> tuple[LayerInfo, ...]:
    """Return ``layers`` as callers get them."""
    return tuple(LayerInfo(**layer_report(layer, layer is chosen)) for layer in layers)
