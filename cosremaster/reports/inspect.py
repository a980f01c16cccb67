"""What an image is made of, as values that become JSON (docs/json.md)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Literal

from cosremaster.boot.eltorito import MEDIA, PLATFORMS
from cosremaster.boot_config.boot_menus import BootMenus
from cosremaster.boot_memory.estimate import MemoryEstimate
from cosremaster.boot_memory.needs import estimate_image_memory, estimate_packed_memory
from cosremaster.errors import printable
from cosremaster.iso.model import BootImage, IsoImage, SourceImage
from cosremaster.layers.address import format_address
from cosremaster.layers.find import ArchiveFile, group_shared_paths
from cosremaster.layers.model import Layer, RootfsLikelihood
from cosremaster.reports.fats import fats_report, unified_kernels_report
from cosremaster.reports.menus import menus_report

if TYPE_CHECKING:
    from cosremaster.reports.documents import (
        BootDocument,
        BootEntryDocument,
        LayerDocument,
        MbrDocument,
        MemoryDocument,
    )

SCHEMA = 1
"""Raised whenever a field of :func:`inspect_report` changes its meaning or goes away."""

_LOOKS: dict[RootfsLikelihood, Literal["archive", "initramfs", "system"]] = {
    RootfsLikelihood.NOT: "archive",
    RootfsLikelihood.SOME: "initramfs",
    RootfsLikelihood.SYSTEM: "system",
}


def inspect_report(
    image: SourceImage, archives: Sequence[ArchiveFile], layers: Sequence[Layer] | None, chosen: Layer | None,
    menus: BootMenus | None,
) -> dict[str, Any]:  # fmt: skip
    """Return ``image`` as plain values.

    ``archives``: the files that begin like archives; ``layers``: None when they were not read; ``menus``: None for an
    image without a volume.
    """
    needs = (
        estimate_packed_memory((archive.path, archive.size) for archive in archives if archive.format.is_initramfs)
        if layers is None
        else estimate_image_memory(image, layers)
    )
    volume = image.volume
    return {
        "schema": SCHEMA,
        "image": {
            "path": str(image.place),
            "kind": image.kind,
            "size": image.size,
            **(_NO_VOLUME if volume is None else _volume(volume)),
        },
        "boot": _NO_BOOT if volume is None else _boot(volume),
        "menus": [] if menus is None else menus_report(menus),
        "fats": [] if menus is None or volume is None else fats_report(volume, menus.fats),
        "unified_kernels": [] if menus is None or volume is None else unified_kernels_report(volume, menus.fats),
        "menu_warnings": [] if menus is None else list(menus.warnings),
        "unsupported": [] if volume is None else [*volume.blockers, *volume.cautions],
        "archives": [
            {
                "path": printable(archive.path),
                "format": archive.format.name,
                "codec": archive.codec,
                "size": archive.size,
                "segments": [
                    {"codec": part.codec or None, "size": part.size, "entries": part.entries, "early": part.is_early}
                    for part in archive.segments
                ],
            }
            for archive in archives
        ],
        "memory": [{"path": printable(path), **memory_report(need)} for path, need in needs.items()],
        "layers": None if layers is None else layer_reports(image, layers, chosen),
    }


_NO_VOLUME: dict[str, Any] = {
    "volume_id": "", "blocks": 0, "rock_ridge": False, "files": 1, "directories": 0,
    "trees": [{"kind": "no", "descriptor": 0, "base": 0, "blocks": 0}], "udf": False, "session": 0,
    "implanted_md5": None,
    "media_digest": None,
}  # fmt: skip
_NO_BOOT: dict[str, Any] = {
    "catalog": None, "entries": [], "mbr": None, "gpt_copies": 0, "apm_block_size": None, "partitions": [],
    "firmware": [],
}  # fmt: skip
"""The fields of an image without a volume."""


def _volume(image: IsoImage) -> dict[str, Any]:
    """Return the fields about the volume."""
    return {
        "volume_id": image.volume_id,
        "blocks": image.blocks,
        "rock_ridge": image.has_rock_ridge,
        "files": len(image.files),
        "directories": len(image.trees[0].directories),
        "trees": [
            {"kind": tree.kind, "descriptor": tree.descriptor_lba, "base": tree.base, "blocks": tree.blocks}
            for tree in image.trees
        ],
        "udf": image.udf is not None,
        "session": image.session_lba,
        "implanted_md5": None if image.implanted is None else image.implanted.sums.md5.decode(),
        "media_digest": None if image.media_tags is None else f"{image.media_tags.kind}:{image.media_tags.digest}",
    }


def _boot(image: IsoImage) -> BootDocument:
    """Return the fields about boot records and partitions."""
    return {
        "catalog": None if image.catalog is None else image.catalog.lba,
        "entries": [_entry(boot) for boot in image.boot_images],
        "mbr": None if image.mbr is None or not image.mbr.used_partitions else _mbr(image),
        "gpt_copies": len(image.gpt),
        "apm_block_size": None if image.apm is None else image.apm.block_size,
        "partitions": [
            {
                "table": partition.table,
                "number": partition.number,
                "start": partition.start,
                "end": partition.end,
                "label": partition.label,
            }
            for partition in image.partitions
        ],
        "firmware": [partition.name for partition in image.firmware],
    }


def memory_report(need: MemoryEstimate) -> MemoryDocument:
    """Return the memory that booting an initramfs takes, in bytes; null where its archives were not read."""
    return {
        "packed": need.packed,
        "unpacked": need.unpacked,
        "nested": need.nested,
        "need": need.need,
        "warnings": list(need.warnings),
    }


def _entry(boot: BootImage) -> BootEntryDocument:
    """Return a boot entry of the catalog."""
    entry = boot.entry
    return {
        "platform": PLATFORMS.get(entry.platform, str(entry.platform)),
        "media": MEDIA.get(entry.media, str(entry.media)),
        "bootable": entry.is_bootable,
        "load_sectors": entry.load_sectors,
        "lba": entry.lba,
        "size": boot.length,
        "path": None if boot.path is None else printable(boot.path),
        "boot_info_table": boot.boot_info is not None,
        "grub2_boot_info": boot.has_grub2_pointer,
    }


def _mbr(image: IsoImage) -> MbrDocument:
    """Return the master boot record."""
    assert image.mbr is not None
    return {
        "pointer": image.mbr_pointer,
        "partitions": [
            {
                "number": number,
                "type": partition.type,
                "active": partition.status == 0x80,
                "start": partition.start,
                "sectors": partition.count,
            }
            for number, partition in image.mbr.used_partitions
        ],
    }


def layer_reports(image: SourceImage, layers: Iterable[Layer], chosen: Layer | None) -> list[LayerDocument]:
    """Return the ``layers`` of ``image``; ``chosen`` is the one that additions would go to."""
    shared = group_shared_paths(image)
    return [
        _describe_layer(layer, layer is chosen, shared.get(layer.address[0], layer.address[:1])) for layer in layers
    ]


def _describe_layer(layer: Layer, chosen: bool, paths: Iterable[bytes]) -> LayerDocument:
    """Return a layer, which is in the file of the image that has all ``paths``."""
    return {
        "address": format_address(layer.address),
        "files": [format_address([path]) for path in paths],
        "codec": layer.codec_label,
        "parameters": layer.parameters.describe(),
        "format": layer.version or layer.format.name,
        "entries": layer.entry_count,
        "packed": layer.packed.length,
        "size": layer.size,
        "looks_like": _LOOKS[layer.likelihood],
        "chosen": chosen,
        "oddities": list(layer.oddities()),
        "dead_bytes": layer.dead_bytes,
    }
