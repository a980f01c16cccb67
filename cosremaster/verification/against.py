"""An image beside the one it was made from: what should be the same is the same."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from cosremaster.boot.pointers import GRUB2_IMAGE_OFFSET, MBR_POINTER_OFFSET, TABLE_END, TABLE_OFFSET, BootInfoTable
from cosremaster.errors import CosremasterError
from cosremaster.io.pieces import PieceTable, Range
from cosremaster.io.source import ByteSource
from cosremaster.io.streams import sha256_of
from cosremaster.iso.ecma119.records import PRIMARY, SUPPLEMENTARY, VolumeDescriptor
from cosremaster.iso.model import BootImage, IsoFile, IsoImage
from cosremaster.iso.read import read_image
from cosremaster.units import BLOCK, SECTOR, SECTORS_PER_BLOCK, lba_offset
from cosremaster.verification.fats import is_same_fat
from cosremaster.verification.finding import Finding, fails, holds, judge
from cosremaster.verification.names import IntendedChanges, read_tree_names
from cosremaster.verification.subject import Subject

STEP = 1 << 20
_SAME = ((8, 80), (190, 883))
"""What of a volume descriptor has no part in the layout: identifiers, dates (ECMA-119, 8.4)."""
_SAME_BUT_NAME = ((8, 40), (72, 80), (190, 830), (847, 883))
"""The same without volume id and modification date."""
_CODE = ((0, MBR_POINTER_OFFSET), (MBR_POINTER_OFFSET + 8, 446))


def check_against(
    old: Subject, new: Subject, changed: Collection[bytes], *, changed_volume: bool = False
) -> Iterator[Finding]:
    """Volume, files, boot images and partitions of ``new`` beside those of ``old``.

    ``changed``: paths that were meant to change, on the tree or inside FAT file systems; one of a directory that only
    one of both has covers what is below it. ``changed_volume``: the volume id and the modification date were meant to.
    """
    try:
        before = read_image(old.source)
    except CosremasterError as error:
        yield fails("against.unreadable", f"cannot be compared with: {error.message}", error.place or old.place)
        return
    try:
        after = read_image(new.source)
        meant = IntendedChanges(read_tree_names(before, old.source), read_tree_names(after, new.source), changed)
    except CosremasterError as error:
        yield fails("against.unreadable", f"cannot be compared: {error.message}", error.place or new.place)
        return
    changed = meant.paths
    yield from _volume(old, new, changed_volume)
    yield from _files(before, after, {*changed, *_boot_paths(before, after)})
    yield from meant.findings(after.place)
    yield from _boot(before, after, changed)
    starts = {file.records[0].lba for file in after.files if file.path in changed}
    yield from _partitions(old, new, starts, changed)


def _volume(old: Subject, new: Subject, changed: bool) -> Iterator[Finding]:
    kinds = [[one.type for one in subject.descriptors] for subject in (old, new)]
    bases = [[base for base, _ in subject.sets] for subject in (old, new)]
    place = new.place.at(16 * BLOCK)
    same = kinds[0] == kinds[1] and bases[0] == bases[1]
    yield judge(
        same, "against.descriptors", "the same volume descriptors as the original",
        "other volume descriptors than the original", place,
    )  # fmt: skip
    for one in old.descriptors:
        other = next((each for each in new.descriptors if _kind(each) == _kind(one)), None)
        if one.type in (PRIMARY, SUPPLEMENTARY) and other is not None:
            same_parts = _SAME_BUT_NAME if changed else _SAME
            equal = all(one.raw[a:b] == other.raw[a:b] for a, b in same_parts)
            what = f"volume descriptor at block {other.lba}: identifiers and dates"
            yield judge(
                equal, "against.volume", f"{what} are the original's", f"{what} are not the original's",
                new.place.at(lba_offset(other.lba)),
            )  # fmt: skip


def _kind(descriptor: VolumeDescriptor) -> tuple[int, bytes]:
    """Type, version, and the escape sequences that tell Joliet (8.5.6)."""
    return descriptor.type, descriptor.raw[6:7] + descriptor.raw[88:120]


def _files(before: IsoImage, after: IsoImage, changed: Collection[bytes]) -> Iterator[Finding]:
    """Every file is there, no other is, and but for ``changed`` each holds what it held."""
    old, new = ({file.path: file for file in image.files} for image in (before, after))
    odd = 0
    for path in sorted(old.keys() | new.keys()):
        place = after.place.inside(path)
        if path in changed:
            continue
        if path not in new:
            finding = fails("against.missing", "is in the original, and not here", place)
        elif path not in old:
            finding = fails("against.extra", "is not in the original", place)
        elif _is_catalog(before, old[path]) and _is_catalog(after, new[path]):
            continue  # its entries tell of places; they are checked one by one
        elif (at := _difference(before, old[path], after, new[path])) is not None and not is_same_fat(
            before.bytes_of(old[path]), after.bytes_of(new[path]), changed
        ):
            finding = fails("against.file", "does not hold what it holds in the original", place.at(at))
        else:
            continue
        odd += 1
        yield finding
    if not odd:
        kept = sum(path not in changed for path in new)
        yield holds("against.file", f"{kept:,} files hold what they hold in the original", after.place)


def _boot_paths(before: IsoImage, after: IsoImage) -> Iterator[bytes]:
    """Paths of boot images: they are compared by what does not depend on their place."""
    for one, other in zip(before.boot_images, after.boot_images, strict=False):
        if one.path is not None and one.path == other.path:
            yield one.path


def _is_catalog(image: IsoImage, file: IsoFile) -> bool:
    return image.catalog is not None and bool(file.size) and file.records[0].lba == image.catalog.lba


def _difference(before: IsoImage, old: IsoFile, after: IsoImage, new: IsoFile) -> int | None:
    """The first megabyte in which two files differ, as its offset; None where they are equal."""
    if old.size != new.size:
        return min(old.size, new.size)
    tables = before.bytes_of(old), after.bytes_of(new)
    for at in range(0, old.size, STEP):
        one, other = (table.read(at, STEP) for table in tables)
        if one != other:
            return at
    return None


def _boot(before: IsoImage, after: IsoImage, changed: Collection[bytes]) -> Iterator[Finding]:
    """El Torito entries lead to the same bytes, apart from the pointers in them."""
    if len(before.boot_images) != len(after.boot_images):
        count = f"{len(after.boot_images)} El Torito entries, the original has {len(before.boot_images)}"
        yield fails("against.boot", count, after.place)
        return
    for number, (one, other) in enumerate(zip(before.boot_images, after.boot_images, strict=True), 1):
        if one.path in changed and one.path is not None:
            continue
        kind = one.entry.raw[:8] == other.entry.raw[:8] and one.entry.platform == other.entry.platform
        same = kind and one.length == other.length and _same_boot(before, one, after, other, changed)
        place = after.place.at(other.entry.offset)
        yield judge(
            same, "against.boot", f"El Torito entry {number}: leads to what it leads to in the original",
            f"El Torito entry {number}: does not lead to what it leads to in the original", place,
        )  # fmt: skip


def _same_boot(before: IsoImage, one: BootImage, after: IsoImage, other: BootImage, changed: Collection[bytes]) -> bool:
    """Boot images hold the same; those that hold a FAT may differ in its files ``changed``."""
    if _boot_bytes(before, one) == _boot_bytes(after, other):
        return True
    tables = list[PieceTable]()
    for image, boot in ((before, one), (after, other)):
        start = lba_offset(boot.entry.lba)
        end = min(start + boot.length, image.size) if boot.path is not None else image.size
        tables.append(PieceTable([image.source.cut(start, end)]))
    return is_same_fat(tables[0], tables[1], changed)


def _boot_bytes(image: IsoImage, boot: BootImage) -> bytes:
    """The digest of a boot image without what depends on its place."""
    start = lba_offset(boot.entry.lba)
    table = PieceTable([image.source.cut(start, min(start + boot.length, image.size))])
    head = table.read(0, TABLE_END)
    own = len(head) == TABLE_END and BootInfoTable.parse(head).image == boot.entry.lba
    blanks = [(TABLE_OFFSET, 16)] * own + [(GRUB2_IMAGE_OFFSET, 8)] * boot.has_grub2_pointer
    patches = [(at, bytes(size)) for at, size in blanks if at + size <= table.length]
    return sha256_of(table.patched(patches).chunks())


def _partitions(old: Subject, new: Subject, starts: Collection[int], changed: Collection[bytes]) -> Iterator[Finding]:
    """The same partitions in the same tables; those that hold no tree hold the same bytes.

    ``starts``: first blocks of files that were meant to change; a partition over one changes with it. ``changed``:
    paths of files that may differ inside a FAT.
    """
    rows = [
        [(number, one.type, one.status) for number, one in subject.mbr.used_partitions] if subject.mbr else []
        for subject in (old, new)
    ]
    if rows[0] != rows[1]:
        yield fails("against.mbr", "the MBR has other partitions than the original's", new.place.at(446))
    elif old.mbr and new.mbr:
        code = all(old.mbr.code[a:b] == new.mbr.code[a:b] for a, b in _CODE)
        yield judge(
            code, "against.code", "the MBR's code is the original's", "the MBR's code is not the original's",
            new.place.at(0),
        )  # fmt: skip
    entries = [
        [(number, one.type, one.guid, one.attributes, one.name) for number, one in subject.gpt.used_entries]
        if subject.gpt
        else []
        for subject in (old, new)
    ]
    guids = [subject.gpt.header.guid if subject.gpt else b"" for subject in (old, new)]
    if (entries[0], guids[0]) != (entries[1], guids[1]):
        yield fails("against.gpt", "the GPT has other partitions or GUIDs than the original's", new.place.at(SECTOR))
    if rows[0] == rows[1] and entries[0] == entries[1]:
        yield from _contents(old, new, starts, changed)


def _contents(old: Subject, new: Subject, starts: Collection[int], changed: Collection[bytes]) -> Iterator[Finding]:
    for (name, *one), (_, *other) in zip(_runs(old), _runs(new), strict=True):
        if _holds_tree(old, *one) or _holds_tree(new, *other) or other[0] / SECTORS_PER_BLOCK in starts:
            continue
        same = one[1] - one[0] == other[1] - other[0] and (
            _digest(old.source, *one) == _digest(new.source, *other)
            or is_same_fat(_run(old.source, *one), _run(new.source, *other), changed)
        )
        yield judge(
            same, "against.partition", f"{name}: holds what it holds in the original",
            f"{name}: does not hold what it holds in the original", new.place.at(other[0] * SECTOR),
        )  # fmt: skip


def _runs(subject: Subject) -> Iterator[tuple[str, int, int]]:
    """Name, first sector and the one behind the last of every partition but protective ones."""
    for number, partition in subject.mbr.used_partitions if subject.mbr else ():
        if partition.type != 0xEE:
            yield f"MBR partition {number}", partition.start, partition.end
    for number, one in subject.gpt.used_entries if subject.gpt else ():
        yield f"GPT partition {number}", one.first, one.end


def _holds_tree(subject: Subject, start: int, end: int) -> bool:
    """True when a partition holds more of the tree than one file, or reaches into it."""
    if subject.main is None:
        return True
    first, last = start // SECTORS_PER_BLOCK, -(-end // SECTORS_PER_BLOCK)
    inside = {one.lba for one in subject.main.files if one.length and first <= one.lba < last}
    directories = any(first <= one.lba < last for one in subject.main.directories)
    return directories or bool(inside - {first}) or start <= SECTORS_PER_BLOCK


def _run(source: ByteSource, start: int, end: int) -> PieceTable:
    first = min(start * SECTOR, source.size)
    return PieceTable([Range(source, first, min(end * SECTOR, source.size) - first)])


def _digest(source: ByteSource, start: int, end: int) -> bytes:
    return sha256_of(source.chunks(start * SECTOR, min(end * SECTOR, source.size) - start * SECTOR))
