"""El Torito entries, what stands in their boot images, and what the MBR's code loads."""

from __future__ import annotations

from collections.abc import Iterator

from cosremaster.boot import pointers
from cosremaster.boot.eltorito import MEDIA, PLATFORMS, BootEntry
from cosremaster.errors import Place, printable
from cosremaster.units import BLOCK, FIRST_DESCRIPTOR, SECTOR, SECTORS_PER_BLOCK, Lba, lba_offset
from cosremaster.verification.finding import Finding, fails, holds, judge, note
from cosremaster.verification.subject import Subject

UEFI = 0xEF
_GRUB_MARK = (2558, b"\x20\x08")
"""GRUB's diskboot.img, the second block of its El Torito image: the segment that it loads the rest to."""
_GRUB_UNSET = 2
"""What byte 2548 holds before grub2-boot-info is written: the rest follows."""
_UNSET = 0xDEADBEEF
"""What isolinux.bin holds where no boot-info-table was written into it."""
_RESERVED = slice(24, 64)


def check_boot(subject: Subject) -> Iterator[Finding]:
    """Every El Torito entry and every pointer of the boot code."""
    starts = find_file_starts(subject)
    for number, entry in enumerate(subject.catalog.entries if subject.catalog else (), 1):
        yield from _entry(subject, f"El Torito entry {number}", entry, starts)
    yield from _mbr_code(subject)


def find_file_starts(subject: Subject) -> dict[Lba, tuple[bytes, int]]:
    """Path and length in bytes of the files of all trees that begin at a block."""
    found: dict[Lba, tuple[bytes, int]] = {}
    for tree in subject.trees:
        for lba, path, length in tree.list_whole_files():
            if length:
                found.setdefault(lba, (path, length))
    return found


def _holder(subject: Subject, lba: Lba) -> str | None:
    """The file, or the partition beside the tree, that has block ``lba`` inside, but not first."""
    for tree in subject.trees:
        for one in tree.files:
            if one.lba < lba < one.lba + one.blocks:
                return printable(tree.path_of(one))
    first = subject.main.directories[0].lba * SECTORS_PER_BLOCK if subject.main else 0
    inside = (name for name, start, end in _partitions(subject) if first < start < lba * SECTORS_PER_BLOCK < end)
    return next(inside, None)


def _entry(subject: Subject, what: str, entry: BootEntry, files: dict[Lba, tuple[bytes, int]]) -> Iterator[Finding]:
    source, place = subject.source, subject.place.at(entry.offset)
    start = lba_offset(entry.lba)
    what = f"{what} ({PLATFORMS.get(entry.platform, f'platform 0x{entry.platform:02X}')})"
    if entry.raw[0] not in (0, 0x88) or entry.media not in MEDIA:
        yield fails("eltorito.entry", f"{what}: neither bootable nor not, or of unknown media", place)
    if start + max(entry.load_sectors * SECTOR if entry.platform != UEFI else 1, 1) > source.size:
        yield fails("eltorito.outside", f"{what}: block {entry.lba} lies outside the image", place)
        return
    file = files.get(entry.lba)
    sector = entry.lba * SECTORS_PER_BLOCK
    partition = next((name for name, first, _ in _partitions(subject) if first == sector), None)
    holder = None if file or partition else _holder(subject, entry.lba)
    if holder:
        where = f"block {entry.lba} is inside {holder}, not where it begins"
        yield fails("eltorito.inside", f"{what}: {where}", place)
        return
    head = source.read(start, BLOCK)
    if not head.strip(b"\0") and b"H+" not in source.read(start + 1024, 4):
        yield fails("eltorito.blank", f"{what}: block {entry.lba} is blank", place)
        return
    leads = printable(file[0]) if file else partition or "a boot image with no name"
    length = file[1] if file else None
    if entry.platform == UEFI and not looks_like_fat(head):
        yield note("eltorito.no-fat", f"{what}: {leads} at block {entry.lba} is no FAT file system", place)
    yield holds("eltorito.entry", f"{what}: leads to {leads} at block {entry.lba}", place)
    yield from _info_table(subject, what, entry.lba, length)
    yield from _grub_info(subject, what, entry.lba)


def _partitions(subject: Subject) -> Iterator[tuple[str, int, int]]:
    """Name, first sector and the one behind the last of every partition."""
    for number, partition in subject.mbr.used_partitions if subject.mbr else ():
        yield f"MBR partition {number}", partition.start, partition.end
    for number, one in subject.gpt.used_entries if subject.gpt else ():
        yield f"GPT partition {number}", one.first, one.end


