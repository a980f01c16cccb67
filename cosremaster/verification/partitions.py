"""Check MBR, GPT and Apple partition map: bounds, overlaps, checksums, copies, and the partitions' contents."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from itertools import pairwise

from cosremaster.boot.apm import Apm, read_apm
from cosremaster.boot.gpt import PRIMARY, SIGNATURE, Gpt, GptHeader, format_guid, read_gpt
from cosremaster.boot.mbr import GPT_PROTECTIVE, ChsGeometry, MbrPartition, encode_chs
from cosremaster.errors import ImageError, Place
from cosremaster.records import replace
from cosremaster.units import BLOCK, SECTOR, SECTORS_PER_BLOCK, Sector
from cosremaster.verification.boot_entries import looks_like_fat
from cosremaster.verification.finding import Finding, fails, holds, judge, note
from cosremaster.verification.subject import MBR_TABLE, SectorRange, Subject

ESP = 0xEF
ESP_GUID = bytes.fromhex("28732ac11ff8d211ba4b00a0c93ec93b")
HFS = (b"H+", b"HX", b"BD")
_NO_CHS = b"\xff\xff"
"""The last two bytes of the CHS address of a sector that has none: the last one of 255 heads and 63 sectors."""
_TRACKS = (63, 32)


def check_mbr(subject: Subject) -> Iterator[Finding]:
    """Check the MBR's partition table (UEFI 2.10, 5.2)."""
    if subject.mbr is None:
        return
    end = -(-subject.source.size // SECTOR)
    ranges = list[SectorRange]()
    for sectors, partition in subject.mbr_partitions:
        name, place = sectors.name, sectors.place
        if partition.status not in (0, 0x80):
            yield fails("mbr.status", f"{name}: status 0x{partition.status:02X} is neither active nor not", place)
        if partition.type == GPT_PROTECTIVE:
            yield from _check_protective(subject, sectors, end)
            continue
        if partition.count > 1:  # --mbr-force-bootable adds an active one of one sector
            ranges.append(sectors)
        message = f"{name}: type 0x{partition.type:02X}, sectors {sectors.start:,} to {sectors.end - 1:,}"
        failure = f"{name}: ends {sectors.end - end:,} sectors behind the image"
        yield judge(sectors.end <= end, "mbr.bounds", message, failure, place)
        if partition.type == ESP:
            yield from _check_fat(subject, sectors)
    yield from _check_overlaps(ranges, "mbr.overlap")
    yield from _check_lengths(subject, ranges, end, "mbr.short")
    yield from _check_chs(subject)


def _check_protective(subject: Subject, sectors: SectorRange, end: int) -> Iterator[Finding]:
    """Check a protective partition of an image of ``end`` sectors."""
    if subject.gpt is None:
        yield fails("mbr.protective", f"{sectors.name}: announces a GPT, and there is none", sectors.place)
    elif sectors.end not in (end, 1 << 32) and sectors.end - sectors.start != 0xFFFFFFFF:
        if all(sectors.end != partition.start for _, partition in subject.mbr_partitions):
            message = f"{sectors.name}: protects sectors up to {sectors.end - 1:,} of {end:,}"
            yield fails("mbr.protective", message, sectors.place)
    else:
        yield holds("mbr.protective", f"{sectors.name}: protects the GPT", sectors.place)


def _check_overlaps(ranges: Collection[SectorRange], check: str) -> Iterator[Finding]:
    """Check for partitions that share sectors: nested ones are usual on hybrid images, others are wrong."""
    for sectors, following in pairwise(sorted(ranges, key=lambda sectors: (sectors.start, -sectors.end))):
        if following.start < sectors.end < following.end and following.start != sectors.start:
            yield fails(check, f"{sectors.name} and {following.name} share sectors", following.place)


def _check_lengths(subject: Subject, ranges: Collection[SectorRange], limit: int, check: str) -> Iterator[Finding]:
    """Check that a partition that begins with a volume ends with it, or where another partition begins.

    :param limit: the end of the sectors that partitions can have.
    """
    starts = {sectors.start for sectors in ranges}
    volume_blocks = {
        base * SECTORS_PER_BLOCK: group[0].blocks for base, group in reversed(subject.descriptor_sets) if base
    }
    for sectors in ranges:
        if sectors.start in volume_blocks:
            expected = sectors.start + volume_blocks[sectors.start] * SECTORS_PER_BLOCK
        elif sectors.start in (0, 1):
            expected = subject.blocks * SECTORS_PER_BLOCK
        else:
            continue
        expected = min(expected, limit)
        if sectors.end < expected and sectors.end not in starts:
            message = f"{sectors.name}: ends {expected - sectors.end:,} sectors before the file system in it"
            yield fails(check, message, sectors.place)


def _check_fat(subject: Subject, sectors: SectorRange) -> Iterator[Finding]:
    """Check that an EFI system partition holds a FAT file system that fits into it."""
    name, place = sectors.name, sectors.place
    head = subject.source.read(sectors.start * SECTOR, SECTOR)
    if not looks_like_fat(head):
        yield fails("partition.no-fat", f"{name}: no FAT file system begins at sector {sectors.start:,}", place)
        return
    count = int.from_bytes(head[19:21], "little") or int.from_bytes(head[32:36], "little")
    size = count * int.from_bytes(head[11:13], "little")
    room = (sectors.end - sectors.start) * SECTOR
    message = f"{name}: leads to a FAT file system of {size:,} bytes"
    failure = f"{name}: has {room:,} bytes, the FAT file system in it {size:,}"
    yield judge(size <= room, "partition.fat", message, failure, place)


def _check_chs(subject: Subject) -> Iterator[Finding]:
    """Check that one geometry explains the CHS addresses of all partitions that have such addresses."""
    partitions = [
        partition
        for _, partition in subject.mbr_partitions
        if partition.type != GPT_PROTECTIVE and partition.last[-2:] != _NO_CHS
    ]
    if not partitions:
        return
    geometries = ((heads, track) for track in _TRACKS for heads in range(255, 0, -1))
    is_explained = any(_explains_chs(geometry, partitions) for geometry in geometries)
    failure = "MBR: no geometry explains the CHS addresses"
    yield judge(is_explained, "mbr.chs", "MBR: CHS addresses hold", failure, subject.place.at(MBR_TABLE))


def _explains_chs(geometry: ChsGeometry, partitions: Sequence[MbrPartition]) -> bool:
    """Return True if the last CHS address of each partition is right for ``geometry``."""
    return all(encode_chs(partition.end - 1, geometry) == partition.last for partition in partitions)


def check_gpt(subject: Subject) -> Iterator[Finding]:
    """Check both copies of the GPT (UEFI 2.10, 5.3)."""
    gpt = subject.gpt
    end = subject.source.size // SECTOR
    if gpt is None:
        last = subject.source.read((end - 1) * SECTOR, 8) if end else b""
        if last == SIGNATURE:
            message = "GPT: a backup stands in the last sector, and no primary header at sector 1"
            yield fails("gpt.primary", message, subject.place.at(SECTOR))
    else:
        yield from _check_gpt_copy(subject, gpt, "primary", PRIMARY)
    if subject.used_gpt is not None and subject.used_gpt.has_valid_crcs:  # others are read by nobody (5.3.2)
        yield from _check_gpt_entries(subject, subject.used_gpt, end)
    if gpt is None:
        return
    backup_lba = gpt.header.alternate_lba
    place = subject.place.at(backup_lba * SECTOR)
    try:
        backup = read_gpt(subject.source.read, backup_lba, subject.place)
    except ImageError as error:
        yield fails("gpt.backup", f"GPT backup: {error.message}", error.place or place)
        return
    if backup is None:
        message = f"GPT: no backup header at sector {backup_lba:,}, where the primary says"
        yield (note if _has_no_room_for_backup(subject, gpt) else fails)("gpt.backup", message, place)
        return
    yield from _check_gpt_copy(subject, backup, "backup", backup_lba)
    yield from _compare_gpt_copies(gpt, backup, place)
    if backup_lba != end - 1:
        yield note("gpt.backup-place", f"GPT: backup header {end - 1 - backup_lba:,} sectors before the last", place)


def _has_no_room_for_backup(subject: Subject, gpt: Gpt) -> bool:
    """Return whether the backup of a sound primary ``gpt`` would stand inside the volume, and nothing of it is there.

    FreeBSD's release scripts (mkisoimages.sh) copy the first 32 KiB of a GPT over a finished image.
    """
    size, at = gpt.header.entries_size, gpt.header.alternate_lba * SECTOR
    is_inside = at + SECTOR <= min(subject.blocks * BLOCK, subject.source.size)
    return is_inside and gpt.has_valid_crcs and subject.source.read(at - size, size) != gpt.pack_array()


def _check_gpt_copy(subject: Subject, gpt: Gpt, name: str, lba: Sector) -> Iterator[Finding]:
    """Check the header at sector ``lba`` and the checksum of its entries."""
    header, place, label = gpt.header, subject.place.at(lba * SECTOR), f"GPT {name}"
    message, failure = f"{label} header at sector {lba:,}: sum holds", f"{label} header: its sum is wrong"
    yield judge(header.crc == header.computed_crc, f"gpt.{name}-header-sum", message, failure, place)
    message, failure = (
        f"{label} entries at sector {header.entries_lba:,}: sum holds",
        f"{label} entries: their sum is wrong",
    )
    yield judge(header.entries_crc == gpt.computed_entries_crc, f"gpt.{name}-array-sum", message, failure, place)
    if header.my_lba != lba:
        yield fails("gpt.own-place", f"{label} header: says it stands at sector {header.my_lba:,}, not {lba:,}", place)


def _compare_gpt_copies(gpt: Gpt, backup: Gpt, place: Place) -> Iterator[Finding]:
    """Check that both copies are equal, and that the backup leads to the primary."""
    if backup.header.alternate_lba != gpt.header.my_lba:
        message = f"GPT backup header: says the primary stands at sector {backup.header.alternate_lba:,}"
        yield fails("gpt.alternate", message, place)
    is_same = _without_place(gpt.header) == _without_place(backup.header) and gpt.entries == backup.entries
    yield judge(is_same, "gpt.copies", "GPT: both copies say the same", "GPT: its copies differ", place)


def _without_place(header: GptHeader) -> GptHeader:
    """Return the header without the fields that must differ between the copies."""
    return replace(header, my_lba=Sector(0), alternate_lba=Sector(0), entries_lba=Sector(0), crc=0)


def _check_gpt_entries(subject: Subject, gpt: Gpt, end: int) -> Iterator[Finding]:
    """Check the partitions of the GPT of an image of ``end`` sectors."""
    ranges = list[SectorRange]()
    for sectors, entry in subject.gpt_partitions:
        name, place = sectors.name, sectors.place
        ranges.append(sectors)
        message = f"{name}: {entry.label!r}, type {format_guid(entry.type)}, sectors {entry.first:,} to {entry.last:,}"
        failure = f"{name}: sectors {entry.first:,} to {entry.last:,} do not lie in the image"
        yield judge(entry.first <= entry.last and sectors.end <= end, "gpt.bounds", message, failure, place)
        if not gpt.header.first_usable <= entry.first <= entry.last <= gpt.header.last_usable:
            yield note("gpt.usable", f"{name}: does not lie in the usable sectors", place)
        if entry.type == ESP_GUID:
            yield from _check_fat(subject, sectors)
    yield from _check_overlaps(ranges, "gpt.overlap")
    usable_end = (gpt.header.last_usable + 1) // SECTORS_PER_BLOCK * SECTORS_PER_BLOCK
    yield from _check_lengths(subject, ranges, usable_end, "gpt.short")
    yield from _check_last_usable(subject, gpt, end)
    starts = {sectors.start for sectors in ranges}
    for sectors, partition in subject.mbr_partitions:
        if partition.type == ESP and partition.start not in starts:
            message = f"{sectors.name} and the GPT disagree on where the EFI system partition begins"
            yield fails("gpt.mbr", message, sectors.place)


def _check_last_usable(subject: Subject, gpt: Gpt, end: int) -> Iterator[Finding]:
    """Check that the last usable sector is before the backup's entries (isohybrid's is the first of them)."""
    backup_lba = max(gpt.header.my_lba, gpt.header.alternate_lba)
    last, room = gpt.header.last_usable, backup_lba - -(-gpt.header.entries_size // SECTOR)
    place = subject.place.at(SECTOR + 48)
    if last > room or last >= end:
        yield fails("gpt.last-usable", f"GPT: last usable sector {last:,} lies in or behind the backup", place)
    elif last == room:
        yield note("gpt.last-usable", f"GPT: last usable sector {last:,} is the backup's first", place)


def check_apm(subject: Subject) -> Iterator[Finding]:
    """Check the Apple partition map."""
    try:
        apm = read_apm(subject.source.read, subject.place)
    except ImageError as error:
        yield fails("apm.unreadable", error.message, error.place or subject.place)
        return
    if apm is not None:
        yield from _check_apm_entries(subject, apm)


def _check_apm_entries(subject: Subject, apm: Apm) -> Iterator[Finding]:
    """Check the entries of an Apple partition map."""
    size, end = apm.block_size, subject.source.size
    ranges, count = list[SectorRange](), len(apm.entries)
    for index, entry in enumerate(apm.entries):
        place = subject.place.at(apm.entry_offset(index))
        name = f"Apple partition {index + 1} ({entry.kind})"
        if entry.entry_count != count:
            yield fails("apm.count", f"{name}: says the map has {entry.entry_count:,} entries, not {count}", place)
        if index == 0:
            continue
        counts_sectors = entry.end * size > end and entry.start * size + entry.count * SECTOR <= end
        if counts_sectors:
            yield note("apm.sectors", f"{name}: its length counts sectors of 512 bytes, not the map's blocks", place)
        else:
            ranges.append(SectorRange(name, entry.start, entry.end, place))
        message = f"{name}: blocks {entry.start:,} to {entry.end - 1:,}"
        failure = f"{name}: ends {entry.end * size - end:,} bytes behind the image"
        yield judge(counts_sectors or entry.end * size <= end, "apm.bounds", message, failure, place)
        if entry.kind == "Apple_HFS":
            yield from _check_hfs(subject, name, entry.start * size, entry.end * size, place)
    yield from _check_overlaps(ranges, "apm.overlap")


def _check_hfs(subject: Subject, name: str, start: int, end: int, place: Place) -> Iterator[Finding]:
    """Check the volume header of an HFS+ partition, 1,024 bytes behind its start, and its copy 1,024 before its end.

    :param start: first byte of the partition; ``end``: the byte behind it.
    """
    head = subject.source.read(start, BLOCK)
    signature = head[1024:1026]
    if signature not in HFS:
        boot_images = {entry.lba for entry in subject.catalog.entries} if subject.catalog else set()
        is_boot_image = looks_like_fat(head) or start // BLOCK in boot_images
        failure = f"{name}: no file system begins at block {start // BLOCK:,}"
        yield judge(is_boot_image, "apm.hfs", f"{name}: leads to a boot image", failure, place)
        return
    has_copy = signature == b"BD" or subject.source.read(end - 1024, 2) == signature
    message, failure = (
        f"{name}: leads to an HFS+ volume header and its copy",
        f"{name}: has no copy of its volume header",
    )
    yield judge(has_copy, "apm.hfs-copy", message, failure, place)
