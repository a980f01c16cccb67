"""Proving a finished image: it is read again, and every boot pointer must lead to the bytes it led to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import zip_longest

from cosremaster.boot.eltorito import PLATFORMS
from cosremaster.boot.pointers import BootInfoTable, compute_boot_image_checksum
from cosremaster.errors import ProofError, printable
from cosremaster.io.output import Written
from cosremaster.io.pieces import PieceTable
from cosremaster.io.source import ByteSource
from cosremaster.io.streams import same_bytes
from cosremaster.iso.encode import ImagePlan, map_offset
from cosremaster.iso.layout.pointers import map_partition
from cosremaster.iso.model import BootImage, IsoImage, IsoTree, Partition
from cosremaster.iso.read import read_image
from cosremaster.iso.tree_edit.restructure import IN_UDF, ExpectedFile
from cosremaster.iso.tree_edit.verify import prove_directories
from cosremaster.iso.volume_id import VOLUME_ID
from cosremaster.units import SECTOR, SECTORS_PER_BLOCK, Lba, Sector, lba_offset


def prove_image(old: IsoImage, plan: ImagePlan, written: Written, result: ByteSource) -> tuple[str, ...]:
    """What was found true of ``result``, a line each.

    Reads the image's structures, boot images, appended partitions and all bytes that did not come from the
    input; ``written`` tells them. :raises ProofError: something is not as it was or as planned.
    """
    new = read_image(result)
    _same(new.size, plan.table.length, "the image's length", old)
    lines = [*_volume(old, new, plan, result), *_boot(old, new, plan), *_partitions(old, new, plan)]
    lines.append(prove_new_bytes(written, result))
    return tuple(lines)


def _same(found: object, wanted: object, what: str, image: IsoImage) -> None:
    if found != wanted:
        raise ProofError(f"{what} is {found} in the result, not {wanted}", image.place)


def _copied(old: IsoImage, start: int, new: IsoImage, other: int, length: int, plan: ImagePlan) -> bool:
    """True when ``length`` bytes of both images are the same, from byte ``start`` of one and ``other`` of the other,
    but for what was to be overwritten, which is as it was to be."""
    wanted = PieceTable([old.source]).patched(plan.overwrites.items()).cut(start, start + length)
    return same_bytes(wanted.chunks(), new.source.cut(other, other + length).chunks())


def _kept(plan: ImagePlan, start: int, length: int) -> str:
    """What to call ``length`` bytes from byte ``start`` of the old image, which were found as planned."""
    inside = sum(len(data) for at, data in plan.overwrites.items() if start <= at < start + length)
    return f"unchanged but for {inside:,}" if inside else "unchanged"


def _volume(old: IsoImage, new: IsoImage, plan: ImagePlan, result: ByteSource) -> Iterator[str]:
    """Trees, volume id and sizes."""
    _same(new.volume_id, _volume_id(old, plan), "the volume id", old)
    _same([tree.kind for tree in new.trees], [tree.kind for tree in old.trees], "the list of trees", old)
    for before, after in zip(old.trees, new.trees, strict=True):
        end = plan.layout.map_end(Sector(before.end * SECTORS_PER_BLOCK)) // SECTORS_PER_BLOCK
        _same(after.end, end, f"the end of the {before.kind} volume", old)
        _same(after.base, before.base, "a volume descriptor's block", old)
        _same(after.descriptor_lba, before.descriptor_lba, "a volume descriptor's block", old)
        if plan.expected_trees is None:
            _tree(old, before, after, plan)
        else:
            _restructured(old, after, plan.expected_trees[before.descriptor_lba])
    if plan.expected_trees is not None:
        prove_directories(result, new)
        _udf(old, new, plan.expected_trees.get(IN_UDF, {}))
    for at, data in plan.overwrites.items():
        start = map_offset(plan.layout, at)
        told = new.source.read(start, len(data))
        _same(told == data, True, f"what was to be overwritten at byte {at:,} was:", old)
    moved = len(plan.layout.moved_starts)
    yield f"volume {new.volume_id!r}: {new.blocks:,} blocks, {len(new.files):,} files, {moved:,} moved"
    if len(new.trees) > 1:
        yield f"{', '.join(tree.kind for tree in new.trees[1:])}: the same files at the same places"


def _volume_id(old: IsoImage, plan: ImagePlan) -> str:
    told = plan.overwrites.get(lba_offset(old.trees[0].descriptor_lba) + VOLUME_ID)
    return old.volume_id if told is None else printable(told.rstrip(b" \0"))


def _tree(old: IsoImage, before: IsoTree, after: IsoTree, plan: ImagePlan) -> None:
    """Every file of a tree is where the plan has it."""
    exchanged = {(tree.descriptor_lba, file.path): one for one in plan.replacements for tree, file in one.files}
    for one, other in zip_longest(before.files, after.files):
        path = (one or other).path
        _same(other and other.path, one and one.path, "a name in the tree", old)
        new = exchanged.get((before.descriptor_lba, one.path))
        _same(other.size, new.table.length if new else one.size, f"the size of {path!r}", old)
        starts = [new.start] if new else [plan.layout.map_block(record.lba) for record in one.records]
        for record, start in zip(other.records, starts, strict=False):
            if record.length:
                _same(record.lba, start, f"the block of {path!r}", old)


def _restructured(old: IsoImage, after: IsoTree, expected: Mapping[bytes, ExpectedFile]) -> None:
    """A tree whose names changed holds what was planned, and nothing else."""
    found = {file.path: file for file in after.files}
    _same(sorted(found), sorted(expected), f"the list of files in the {after.kind} tree", old)
    for path, one in expected.items():
        file = found[path]
        _same(file.size, one.size, f"the size of {path!r}", old)
        starts = [record.lba for record in file.records if record.length]
        _same(starts[: len(one.starts)], list(one.starts), f"the block of {path!r}", old)


def _udf(old: IsoImage, new: IsoImage, expected: Mapping[bytes, ExpectedFile]) -> None:
    """UDF holds what was planned under tags that hold, and counts it."""
    if old.udf is None or new.udf is None:
        _same(new.udf, old.udf, "the UDF file system", old)
        return
    found = {"/".join(path).encode("utf-8", "surrogatepass"): file for path, file in new.udf.named_files()}
    _same(sorted(found), sorted(expected), "the list of files in UDF", old)
    for path, one in expected.items():
        _same(found[path].size, one.size, f"the size of {path!r} in UDF", old)
        _same([lba for lba, _ in found[path].extents[:1]], list(one.starts[:1]), f"the block of {path!r} in UDF", old)
    _same(all(tag.is_sound for tag in new.udf.tags), all(tag.is_sound for tag in old.udf.tags), "UDF's tags hold:", old)


def _boot(old: IsoImage, new: IsoImage, plan: ImagePlan) -> Iterator[str]:
    """El Torito entries and the pointers inside boot images and MBR."""
    if old.catalog is None:
        return
    catalog = new.catalog
    _same(catalog and catalog.lba, old.catalog.lba, "the boot catalog's block", old)
    _same(len(new.boot_images), len(old.boot_images), "the number of El Torito entries", old)
    exchanged = {one.old_span.start for one in plan.replacements if one.old_span}
    for number, (before, after) in enumerate(zip(old.boot_images, new.boot_images, strict=True), 1):
        what = f"El Torito entry {number}"
        lba = plan.layout.map_block(before.entry.lba)
        _same(after.entry.lba, lba, f"{what}: its block", old)
        tables = (after.boot_info is None, after.has_grub2_pointer)
        _same(tables, (before.boot_info is None, before.has_grub2_pointer), f"{what}: its tables", old)
        told = f"{PLATFORMS.get(before.entry.platform, 'boot')} image at block {lba}, {after.length:,} bytes"
        if before.entry.lba in exchanged:
            yield f"{what}: {told} exchanged{_tables(old, new, before, after, exchanged=True)}"
            continue
        same = _copied(old, lba_offset(before.entry.lba), new, lba_offset(lba), before.length, plan)
        _same(same, True, f"{what} leads to the same bytes:", old)
        kept = _kept(plan, lba_offset(before.entry.lba), before.length)
        yield f"{what}: {told} {kept}{_tables(old, new, before, after, exchanged=False)}"
    pointer = _pointer(old, plan)
    _same(new.mbr_pointer, pointer, "the MBR's pointer", old)
    if new.mbr_pointer:
        yield f"MBR: {new.mbr_pointer} {'unchanged' if pointer == old.mbr_pointer else 'followed'}"


def _pointer(old: IsoImage, plan: ImagePlan) -> str | None:
    """What the MBR has to point at."""
    if old.mbr_pointer is None:
        return None
    kind, _, block = old.mbr_pointer.rpartition(" ")
    return f"{kind} {plan.layout.map_block(Lba(int(block)))}"


def _tables(old: IsoImage, new: IsoImage, before: BootImage, after: BootImage, *, exchanged: bool) -> str:
    """Proves a boot-info-table's length and sum where the original's were right, and names what is there."""
    words = []
    if before.boot_info and after.boot_info:
        held = is_boot_info_true(old, before, before.boot_info)
        _same(is_boot_info_true(new, after, after.boot_info), held or exchanged, "a boot-info-table's truth", old)
        words.append("boot-info-table" if held else "boot-info-table (its sum was wrong before)")
    if after.has_grub2_pointer:
        words.append("grub2-boot-info")
    told = "made true" if exchanged else "as before"
    return f"; {' and '.join(words)} {told}" if words else ""


def is_boot_info_true(image: IsoImage, boot: BootImage, info: BootInfoTable) -> bool:
    """True when a boot-info-table's length and sum are those of the boot image it is in."""
    start = lba_offset(boot.entry.lba)
    if start + info.length > image.size:
        return False
    data = PieceTable([image.source.cut(start, start + info.length)])
    return compute_boot_image_checksum(data.chunks()) == info.checksum


