"""Plain lines about an image, its layers, and a finished remaster."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from cosremaster.bare import is_bare
from cosremaster.boot.mbr import MbrPartition
from cosremaster.codecs.base import Packed
from cosremaster.errors import show
from cosremaster.iso.model import BootImage, Image
from cosremaster.iso.prove import info_holds
from cosremaster.layers.address import Address, format_address
from cosremaster.layers.index import Layer, Rootness
from cosremaster.units import SECTOR, SECTORS_PER_BLOCK, human

_LOOKS = {
    Rootness.NOT: "archive",
    Rootness.SOME: "looks like an initramfs or a small root filesystem",
    Rootness.SYSTEM: "looks like a root filesystem",
}


def image_lines(image: Image) -> Iterator[str]:
    """Volume, boot records and partitions."""
    if is_bare(image):
        yield f"{image.place}: an initramfs or layer without an ISO around it, {human(image.size)}"
        return
    tree = "Rock Ridge" if image.rock_ridge else "no Rock Ridge"
    yield f"{image.place}: ISO 9660, volume id {image.volume_id!r}, {tree}, {human(image.size)}"
    counts = f"{len(image.files):,} files in {len(image.trees[0].directories):,} directories"
    yield f"volume: {image.blocks:,} blocks of 2,048 bytes, {counts}"
    if image.catalog is None:
        yield "boot catalog: none"
    else:
        yield f"boot catalog: El Torito at block {image.catalog.lba}"
    for number, boot in enumerate(image.boot_images, 1):
        yield f"  entry {number}: {_boot_line(image, boot)}"
    if image.mbr is None or not image.mbr.used:
        yield "MBR: none"
    else:
        yield f"MBR: {image.pointer or 'no pointer known'}"
        for number, partition in image.mbr.used:
            yield f"  partition {number}: {_partition_line(image, partition)}"
    for blocker in image.blockers:
        yield f"no file can be exchanged: it has {blocker}"


def _boot_line(image: Image, boot: BootImage) -> str:
    name = show(boot.path) if boot.path is not None else "no file"
    tables = []
    if boot.info:
        tables.append("boot-info-table" if info_holds(image, boot, boot.info) else "boot-info-table with a wrong sum")
    if boot.grub2:
        tables.append("grub2-boot-info")
    notes = f", {', '.join(tables)}" if tables else ""
    return f"{boot.entry.describe()}; {name} at block {boot.entry.lba}, {human(boot.length)}{notes}"


def _partition_line(image: Image, partition: MbrPartition) -> str:
    volume = image.blocks * SECTORS_PER_BLOCK
    where = "inside the volume"
    if partition.start >= volume:
        where = "appended behind the volume"
    elif partition.end >= volume:
        where = "over the volume"
    active = ", active" if partition.status == 0x80 else ""
    return (
        f"type 0x{partition.type:02X}{active}, sectors {partition.start:,} to {partition.end - 1:,}"
        f" ({human(partition.count * SECTOR)}), {where}"
    )


def layer_lines(layers: Iterable[Layer], chosen: Layer | None) -> Iterator[str]:
    """Each layer with codec, sizes and entries; ``chosen`` is the one ``--add`` would go to."""
    for layer in layers:
        indent = "  " * (len(layer.address) - 1)
        form = layer.form
        details = f" ({form.describe()})" if form.describe() else ""
        mark = "; --add goes here" if layer is chosen else ""
        yield f"{indent}layer {format_address(layer.address)}: {_LOOKS[layer.rootness]}{mark}"
        yield (
            f"{indent}  cpio {layer.trailer.header.magic.decode()}, {len(layer.members):,} entries,"
            f" {form.name}{details}, {human(layer.packed.length)} packed, {human(layer.size)} plain"
        )


LISTED = 40
"""Paths listed of each kind before the rest is only counted."""


def change_lines(mark: str, paths: Iterable[bytes]) -> Iterator[str]:
    """A line for each path, the first :data:`LISTED` of them."""
    listed = list(paths)
    yield from (f"  {mark} {show(path)}" for path in listed[:LISTED])
    if len(listed) > LISTED:
        yield f"  {mark} ... and {len(listed) - LISTED:,} more"


def packed_line(address: Address, codec: str, packed: Packed) -> str:
    """How a layer was packed again: what was kept, encoded, stored."""
    parts = ((packed.kept, "kept compressed"), (packed.encoded, "encoded"), (packed.stored, "stored"))
    told = ", ".join(f"{human(size)} {word}" for size, word in parts if size)
    return f"{codec} {show(address[-1])}: {human(packed.table.length)} ({told})"
