"""Update the partition tables for a new layout: MBR, Apple partition map, both copies of the GPT."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

from cosremaster.boot.apm import Apm, ApmEntry
from cosremaster.boot.gpt import Gpt, GptEntry
from cosremaster.boot.limine import STAGE2_END, STAGE2_OFFSET, LimineStage2
from cosremaster.boot.mbr import ALL_SECTORS, Mbr
from cosremaster.boot.pointers import move_pointer
from cosremaster.errors import UnsupportedError
from cosremaster.io.source import ByteSource
from cosremaster.iso.layout.embed_areas import map_embed_area
from cosremaster.iso.layout.place import Layout
from cosremaster.iso.layout.replace import FileReplacement
from cosremaster.iso.model import IsoImage, Partition
from cosremaster.iso.partitions import FILLER_TYPE
from cosremaster.iso.spans import SYSTEM_AREA
from cosremaster.records import replace
from cosremaster.units import BLOCK, SECTOR, SECTORS_PER_BLOCK, Lba, Sector, lba_offset

_HFS_HEADERS = 1024
"""Bytes from a file system's start to its header, and from its alternate header to its end (technical note 1150)."""
_GAP_TYPE = bytes.fromhex("a2a0d0ebe5b9334487c068b6b72699c7")
"""Basic data, the type that xorriso gives to GPT partitions that fill a gap (UEFI 2.10, table 5.8)."""

PartitionKey = tuple[str, int]
"""A partition table, and the number of a partition in it."""
Places = Mapping[PartitionKey, tuple[Sector, Sector]]
"""The new start and end of each partition."""


def patch_partition_tables(
    image: IsoImage, source: ByteSource, layout: Layout, replacements: Iterable[FileReplacement], *, drop: bool
) -> Iterator[tuple[int, bytes]]:
    """Yield byte offsets in the new image with the new bytes there.

    These are the changed sectors of the system area (CoreOS's headers are in it too), the backup GPT, and the headers
    of dropped HFS+ file systems.

    :param source: the file that holds the old image.
    :param drop: HFS partitions become fillers.
    """
    old = source.read(0, SYSTEM_AREA.blocks * BLOCK)
    area = bytearray(old)
    places = {
        (partition.table, partition.number): map_partition(image, layout, replacements, partition, drop=drop)
        for partition in image.partitions
    }
    fillers = {(partition.table, partition.number) for partition in image.hfs_partitions} if drop else set()
    if image.mbr:
        area[:SECTOR] = _update_mbr(image, image.mbr, layout, places, fillers).pack()
    if image.apm:
        _write_apm(area, image, image.apm, layout, _update_apm(image.apm, places, fillers))
    for gpt in image.gpt:
        new = _update_gpt(image, gpt, layout, places, fillers)
        for sector, data in ((new.sector, new.header.pack()), (new.header.entries_lba, new.pack_array())):
            at = sector * SECTOR
            if at + len(data) <= len(area):
                area[at : at + len(data)] = data
            else:
                yield at, data
    if image.limine:
        area[STAGE2_OFFSET:STAGE2_END] = map_limine(image.limine, layout).pack()
    for embed_area in image.embed_areas:
        start, at = map_embed_area(image, layout, replacements, embed_area), embed_area.pointer_offset
        area[at : at + 8] = start.to_bytes(8, "little")
    for at in range(0, len(area), SECTOR):
        if area[at : at + SECTOR] != old[at : at + SECTOR]:
            yield at, bytes(area[at : at + SECTOR])
    for hfs in image.hfs_partitions if drop else ():
        yield from ((at, bytes(SECTOR)) for at in {hfs.start * SECTOR + _HFS_HEADERS, hfs.end * SECTOR - _HFS_HEADERS})


