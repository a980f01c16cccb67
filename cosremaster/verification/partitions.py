"""MBR, GPT and Apple partition map: bounds, overlaps, sums, copies, and what partitions lead to."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

from msgspec import Struct
from msgspec.structs import replace

from cosremaster.boot.apm import Apm, read_apm
from cosremaster.boot.gpt import PRIMARY, SIGNATURE, Gpt, GptHeader, format_guid, read_gpt
from cosremaster.boot.mbr import GPT_PROTECTIVE, MbrPartition, encode_chs
from cosremaster.errors import ImageError, Place
from cosremaster.units import BLOCK, SECTOR, SECTORS_PER_BLOCK, Sector
from cosremaster.verification.booting import looks_like_fat
from cosremaster.verification.finding import Finding, fails, holds, judge, note
from cosremaster.verification.subject import Subject

ESP = 0xEF
ESP_GUID = bytes.fromhex("28732ac11ff8d211ba4b00a0c93ec93b")
HFS = (b"H+", b"HX", b"BD")
_BEYOND = b"\xfe\xff\xff"
"""The CHS of what has none: the last address of 255 heads and 63 sectors."""
_TRACKS = (63, 32)


class _Run(Struct, frozen=True):
    """A partition of any table, in sectors."""

    name: str
    start: int
    end: int
    place: Place


def check_mbr(subject: Subject) -> Iterator[Finding]:
    """The MBR's partition table (UEFI 2.10, 5.2)."""
    if subject.mbr is None:
        return
    end = -(-subject.source.size // SECTOR)
    runs, volume = [], subject.blocks * SECTORS_PER_BLOCK
    for number, one in subject.mbr.used_partitions:
        run = _Run(f"MBR partition {number}", one.start, one.end, subject.place.at(446 + 16 * (number - 1)))
        if one.status not in (0, 0x80):
            yield fails("mbr.status", f"{run.name}: status 0x{one.status:02X} is neither active nor not", run.place)
        if one.type == GPT_PROTECTIVE:
            yield from _protective(subject, run, end)
            continue
        if one.count > 1:  # --mbr-force-bootable adds an active one of one sector
            runs.append(run)
        yield judge(
            run.end <= end, "mbr.bounds",
            f"{run.name}: type 0x{one.type:02X}, sectors {run.start:,} to {run.end - 1:,}",
            f"{run.name}: ends {run.end - end:,} sectors behind the image", run.place,
        )  # fmt: skip
        if one.type == ESP:
            yield from _fat(subject, run)
    yield from _overlaps(runs, "mbr.overlap")
    yield from _covers(subject, runs, volume, "mbr.short")
    yield from _chs(subject)


def _protective(subject: Subject, run: _Run, end: int) -> Iterator[Finding]:
    if subject.gpt is None:
        yield fails("mbr.protective", f"{run.name}: announces a GPT, and there is none", run.place)
    elif run.end not in (end, 1 << 32) and run.end - run.start != 0xFFFFFFFF:
        others = {one.start for _, one in subject.mbr.used_partitions} if subject.mbr else set()
        if run.end not in others:
            message = f"{run.name}: protects sectors up to {run.end - 1:,} of {end:,}"
            yield fails("mbr.protective", message, run.place)
    else:
        yield holds("mbr.protective", f"{run.name}: protects the GPT", run.place)


def _overlaps(runs: list[_Run], check: str) -> Iterator[Finding]:
    """Partitions that share sectors: nested ones are usual on hybrid images, others are wrong."""
    for one, other in pairwise(sorted(runs, key=lambda run: (run.start, -run.end))):
        if other.start < one.end < other.end and other.start != one.start:
            yield fails(check, f"{one.name} and {other.name} share sectors", other.place)


def _covers(subject: Subject, runs: list[_Run], volume: int, check: str) -> Iterator[Finding]:
    """A partition that begins with the volume ends with it, or where another begins."""
    starts = {run.start for run in runs}
    for run in runs:
        inner = [base for base, _ in subject.sets if base and base * SECTORS_PER_BLOCK == run.start]
        if inner:
            blocks = next(group[0].blocks for base, group in subject.sets if base == inner[0])
            wanted = run.start + blocks * SECTORS_PER_BLOCK
        elif run.start in (0, 1):
            wanted = volume
        else:
            continue
        if run.end < wanted and run.end not in starts:
            message = f"{run.name}: ends {wanted - run.end:,} sectors before the file system in it"
            yield fails(check, message, run.place)


def _fat(subject: Subject, run: _Run) -> Iterator[Finding]:
    """An EFI system partition holds a FAT file system that fits into it."""
    head = subject.source.read(run.start * SECTOR, SECTOR)
    if not looks_like_fat(head):
        yield fails("partition.no-fat", f"{run.name}: no FAT file system begins at sector {run.start:,}", run.place)
        return
    count = int.from_bytes(head[19:21], "little") or int.from_bytes(head[32:36], "little")
    size = count * int.from_bytes(head[11:13], "little")
    room = (run.end - run.start) * SECTOR
    yield judge(
        size <= room, "partition.fat", f"{run.name}: leads to a FAT file system of {size:,} bytes",
        f"{run.name}: has {room:,} bytes, the FAT file system in it {size:,}", run.place,
    )  # fmt: skip


def _chs(subject: Subject) -> Iterator[Finding]:
    """One geometry explains the CHS addresses of all partitions, but of those that have none."""
    mbr = subject.mbr
    used = (
        [one for _, one in mbr.used_partitions if one.type != GPT_PROTECTIVE and one.last[-2:] != _BEYOND[-2:]]
        if mbr
        else []
    )
    if not used:
        return
    place = subject.place.at(446)
    found = next(
        ((heads, track) for track in _TRACKS for heads in range(255, 0, -1) if _explains(used, heads, track)), None
    )
    yield judge(
        found is not None,
        "mbr.chs",
        "MBR: CHS addresses hold",
        "MBR: no geometry explains the CHS addresses",
        place,
    )


def _explains(used: list[MbrPartition], heads: int, track: int) -> bool:
    return all(encode_chs(one.end - 1, (heads, track)) == one.last for one in used)


def check_gpt(subject: Subject) -> Iterator[Finding]:
    """Both copies of the GPT (UEFI 2.10, 5.3)."""
    gpt = subject.gpt
    end = subject.source.size // SECTOR
    if gpt is None:
        last = subject.source.read((end - 1) * SECTOR, 8) if end else b""
        if last == SIGNATURE:
            message = "GPT: a backup stands in the last sector, and no primary header at sector 1"
            yield fails("gpt.primary", message, subject.place.at(SECTOR))
        return
    yield from _copy(subject, gpt, "primary", PRIMARY)
    yield from _entries(subject, gpt, end)
    backup_at = gpt.header.alternate_lba
    place = subject.place.at(backup_at * SECTOR)
    try:
        backup = read_gpt(subject.source.read, backup_at, subject.place)
    except ImageError as error:
        yield fails("gpt.backup", f"GPT backup: {error.message}", error.place or place)
        return
    if backup is None:
        yield fails("gpt.backup", f"GPT: no backup header at sector {backup_at:,}, where the primary says", place)
        return
    yield from _copy(subject, backup, "backup", backup_at)
    yield from _pair(gpt, backup, place)
    if backup_at != end - 1:
        yield note("gpt.backup-place", f"GPT: backup header {end - 1 - backup_at:,} sectors before the last", place)


def _copy(subject: Subject, gpt: Gpt, name: str, at: Sector) -> Iterator[Finding]:
    header = gpt.header
    place = subject.place.at(at * SECTOR)
    yield judge(
        header.crc == header.computed_crc, f"gpt.{name}-header-sum", f"GPT {name} header at sector {at:,}: sum holds",
        f"GPT {name} header: its sum is wrong", place,
    )  # fmt: skip
    yield judge(
        header.entries_crc == gpt.computed_entries_crc,
        f"gpt.{name}-array-sum",
        f"GPT {name} entries at sector {header.entries_lba:,}: sum holds",
        f"GPT {name} entries: their sum is wrong",
        place,
    )
    if header.my_lba != at:
        message = f"GPT {name} header: says it stands at sector {header.my_lba:,}, not {at:,}"
        yield fails("gpt.own-place", message, place)


def _pair(gpt: Gpt, backup: Gpt, place: Place) -> Iterator[Finding]:
    """What both copies say is the same; each leads to the other."""

    def common(header: GptHeader) -> GptHeader:
        return replace(header, my_lba=Sector(0), alternate_lba=Sector(0), entries_lba=Sector(0), crc=0)

    if backup.header.alternate_lba != gpt.header.my_lba:
        message = f"GPT backup header: says the primary stands at sector {backup.header.alternate_lba:,}"
        yield fails("gpt.alternate", message, place)
    same = common(gpt.header) == common(backup.header) and gpt.entries == backup.entries
    yield judge(same, "gpt.copies", "GPT: both copies say the same", "GPT: its copies differ", place)


def _entries(subject: Subject, gpt: Gpt, end: int) -> Iterator[Finding]:
    runs = []
    table = gpt.header.entries_lba * SECTOR
    for number, one in gpt.used_entries:
        place = subject.place.at(table + (number - 1) * gpt.header.entry_size)
        run = _Run(f"GPT partition {number}", one.first, one.end, place)
        runs.append(run)
        yield judge(
            one.first <= one.last and run.end <= end, "gpt.bounds",
            f"{run.name}: {one.label!r}, type {format_guid(one.type)}, sectors {one.first:,} to {one.last:,}",
            f"{run.name}: sectors {one.first:,} to {one.last:,} do not lie in the image", place,
        )  # fmt: skip
        if not gpt.header.first_usable <= one.first <= one.last <= gpt.header.last_usable:
            yield note("gpt.usable", f"{run.name}: does not lie in the usable sectors", place)
        if one.type == ESP_GUID:
            yield from _fat(subject, run)
    yield from _overlaps(runs, "gpt.overlap")
    room = (gpt.header.last_usable + 1) // SECTORS_PER_BLOCK * SECTORS_PER_BLOCK
    yield from _covers(subject, runs, min(subject.blocks * SECTORS_PER_BLOCK, room), "gpt.short")
    yield from _usable(subject, gpt, end)
    firsts = {one.first for _, one in gpt.used_entries}
    for number, partition in subject.mbr.used_partitions if subject.mbr else ():
        if partition.type == ESP and partition.start not in firsts:
            message = f"MBR partition {number} and the GPT disagree on where the EFI system partition begins"
            yield fails("gpt.mbr", message, subject.place.at(446 + 16 * (number - 1)))


def _usable(subject: Subject, gpt: Gpt, end: int) -> Iterator[Finding]:
    """The last usable sector lies before the backup's entries (isohybrid's is the first of them)."""
    last, room = gpt.header.last_usable, gpt.header.alternate_lba - -(-gpt.header.entries_size // SECTOR)
    place = subject.place.at(SECTOR + 48)
    if last > room or last >= end:
        yield fails("gpt.last-usable", f"GPT: last usable sector {last:,} lies in or behind the backup", place)
    elif last == room:
        yield note("gpt.last-usable", f"GPT: last usable sector {last:,} is the backup's first", place)


def check_apm(subject: Subject) -> Iterator[Finding]:
    """The Apple partition map."""
    try:
        table = read_apm(subject.source.read, subject.place)
    except ImageError as error:
        yield fails("apm.unreadable", error.message, error.place or subject.place)
        return
    if table is not None:
        yield from _apm(subject, table)


def _apm(subject: Subject, table: Apm) -> Iterator[Finding]:
    size, end = table.block_size, subject.source.size
    runs, count = [], len(table.entries)
    for index, entry in enumerate(table.entries):
        place = subject.place.at(table.entry_offset(index))
        name = f"Apple partition {index + 1} ({entry.kind})"
        if entry.entry_count != count:
            yield fails("apm.count", f"{name}: says the map has {entry.entry_count:,} entries, not {count}", place)
        if index == 0:
            continue
        halved = entry.end * size > end and entry.start * size + entry.count * SECTOR <= end
        if halved:
            yield note("apm.sectors", f"{name}: its length counts sectors of 512 bytes, not the map's blocks", place)
        yield judge(
            halved or entry.end * size <= end, "apm.bounds", f"{name}: blocks {entry.start:,} to {entry.end - 1:,}",
            f"{name}: ends {entry.end * size - end:,} bytes behind the image", place,
        )  # fmt: skip
        if not halved:
            runs.append(_Run(name, entry.start, entry.end, place))
        if entry.kind == "Apple_HFS":
            yield from _hfs(subject, name, entry.start * size, entry.end * size, place)
    yield from _overlaps(runs, "apm.overlap")


def _hfs(subject: Subject, name: str, start: int, end: int, place: Place) -> Iterator[Finding]:
    """An HFS+ partition has its volume header 1,024 bytes behind its start and the copy 1,024 before its end."""
    head = subject.source.read(start, BLOCK)
    mark = head[1024:1026]
    if mark not in HFS:
        images = {one.lba for one in subject.catalog.entries} if subject.catalog else set()
        yield judge(
            looks_like_fat(head) or start // BLOCK in images, "apm.hfs",
            f"{name}: leads to a boot image", f"{name}: no file system begins at block {start // BLOCK:,}", place,
        )  # fmt: skip
        return
    yield judge(
        mark == b"BD" or subject.source.read(end - 1024, 2) == mark, "apm.hfs-copy",
        f"{name}: leads to an HFS+ volume header and its copy", f"{name}: has no copy of its volume header", place,
    )  # fmt: skip
