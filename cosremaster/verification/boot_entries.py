"""Check El Torito entries, the pointers in their boot images, and what the MBR's code loads."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from cosremaster.boot import pointers
from cosremaster.boot.eltorito import MEDIA, PLATFORMS, UEFI, BootEntry
from cosremaster.errors import printable
from cosremaster.units import BLOCK, FIRST_DESCRIPTOR, SECTOR, SECTORS_PER_BLOCK, Lba, lba_offset
from cosremaster.verification.finding import Finding, fails, holds, judge, note
from cosremaster.verification.subject import Subject

_GRUB_MARK = (2558, b"\x20\x08")
"""Offset and value of the segment to which GRUB's diskboot.img, the second block of its El Torito image, loads the
rest."""
_GRUB_UNSET = 2
"""Value of byte 2548 before grub2-boot-info is written: the rest follows."""
_UNSET = 0xDEADBEEF
"""Value in isolinux.bin before a boot-info-table is written into it."""
_RESERVED = slice(24, 64)


def check_boot(subject: Subject) -> Iterator[Finding]:
    """Check every El Torito entry and every pointer of the boot code."""
    files = subject.files_by_lba()
    for number, entry in enumerate(subject.catalog.entries if subject.catalog else (), 1):
        platform = PLATFORMS.get(entry.platform, f"platform 0x{entry.platform:02X}")
        yield from _check_entry(subject, f"El Torito entry {number} ({platform})", entry, files)
    yield from _check_mbr_code(subject)


def _find_container(subject: Subject, lba: Lba) -> str | None:
    """Return the name of the file, or of a partition behind the root directory, that has block ``lba`` inside.

    A file or partition that begins at the block does not count.
    """
    for tree in subject.trees:
        for record in tree.files:
            if record.lba < lba < record.lba + record.blocks:
                return printable(tree.path_of(record))
    sector = lba * SECTORS_PER_BLOCK
    first = subject.main_tree.root * SECTORS_PER_BLOCK if subject.main_tree else 0
    partitions = subject.list_partitions(protective=True)
    return next((partition.name for partition in partitions if first < partition.start < sector < partition.end), None)


def _check_entry(
    subject: Subject, label: str, entry: BootEntry, files: Mapping[Lba, tuple[bytes, int]]
) -> Iterator[Finding]:
    """Check one El Torito entry.

    :param label: the entry's name for people.
    :param files: path and length of files, by first block.
    """
    source, place = subject.source, subject.place.at(entry.offset)
    start = lba_offset(entry.lba)
    if entry.raw[0] not in (0, 0x88) or entry.media not in MEDIA:
        yield fails("eltorito.entry", f"{label}: neither bootable nor not, or of unknown media", place)
    if start + max(entry.load_sectors * SECTOR if entry.platform != UEFI else 1, 1) > source.size:
        yield fails("eltorito.outside", f"{label}: block {entry.lba} lies outside the image", place)
        return
    file = files.get(entry.lba)
    sector = entry.lba * SECTORS_PER_BLOCK
    partitions = subject.list_partitions(protective=True)
    partition = next((partition.name for partition in partitions if partition.start == sector), None)
    container = None if file or partition else _find_container(subject, entry.lba)
    if container:
        message = f"{label}: block {entry.lba} is inside {container}, not where it begins"
        yield fails("eltorito.inside", message, place)
        return
    head = source.read(start, BLOCK)
    if not head.strip(b"\0") and b"H+" not in source.read(start + 1024, 4):
        yield fails("eltorito.blank", f"{label}: block {entry.lba} is blank", place)
        return
    target = printable(file[0]) if file else partition or "a boot image with no name"
    if entry.platform == UEFI and not looks_like_fat(head):
        yield note("eltorito.no-fat", f"{label}: {target} at block {entry.lba} is no FAT file system", place)
    if entry.has_no_load_size:
        message = f"{label}: its load size is 0, with which firmware such as OVMF may not boot {target}"
        yield note("eltorito.load-size", message, place)
    yield holds("eltorito.entry", f"{label}: leads to {target} at block {entry.lba}", place)
    yield from _check_info_table(subject, label, entry.lba, file[1] if file else None)
    yield from _check_grub_info(subject, label, entry.lba)


def looks_like_fat(head: bytes) -> bool:
    """Return True if a boot sector has a jump, sectors of 512 to 4,096 bytes and the signature, as FAT's has."""
    jump = head[:1] in (b"\xeb", b"\xe9")
    return jump and head[510:512] == b"\x55\xaa" and int.from_bytes(head[11:13], "little") in (512, 1024, 2048, 4096)


