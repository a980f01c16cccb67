"""Reading an image: its trees, boot records, partition tables, and what must stay where it is."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

from cosremaster.boot import pointers
from cosremaster.boot.apm import Apm, read_apm
from cosremaster.boot.eltorito import BootCatalog, BootEntry, find_catalog, parse_catalog
from cosremaster.boot.firmware import FirmwareHeader, find_firmware
from cosremaster.boot.gpt import PRIMARY as GPT_PRIMARY
from cosremaster.boot.gpt import Gpt, read_gpt
from cosremaster.boot.implanted import APPLICATION_USE, AREA_SIZE, ImplantedMd5
from cosremaster.boot.mbr import GPT_PROTECTIVE, Mbr
from cosremaster.errors import ImageError, UnsupportedError, printable
from cosremaster.io.pieces import Range
from cosremaster.io.source import ByteSource
from cosremaster.iso.ecma119.records import IMAGE_START, PRIMARY, VolumeDescriptor, read_descriptors
from cosremaster.iso.layout.extents import find_tail, list_fixed_spans
from cosremaster.iso.model import BootImage, IsoFile, IsoImage, Partition
from cosremaster.iso.partitions import find_hfs_partitions, has_hfs_header, list_partitions
from cosremaster.iso.read_trees import read_trees
from cosremaster.iso.spans import Span
from cosremaster.iso.udf.read import read_udf
from cosremaster.units import BLOCK, FIRST_DESCRIPTOR, SECTOR, SECTORS_PER_BLOCK, Lba, lba_offset

SYSTEM_AREA = FIRST_DESCRIPTOR * BLOCK
MAX_CATALOG = 64 * 1024
_SESSION_STEP = 16
"""Sessions on files begin at a multiple of so many blocks."""

Found = TypeVar("Found")


def read_image(source: ByteSource) -> IsoImage:
    """The image in ``source``. Reads descriptors, directories and boot records, no file's data.

    Damage to what is beside ISO 9660 and El Torito does not stop it, but any exchange of files.
    :raises ImageError: no ISO 9660 image, cut off, or damaged.
    """
    descriptors = read_descriptors(source)
    primary = _primary(source, descriptors)
    area = source.read(0, SYSTEM_AREA)
    mbr, damaged = Mbr.parse(area[:SECTOR]), list[str]()
    apm = _sound(lambda: read_apm(source.read, source.place), damaged)
    for number, one in mbr.used_partitions if mbr else ():
        if one.type != GPT_PROTECTIVE and one.end * SECTOR > source.size:
            raise ImageError(f"is cut off: MBR partition {number} ends behind its end", source.place)
    gpt = _sound(lambda: tuple(_gpt_copies(source)), damaged) or ()
    partitions = list_partitions(mbr, gpt[0] if gpt else None, apm)
    trees = tuple(read_trees(source, descriptors, IMAGE_START))
    descriptor_spans = [Span(one.lba, 1, "volume descriptor") for one in descriptors]
    bases = _second_bases(source, partitions, primary)
    for base in bases:
        second = read_descriptors(source, Lba(base + FIRST_DESCRIPTOR))
        trees += tuple(read_trees(source, second, base))
        descriptor_spans += [Span(one.lba, 1, "volume descriptor") for one in second]
    session = _session(source, primary)
    if session:
        copies = read_descriptors(source, Lba(session + FIRST_DESCRIPTOR))
        trees += tuple(read_trees(source, copies, IMAGE_START, {one.root.lba for one in descriptors}))
        descriptor_spans.append(Span(IMAGE_START, session, "earlier sessions"))
    catalog = _catalog(source, descriptors)
    boot_images = _boot_images(source, catalog, trees[0].files)
    udf = _sound(lambda: read_udf(source, primary.blocks), damaged)
    firmware = find_firmware(area, mbr)
    fixed = list_fixed_spans(descriptor_spans, trees, catalog, boot_images, partitions, firmware, udf)
    return IsoImage(
        place=source.place, source=Range(source, 0, source.size), size=source.size,
        volume_id=printable(primary.raw[40:72].rstrip(b" \0")), trees=trees, fixed_spans=fixed,
        tail=find_tail(source.size, trees, fixed, partitions, gpt, udf),
        catalog=catalog, boot_images=boot_images, mbr=mbr, gpt=gpt, apm=apm, partitions=partitions,
        hfs_partitions=find_hfs_partitions(source, partitions), firmware=firmware,
        implanted=ImplantedMd5.parse(primary.raw[APPLICATION_USE : APPLICATION_USE + AREA_SIZE]), udf=udf,
        session_lba=session, blockers=(*damaged, *_blockers(source, _explained(area, mbr, gpt, apm, firmware))),
    )  # fmt: skip


def _sound(read: Callable[[], Found | None], damaged: list[str]) -> Found | None:
    """What ``read`` reads; where it cannot, None, and ``damaged`` gets why."""
    try:
        return read()
    except (ImageError, UnsupportedError) as error:
        damaged.append(f"what it cannot follow ({error.message})")
        return None


def _primary(source: ByteSource, descriptors: Iterable[VolumeDescriptor]) -> VolumeDescriptor:
    primary = next((one for one in descriptors if one.type == PRIMARY), None)
    if primary is None:
        raise ImageError("has no primary volume descriptor", source.place)
    if int.from_bytes(primary.raw[128:130], "little") != BLOCK:
        raise ImageError("its logical blocks are not of 2,048 bytes", source.place)
    if primary.blocks * BLOCK > source.size:
        missing = primary.blocks * BLOCK - source.size
        raise ImageError(f"is cut off: {missing:,} bytes of its volume are missing", source.place)
    return primary


def _gpt_copies(source: ByteSource) -> Iterator[Gpt]:
    """The primary GPT, and the backup where it names one that is there."""
    primary = read_gpt(source.read, GPT_PRIMARY, source.place)
    if primary is None:
        return
    yield primary
    backup = read_gpt(source.read, primary.header.alternate_lba, source.place)
    if backup is not None and backup.header.my_lba == primary.header.alternate_lba:
        yield backup


def _second_bases(source: ByteSource, partitions: Iterable[Partition], primary: VolumeDescriptor) -> list[Lba]:
    """Starts of partitions that carry descriptors and a tree of their own over the same files (xorriso(1),
    -partition_offset)."""
    starts = {one.start // SECTORS_PER_BLOCK for one in partitions if one.start % SECTORS_PER_BLOCK == 0}
    return [
        Lba(start)
        for start in sorted(starts)
        if 0 < start < primary.root.lba and source.read((start + FIRST_DESCRIPTOR) * BLOCK, 6) == b"\1CD001"
    ]


def _session(source: ByteSource, primary: VolumeDescriptor) -> Lba:
    """Where the last of several sessions begins, 0 where there is one.

    On files xorriso keeps a copy of the last session's descriptors at block 16 (libburn, doc/cookbook.txt,
    "overwriteable media"); its own stand 16 blocks behind its start, shortly before its root directory.
    """
    nearest = (primary.root.lba - FIRST_DESCRIPTOR - 1) // _SESSION_STEP * _SESSION_STEP
    for start in range(nearest, max(0, nearest - 2 * _SESSION_STEP), -_SESSION_STEP):
        raw = source.read((start + FIRST_DESCRIPTOR) * BLOCK, BLOCK)
        if raw[:6] == b"\1CD001" and VolumeDescriptor(Lba(start), raw).root == primary.root:
            return Lba(start)
    return IMAGE_START


def _catalog(source: ByteSource, descriptors: Iterable[VolumeDescriptor]) -> BootCatalog | None:
    for descriptor in descriptors:
        lba = find_catalog(descriptor.raw)
        if lba is not None:
            start = lba_offset(lba)
            return parse_catalog(source.read(start, MAX_CATALOG), lba, start, source.place)
    return None


def _boot_images(source: ByteSource, catalog: BootCatalog | None, files: Iterable[IsoFile]) -> tuple[BootImage, ...]:
    """The boot images of all entries. :raises ImageError: one lies outside the image."""
    starts = {file.records[0].lba: file for file in files if file.size}
    return tuple(_boot_image(source, entry, starts.get(entry.lba)) for entry in (catalog.entries if catalog else ()))


def _boot_image(source: ByteSource, entry: BootEntry, file: IsoFile | None) -> BootImage:
    start = lba_offset(entry.lba)
    if start + (file.size if file else 1) > source.size:
        raise ImageError("El Torito entry points outside the image", source.place.at(entry.offset))
    head = source.read(start, pointers.GRUB2_IMAGE_OFFSET + 8)
    grub2 = head[pointers.GRUB2_IMAGE_OFFSET :] == pointers.pack_grub2_image_pointer(entry.lba)
    info = pointers.BootInfoTable.parse(head) if len(head) >= pointers.TABLE_END else None
    if info and not (info.image == entry.lba and info.descriptor == FIRST_DESCRIPTOR and info.length):
        info = None
    told = file.size if file else info.length if info else 0
    length = min(max(entry.minimum_size, told), source.size - start)
    return BootImage(entry, length, file.path if file else None, info, grub2)


def _explained(
    area: bytes, mbr: Mbr | None, gpt: Sequence[Gpt], apm: Apm | None, firmware: Sequence[FirmwareHeader]
) -> bytes:
    """The system area without what we know; the rest should be zeros."""
    rest = bytearray(area)
    known = [(0, SECTOR)] if mbr else []
    known += [(0, BLOCK)] if firmware else []  # HP-PA keeps its command line in the second half
    if gpt:
        header = gpt[0].header
        known += [(header.my_lba * SECTOR, SECTOR), (header.entries_lba * SECTOR, header.entries_size)]
    if apm:
        known += [(0, SECTOR), *((apm.entry_offset(index), SECTOR) for index in range(len(apm.entries)))]
    for start, length in known:
        end = min(start + length, len(rest))
        rest[start:end] = bytes(max(0, end - start))
    return bytes(rest)


def _blockers(source: ByteSource, unexplained: bytes) -> Iterator[str]:
    """What this version would damage if it moved anything."""
    if has_hfs_header(source, 0):
        yield "an HFS file system over the whole image"
    elif unexplained.strip(b"\0"):
        at = len(unexplained) - len(unexplained.lstrip(b"\0"))
        yield f"unknown boot data in the system area at byte 0x{at:X}"
