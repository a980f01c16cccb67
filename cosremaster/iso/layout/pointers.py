"""Make the patches for every pointer, size and checksum that a new layout changes.

A patch is a byte offset in the new image, and the bytes there.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain

from cosremaster.io.source import ByteSource
from cosremaster.iso.ecma119.records import VOLUME_SPACE_SIZE, pack_both_endian
from cosremaster.iso.ecma119.sections import split_into_sections
from cosremaster.iso.layout.partition_tables import patch_partition_tables
from cosremaster.iso.layout.place import Layout
from cosremaster.iso.layout.replace import FileReplacement
from cosremaster.iso.model import IsoImage
from cosremaster.records import Struct
from cosremaster.units import SECTORS_PER_BLOCK, Lba, blocks_for, lba_offset

_RECORD_LBA, _RECORD_LENGTH = 2, 10
"""Offsets in a directory record of the location and the data length of its extent (ECMA-119, 9.1.3, 9.1.4)."""
_ENTRY_SECTORS, _ENTRY_LBA = 6, 8
"""Offsets in a boot catalog entry of the sector count and of the boot image's block (El Torito, figure 3)."""

Patches = Iterator[tuple[int, bytes]]


class PointerPatches(Struct, frozen=True):
    """The bytes of patches, by their byte offset in the new image.

    ``staying``: of structures that are at the same place on the old image. ``moving``: of partition tables, and of
    what is at the end of the image, which may come to stand where a directory that leaves has been.
    """

    staying: dict[int, bytes]
    moving: dict[int, bytes]


def plan_pointer_patches(
    image: IsoImage, source: ByteSource, layout: Layout, replacements: Sequence[FileReplacement], *, drop: bool
) -> PointerPatches:
    """Return all patches; no two of those that stay overlap, nor two of the others.

    :param source: the file that holds the old image.
    :param drop: HFS partitions become fillers.
    :raises UnsupportedError: when a UDF file entry has no room for its new extents.
    """
    staying = (
        _patch_old_records(image, layout, replacements), _patch_replaced_records(replacements),
        _patch_descriptors(image, layout), _patch_catalog(image, layout, replacements),
        _patch_udf(image, source, layout, replacements),
    )  # fmt: skip
    moving = (
        _move_anchors(image, source, layout),
        patch_partition_tables(image, source, layout, replacements, drop=drop),
    )
    return PointerPatches(dict(chain.from_iterable(staying)), dict(chain.from_iterable(moving)))


def _patch_old_records(image: IsoImage, layout: Layout, replacements: Iterable[FileReplacement]) -> Patches:
    """Yield the patches of directory records (ECMA-119, 9.1) of files that are not replaced, in all trees."""
    replaced = {record.offset for new in replacements for _, file in new.files for record in file.records}
    for tree in image.trees:
        for file in tree.files if layout.may_move(tree.data_end) else ():
            for record in file.records:
                lba = layout.map_block(record.lba) if record.length else record.lba
                if lba != record.lba and record.offset not in replaced:
                    yield record.offset + _RECORD_LBA, pack_both_endian(lba - tree.base)


def _patch_replaced_records(replacements: Iterable[FileReplacement]) -> Patches:
    """Yield the patches of directory records of replaced files, in all trees."""
    for new in replacements:
        for tree, file in new.files:
            lba = new.start
            lengths = split_into_sections(new.table.length)
            for record, length in zip(file.records, lengths, strict=False):
                if length != record.length:
                    yield record.offset + _RECORD_LENGTH, pack_both_endian(length)
                if lba != record.lba and new.table.length:
                    yield record.offset + _RECORD_LBA, pack_both_endian(lba - tree.base)
                lba = Lba(lba + blocks_for(length))
            if file.zisofs_offset:
                yield file.zisofs_offset, b"PD"  # padding (SUSP 5.2): the new data are not compressed


def _patch_descriptors(image: IsoImage, layout: Layout) -> Patches:
    """Yield the patches of volume space sizes (ECMA-119, 8.4.8)."""
    for tree in image.trees:
        blocks = layout.map_volume_end(tree.end) - (tree.volume_start or tree.base)
        if blocks != tree.blocks:
            yield lba_offset(tree.descriptor_lba) + VOLUME_SPACE_SIZE, pack_both_endian(blocks)


def _patch_catalog(image: IsoImage, layout: Layout, replacements: Iterable[FileReplacement]) -> Patches:
    """Yield the patches of boot catalog entries (El Torito, figures 3 and 5).

    These are the block of the boot image, and the load size where it was that of the whole image.
    """
    by_start = {new.old_span.start: new for new in replacements if new.old_span}
    for boot in image.boot_images:
        entry, lba = boot.entry, layout.map_block(boot.entry.lba)
        if lba != entry.lba:
            yield entry.offset + _ENTRY_LBA, lba.to_bytes(4, "little")
        new = by_start.get(entry.lba)
        if new and entry.load_sectors == blocks_for(boot.length) * SECTORS_PER_BLOCK:
            sectors = min(blocks_for(new.table.length) * SECTORS_PER_BLOCK, 0xFFFF)
            if sectors != entry.load_sectors:
                yield entry.offset + _ENTRY_SECTORS, sectors.to_bytes(2, "little")


def _patch_udf(image: IsoImage, source: ByteSource, layout: Layout, replacements: Iterable[FileReplacement]) -> Patches:
    """Yield the patches of UDF file entries and of the partition's size."""
    if image.udf is None:
        return
    from cosremaster.iso.udf.patch import BlockMove, patch_udf  # noqa: PLC0415 - few images have UDF

    moved = (placed for placed in layout.placements if placed.start != placed.span.start)
    moves = [BlockMove(placed.span.start, placed.span.blocks, placed.start) for placed in moved]
    replaced = {new.old_span.start: (new.start, new.table.length) for new in replacements if new.old_span}
    yield from patch_udf(image.udf, source, moves, replaced, layout.tail - layout.old_tail)


def _move_anchors(image: IsoImage, source: ByteSource, layout: Layout) -> Patches:
    """Yield the patch of UDF's anchors at the end of the volume, where that moves."""
    growth = layout.tail - layout.old_tail
    if image.udf is None or image.udf.tail_anchors is None or not growth:
        return
    from cosremaster.iso.udf.patch import move_tail_anchors  # noqa: PLC0415 - few images have UDF

    end = Lba(image.udf.tail_anchors.end + growth)
    yield lba_offset(Lba(image.udf.tail_anchors.start + growth)), move_tail_anchors(image.udf, source, end)
