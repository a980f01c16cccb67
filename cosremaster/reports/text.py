"""Plain lines about an image, its layers, and a finished remaster."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from cosremaster.errors import printable
from cosremaster.iso.boot_info import is_boot_info_true
from cosremaster.iso.model import BootImage, IsoImage, IsoTree, Partition, SourceImage
from cosremaster.layers.address import format_address
from cosremaster.layers.model import Layer, RootfsLikelihood
from cosremaster.reports.fact_sections import NUMBER, FactSection, make_section
from cosremaster.units import SECTOR, SECTORS_PER_BLOCK, format_size

if TYPE_CHECKING:
    from cosremaster.boot_memory.estimate import MemoryEstimate
    from cosremaster.checksums.renew import ListChange
    from cosremaster.layers.find import ArchiveFile
    from cosremaster.layers.formats import PartsUse
    from cosremaster.remastering.delta import DeltaFacts
    from cosremaster.remastering.fat_changes import FatChange
    from cosremaster.remastering.pack import PackedLayer
    from cosremaster.remastering.size_files import SizeChange

ACTIVE = 0x80
"""An MBR partition's status that lets old firmware boot from it (UEFI 2.10, table 5.4)."""

SHOWN_ARCHIVES = 3
"""Archives of an ISO that are no initramfs and are shown by name: there may be thousands of packages."""

_LOOKS = {
    RootfsLikelihood.NOT: "archive",
    RootfsLikelihood.SOME: "looks like an initramfs or a small root filesystem",
    RootfsLikelihood.SYSTEM: "looks like a root filesystem",
}


def image_sections(image: SourceImage) -> Iterator[FactSection]:
    """Yield the facts about the volume, boot records and partitions."""
    volume = image.volume
    if volume is not None:
        yield make_section(_volume_lines(volume))
        yield _boot_section(volume)
        yield _partition_section(volume)
        yield make_section(_firmware_lines(volume))
    elif image.is_single_file:
        noun = "an initramfs or layer" if image.kind == "initramfs" else f"a {image.kind} archive"
        yield make_section((f"{image.place}: {noun} without an ISO around it, {format_size(image.size)}",))
    else:
        files = (f"  {file}" for file in image.files)
        yield make_section((f"{image.place}: a disk image, {format_size(image.size)}", *files))


def _volume_lines(image: IsoImage) -> Iterator[str]:
    """Yield lines about the directory trees and other properties of the volume."""
    tree = "Rock Ridge" if image.has_rock_ridge else "no Rock Ridge"
    yield f"{image.place}: ISO 9660, volume id {image.volume_id!r}, {tree}, {format_size(image.size)}"
    counts = f"{len(image.files):,} files in {len(image.trees[0].directories):,} directories"
    yield f"volume: {image.blocks:,} blocks of 2,048 bytes, {counts}"
    for other in image.trees[1:]:
        yield f"  {_tree_line(other)}"
    if image.udf:
        yield f"UDF: partition at block {image.udf.partition.start:,}, {len(image.udf.files):,} files"
    if image.implanted:
        yield f"implanted MD5: {image.implanted.sums.md5.decode()}"
    if image.media_tags:
        yield f"media tags: {image.media_tags.kind} {image.media_tags.digest}"
    if image.session_lba:
        yield f"sessions: several, the last from block {image.session_lba:,}"


def _boot_section(image: IsoImage) -> FactSection:
    """Return the facts about the boot catalog and its entries."""
    head = "boot catalog: none" if image.catalog is None else f"boot catalog: El Torito at block {image.catalog.lba}"
    rows = [(str(number), *_boot_cells(image, boot)) for number, boot in enumerate(image.boot_images, 1)]
    lines = (
        f"  entry {entry}: {how}; {name} at block {lba}, {size}{f', {tables}' if tables else ''}"
        for entry, how, name, lba, size, tables in rows
    )
    titles = (f"entry{NUMBER}", "how", "file", f"block{NUMBER}", f"size{NUMBER}", "tables in it")
    return FactSection((head, *lines), (head,), titles, tuple(rows))