def _partitions(old: IsoImage, new: IsoImage, plan: ImagePlan) -> Iterator[str]:
    """Partitions are where the plan has them, and hold the same bytes if they lie behind the data."""
    _same([one.name for one in new.partitions], [one.name for one in old.partitions], "the list of partitions", old)
    for one, other in zip(old.partitions, new.partitions, strict=True):
        moved = map_partition(old, plan.layout, plan.replacements, one, drop=plan.drops_hfsplus)
        _same((other.start, other.end), moved, f"{one.name}: its place", old)
        if not plan.drops_hfsplus:
            _same(other.label, one.label, f"{one.name}: its type", old)
        yield f"{one.name}: {_partition_line(old, new, one, other, plan)}"
    for before, after in zip_longest(old.gpt, new.gpt):
        _same(after and before and after.header.guid == before.header.guid, True, "a copy of the GPT is kept:", old)
        _same(after.has_valid_crcs, before.has_valid_crcs or bool(plan.replacements), "a GPT's sums hold:", old)
    if new.gpt:
        true = "true sums" if all(copy.has_valid_crcs for copy in new.gpt) else "sums as wrong as before"
        yield f"GPT: {' and '.join(('primary', 'backup')[: len(new.gpt)])} with {true}, GUIDs as before"


def _partition_line(old: IsoImage, new: IsoImage, one: Partition, other: Partition, plan: ImagePlan) -> str:
    count = other.end - other.start
    told = f"{other.label} at sector {other.start:,}, {count:,} sectors"
    if one.start >= plan.layout.old_tail * SECTORS_PER_BLOCK:
        if one.is_filler or any(gpt.header.entries_lba < one.end for gpt in old.gpt[1:]):
            return f"{told}, moved with the image's end"
        length = (one.end - one.start) * SECTOR
        same = _copied(old, one.start * SECTOR, new, other.start * SECTOR, length, plan)
        _same((count * SECTOR, same), (length, True), f"{one.name}: length and equality", old)
        return f"{told}, {length:,} bytes {_kept(plan, one.start * SECTOR, length)}"
    if any(boot.entry.lba == other.span.start for boot in new.boot_images):
        return f"{told}, holds a boot image"
    if one.start == 0 and one.end >= old.blocks * SECTORS_PER_BLOCK:
        return f"{told}, covers the volume"
    return f"{told}, {'unchanged' if (one.start, one.end) == (other.start, other.end) else 'follows the data'}"


def prove_new_bytes(written: Written, result: ByteSource) -> str:
    """Reads back every byte that is not the input's."""
    for run in written.new_runs:
        if not run.is_in(result):
            raise ProofError("bytes read back are not those that were planned", result.place.at(run.start))
    return f"{sum(run.end - run.start for run in written.new_runs):,} new bytes read back"
