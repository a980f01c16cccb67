"""Every pointer, size and sum that a new layout changes: where it stands in the new image, and its bytes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain

from msgspec.structs import replace

from cosremaster.boot.apm import Apm, ApmEntry
from cosremaster.boot.gpt import Gpt, GptEntry
from cosremaster.boot.mbr import Mbr
from cosremaster.boot.pointers import identify_pointer, move_pointer
from cosremaster.io.source import ByteSource
from cosremaster.iso.ecma119.records import VOLUME_SPACE_SIZE, pack_both_endian
from cosremaster.iso.ecma119.sections import split_into_sections
from cosremaster.iso.layout.place import Layout
from cosremaster.iso.layout.replace import FileReplacement
from cosremaster.iso.model import IsoFile, IsoImage, Partition
from cosremaster.iso.partitions import FILLER_TYPE
from cosremaster.iso.spans import SYSTEM_AREA
from cosremaster.iso.udf.patch import BlockMove, move_tail_anchors, patch_udf
from cosremaster.units import BLOCK, SECTOR, SECTORS_PER_BLOCK, Lba, Sector, blocks_for, lba_offset

_RECORD_LBA, _RECORD_LENGTH = 2, 10
_HFS_HEADERS = 1024
"""Bytes from a file system's start to its header, and from its alternate header to its end (technical note 1150)."""

_GAP_TYPE = bytes.fromhex("a2a0d0ebe5b9334487c068b6b72699c7")
"""Basic data, the type xorriso gives to what fills a gap (UEFI 2.10, table 5.8)."""

Patches = Iterator[tuple[int, bytes]]


def plan_pointer_patches(
    image: IsoImage, source: ByteSource, layout: Layout, exchanged: Sequence[FileReplacement], *, drop: bool
) -> dict[int, bytes]:
    """Byte offset in the new image -> bytes, not overlapping. ``drop``: HFS partitions become fillers.

    :raises UnsupportedError: a UDF file entry has no room for what it has to tell.
    """
    found = (
        _records(image, layout, exchanged), _descriptors(image, layout), _catalog(image, layout, exchanged),
        _udf(image, source, layout, exchanged), _tables(image, source, layout, exchanged, drop),
    )  # fmt: skip
    return dict(chain.from_iterable(found))


def _records(image: IsoImage, layout: Layout, exchanged: Iterable[FileReplacement]) -> Patches:
    """Directory records of all trees (ECMA-119, 9.1)."""
    new = {record.offset for one in exchanged for _, file in one.files for record in file.records}
    for tree in image.trees:
        for file in tree.files:
            for record in file.records:
                moved = layout.map_block(record.lba) if record.length else record.lba
                if moved != record.lba and record.offset not in new:
                    yield record.offset + _RECORD_LBA, pack_both_endian(moved - tree.base)
    for one in exchanged:
        for tree, file in one.files:
            at = one.start
            for record, length in zip(file.records, _lengths(one, file), strict=False):
                if length != record.length:
                    yield record.offset + _RECORD_LENGTH, pack_both_endian(length)
                if at != record.lba and one.table.length:
                    yield record.offset + _RECORD_LBA, pack_both_endian(at - tree.base)
                at = Lba(at + blocks_for(length))
            if file.zisofs_offset:
                yield file.zisofs_offset, b"PD"  # padding (SUSP 5.2): the new data are not compressed


def _lengths(one: FileReplacement, file: IsoFile) -> tuple[int, ...]:
    return split_into_sections(one.table.length, len(file.records))


def _descriptors(image: IsoImage, layout: Layout) -> Patches:
    """Volume space sizes (8.4.8)."""
    for tree in image.trees:
        blocks = layout.map_end(Sector(tree.end * SECTORS_PER_BLOCK)) // SECTORS_PER_BLOCK - tree.base
        if blocks != tree.blocks:
            yield lba_offset(tree.descriptor_lba) + VOLUME_SPACE_SIZE, pack_both_endian(blocks)


