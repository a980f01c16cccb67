"""Compare an image with the one that it was made from: everything that was not meant to change must be equal."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from cosremaster.boot.limine import STAGE2_END, STAGE2_OFFSET, LimineStage2
from cosremaster.boot.pointers import GRUB2_IMAGE_OFFSET, MBR_POINTER_OFFSET, TABLE_END, TABLE_OFFSET, BootInfoTable
from cosremaster.errors import CosremasterError
from cosremaster.io.pieces import PieceTable, Range
from cosremaster.io.source import ByteSource
from cosremaster.io.streams import same_bytes, sha256_of
from cosremaster.iso.ecma119.records import PRIMARY, SUPPLEMENTARY, VolumeDescriptor
from cosremaster.iso.model import BootImage, IsoFile, IsoImage
from cosremaster.iso.read import read_image
from cosremaster.units import BLOCK, SECTOR, SECTORS_PER_BLOCK, Lba, lba_offset
from cosremaster.verification.compare_fats import is_same_fat
from cosremaster.verification.finding import Finding, fails, holds, judge
from cosremaster.verification.named_paths import check_named_paths
from cosremaster.verification.subject import MBR_TABLE, SectorRange, Subject
from cosremaster.verification.tree_names import IntendedChanges, read_tree_names

STEP = 1 << 20
_IDENTITY = ((8, 80), (190, 883))
"""Bytes of a volume descriptor that do not depend on the layout: identifiers, dates (ECMA-119, 8.4)."""
_IDENTITY_BUT_NAME = ((8, 40), (72, 80), (190, 830), (847, 883))
"""The same without volume id and modification date."""
_CODE = ((0, MBR_POINTER_OFFSET), (MBR_POINTER_OFFSET + 8, MBR_TABLE))
"""Bytes of the MBR's code without the pointer in it."""
_LIMINE_CODE = ((0, STAGE2_OFFSET), (STAGE2_END, MBR_TABLE))
"""The same for Limine's code."""


def check_against(
    old: Subject, new: Subject, changed: Collection[bytes], *, changed_volume: bool = False
) -> Iterator[Finding]:
    """Compare volume, files, boot images and partitions of ``new`` with those of ``old``.

    :param changed: paths that were meant to change, on the tree or inside FAT file systems; a directory that only one
        of both has covers everything below it.
    :param changed_volume: the volume id and the modification date were meant to change.
    :raises UsageError: a path in ``changed`` is in neither image.
    """
    try:
        old_image = read_image(old.source)
    except CosremasterError as error:
        yield fails("against.unreadable", f"cannot be compared with: {error.message}", error.place or old.place)
        return
    try:
        new_image = read_image(new.source)
        old_names, new_names = read_tree_names(old_image, old.source), read_tree_names(new_image, new.source)
    except CosremasterError as error:
        yield fails("against.unreadable", f"cannot be compared: {error.message}", error.place or new.place)
        return
    check_named_paths(changed, (old_image, new_image), (old_names, new_names))
    intended = IntendedChanges(old_names, new_names, changed)
    changed = intended.paths
    yield from _compare_descriptors(old, new, changed_volume)
    yield from _compare_files(old_image, new_image, {*changed, *_shared_boot_paths(old_image, new_image)})
    yield from _compare_other_files(old_image, new_image, changed)
    yield from intended.list_unintended(new_image.place)
    yield from _compare_boot_entries(old_image, new_image, changed)
    starts = {lba for path, lba in _list_starts(new_image) if path in changed}
    yield from _compare_partition_tables(old, new, starts, changed)


def _compare_descriptors(old: Subject, new: Subject, changed_volume: bool) -> Iterator[Finding]:
    """Compare the volume descriptors: their types, identifiers and dates."""
    types = [[descriptor.type for descriptor in subject.descriptors] for subject in (old, new)]
    bases = [[base for base, _ in subject.descriptor_sets] for subject in (old, new)]
    message, failure = "the same volume descriptors as the original", "other volume descriptors than the original"
    is_same = types[0] == types[1] and bases[0] == bases[1]
    yield judge(is_same, "against.descriptors", message, failure, new.place.at(16 * BLOCK))
    parts = _IDENTITY_BUT_NAME if changed_volume else _IDENTITY
    for descriptor in old.descriptors:
        kind = _kind_of(descriptor)
        other = next((candidate for candidate in new.descriptors if _kind_of(candidate) == kind), None)
        if descriptor.type in (PRIMARY, SUPPLEMENTARY) and other is not None:
            is_same = all(descriptor.raw[start:end] == other.raw[start:end] for start, end in parts)
            label = f"volume descriptor at block {other.lba}: identifiers and dates"
            message, failure = f"{label} are the original's", f"{label} are not the original's"
            yield judge(is_same, "against.volume", message, failure, new.place_at(other.lba))