def _partition_section(image: IsoImage) -> FactSection:
    """Return the facts about partition tables and partitions."""
    pointer = image.mbr_pointer or ("no pointer known" if image.mbr and image.mbr.used_partitions else "none")
    heads = [f"MBR: {pointer}"]
    if image.gpt:
        heads.append(f"GPT: {image.gpt_copies}{'' if len(image.gpt) > 1 else ' alone'}")
    if image.apm:
        heads.append(f"Apple partition map: blocks of {image.apm.block_size:,} bytes")
    rows = [(partition.name, *_partition_cells(image, partition)) for partition in image.partitions]
    lines = (
        f"  {name}: {label}, sectors {first} to {last} ({size}), {where}"
        for name, label, first, last, size, where in rows
    )
    titles = ("partition", "holds", f"first sector{NUMBER}", f"last{NUMBER}", f"size{NUMBER}", "where")
    return FactSection((*heads, *lines), tuple(heads), titles, tuple(rows))


def _firmware_lines(image: IsoImage) -> Iterator[str]:
    """Yield lines about records of other firmware, and about what bars changes."""
    for firmware in image.firmware:
        yield f"{firmware.name}: {', '.join(target.name for target in firmware.targets)}"
    if image.embed_areas:
        yield f"CoreOS header: {', '.join(area.name for area in image.embed_areas)}"
    for blocker in image.blockers:
        yield f"no file can be exchanged: it has {blocker}"
    for caution in image.cautions:
        yield f"files can be added, and none can leave, move or change its size: it has {caution}"


def _boot_cells(image: IsoImage, boot: BootImage) -> tuple[str, str, str, str, str]:
    """Return how a boot entry boots, its boot image, the block and size of that, and the tables in it."""
    name = printable(boot.path) if boot.path is not None else "no file"
    tables = []
    if boot.boot_info:
        tables.append(
            "boot-info-table" if is_boot_info_true(image, boot, boot.boot_info) else "boot-info-table with a wrong sum"
        )
    if boot.has_grub2_pointer:
        tables.append("grub2-boot-info")
    return boot.entry.describe(), name, str(boot.entry.lba), format_size(boot.length), ", ".join(tables)


def _tree_line(tree: IsoTree) -> str:
    """Describe a directory tree beside the primary one."""
    files = f"{len(tree.files):,} files" if tree.files else "the same files"
    base = f", counted from block {tree.base}" if tree.base else ""
    return f"{tree.kind} at block {tree.descriptor_lba}: {tree.blocks:,} blocks{base}, {files}"


def _partition_cells(image: IsoImage, partition: Partition) -> tuple[str, str, str, str, str]:
    """Return what a partition holds, its first and last sector, its size, and where it stands."""
    where = "inside the volume"
    if partition.start >= image.tail * SECTORS_PER_BLOCK:
        where = "behind the volume's data"
    elif partition in image.hfs_partitions:
        where = "HFS+ over files of the tree"
    elif partition.covers_volume(image.trees):
        where = "over the volume"
    size = format_size((partition.end - partition.start) * SECTOR)
    active = ""
    if partition.table == "MBR" and image.mbr and image.mbr.partitions[partition.number - 1].status == ACTIVE:
        active = ", active"
    return f"{partition.label}{active}", f"{partition.start:,}", f"{partition.end - 1:,}", size, where


def archives_lines(archives: Iterable[ArchiveFile], *, is_alone: bool) -> Iterator[str]:
    """Yield lines about files that begin like archives: each initramfs, and the first of all others.

    ``is_alone``: the image is nothing but one archive.
    """
    others, option = [], "--deep" if is_alone else "--layer"
    for archive in archives:
        if archive.format.is_initramfs:
            yield from _archive_lines(archive)
        else:
            others.append(archive)
    for archive in others[:SHOWN_ARCHIVES]:
        label, size = archive.codec.removeprefix("none"), format_size(archive.size)
        label = f"{archive.format.name} {label}".rstrip()
        yield f"archive {printable(archive.path)}: {label}, {size}; {option} reads it"
    if len(others) > SHOWN_ARCHIVES:
        yield f"  and {len(others) - SHOWN_ARCHIVES:,} more archives that are no initramfs"


