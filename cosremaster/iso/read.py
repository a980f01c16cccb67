"""Read an image: its trees, boot records and partition tables, and the blocks that must stay at their place."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, TypeVar

from cosremaster.boot import pointers
from cosremaster.boot.apm import Apm, read_apm
from cosremaster.boot.coreos import find_embed_areas, header_offsets
from cosremaster.boot.eltorito import UEFI, BootCatalog, BootEntry, find_catalog, parse_catalog
from cosremaster.boot.firmware import FirmwareHeader, find_firmware
from cosremaster.boot.gpt import PRIMARY as GPT_PRIMARY
from cosremaster.boot.gpt import Gpt, choose_copy, read_gpt, read_last_gpt
from cosremaster.boot.implanted import APPLICATION_USE, AREA_SIZE, ImplantedMd5
from cosremaster.boot.limine import LimineStage2
from cosremaster.boot.mbr import ALL_SECTORS, Mbr
from cosremaster.errors import ImageError, UnsupportedError, printable
from cosremaster.io.pieces import Range
from cosremaster.io.source import ByteSource
from cosremaster.iso.ecma119.limits import TreeLimits
from cosremaster.iso.ecma119.records import IMAGE_START, PRIMARY, VolumeDescriptor, read_descriptors
from cosremaster.iso.layout.extents import find_tail, list_fixed_spans
from cosremaster.iso.model import BootImage, IsoFile, IsoImage, IsoTree, Partition
from cosremaster.iso.partitions import PROTECTIVE_LABEL, find_hfs_partitions, has_hfs_header, list_partitions
from cosremaster.iso.read_directories import EarlierTree
from cosremaster.iso.read_trees import read_trees
from cosremaster.iso.spans import Span
from cosremaster.iso.udf.read import read_udf
from cosremaster.records import replace
from cosremaster.units import BLOCK, FIRST_DESCRIPTOR, SECTOR, SECTORS_PER_BLOCK, Lba, lba_offset

if TYPE_CHECKING:
    from cosremaster.boot.media_tags import MediaTags

SYSTEM_AREA = FIRST_DESCRIPTOR * BLOCK
"""Bytes in front of the volume descriptors (ECMA-119, 6.2.1)."""
MAX_CATALOG = 64 * 1024
_SESSION_STEP = 16
"""Sessions on files begin at a multiple of so many blocks."""
_LOGICAL_BLOCK_SIZE = slice(128, 130)
"""The bytes of a volume descriptor that hold the logical block size, little-endian (8.4.12)."""

Structure = TypeVar("Structure")


def has_volume(source: ByteSource) -> bool:
    """Return whether ``source`` has volume descriptors: of ISO 9660, or of UDF alone."""
    return source.read(SYSTEM_AREA + 1, 5) in (b"CD001", b"BEA01")


def read_image(source: ByteSource, earlier: IsoImage | None = None) -> IsoImage:
    """Read an ISO 9660 image: its volume descriptors, directories and boot records, but no file's data.

    Damaged structures beside ISO 9660 and El Torito are noted in the image's ``blockers``.

    :param earlier: an image that this one was made from: what its directories say is taken where all their bytes are
        the same.

    :raises ImageError: when this is not an ISO 9660 image, or the image is cut off or damaged.
    :raises UnsupportedError: when it is UDF without ISO 9660.
    """
    if source.read(SYSTEM_AREA + 1, 5) == b"BEA01":  # the sequence of 2/9.1 without descriptors of ISO 9660
        raise UnsupportedError(
            "is UDF without ISO 9660, which can be listed and extracted, and not changed", source.place
        )
    descriptors = read_descriptors(source)
    primary = _find_primary(source, descriptors)
    area = source.read(0, SYSTEM_AREA)
    mbr, damaged = Mbr.parse(area[:SECTOR]), list[str]()
    apm = _try_read(lambda: read_apm(source.read, source.place), damaged)
    gpt = _try_read(lambda: tuple(_read_gpt_copies(source, mbr)), damaged) or ()
    partitions = list_partitions(mbr, choose_copy(gpt), apm)
    _check_ends(source, partitions, gpt, primary, is_damaged=bool(damaged))
    bases = _find_bases(source, partitions, primary)
    session = _find_session(source, primary, bases)
    trees, descriptor_spans = _read_all_trees(source, descriptors, bases, session, earlier)
    catalog = _read_catalog(source, descriptors)
    boot_images = _read_boot_images(source, catalog, trees[0], partitions)
    udf = _try_read(lambda: read_udf(source, primary.blocks), damaged)
    firmware = find_firmware(area, mbr)
    limine = LimineStage2.parse(area[:SECTOR], source.read, source.size)
    application_use = primary.raw[APPLICATION_USE : APPLICATION_USE + AREA_SIZE]
    image = IsoImage(
        place=source.place, source=Range(source, 0, source.size), size=source.size,
        volume_id=printable(primary.raw[40:72].rstrip(b" \0")), trees=trees, fixed_spans=(), tail=Lba(0),
        catalog=catalog, boot_images=boot_images, mbr=mbr, gpt=gpt, apm=apm, partitions=partitions,
        hfs_partitions=find_hfs_partitions(source, partitions), firmware=firmware,
        implanted=ImplantedMd5.parse(application_use), media_tags=_read_media_tags(application_use), udf=udf,
        session_lba=session, embed_areas=find_embed_areas(area),
        blockers=tuple(damaged), limine=limine,
        cautions=tuple(_list_cautions(source, _blank_known(area, mbr, gpt, apm, firmware, limine))),
    )  # fmt: skip
    fixed = list_fixed_spans(image, descriptor_spans)
    return replace(image, fixed_spans=fixed, tail=find_tail(image, fixed))


def _try_read(read: Callable[[], Structure | None], damaged: list[str]) -> Structure | None:
    """Return the result of ``read``; if it fails, append the reason to ``damaged`` and return None."""
    try:
        return read()
    except (ImageError, UnsupportedError) as error:
        damaged.append(f"what it cannot follow ({error.message})")
        return None


def _find_primary(source: ByteSource, descriptors: Iterable[VolumeDescriptor]) -> VolumeDescriptor:
    """Return the primary volume descriptor.

    :raises ImageError: when there is none, its blocks are not of 2,048 bytes, or its volume is cut off.
    """
    primary = next((descriptor for descriptor in descriptors if descriptor.type == PRIMARY), None)
    if primary is None:
        raise ImageError("has no primary volume descriptor", source.place)
    if int.from_bytes(primary.raw[_LOGICAL_BLOCK_SIZE], "little") != BLOCK:
        raise ImageError("its logical blocks are not of 2,048 bytes", source.place)
    if primary.blocks * BLOCK > source.size:
        missing = primary.blocks * BLOCK - source.size
        raise ImageError(f"is cut off: {missing:,} bytes of its volume are missing", source.place)
    return primary


def _check_ends(
    source: ByteSource, partitions: Iterable[Partition], gpt: Sequence[Gpt], primary: VolumeDescriptor, *,
    is_damaged: bool,
) -> None:  # fmt: skip
    """Check that the partitions, and the backup GPT, are inside the image. :raises ImageError: it is cut off.

    The partition that stands for a GPT counts only where that ``is_damaged``: it may end anywhere.
    """
    for partition in partitions:
        is_counted = not partition.is_filler
        if partition.table == "APM":
            is_counted &= partition.start * SECTOR >= primary.blocks * BLOCK
        elif partition.label == PROTECTIVE_LABEL:
            is_counted = is_damaged and partition.end <= ALL_SECTORS
        if is_counted and partition.end * SECTOR > source.size:
            raise ImageError(f"is cut off: {partition.name} ends behind its end", source.place)
    primary_gpt = next((copy for copy in gpt if not copy.is_backup), None)
    if primary_gpt and primary_gpt.has_valid_crcs and (primary_gpt.header.alternate_lba + 1) * SECTOR > source.size:
        raise ImageError("is cut off: its backup GPT is behind its end", source.place)


def _read_gpt_copies(source: ByteSource, mbr: Mbr | None) -> Iterator[Gpt]:
    """Yield the primary GPT, and the backup GPT if it is where the primary one says.

    Where no primary copy is sound, systems take the backup in the last sector (5.3.2): a sound one there is yielded
    last.

    :raises ImageError: they claim blocks that other structures have, or partitions that cannot be.
    """
    copies = list[Gpt]()
    primary = read_gpt(source.read, GPT_PRIMARY, source.place)
    if primary is not None:
        area = range(GPT_PRIMARY + 1, SYSTEM_AREA // SECTOR + 1)
        if primary.header.my_lba != GPT_PRIMARY or not {primary.header.entries_lba, primary.entries_end} <= set(area):
            raise ImageError("GPT claims blocks of other structures", source.place.at(GPT_PRIMARY * SECTOR))
        backup = read_gpt(source.read, primary.header.alternate_lba, source.place)
        copies.append(primary)
        if backup is not None:
            if backup.is_in_place and not _is_behind_descriptors(backup):
                raise ImageError("backup GPT claims blocks of other structures", source.place.at(GPT_PRIMARY * SECTOR))
            copies += [backup] if _is_behind_descriptors(backup) else []
    may_use_last = mbr is not None and mbr.announces_gpt if primary is None else not primary.has_valid_crcs
    if may_use_last:
        last = read_last_gpt(source.read, source.size, source.place)
        is_known = last is not None and any(copy.sector == last.sector for copy in copies)
        copies += [last] if last is not None and _is_behind_descriptors(last) and not is_known else []
    for copy in (copy for copy in copies if copy.is_in_place):  # others are read by nobody
        for number, entry in copy.used_entries:
            if entry.end <= entry.first or (entry.end * SECTOR > source.size and not copy.has_valid_crcs):
                raise ImageError(f"GPT partition {number} is impossible", source.place.at(copy.sector * SECTOR))
    yield from copies


def _is_behind_descriptors(backup: Gpt) -> bool:
    """Return whether a backup GPT stands behind the first volume descriptor, where it can move."""
    return min(backup.sector, backup.header.entries_lba) * SECTOR >= SYSTEM_AREA + BLOCK


def _find_bases(source: ByteSource, partitions: Iterable[Partition], primary: VolumeDescriptor) -> list[Lba]:
    """Return the first blocks of partitions that have volume descriptors and a tree of their own over the same files.

    xorriso makes them by its option -partition_offset (xorriso(1)).
    """
    starts = {p.start // SECTORS_PER_BLOCK for p in partitions if p.start % SECTORS_PER_BLOCK == 0}
    return [
        Lba(start)
        for start in sorted(starts)
        if 0 < start < primary.root.lba and source.read((start + FIRST_DESCRIPTOR) * BLOCK, 6) == b"\1CD001"
    ]


def _find_session(source: ByteSource, primary: VolumeDescriptor, bases: Collection[Lba]) -> Lba:
    """Return the first block of the last session; 0 if there is one session only.

    What begins at one of ``bases`` is a partition's tree, which may name the same block as the primary one: from its
    own start on.

    On files xorriso keeps a copy of the last session's descriptors at block 16 (libburn, doc/cookbook.txt,
    "overwriteable media"). The session's own descriptors are 16 blocks after its start, shortly before its path
    tables and its root directory.
    """
    for anchor in (
        primary.root.lba,
        *(table.lba for table in primary.path_tables),
    ):  # the root directory may have moved
        nearest = (anchor - FIRST_DESCRIPTOR - 1) // _SESSION_STEP * _SESSION_STEP
        for start in range(nearest, max(0, nearest - 2 * _SESSION_STEP), -_SESSION_STEP):
            raw = source.read((start + FIRST_DESCRIPTOR) * BLOCK, BLOCK) if start not in bases else b""
            if raw[:6] == b"\1CD001" and VolumeDescriptor(Lba(start), raw).root == primary.root:
                return Lba(start)
    return IMAGE_START


def _read_all_trees(
    source: ByteSource, descriptors: Sequence[VolumeDescriptor], bases: Iterable[Lba], session: Lba,
    earlier: IsoImage | None,
) -> tuple[tuple[IsoTree, ...], list[Span]]:  # fmt: skip
    """Read the trees of all sets of volume descriptors.

    :param descriptors: the descriptors from block 16 on.
    :param bases: the first blocks of partitions with descriptors of their own.
    :param session: the first block of the last session, 0 if there is one session only.
    :return: the trees, the primary one first, and the spans of all descriptors.
    """
    limits = TreeLimits(source)
    earlier_trees = {tree.descriptor_lba: EarlierTree.of(tree) for tree in earlier.trees} if earlier else {}
    trees = [*read_trees(source, descriptors, IMAGE_START, limits=limits, earlier=earlier_trees)]
    spans = [Span(descriptor.lba, 1, "volume descriptor") for descriptor in descriptors]
    for base in bases:
        if _is_in_file(trees, Lba(base + FIRST_DESCRIPTOR)):
            continue  # an image on the image, of which a partition is made
        partition_descriptors = read_descriptors(source, Lba(base + FIRST_DESCRIPTOR))
        trees += read_trees(source, partition_descriptors, base, limits=limits, earlier=earlier_trees)
        spans += [Span(descriptor.lba, 1, "volume descriptor") for descriptor in partition_descriptors]
    if session:
        copies = read_descriptors(source, Lba(session + FIRST_DESCRIPTOR))
        roots = {descriptor.root.lba for descriptor in descriptors}
        for tree in read_trees(source, copies, IMAGE_START, roots, limits, earlier_trees):
            is_relative = session + tree.blocks == trees[0].blocks
            trees.append(replace(tree, volume_start=session) if is_relative else tree)
        spans.append(Span(IMAGE_START, session, "earlier sessions"))
    return tuple(trees), spans


def _is_in_file(trees: Iterable[IsoTree], lba: Lba) -> bool:
    """Return whether block ``lba`` holds data of a file of ``trees``."""
    return any(start <= lba < end for tree in trees for start, end in tree.joined_runs)


def _read_catalog(source: ByteSource, descriptors: Iterable[VolumeDescriptor]) -> BootCatalog | None:
    """Read the boot catalog that a boot record volume descriptor points at; None without El Torito."""
    for descriptor in descriptors:
        lba = find_catalog(descriptor.raw)
        if lba is not None:
            start = lba_offset(lba)
            return parse_catalog(source.read(start, MAX_CATALOG), lba, start, source.place)
    return None


def _read_boot_images(
    source: ByteSource, catalog: BootCatalog | None, tree: IsoTree, partitions: Sequence[Partition]
) -> tuple[BootImage, ...]:
    """Read the boot images of all entries. :raises ImageError: when one is outside the image."""
    entries = catalog.entries if catalog else ()
    boot_files = tree.find_files_at({entry.lba for entry in entries})
    by_start = {file.start: file for file in boot_files if file.size}
    images = list[BootImage]()
    for entry in entries:
        file = by_start.get(entry.lba)
        size = file.size if file else _measure_boot_image(source, entry, tree.files, partitions)
        images.append(_read_boot_image(source, entry, file, size))
    return tuple(images)


def _measure_boot_image(
    source: ByteSource, entry: BootEntry, files: Iterable[IsoFile], partitions: Sequence[Partition]
) -> int:
    """Return the bytes of a boot image that is no file, by the FAT or the partition that begins there; 0 for neither.

    A FAT that claims blocks of files has none of them.
    """
    start = lba_offset(entry.lba)
    if entry.platform == UEFI and source.read(start, 1) in (b"\xeb", b"\xe9"):
        from cosremaster.boot.fat import parse_bpb  # noqa: PLC0415 - few boot images are no files

        bpb = parse_bpb(source.read(start, SECTOR))
        if bpb is not None:
            following = min((file.start for file in files if file.size and file.start > entry.lba), default=None)
            return bpb.total_size if following is None else min(bpb.total_size, lba_offset(following) - start)
    sizes = [partition.end - partition.start for partition in partitions if partition.start * SECTOR == start]
    return min(sizes, default=0) * SECTOR


def _read_boot_image(source: ByteSource, entry: BootEntry, file: IsoFile | None, size: int) -> BootImage:
    """Read the boot image of ``entry``, with the tables inside it.

    :param file: the file that begins at its block.
    :param size: bytes of the image, as far as it is known; 0 where it is not.
    """
    start = lba_offset(entry.lba)
    if start + (file.size if file else 1) > source.size:
        raise ImageError("El Torito entry points outside the image", source.place.at(entry.offset))
    head = source.read(start, pointers.GRUB2_IMAGE_OFFSET + 8)
    has_grub2_pointer = head[pointers.GRUB2_IMAGE_OFFSET :] == pointers.pack_grub2_image_pointer(entry.lba)
    info = pointers.BootInfoTable.parse(head) if len(head) >= pointers.TABLE_END else None
    if info and not (info.image == entry.lba and _is_primary_descriptor(source, info.descriptor) and info.length):
        info = None
    size = size or (info.length if info else 0)
    length = min(max(entry.minimum_size, size), source.size - start)
    return BootImage(entry, length, file.path if file else None, info, has_grub2_pointer)


def _is_primary_descriptor(source: ByteSource, lba: Lba) -> bool:
    """Return whether block ``lba`` is a primary volume descriptor: that of block 16, or that of a later session."""
    return lba >= FIRST_DESCRIPTOR and source.read(lba_offset(lba), 6) == b"\1CD001"


def _blank_known(
    area: bytes, mbr: Mbr | None, gpt: Sequence[Gpt], apm: Apm | None, firmware: Sequence[FirmwareHeader],
    limine: LimineStage2 | None,
) -> bytes:  # fmt: skip
    """Return the system area with zeros for all structures that were read; the rest should be zeros too."""
    rest = bytearray(area)
    ranges = [(0, SECTOR)] if mbr else []
    ranges += header_offsets(area).items()
    ranges += [(0, BLOCK)] if firmware else []  # HP-PA keeps its command line in the second half
    if gpt:
        header = gpt[0].header
        ranges += [(header.my_lba * SECTOR, SECTOR), (header.entries_lba * SECTOR, header.entries_size)]
    if apm:
        ranges += [(0, SECTOR), *((apm.entry_offset(index), SECTOR) for index in range(len(apm.entries)))]
    ranges += limine.halves if limine else ()
    for start, length in ranges:
        end = min(start + length, len(rest))
        rest[start:end] = bytes(max(0, end - start))
    return bytes(rest)


def _read_media_tags(application_use: bytes) -> MediaTags | None:
    """Return the tags of tagmedia in the application use area of a volume descriptor, None without any."""
    if b"sum" not in application_use:  # each name of a digest ends so
        return None
    from cosremaster.boot.media_tags import MediaTags  # noqa: PLC0415 - few images have tags

    return MediaTags.parse(application_use)


def _list_cautions(source: ByteSource, unknown: bytes) -> Iterator[str]:
    """Yield the structures, in words, that may name any block of the image.

    :param unknown: the system area without the structures that were read.
    """
    if has_hfs_header(source, 0):
        yield "an HFS file system over the whole image"
    elif unknown.strip(b"\0"):
        at = len(unknown) - len(unknown.lstrip(b"\0"))
        yield f"unknown boot data in the system area at byte 0x{at:X}"
