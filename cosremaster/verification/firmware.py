"""Check the boot headers of MIPS, SPARC, Alpha, HP-PA and PowerPC firmware."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from cosremaster.boot.firmware import find_firmware
from cosremaster.units import BLOCK, SECTOR, Lba, lba_offset
from cosremaster.verification.finding import Finding, fails, holds, judge
from cosremaster.verification.subject import Subject


def check_firmware(subject: Subject) -> Iterator[Finding]:
    """Check that headers of MIPS, SPARC, Alpha, HP-PA and PowerPC firmware lead to files, partitions or the volume."""
    files = subject.files_by_lba()
    for header in find_firmware(subject.source.read(0, BLOCK), subject.mbr):
        if header.has_valid_checksum is not None:
            message, failure = f"{header.name}: its sum holds", f"{header.name}: its sum is wrong"
            yield judge(header.has_valid_checksum, "firmware.sum", message, failure, subject.place.at(0))
        has_partitions = header.name in ("Sun disk label", "PReP", "CHRP")
        for target in header.targets:
            place = subject.place.at(target.pointer_offset)
            label = f"{header.name}, {target.name}"
            if target.start + (0 if target.start == 0 else target.length) > _round_to_cylinder(subject.source.size):
                yield fails("firmware.outside", f"{label}: leads behind the image", place)
            elif target.start == 0 or has_partitions or _leads_to_file(header.name, target.start, files):
                yield holds("firmware.target", f"{label}: leads to byte {target.start:,}", place)
            else:
                yield fails("firmware.target", f"{label}: no file is at byte {target.start:,}", place)


def _round_to_cylinder(size: int) -> int:
    """Return the end that firmware may see: it counts tracks and cylinders, the last of which may exceed the image."""
    return -(-size // SECTOR) * SECTOR + 640 * SECTOR


def _leads_to_file(header: str, start: int, files: Mapping[Lba, tuple[bytes, int]]) -> bool:
    """Return True if byte ``start`` is the first one of a file; in a DEC boot block it may be any byte of a file."""
    if header == "DEC boot block":
        return any(lba_offset(lba) <= start < lba_offset(lba) + length for lba, (_, length) in files.items())
    return start % BLOCK == 0 and Lba(start // BLOCK) in files