def _kind_of(descriptor: VolumeDescriptor) -> tuple[int, bytes]:
    """Return type, version, and the escape sequences that distinguish Joliet (8.5.6)."""
    return descriptor.type, descriptor.raw[6:7] + descriptor.raw[88:120]


def _compare_files(old_image: IsoImage, new_image: IsoImage, changed: Collection[bytes]) -> Iterator[Finding]:
    """Check that no file is missing or added, and that each holds the same bytes, except for ``changed``."""
    old, new = ({file.path: file for file in image.files} for image in (old_image, new_image))
    failures = 0
    for path in sorted(old.keys() | new.keys()):
        place = new_image.place.inside(path)
        if path in changed:
            continue
        if path not in new:
            finding = fails("against.missing", "is in the original, and not here", place)
        elif path not in old:
            finding = fails("against.extra", "is not in the original", place)
        elif _is_catalog(old_image, old[path]) and _is_catalog(new_image, new[path]):
            continue  # it has block numbers; its entries are compared later
        elif (at := _find_difference(old_image, old[path], new_image, new[path])) is not None and not is_same_fat(
            old_image.bytes_of(old[path]), new_image.bytes_of(new[path]), changed
        ):
            finding = fails("against.file", "does not hold what it holds in the original", place.at(at))
        else:
            continue
        failures += 1
        yield finding
    if not failures:
        equal = sum(path not in changed for path in new)
        yield holds("against.file", f"{equal:,} files hold what they hold in the original", new_image.place)


def _compare_other_files(old_image: IsoImage, new_image: IsoImage, changed: Collection[bytes]) -> Iterator[Finding]:
    """Check that files that other trees show, and the primary one does not, hold the same bytes, but for ``changed``.

    Names that were added or removed are found by :class:`IntendedChanges`.
    """
    old, new = _list_other_files(old_image), _list_other_files(new_image)
    intended = {path.lower() for path in changed}
    equal = failures = 0
    for kind, path in sorted(old.keys() & new.keys()):
        if path.lower() in intended:
            continue
        tables = old[kind, path], new[kind, path]
        if tables[0].length == tables[1].length and same_bytes(tables[0].chunks(), tables[1].chunks()):
            equal += 1
            continue
        failures += 1
        place = new_image.place.inside(path)
        yield fails("against.file", f"does not hold what it holds in the original's {kind} tree", place)
    if equal and not failures:
        message = f"{equal:,} files of other trees alone hold what they hold in the original"
        yield holds("against.file", message, new_image.place)