def _catalog(image: IsoImage, layout: Layout, exchanged: Iterable[FileReplacement]) -> Patches:
    """El Torito entries: the image's block, and the load size where it was the image's (figures 3 and 5)."""
    new = {one.old_span.start: one for one in exchanged if one.old_span}
    for boot in image.boot_images:
        entry, moved = boot.entry, layout.map_block(boot.entry.lba)
        if moved != entry.lba:
            yield entry.offset + 8, moved.to_bytes(4, "little")
        one = new.get(entry.lba)
        if one and entry.load_sectors == blocks_for(boot.length) * SECTORS_PER_BLOCK:
            sectors = min(blocks_for(one.table.length) * SECTORS_PER_BLOCK, 0xFFFF)
            if sectors != entry.load_sectors:
                yield entry.offset + 6, sectors.to_bytes(2, "little")


def _udf(image: IsoImage, source: ByteSource, layout: Layout, exchanged: Iterable[FileReplacement]) -> Patches:
    if image.udf is None:
        return
    moves = [
        BlockMove(one.span.start, one.span.blocks, one.start)
        for one in layout.placements
        if one.start != one.span.start
    ]
    new = {one.old_span.start: (one.start, one.table.length) for one in exchanged if one.old_span}
    growth = layout.tail - layout.old_tail
    yield from patch_udf(image.udf, source, moves, new, growth)
    if image.udf.tail_anchors and growth:
        end = Lba(image.udf.tail_anchors.end + growth)
        yield lba_offset(Lba(image.udf.tail_anchors.start + growth)), move_tail_anchors(image.udf, source, end)


def _tables(
    image: IsoImage, source: ByteSource, layout: Layout, exchanged: Iterable[FileReplacement], drop: bool
) -> Patches:
    """The system area's changed sectors, the backup GPT, and the headers of a dropped HFS+ file system."""
    old = source.read(0, SYSTEM_AREA.blocks * BLOCK)
    area = bytearray(old)
    moves = {
        (one.table, one.number): map_partition(image, layout, exchanged, one, drop=drop) for one in image.partitions
    }
    fillers = {(one.table, one.number) for one in image.hfs_partitions} if drop else set()
    if image.mbr:
        area[:SECTOR] = _mbr(image, image.mbr, layout, moves, fillers).pack()
    if image.apm:
        for index, entry in enumerate(_apm(image.apm, moves, fillers)):
            area[image.apm.entry_offset(index) : image.apm.entry_offset(index) + len(entry)] = entry
        if image.apm.blocks * image.apm.block_size == image.size:
            blocks = image.apm.blocks + (layout.tail - layout.old_tail) * BLOCK // image.apm.block_size
            area[4:8] = blocks.to_bytes(4, "big")
    for index, gpt in enumerate(image.gpt):
        new = _gpt(gpt, layout, moves, fillers, backup=index > 0)
        for sector, data in ((new.header.my_lba, new.header.pack()), (new.header.entries_lba, new.pack_array())):
            at = sector * SECTOR
            if at + len(data) <= len(area):
                area[at : at + len(data)] = data
            else:
                yield at, data
    for at in range(0, len(area), SECTOR):
        if area[at : at + SECTOR] != old[at : at + SECTOR]:
            yield at, bytes(area[at : at + SECTOR])
    for hfs in image.hfs_partitions if drop else ():
        yield from ((at, bytes(SECTOR)) for at in {hfs.start * SECTOR + _HFS_HEADERS, hfs.end * SECTOR - _HFS_HEADERS})


Moves = Mapping[tuple[str, int], tuple[Sector, Sector]]