def looks_like_fat(head: bytes) -> bool:
    """A boot sector that a FAT file system could have: a jump, sectors of 512 bytes or more, the signature."""
    jump = head[:1] in (b"\xeb", b"\xe9")
    return jump and head[510:512] == b"\x55\xaa" and int.from_bytes(head[11:13], "little") in (512, 1024, 2048, 4096)


def _info_table(subject: Subject, what: str, lba: Lba, length: int | None) -> Iterator[Finding]:
    """A boot-info-table, where the boot image has one: the volume descriptor's block and 40 bytes of zeros tell."""
    start = lba_offset(lba)
    head = subject.source.read(start, pointers.TABLE_END)
    table = pointers.BootInfoTable.parse(head.ljust(pointers.TABLE_END, b"\0"))
    place = subject.place.at(start + pointers.TABLE_OFFSET)
    if _UNSET in (table.length, table.checksum) and table.descriptor == FIRST_DESCRIPTOR:
        yield note("bootinfo.unset", f"{what}: no boot-info-table was written into its image", place)
        return
    ours = table.image == lba and _is_primary(subject, table.descriptor)
    if not ours and (head[_RESERVED].strip(b"\0") or not table.length or not table.checksum):
        return
    if not ours:
        seen = f"volume descriptor at block {table.descriptor}, image at block {table.image}"
        yield fails("bootinfo.place", f"{what}: boot-info-table says {seen}, but it stands at block {lba}", place)
        return
    if length is not None and table.length != length:
        message = f"{what}: boot-info-table says {table.length:,} bytes, the file has {length:,}"
        yield fails("bootinfo.length", message, place)
        return
    if start + table.length > subject.source.size:
        yield fails("bootinfo.length", f"{what}: boot-info-table says {table.length:,} bytes, behind the end", place)
        return
    total = pointers.compute_boot_image_checksum(subject.source.chunks(start, table.length))
    yield judge(
        total == table.checksum, "bootinfo.sum", f"{what}: boot-info-table holds ({table.length:,} bytes)",
        f"{what}: boot-info-table has the sum 0x{table.checksum:08X}, its image 0x{total:08X}", place,
    )  # fmt: skip


def _is_primary(subject: Subject, lba: Lba) -> bool:
    """True where a primary volume descriptor stands: at block 16, and in a later session of its own too."""
    return subject.source.read(lba_offset(lba), 6) == b"\1CD001"


def _grub_info(subject: Subject, what: str, lba: Lba) -> Iterator[Finding]:
    """grub2-boot-info, where the boot image is GRUB's."""
    start = lba_offset(lba)
    at, mark = _GRUB_MARK
    if subject.source.read(start + at, 2) != mark:
        return
    offset = pointers.GRUB2_IMAGE_OFFSET
    raw = subject.source.read(start + offset, 8)
    place = subject.place.at(start + offset)
    if int.from_bytes(raw, "little") == _GRUB_UNSET:
        yield note("grub2.unset", f"{what}: no grub2-boot-info was written into its image", place)
        return
    yield judge(
        raw == pointers.pack_grub2_image_pointer(lba), "grub2.image", f"{what}: grub2-boot-info holds",
        f"{what}: grub2-boot-info says sector {int.from_bytes(raw, 'little'):,}, not {lba * SECTORS_PER_BLOCK + 5:,}",
        place,
    )  # fmt: skip


def _mbr_code(subject: Subject) -> Iterator[Finding]:
    """What the MBR's code loads: GRUB2's by 64 bits, ISOLINUX's by 32, at the same byte."""
    if subject.mbr is None:
        return
    code, at = subject.mbr.code, pointers.MBR_POINTER_OFFSET
    place = subject.place.at(at)
    lbas = [entry.lba for entry in subject.catalog.entries] if subject.catalog else []
    if b"GRUB \0" in code:
        value = int.from_bytes(code[at : at + 8], "little")
        yield from _code_pointer(
            "GRUB2 hybrid MBR", value, [pointers.pack_grub2_mbr_pointer(lba) for lba in lbas], place
        )
    elif b"isolinux.bin missing" in code:
        value = int.from_bytes(code[at : at + 4], "little")
        yield from _code_pointer(
            "ISOLINUX hybrid MBR", value, [pointers.pack_isolinux_mbr_pointer(x) for x in lbas], place
        )


def _code_pointer(what: str, value: int, wanted: list[bytes], place: Place) -> Iterator[Finding]:
    if value in (0, 1):
        yield note("mbr.pointer-unset", f"{what}: points at no boot image", place)
        return
    yield judge(
        any(value == int.from_bytes(one, "little") for one in wanted), "mbr.pointer",
        f"{what}: loads sector {value:,}, an El Torito boot image",
        f"{what}: loads sector {value:,}, where no El Torito boot image is", place,
    )  # fmt: skip