def _check_info_table(subject: Subject, label: str, lba: Lba, length: int | None) -> Iterator[Finding]:
    """Check the boot-info-table of a boot image, if it has one.

    A boot-info-table is recognized by the block of the volume descriptor and by 40 bytes of zeros.

    :param lba: first block of the boot image.
    :param length: bytes of its file; None if it is no file.
    """
    start = lba_offset(lba)
    head = subject.source.read(start, pointers.TABLE_END)
    table = pointers.BootInfoTable.parse(head.ljust(pointers.TABLE_END, b"\0"))
    place = subject.place.at(start + pointers.TABLE_OFFSET)
    if _UNSET in (table.length, table.checksum) and table.descriptor == FIRST_DESCRIPTOR:
        yield note("bootinfo.unset", f"{label}: no boot-info-table was written into its image", place)
        return
    if not (table.image == lba and _is_primary_descriptor(subject, table.descriptor)):
        if not head[_RESERVED].strip(b"\0") and table.length and table.checksum:
            blocks = f"volume descriptor at block {table.descriptor}, image at block {table.image}"
            message = f"{label}: boot-info-table says {blocks}, but it stands at block {lba}"
            yield fails("bootinfo.place", message, place)
        return
    if length is not None and table.length != length:
        message = f"{label}: boot-info-table says {table.length:,} bytes, the file has {length:,}"
        yield fails("bootinfo.length", message, place)
        return
    if start + table.length > subject.source.size:
        yield fails("bootinfo.length", f"{label}: boot-info-table says {table.length:,} bytes, behind the end", place)
        return
    checksum = pointers.compute_boot_image_checksum(subject.source.chunks(start, table.length))
    message = f"{label}: boot-info-table holds ({table.length:,} bytes)"
    failure = f"{label}: boot-info-table has the sum 0x{table.checksum:08X}, its image 0x{checksum:08X}"
    yield judge(checksum == table.checksum, "bootinfo.sum", message, failure, place)


def _is_primary_descriptor(subject: Subject, lba: Lba) -> bool:
    """Return True if block ``lba`` is a primary volume descriptor, be it block 16 or that of a later session."""
    return subject.source.read(lba_offset(lba), 6) == b"\1CD001"


def _check_grub_info(subject: Subject, label: str, lba: Lba) -> Iterator[Finding]:
    """Check grub2-boot-info, if the boot image at block ``lba`` is GRUB's."""
    start = lba_offset(lba)
    at, mark = _GRUB_MARK
    if subject.source.read(start + at, 2) != mark:
        return
    offset = start + pointers.GRUB2_IMAGE_OFFSET
    raw, place = subject.source.read(offset, 8), subject.place.at(offset)
    sector = int.from_bytes(raw, "little")
    if sector == _GRUB_UNSET:
        yield note("grub2.unset", f"{label}: no grub2-boot-info was written into its image", place)
        return
    failure = f"{label}: grub2-boot-info says sector {sector:,}, not {lba * SECTORS_PER_BLOCK + 5:,}"
    is_right = raw == pointers.pack_grub2_image_pointer(lba)
    yield judge(is_right, "grub2.image", f"{label}: grub2-boot-info holds", failure, place)


def _check_mbr_code(subject: Subject) -> Iterator[Finding]:
    """Check the pointer in the MBR's code, at the same byte: GRUB2's has 64 bits, ISOLINUX's has 32."""
    if subject.mbr is None:
        return
    code, at = subject.mbr.code, pointers.MBR_POINTER_OFFSET
    label = pointers.identify_code(code)
    if label is None:
        return
    size, pack = (8, pointers.pack_grub2_mbr_pointer)
    if label == pointers.ISOLINUX:
        size, pack = (4, pointers.pack_isolinux_mbr_pointer)
    value, place = int.from_bytes(code[at : at + size], "little"), subject.place.at(at)
    if value in (0, 1):
        yield note("mbr.pointer-unset", f"{label}: points at no boot image", place)
        return
    entries = subject.catalog.entries if subject.catalog else ()
    is_right = any(value == int.from_bytes(pack(entry.lba), "little") for entry in entries)
    message = f"{label}: loads sector {value:,}, an El Torito boot image"
    yield judge(
        is_right, "mbr.pointer", message, f"{label}: loads sector {value:,}, where no El Torito boot image is", place
    )