def _list_other_files(image: IsoImage) -> dict[tuple[str, bytes], PieceTable]:
    """Return the data of files that are no file of the primary tree, by tree and path.

    Boot images and the boot catalog are left out: they have block numbers, and are compared for themselves.
    """
    known = {(file.start, file.size) for file in image.files}
    boot = {boot.entry.lba for boot in image.boot_images} | ({image.catalog.lba} if image.catalog else set())
    others: dict[tuple[str, bytes], PieceTable] = {}
    for tree in image.trees[1:]:
        for file in tree.files:
            if file.size and file.start not in boot and (file.start, file.size) not in known:
                others[tree.kind, file.path] = image.bytes_of(file)
    for path, udf_file in image.udf.named_files() if image.udf else ():
        ranges = [(start, start + length) for start, length in udf_file.ranges if start + length <= image.size]
        lba = Lba(ranges[0][0] // BLOCK) if ranges else None
        if lba is not None and udf_file.size and lba not in boot and (lba, udf_file.size) not in known:
            table = PieceTable(image.source.cut(start, end) for start, end in ranges)
            others["UDF", "/".join(path).encode("utf-8", "surrogatepass")] = table
    return others


def _shared_boot_paths(old_image: IsoImage, new_image: IsoImage) -> Iterator[bytes]:
    """Yield the paths of boot images, whose bytes :func:`_compare_boot_entries` compares without their pointers."""
    for old, new in zip(old_image.boot_images, new_image.boot_images, strict=False):
        if old.path is not None and old.path == new.path:
            yield old.path


def _is_catalog(image: IsoImage, file: IsoFile) -> bool:
    """Return True if ``file`` is the boot catalog."""
    return image.catalog is not None and bool(file.size) and file.records[0].lba == image.catalog.lba


def _find_difference(old_image: IsoImage, old: IsoFile, new_image: IsoImage, new: IsoFile) -> int | None:
    """Return the offset of the first MiB in which two files differ; None if they are equal."""
    if old.size != new.size:
        return min(old.size, new.size)
    old_bytes, new_bytes = old_image.bytes_of(old), new_image.bytes_of(new)
    for at in range(0, old.size, STEP):
        if old_bytes.read(at, STEP) != new_bytes.read(at, STEP):
            return at
    return None


def _compare_boot_entries(old_image: IsoImage, new_image: IsoImage, changed: Collection[bytes]) -> Iterator[Finding]:
    """Check that El Torito entries lead to the same bytes, apart from the pointers in these."""
    if len(old_image.boot_images) != len(new_image.boot_images):
        message = f"{len(new_image.boot_images)} El Torito entries, the original has {len(old_image.boot_images)}"
        yield fails("against.boot", message, new_image.place)
        return
    starts = {lba for path, lba in _list_starts(old_image) if path in changed}
    for number, (old, new) in enumerate(zip(old_image.boot_images, new_image.boot_images, strict=True), 1):
        if old.entry.lba in starts:
            continue
        is_same_kind = old.entry.raw[:8] == new.entry.raw[:8] and old.entry.platform == new.entry.platform
        is_same = (
            is_same_kind and old.length == new.length and _is_same_boot_image(old_image, old, new_image, new, changed)
        )
        label = f"El Torito entry {number}"
        message = f"{label}: leads to what it leads to in the original"
        failure = f"{label}: does not lead to what it leads to in the original"
        yield judge(is_same, "against.boot", message, failure, new_image.place.at(new.entry.offset))


def _list_starts(image: IsoImage) -> Iterator[tuple[bytes, Lba]]:
    """Yield path and first block of the files of all trees: some show what the primary one hides."""
    for tree in image.trees:
        yield from ((file.path, file.start) for file in tree.files if file.size)
    for path, file in image.udf.named_files() if image.udf else ():
        if file.extents:
            yield "/".join(path).encode("utf-8", "surrogatepass"), file.extents[0][0]


def _is_same_boot_image(
    old_image: IsoImage, old: BootImage, new_image: IsoImage, new: BootImage, changed: Collection[bytes]
) -> bool:
    """Return True if both boot images hold the same; if they are FATs, their files ``changed`` may differ."""
    if _hash_boot_image(old_image, old) == _hash_boot_image(new_image, new):
        return True
    tables = list[PieceTable]()
    for image, boot in ((old_image, old), (new_image, new)):
        start = lba_offset(boot.entry.lba)
        end = min(start + boot.length, image.size) if boot.path is not None else image.size
        tables.append(PieceTable([image.source.cut(start, end)]))
    return is_same_fat(tables[0], tables[1], changed)


def _hash_boot_image(image: IsoImage, boot: BootImage) -> bytes:
    """Return the digest of a boot image, with zeros for the bytes that depend on its place."""
    start = lba_offset(boot.entry.lba)
    table = PieceTable([image.source.cut(start, min(start + boot.length, image.size))])
    head = table.read(0, TABLE_END)
    has_info_table = len(head) == TABLE_END and BootInfoTable.parse(head).image == boot.entry.lba
    pointers = [(TABLE_OFFSET, 16)] * has_info_table + [(GRUB2_IMAGE_OFFSET, 8)] * boot.has_grub2_pointer
    patches = [(at, bytes(size)) for at, size in pointers if at + size <= table.length]
    return sha256_of(table.patched(patches).chunks())


def _compare_partition_tables(
    old: Subject, new: Subject, starts: Collection[int], changed: Collection[bytes]
) -> Iterator[Finding]:
    """Check that the same partitions are in the same tables, and partitions without a tree hold the same bytes.

    :param starts: first blocks of files that were meant to change; a partition over such a file changes with it.
    :param changed: paths of files that may differ inside a FAT.
    """
    old_mbr, new_mbr = (
        [(sectors.name, partition.type, partition.status) for sectors, partition in subject.mbr_partitions]
        for subject in (old, new)
    )
    if old_mbr != new_mbr:
        place = new.place.at(MBR_TABLE)
        yield fails("against.mbr", "the MBR has other partitions than the original's", place)
    elif old.mbr and new.mbr:
        stages = _read_limine(old), _read_limine(new)
        parts = _CODE if stages[0] is None else _LIMINE_CODE
        is_same = stages[0] == stages[1]
        is_same = is_same and all(old.mbr.code[start:end] == new.mbr.code[start:end] for start, end in parts)
        message, failure = "the MBR's code is the original's", "the MBR's code is not the original's"
        yield judge(is_same, "against.code", message, failure, new.place.at(0))
    old_gpt, new_gpt = (
        [
            (sectors.name, entry.type, entry.guid, entry.attributes, entry.name)
            for sectors, entry in subject.gpt_partitions
        ]
        for subject in (old, new)
    )
    old_guid, new_guid = (subject.used_gpt.header.guid if subject.used_gpt else b"" for subject in (old, new))
    if (old_gpt, old_guid) != (new_gpt, new_guid):
        yield fails("against.gpt", "the GPT has other partitions or GUIDs than the original's", new.place.at(SECTOR))
    if old_mbr == new_mbr and old_gpt == new_gpt:
        yield from _compare_partitions(old, new, starts, changed)


def _read_limine(subject: Subject) -> list[bytes] | None:
    """Return the halves of Limine's stage 2, to which the MBR leads; None without Limine."""
    source = subject.source
    limine = LimineStage2.parse(source.read(0, SECTOR), source.read, source.size)
    return None if limine is None else [source.read(start, length) for start, length in limine.halves]


def _compare_partitions(
    old: Subject, new: Subject, starts: Collection[int], changed: Collection[bytes]
) -> Iterator[Finding]:
    """Compare the bytes of partitions without a tree; parameters as in :func:`_compare_partition_tables`."""
    pairs = zip(old.list_partitions(protective=False), new.list_partitions(protective=False), strict=True)
    for old_partition, new_partition in pairs:
        if (
            _holds_tree(old, old_partition)
            or _holds_tree(new, new_partition)
            or new_partition.start / SECTORS_PER_BLOCK in starts
        ):
            continue
        old_bytes, new_bytes = _partition_bytes(old.source, old_partition), _partition_bytes(new.source, new_partition)
        is_same = old_partition.end - old_partition.start == new_partition.end - new_partition.start and (
            sha256_of(old_bytes.chunks()) == sha256_of(new_bytes.chunks()) or is_same_fat(old_bytes, new_bytes, changed)
        )
        message = f"{old_partition.name}: holds what it holds in the original"
        failure = f"{old_partition.name}: does not hold what it holds in the original"
        yield judge(is_same, "against.partition", message, failure, new.place.at(new_partition.start * SECTOR))


def _holds_tree(subject: Subject, partition: SectorRange) -> bool:
    """Return True if a partition holds a directory or more than one file of the tree, or a file from its middle on."""
    tree = subject.main_tree
    if tree is None:
        return True
    first, end = partition.start // SECTORS_PER_BLOCK, -(-partition.end // SECTORS_PER_BLOCK)
    file_starts = {record.lba for record in tree.files if record.length and first <= record.lba < end}
    has_directory = any(first <= directory.lba < end for directory in tree.directories)
    return has_directory or bool(file_starts - {first}) or partition.start <= SECTORS_PER_BLOCK


def _partition_bytes(source: ByteSource, partition: SectorRange) -> PieceTable:
    """Return the bytes of a partition, fewer at the end of the image."""
    first = min(partition.start * SECTOR, source.size)
    return PieceTable([Range(source, first, min(partition.end * SECTOR, source.size) - first)])