def _archive_lines(archive: ArchiveFile) -> Iterator[str]:
    """Yield lines about a file that begins like an archive, and about each of several archives in it."""
    if not archive.segments:
        yield f"archive {printable(archive.path)}: {archive.codec}, {format_size(archive.size)}; --deep reads it"
        return
    more = "" if archive.segments[-1].entries is not None else " or more"
    count = f"{len(archive.segments)}{more} archives, one behind the other"
    yield f"archive {printable(archive.path)}: {count}, {format_size(archive.size)}; --deep reads them"
    for number, segment in enumerate(archive.segments, 1):
        entries = "" if segment.entries is None else f", {segment.entries:,} entries"
        early = ", early: microcode or ACPI tables for the kernel" if segment.is_early else ""
        yield f"  #{number}: {segment.codec or 'no archive'}, {format_size(segment.size)}{entries}{early}"


_LAYER_TITLES = (
    "layer", "what it is", "format", f"entries{NUMBER}", "codec", f"packed{NUMBER}", f"plain{NUMBER}", "beside",
)  # fmt: skip


def layer_section(
    layers: Iterable[Layer], chosen: Layer | None, shared: Mapping[bytes, Sequence[bytes]] | None = None
) -> FactSection:
    """Return the facts about each layer: codec, sizes, entries, what is odd.

    ``chosen`` is the layer that ``--add`` would change. ``shared``: for a file of the image the paths of all names of
    its data.
    """
    lines, rows, heads = list[str](), list[tuple[str, ...]](), dict[bytes, str]()
    for layer in layers:
        others = [path for path in (shared or {}).get(layer.address[0], ()) if path != layer.address[0]]
        if others and layer.address[0] not in heads:
            heads[layer.address[0]] = f"{printable(layer.address[0])} is also {', '.join(map(printable, others))}"
            lines.append(heads[layer.address[0]])
        name, looks, form, entries, codec, packed, plain = _layer_cells(layer)
        mark = "--add goes here" if layer is chosen else ""
        notes = list(layer.oddities())
        if layer.dead_bytes:
            notes.append(f"{format_size(layer.dead_bytes)} of removed files and old tables are in it (--repack)")
        rows.append((name, looks, form, entries, codec, packed, plain, "\n".join(filter(None, (mark, *notes)))))
        indent = "  " * (len(layer.address) - 1)
        lines.append(f"{indent}layer {name}: {looks}{mark and f'; {mark}'}")
        sizes = f"inodes, {plain}" if layer.packs_itself else f"entries, {codec}, {packed} packed, {plain} plain"
        lines.append(f"{indent}  {form}, {entries} {sizes}")
        lines += [f"{indent}  {note}" for note in notes]
    return FactSection(tuple(lines), tuple(heads.values()), _LAYER_TITLES, tuple(rows))


def _layer_cells(layer: Layer) -> tuple[str, str, str, str, str, str, str]:
    """Return the address of a layer, what it looks like, format, entries, codec, and its size packed and plain."""
    parameters = layer.parameters.describe()
    codec = f"{layer.codec_label} ({parameters})" if parameters else layer.codec_label
    codec = "its own" if layer.packs_itself else codec
    sizes = format_size(layer.packed.length), format_size(layer.size)
    name, looks = format_address(layer.address), _LOOKS[layer.likelihood]
    return name, looks, layer.format_label, f"{layer.entry_count:,}", codec, *sizes


LISTED = 40
"""Paths listed of each kind before the rest is only counted."""


def change_lines(mark: str, paths: Iterable[bytes]) -> Iterator[str]:
    """Yield a line for each path, the first :data:`LISTED` of them, then a count."""
    return _listed(mark, [printable(path) for path in paths])


def fat_lines(changes: Iterable[FatChange]) -> Iterator[str]:
    """Yield lines about the changes in FAT file systems."""
    for change in changes:
        counts = (
            (change.added, "added"), (change.exchanged, "exchanged"), (change.removed, "removed"),
            (change.unchanged, "unchanged"),
        )  # fmt: skip
        yield f"in {change.name}: {', '.join(f'{len(paths):,} {word}' for paths, word in counts if paths)}"
        yield from change_lines("+", change.added)
        exchanged = [
            printable(path) + (f", as {change.copies[path]}" if path in change.copies else "")
            for path in change.exchanged
        ]
        yield from _listed("~", exchanged)
        yield from change_lines("-", change.removed)


