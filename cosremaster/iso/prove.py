"""Proving a finished image: it is read again, and every boot pointer must lead to the bytes it led to."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import zip_longest

from fastcrc import crc64

from cosremaster.boot.eltorito import PLATFORMS
from cosremaster.boot.pointers import BootInfoTable, boot_image_sum
from cosremaster.errors import ProofError
from cosremaster.files import FileSource
from cosremaster.iso.encode import ImagePlan
from cosremaster.iso.model import BootImage, Image
from cosremaster.iso.read import read_image
from cosremaster.output import Written
from cosremaster.pieces import PieceTable
from cosremaster.streams import sha256_of
from cosremaster.units import SECTOR, SECTORS_PER_BLOCK, lba_bytes


def prove(old: Image, plan: ImagePlan, written: Written, result: FileSource) -> tuple[str, ...]:
    """What was found true of ``result``, a line each.

    Reads the image's structures, boot images, appended partitions and all bytes that did not come from the
    input; ``written`` tells them. :raises ProofError: something is not as it was or as planned.
    """
    new = read_image(result)
    _same(new.size, plan.table.length, "the image's length", old)
    lines = [*_volume(old, new, plan), *_boot(old, new), *_partitions(old, new)]
    lines.append(read_back(written, result))
    return tuple(lines)


def _same(found: object, wanted: object, what: str, image: Image) -> None:
    if found != wanted:
        raise ProofError(f"{what} is {found} in the result, not {wanted}", image.place)


def _digest(image: Image, start: int, length: int) -> bytes:
    return sha256_of(PieceTable([image.source.cut(start, start + length)]).chunks())


def _volume(old: Image, new: Image, plan: ImagePlan) -> Iterator[str]:
    """Tree, volume id and size."""
    _same(new.blocks, plan.layout.blocks, "the volume space size", old)
    _same(new.volume_id, old.volume_id, "the volume id", old)
    moved = plan.layout.moved
    for before, after in zip_longest(old.files, new.files):
        path = (before or after).path
        _same(after and after.path, before and before.path, "a file's name", old)
        _same(after.size, plan.changed.get(path, before.size), f"the length of {path!r}", old)
        for one, other in zip(before.records, after.records, strict=True):
            _same(other.lba, moved.get(one.lba, one.lba) if one.length else one.lba, f"the block of {path!r}", old)
    yield f"volume {new.volume_id!r}: {new.blocks:,} blocks, {len(new.files):,} files, {len(moved):,} moved"


def _boot(old: Image, new: Image) -> Iterator[str]:
    """El Torito entries and the pointers inside boot images and MBR."""
    if old.catalog is None:
        return
    catalog = new.catalog
    _same(catalog and catalog.lba, old.catalog.lba, "the boot catalog's block", old)
    _same(len(new.boot_images), len(old.boot_images), "the number of El Torito entries", old)
    for number, (before, after) in enumerate(zip(old.boot_images, new.boot_images, strict=True), 1):
        what = f"El Torito entry {number}"
        _same(after.entry, before.entry, what, old)
        start, length = lba_bytes(before.entry.lba), before.length
        same = _digest(old, start, length) == _digest(new, lba_bytes(after.entry.lba), length)
        _same(same, True, f"{what} leads to the same bytes:", old)
        _same((after.info, after.grub2), (before.info, before.grub2), f"{what}: the tables inside its image", old)
        name = PLATFORMS.get(before.entry.platform, "boot")
        yield f"{what}: {name} image at block {before.entry.lba}, {length:,} bytes unchanged{_tables(old, new, after)}"
    _same(new.pointer, old.pointer, "the MBR's pointer", old)
    if new.pointer:
        yield f"MBR: {new.pointer} unchanged"


def _tables(old: Image, new: Image, image: BootImage) -> str:
    """Proves a boot-info-table's length and sum where the original's were right, and names what is there."""
    words = []
    if image.info:
        held = info_holds(old, image, image.info)
        _same(info_holds(new, image, image.info), held, "a boot-info-table's truth", old)
        words.append("boot-info-table" if held else "boot-info-table (its sum was wrong before)")
    if image.grub2:
        words.append("grub2-boot-info")
    return f"; {' and '.join(words)} as before" if words else ""


def info_holds(image: Image, boot: BootImage, info: BootInfoTable) -> bool:
    """True when a boot-info-table's length and sum are those of the boot image it is in."""
    start = lba_bytes(boot.entry.lba)
    if start + info.length > image.size:
        return False
    data = PieceTable([image.source.cut(start, start + info.length)])
    return boot_image_sum(data.chunks()) == info.total


def _partitions(old: Image, new: Image) -> Iterator[str]:
    """Partitions keep their type and state, cover the volume if they did, and hold the same bytes if behind it."""
    before, after = (image.mbr.used if image.mbr else () for image in (old, new))
    _same([number for number, _ in after], [number for number, _ in before], "the list of partitions", old)
    for (number, one), (_, other) in zip(before, after, strict=True):
        what = f"MBR partition {number}"
        _same((other.type, other.status), (one.type, one.status), f"{what}: type and state", old)
        ends = [image.blocks * SECTORS_PER_BLOCK for image in (old, new)]
        if one.start >= ends[0]:
            _same(other.start - ends[1], one.start - ends[0], f"{what}: distance from the volume", old)
            same = _digest(old, one.start * SECTOR, one.count * SECTOR) == _digest(
                new, other.start * SECTOR, other.count * SECTOR
            )
            _same((other.count, same), (one.count, True), f"{what}: length and equality", old)
            note = f"{one.count * SECTOR:,} bytes unchanged"
        elif one.end >= ends[0]:
            _same(other.end - ends[1], one.end - ends[0], f"{what}: distance from the volume's end", old)
            note = "covers the volume"
        else:
            _same(other, one, what, old)
            note = "unchanged"
        yield f"{what}: type 0x{one.type:02X} at sector {other.start:,}, {other.count:,} sectors, {note}"


def read_back(written: Written, result: FileSource) -> str:
    """Reads back every byte that is not the input's."""
    for run in written.new:
        found = 0
        for chunk in result.chunks(run.start, run.end - run.start):
            found = crc64.xz(chunk, found)
        if found != run.sum:
            raise ProofError("bytes read back are not those that were written", result.place.at(run.start))
    return f"{sum(run.end - run.start for run in written.new):,} new bytes read back"