def map_partition(
    image: IsoImage, layout: Layout, exchanged: Iterable[FileReplacement], one: Partition, *, drop: bool
) -> tuple[Sector, Sector]:
    """Start and end of a partition in the new image.

    One that begins where a file does follows it, and its length if it was the file's; one behind the data moves with
    the tail; the end of a filler or of one that covers the volume follows what it belongs to; others stay.
    """
    block, rest = divmod(one.start, SECTORS_PER_BLOCK)
    for change in exchanged:
        if change.old_span and rest == 0 and change.old_span.start == block:
            old = sum(record.length for record in change.files[0][1].records)
            start = Sector(change.start * SECTORS_PER_BLOCK)
            for unit in (BLOCK, SECTOR):
                if (one.end - one.start) * SECTOR == -(-old // unit) * unit:
                    return start, Sector(start + -(-change.table.length // unit) * unit // SECTOR)
            return start, Sector(start + one.end - one.start)
    if one.start >= layout.old_tail * SECTORS_PER_BLOCK:
        return layout.map_start(one.start), layout.map_end(one.end)
    if one.is_filler or (drop and one in image.hfs_partitions):
        return one.start, min([layout.map_end(one.end), *_arrived(image, exchanged, one)])
    if one.covers_volume(image.trees):
        return one.start, layout.map_end(one.end)
    start = layout.map_start(one.start)
    return start, Sector(start + one.end - one.start)


def _arrived(image: IsoImage, exchanged: Iterable[FileReplacement], filler: Partition) -> Iterator[Sector]:
    """Where behind a filler's start partitions of its table begin that came there with the file they cover."""
    for change in exchanged:
        if change.old_span is None or change.start <= change.old_span.start:
            continue
        old, new = change.old_span.start * SECTORS_PER_BLOCK, Sector(change.start * SECTORS_PER_BLOCK)
        if new > filler.start and any(one.table == filler.table and one.start == old for one in image.partitions):
            yield new


def _mbr(image: IsoImage, mbr: Mbr, layout: Layout, moves: Moves, fillers: Iterable[tuple[str, int]]) -> Mbr:
    geometry = mbr.find_geometry()
    partitions = list(mbr.partitions)
    for number, one in mbr.used_partitions:
        start, end = moves["MBR", number]
        partitions[number - 1] = one.moved_to(start, end - start, geometry)
        if ("MBR", number) in fillers:
            partitions[number - 1] = replace(partitions[number - 1], type=FILLER_TYPE)
    code = mbr.code
    for boot in image.boot_images:
        moved = layout.map_block(boot.entry.lba)
        if moved != boot.entry.lba and identify_pointer(code, boot.entry.lba):
            code = move_pointer(code, boot.entry.lba, moved)
            break
    return replace(mbr, code=code, partitions=tuple(partitions))


def _apm(apm: Apm, moves: Moves, fillers: Iterable[tuple[str, int]]) -> Iterator[bytes]:
    scale = apm.block_size // SECTOR
    for number, entry in enumerate(apm.entries, 1):
        start, end = moves["APM", number]
        moved: ApmEntry = entry.moved_to(start // scale, (end - start) // scale)
        if ("APM", number) in fillers:
            moved = replace(moved, name=b"Gap".ljust(32, b"\0"), type=b"ISO9660_data".ljust(32, b"\0"))
        yield moved.pack()


def _gpt(gpt: Gpt, layout: Layout, moves: Moves, fillers: Iterable[tuple[str, int]], *, backup: bool) -> Gpt:
    """One copy for the new layout; the backup's own place is in the tail."""
    entries: list[GptEntry] = list(gpt.entries)
    for number, one in gpt.used_entries:
        start, end = moves.get(("GPT", number), (one.first, one.end))
        entries[number - 1] = replace(one, first=start, last=Sector(end - 1))
        if ("GPT", number) in fillers:
            name = "Gap".encode("utf-16-le").ljust(72, b"\0")
            entries[number - 1] = replace(entries[number - 1], type=_GAP_TYPE, name=name)
    header = gpt.header
    return gpt.moved_to(
        my_lba=layout.map_start(header.my_lba) if backup else header.my_lba,
        alternate_lba=header.alternate_lba if backup else layout.map_start(header.alternate_lba),
        entries_lba=layout.map_start(header.entries_lba) if backup else header.entries_lba,
        last_usable=Sector(layout.map_end(Sector(header.last_usable + 1)) - 1),
        entries=entries,
    )