def rename_lines(renamed: Iterable[tuple[bytes, bytes]]) -> Iterator[str]:
    """Yield a line for each pair of an old and a new path, the first :data:`LISTED` of them, then a count."""
    return _listed(">", [f"{printable(old)} -> {printable(new)}" for old, new in renamed])


def _listed(mark: str, lines: Sequence[str]) -> Iterator[str]:
    """Yield the first :data:`LISTED` lines, each behind ``mark``, then a count."""
    yield from (f"  {mark} {line}" for line in lines[:LISTED])
    if len(lines) > LISTED:
        yield f"  {mark} ... and {len(lines) - LISTED:,} more"


def memory_lines(name: str, need: MemoryEstimate) -> Iterator[str]:
    """Yield a line about the memory that booting the initramfs ``name`` takes."""
    parts = [f"{format_size(need.packed)} packed"]
    if need.unpacked is not None:
        parts.append(f"{format_size(need.unpacked)} unpacked")
    if need.nested is not None:
        parts.append(f"{format_size(need.nested)} root filesystem")
    amount = "more than its" if need.need is None else f"about {format_size(need.need)}, {need.why}:"
    more = "; --deep tells how much" if need.need is None else ""
    yield f"memory to boot {name}: {amount} {', '.join(parts)}{more}"


def sums_lines(changes: Iterable[ListChange]) -> Iterator[str]:
    """Yield a line for each changed list of checksums on the ISO."""
    for change in changes:
        counts = (
            (change.rewritten, "rewritten"), (change.added, "added"),
            (change.dropped, "dropped"), (change.renamed, "renamed"),
        )  # fmt: skip
        summary = ", ".join(f"{count:,} {word}" for count, word in counts if count)
        yield f"sums in {printable(change.path)}: {summary}"


def size_lines(changes: Iterable[SizeChange]) -> Iterator[str]:
    """Yield a line for each size of a file system that a file on the ISO tells, and that changes."""
    for change in changes:
        yield f"size in {printable(change.path)}: {printable(change.of)}: {change.before:,} -> {change.after:,} bytes"


def signature_lines(paths: Iterable[bytes]) -> Iterator[str]:
    """Yield a line for each signature, or hash of dm-verity, that leaves the ISO."""
    for path in paths:
        yield f"- {printable(path)} (told of a file that changes)"


def packed_line(layer: PackedLayer) -> str:
    """Describe how a layer was packed again: bytes that stay, encoded bytes, stored bytes."""
    parts = ((layer.reused, "kept compressed"), (layer.encoded, "encoded"), (layer.stored, "stored"))
    summary = ", ".join(f"{format_size(size)} {word}" for size, word in parts if size)
    return f"{layer.codec} {layer.name}: {format_size(layer.size)} ({summary})"


def taken_line(size: int) -> str:
    """Describe ``size`` bytes that an earlier plan compressed; return nothing for none."""
    return f"{format_size(size)} were not compressed again: an earlier plan had done so" if size else ""


def kept_line(parts: PartsUse) -> str:
    """Describe what a plan keeps for the run; return nothing where it keeps nothing."""
    if not parts.packed:
        return ""
    return f"kept for the run: {format_size(parts.packed)}, compressed of {format_size(parts.plain)}"


def delta_lines(delta: DeltaFacts) -> Iterator[str]:
    """Yield what makes a delta large."""
    for early in delta.early:
        yield (
            f"  {format_size(early.size)} of it because {printable(early.path)} stands early in {early.layer}: what"
            " follows is packed again, and is not with a base that `cosremaster prepare` made"
        )


def planned_delta_lines(delta: DeltaFacts | None) -> Iterator[str]:
    """Yield lines about the delta that would be written, if any."""
    if delta is not None:
        yield f"delta: {format_size(delta.size)}"
        yield from delta_lines(delta)


def parts_line(layer: PackedLayer) -> str | None:
    """Return what a later change of a layer that was cut into parts costs; None where it costs about what it did."""
    if not layer.parts or layer.largest_before < 2 * layer.largest_part:
        return None
    before = "one block" if layer.parts_before == 1 else f"{layer.parts_before:,} blocks"
    return (
        f"  the next early change is cheap: {layer.name} was {before}, now it has {layer.parts:,}, and a change encodes"
        f" its own again: at most {format_size(layer.largest_part)}, where it was {format_size(layer.largest_before)}"
    )