def map_limine(limine: LimineStage2, layout: Layout) -> LimineStage2:
    """Return the places of Limine's stage 2 on the new image."""
    (first, first_size), (second, second_size) = (
        (lba_offset(layout.map_block(Lba(start // BLOCK))) + start % BLOCK, length) for start, length in limine.halves
    )
    return LimineStage2(((first, first_size), (second, second_size)))


def warn_of_wrong_sums(gpt: Sequence[Gpt]) -> Iterator[str]:
    """Yield a warning if a copy of the GPT has a wrong sum, which so stays wrong."""
    names = ["backup" if copy.is_backup else "primary" for copy in gpt if not copy.has_valid_crcs]
    if names:
        subject = f"{names[0]} copy has" if len(names) == 1 else "copies have"
        yield f"the GPT's {subject} wrong sums on the image, and so on the new one: programs that check them ignore it"


def map_partition(
    image: IsoImage, layout: Layout, replacements: Iterable[FileReplacement], partition: Partition, *, drop: bool
) -> tuple[Sector, Sector]:
    """Return the start and the end of a partition in the new image.

    A partition that begins where a replaced file begins moves with it, and has its new length if it had the old one.
    A partition after the data moves with the tail. The end of a filler, or of a partition that covers the volume, moves
    with the end that it belongs to. Other partitions move with the blocks that they begin with.
    """
    start, end = partition.start, partition.end
    block, rest = divmod(start, SECTORS_PER_BLOCK)
    for new in replacements:
        if new.old_span and rest == 0 and new.old_span.start == block:
            new_start = Sector(new.start * SECTORS_PER_BLOCK)
            return new_start, Sector(new_start + _resize(end - start, new.files[0][1].size, new.table.length))
    if start >= layout.old_tail * SECTORS_PER_BLOCK:
        return layout.map_start(start), layout.map_end(end)
    if partition.is_filler or (drop and partition in image.hfs_partitions):
        return start, min([layout.map_end(end), *_find_moved_starts(image, replacements, partition)])
    if partition.covers_volume(image.trees):
        return start, end if end - start == ALL_SECTORS else layout.map_end(end)
    new_start = layout.map_start(start)
    return new_start, Sector(new_start + end - start)


def _resize(sectors: int, old_length: int, new_length: int) -> int:
    """Return the new number of sectors of a partition over a file whose bytes changed from old to new length.

    A partition whose length was not that of the file, in whole blocks or in whole sectors, keeps its length.
    """
    for unit in (BLOCK, SECTOR):
        if sectors * SECTOR == -(-old_length // unit) * unit:
            return -(-new_length // unit) * unit // SECTOR
    return sectors


def _find_moved_starts(image: IsoImage, replacements: Iterable[FileReplacement], filler: Partition) -> Iterator[Sector]:
    """Yield the new starts, after that of the filler, of partitions of its table that moved with their file."""
    for new in replacements:
        if new.old_span is None or new.start <= new.old_span.start:
            continue
        old_start, start = new.old_span.start * SECTORS_PER_BLOCK, Sector(new.start * SECTORS_PER_BLOCK)
        if start > filler.start and any(p.table == filler.table and p.start == old_start for p in image.partitions):
            yield start


def _update_mbr(image: IsoImage, mbr: Mbr, layout: Layout, places: Places, fillers: Collection[PartitionKey]) -> Mbr:
    """Return the MBR with partitions at their new places, and with code that loads the boot image from there."""
    geometry = mbr.find_geometry()
    partitions = list(mbr.partitions)
    for number, partition in mbr.used_partitions:
        start, end = places["MBR", number]
        partitions[number - 1] = partition.moved_to(start, end - start, geometry)
        if ("MBR", number) in fillers:
            partitions[number - 1] = replace(partitions[number - 1], type=FILLER_TYPE)
    return replace(mbr, code=_update_code(image, mbr.code, layout), partitions=tuple(partitions))


def _update_code(image: IsoImage, code: bytes, layout: Layout) -> bytes:
    """Return the MBR's ``code`` so that it loads the boot image from its new place.

    :raises UnsupportedError: a boot image moves, and the code may load that one or another one.
    """
    pointers = image.mbr_pointers
    moved = [(kind, layout.map_block(lba)) for kind, lba in pointers if layout.map_block(lba) != lba]
    if len(pointers) > 1 and moved:
        blocks = " or ".join(f"{lba:,}" for _, lba in pointers)
        raise UnsupportedError(
            f"the code in its MBR is unknown and may load block {blocks}, so no boot image can move", image.place
        )
    return move_pointer(code, *moved[0]) if moved else code


def _update_apm(apm: Apm, places: Places, fillers: Collection[PartitionKey]) -> Iterator[bytes]:
    """Yield the entries of the Apple partition map at their new places."""
    scale = apm.block_size // SECTOR
    for number, entry in enumerate(apm.entries, 1):
        start, end = places["APM", number]
        moved: ApmEntry = entry.moved_to(start // scale, (end - start) // scale)
        if ("APM", number) in fillers:
            moved = replace(moved, name=b"Gap".ljust(32, b"\0"), type=b"ISO9660_data".ljust(32, b"\0"))
        yield moved.pack()


def _write_apm(area: bytearray, image: IsoImage, apm: Apm, layout: Layout, entries: Iterable[bytes]) -> None:
    """Write the ``entries`` of the Apple partition map into the system area, and the device's size if it was right."""
    for index, entry in enumerate(entries):
        area[apm.entry_offset(index) : apm.entry_offset(index) + len(entry)] = entry
    if apm.blocks * apm.block_size == image.size:
        blocks = apm.blocks + (layout.tail - layout.old_tail) * BLOCK // apm.block_size
        area[4:8] = blocks.to_bytes(4, "big")


def _update_gpt(image: IsoImage, gpt: Gpt, layout: Layout, places: Places, fillers: Collection[PartitionKey]) -> Gpt:
    """Return a copy of the GPT for the new layout; the backup is in the tail.

    Entries stay that are not those of the copy that counts.
    """
    entries: list[GptEntry] = list(gpt.entries)
    old_places = {
        partition.number: (partition.start, partition.end) for partition in image.partitions if partition.table == "GPT"
    }
    for number, entry in gpt.used_entries:
        if old_places.get(number) != (entry.first, entry.end):
            continue
        start, end = places["GPT", number]
        entries[number - 1] = replace(entry, first=start, last=Sector(end - 1))
        if ("GPT", number) in fillers:
            name = "Gap".encode("utf-16-le").ljust(72, b"\0")
            entries[number - 1] = replace(entries[number - 1], type=_GAP_TYPE, name=name)
    header = gpt.header
    return gpt.moved_to(
        my_lba=layout.map_start(gpt.sector) if gpt.is_backup else gpt.sector,
        alternate_lba=header.alternate_lba if gpt.is_backup else layout.map_start(header.alternate_lba),
        entries_lba=layout.map_start(header.entries_lba) if gpt.is_backup else header.entries_lba,
        last_usable=Sector(layout.map_end(Sector(header.last_usable + 1)) - 1),
        entries=entries,
    )
