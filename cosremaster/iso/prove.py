"""Prove a new image: it is read again, and every boot pointer must lead to the bytes that it led to before."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from itertools import zip_longest

from cosremaster.boot.eltorito import PLATFORMS
from cosremaster.errors import ProofError, printable
from cosremaster.io.output import Written
from cosremaster.io.pieces import PieceTable, have_same_bytes
from cosremaster.io.source import ByteSource
from cosremaster.io.streams import same_bytes
from cosremaster.iso.boot_info import is_boot_info_true
from cosremaster.iso.ecma119.records import VOLUME_ID
from cosremaster.iso.encode import ImagePlan, map_offset
from cosremaster.iso.hidden import may_hide_names
from cosremaster.iso.layout.embed_areas import map_embed_area
from cosremaster.iso.layout.expected import IN_UDF, ExpectedFile, ExpectedTree, StayingDirectory
from cosremaster.iso.layout.partition_tables import map_limine, map_partition
from cosremaster.iso.layout.replace import FileReplacement
from cosremaster.iso.model import BootImage, IsoDirectory, IsoFile, IsoImage, IsoTree, Partition
from cosremaster.iso.prove_areas import prove_areas
from cosremaster.iso.read import read_image
from cosremaster.iso.udf.read import encode_path
from cosremaster.progress import Advance
from cosremaster.units import SECTOR, SECTORS_PER_BLOCK, Lba, blocks_for, lba_offset


def prove_image(
    old: IsoImage, plan: ImagePlan, written: Written, result: ByteSource, advance: Advance = lambda count: None
) -> tuple[str, ...]:
    """Return what was proved true of the new image, a line each.

    Reads the structures of the image, boot images, appended partitions, and all bytes that were not copied from the
    old image.

    :param written: the ranges of the new image that were not copied.
    :param result: the file that holds the new image.
    :param advance: called with the numbers of new bytes that were read.
    :raises ProofError: when the new image differs from the plan.
    """
    new = read_image(result, old)
    _check_equal(new.size, plan.table.length, "the image's length", old)
    copies = _Copies(old, new, plan)
    lines = [*_prove_volume(old, new, plan, result), *_prove_boot(old, new, plan, copies)]
    lines += _prove_partitions(old, new, plan, copies)
    lines += _prove_limine(old, new, plan, copies)
    lines += _prove_embed_areas(old, new, plan)
    lines.append(prove_new_bytes(written, result, advance))
    return tuple(lines)


def _check_equal(actual: object, expected: object, what: str, image: IsoImage) -> None:
    """Check that a value of the new image is as expected. :raises ProofError: when it is not; ``what`` names it."""
    if actual != expected:
        raise ProofError(f"{what} is {actual} in the result, not {expected}", image.place)


class _Copies:
    """Compares bytes of both images, the same ones once: a boot image may be a partition too."""

    def __init__(self, old: IsoImage, new: IsoImage, plan: ImagePlan) -> None:
        """Begin without any."""
        self._expected = PieceTable([old.source]).patched(plan.overwrites.items())
        self._new = new
        self._compared: dict[tuple[int, int, int], bool] = {}

    def are_same(self, start: int, new_start: int, length: int) -> bool:
        """Return True if ``length`` bytes of both images are the same, except for the planned overwrites.

        The bytes begin at byte ``start`` of the old image, and at byte ``new_start`` of the new one.
        """
        key = start, new_start, length
        if key not in self._compared:
            expected = self._expected.cut(start, start + length)
            copied = PieceTable([self._new.source.cut(new_start, new_start + length)])
            self._compared[key] = have_same_bytes(expected, copied)
        return self._compared[key]


def _describe_copied(plan: ImagePlan, start: int, length: int) -> str:
    """Return the words for ``length`` copied bytes, from byte ``start`` of the old image on."""
    overwritten = sum(table.length for at, table in plan.overwrites.items() if start <= at < start + length)
    return f"unchanged but for {overwritten:,}" if overwritten else "unchanged"


def _prove_volume(old: IsoImage, new: IsoImage, plan: ImagePlan, result: ByteSource) -> Iterator[str]:
    """Prove the trees, the volume id, and the sizes of volumes."""
    _check_equal(new.volume_id, _find_volume_id(old, plan), "the volume id", old)
    _check_equal([tree.kind for tree in new.trees], [tree.kind for tree in old.trees], "the list of trees", old)
    for old_tree, new_tree in zip(old.trees, new.trees, strict=True):
        end = plan.layout.map_volume_end(old_tree.end)
        _check_equal(new_tree.end, end, f"the end of the {old_tree.kind} volume", old)
        _check_equal(new_tree.base, old_tree.base, "a volume descriptor's block", old)
        _check_equal(new_tree.descriptor_lba, old_tree.descriptor_lba, "a volume descriptor's block", old)
        if plan.expected_trees is None:
            _prove_tree(old, old_tree, new_tree, plan)
        else:
            _prove_restructured(old, new_tree, plan.expected_trees[old_tree.descriptor_lba], plan)
    prove_areas(old, new)
    if plan.expected_trees is not None:
        from cosremaster.iso.tree_edit.verify import prove_directories  # noqa: PLC0415 - a change of a layer goes without

        prove_directories(result, new)
    _prove_udf(old, new, _expect_udf_files(old, plan))
    for at, table in plan.overwrites.items():
        start = map_offset(plan.layout, at)
        is_written = same_bytes(table.chunks(), new.source.cut(start, start + table.length).chunks())
        _check_equal(is_written, True, f"what was to be overwritten at byte {at:,} was:", old)
    moved = len(plan.layout.moved_starts)
    yield f"volume {new.volume_id!r}: {new.blocks:,} blocks, {len(new.files):,} files, {moved:,} moved"
    if len(new.trees) > 1:
        what = "its own files too, all" if may_hide_names(new) else "the same files"
        yield f"{', '.join(tree.kind for tree in new.trees[1:])}: {what} at the same places"


def _find_volume_id(old: IsoImage, plan: ImagePlan) -> str:
    """Return the volume id that the new image must have."""
    overwrite = plan.overwrites.get(lba_offset(old.trees[0].descriptor_lba) + VOLUME_ID)
    return old.volume_id if overwrite is None else printable(overwrite.read().rstrip(b" \0"))


def _prove_tree(old: IsoImage, old_tree: IsoTree, new_tree: IsoTree, plan: ImagePlan) -> None:
    """Check that every file of a tree whose names did not change is at its planned place."""
    if [directory.path for directory in old_tree.index] != [directory.path for directory in new_tree.index]:
        raise ProofError(f"the {old_tree.kind} tree has other directories", old.place)
    replacements = plan.replacements_by_record
    offsets = sorted(replacements)
    for old_directory, new_directory in zip(old_tree.index, new_tree.index, strict=True):
        staying = StayingDirectory(old_directory, old_tree.files[old_directory.files])
        _prove_staying(old, staying, new_directory, new_tree.files[new_directory.files], plan, replacements, offsets)


def _prove_staying(
    old: IsoImage, staying: StayingDirectory, new_directory: IsoDirectory, new_files: Sequence[IsoFile],
    plan: ImagePlan, replacements: Mapping[int, FileReplacement], offsets: Sequence[int],
) -> None:  # fmt: skip
    """Check that every file of a directory whose names did not change is at its planned place.

    :param replacements: by their records, as on a damaged image two files may have one name.
    :param offsets: those of the records, sorted.
    """
    if _stays(staying, plan, offsets) and new_files == staying.files and new_directory.path == staying.directory.path:
        return
    start, new_start = (len(each.path) for each in (staying.directory, new_directory))
    for old_file, new_file in zip_longest(staying.files, new_files):
        path = (old_file or new_file).path
        name = new_file and new_file.path[new_start:].lstrip(b"/")
        _check_equal(name, old_file and old_file.path[start:].lstrip(b"/"), "a name in the tree", old)
        replacement = replacements.get(old_file.records[0].offset)
        size = replacement.table.length if replacement else old_file.size
        _check_equal(new_file.size, size, f"the size of {path!r}", old)
        starts = (
            [replacement.start] if replacement else [plan.layout.map_block(record.lba) for record in old_file.records]
        )
        for record, place in zip(new_file.records, starts, strict=False):
            if record.length:
                _check_equal(record.lba, place, f"the block of {path!r}", old)


def _stays(staying: StayingDirectory, plan: ImagePlan, replaced: Sequence[int]) -> bool:
    """Return whether the data that the files of a directory name are to stay as they are, at their place.

    :param replaced: the offsets of the records of replaced files, sorted.
    """
    end, extent = Lba(blocks_for(staying.directory.data_end)), staying.directory.extent
    if not staying.directory.is_plain or plan.layout.may_move(end):
        return False
    start = lba_offset(extent.lba)
    return bisect_left(replaced, start) == bisect_left(replaced, start + extent.length)


def _prove_restructured(old: IsoImage, new_tree: IsoTree, expected: ExpectedTree, plan: ImagePlan) -> None:
    """Check that a tree whose names changed holds the planned files, and no others."""
    staying, files = dict(expected.staying), dict[bytes, IsoFile]()
    replacements = plan.replacements_by_record
    offsets = sorted(replacements)
    for directory in new_tree.index:
        in_directory = new_tree.files[directory.files]
        if directory.path in staying:
            _prove_staying(old, staying.pop(directory.path), directory, in_directory, plan, replacements, offsets)
        else:
            files |= {file.path: file for file in in_directory}
    _check_equal(sorted(staying), [], f"the list of missing directories in the {new_tree.kind} tree", old)
    _check_equal(sorted(files), sorted(expected.files), f"the list of files in the {new_tree.kind} tree", old)
    for path, expected_file in expected.files.items():
        file = files[path]
        _check_equal(file.size, expected_file.size, f"the size of {path!r}", old)
        starts = [record.lba for record in file.records if record.length]
        expected_starts = list(expected_file.starts)
        _check_equal(starts[: len(expected_starts)], expected_starts, f"the block of {path!r}", old)


def _expect_udf_files(old: IsoImage, plan: ImagePlan) -> Mapping[bytes, ExpectedFile]:
    """Return the files that UDF must have on the new image, by path."""
    if plan.expected_trees is not None:
        return plan.expected_trees[IN_UDF].files if IN_UDF in plan.expected_trees else {}
    replaced = {new.old_span.start: new for new in plan.replacements if new.old_span}
    expected: dict[bytes, ExpectedFile] = {}
    for path, file in old.udf.named_files() if old.udf else ():
        starts = tuple(lba for lba, _ in file.extents[:1])
        new = replaced.get(starts[0]) if starts else None
        expected[encode_path(path)] = (
            ExpectedFile(new.table.length, (new.start,) if new.table.length else ())
            if new
            else ExpectedFile(file.size, tuple(plan.layout.map_block(lba) for lba in starts))
        )
    return expected


def _prove_udf(old: IsoImage, new: IsoImage, expected: Mapping[bytes, ExpectedFile]) -> None:
    """Check that UDF holds the planned files, and that its descriptor tags are right where they were right before."""
    if old.udf is None or new.udf is None:
        _check_equal(new.udf, old.udf, "the UDF file system", old)
        return
    files = {encode_path(path): file for path, file in new.udf.named_files()}
    _check_equal(sorted(files), sorted(expected), "the list of files in UDF", old)
    for path, expected_file in expected.items():
        starts = [lba for lba, _ in files[path].extents[:1]]
        _check_equal(files[path].size, expected_file.size, f"the size of {path!r} in UDF", old)
        _check_equal(starts, list(expected_file.starts[:1]), f"the block of {path!r} in UDF", old)
    if all(tag.is_sound for tag in old.udf.tags):  # a wrong one is made right where its descriptor is written anew
        _check_equal(all(tag.is_sound for tag in new.udf.tags), True, "UDF's tags hold:", old)


def _prove_embed_areas(old: IsoImage, new: IsoImage, plan: ImagePlan) -> Iterator[str]:
    """Prove that CoreOS's headers name the same places of the same files."""
    starts = [map_embed_area(old, plan.layout, plan.replacements, area) for area in old.embed_areas]
    _check_equal([area.start for area in new.embed_areas], starts, "the list of areas in the CoreOS header", old)
    if starts:
        yield f"CoreOS header: {len(starts)} areas at the same places of their files"


def _prove_boot(old: IsoImage, new: IsoImage, plan: ImagePlan, copies: _Copies) -> Iterator[str]:
    """Prove the El Torito entries, and the pointers inside boot images and in the MBR."""
    if old.catalog is None:
        return
    catalog = new.catalog
    _check_equal(catalog and catalog.lba, old.catalog.lba, "the boot catalog's block", old)
    _check_equal(len(new.boot_images), len(old.boot_images), "the number of El Torito entries", old)
    replaced = {replacement.old_span.start for replacement in plan.replacements if replacement.old_span}
    for number, (old_boot, new_boot) in enumerate(zip(old.boot_images, new.boot_images, strict=True), 1):
        what = f"El Torito entry {number}"
        lba = plan.layout.map_block(old_boot.entry.lba)
        _check_equal(new_boot.entry.lba, lba, f"{what}: its block", old)
        tables = (new_boot.boot_info is None, new_boot.has_grub2_pointer)
        _check_equal(tables, (old_boot.boot_info is None, old_boot.has_grub2_pointer), f"{what}: its tables", old)
        platform = PLATFORMS.get(old_boot.entry.platform, "boot")
        words = f"{platform} image at block {lba}, {new_boot.length:,} bytes"
        words = f"{words} (load size 0)" if new_boot.entry.has_no_load_size else words
        if old_boot.entry.lba in replaced:
            yield f"{what}: {words} exchanged{_prove_boot_tables(old, new, old_boot, new_boot, is_replaced=True)}"
            continue
        is_same = copies.are_same(lba_offset(old_boot.entry.lba), lba_offset(lba), old_boot.length)
        _check_equal(is_same, True, f"{what} leads to the same bytes:", old)
        copied = _describe_copied(plan, lba_offset(old_boot.entry.lba), old_boot.length)
        yield f"{what}: {words} {copied}{_prove_boot_tables(old, new, old_boot, new_boot, is_replaced=False)}"
    yield from _prove_mbr_pointer(old, new, plan)


def _prove_limine(old: IsoImage, new: IsoImage, plan: ImagePlan, copies: _Copies) -> Iterator[str]:
    """Prove that the MBR of Limine names the same bytes as before."""
    if old.limine is None:
        return
    _check_equal(new.limine, map_limine(old.limine, plan.layout), "the place of Limine's stage 2", old)
    for (old_start, length), (start, _) in zip(old.limine.halves, new.limine.halves if new.limine else (), strict=True):
        is_same = copies.are_same(old_start, start, length)
        _check_equal(is_same, True, "Limine's stage 2 is the same:", old)
    is_kept = new.limine == old.limine
    yield f"MBR: Limine, its stage 2 {'unchanged' if is_kept else 'followed'}"


def _prove_mbr_pointer(old: IsoImage, new: IsoImage, plan: ImagePlan) -> Iterator[str]:
    """Prove that the code in the MBR loads the boot image that it loaded before."""
    for kind, old_lba in old.mbr_pointers[:1]:
        lba = plan.layout.map_block(old_lba)
        _check_equal((kind, lba) in new.mbr_pointers, True, f"the MBR's pointer leads to block {lba}:", old)
        yield f"MBR: {kind} -> block {lba} {'unchanged' if lba == old_lba else 'followed'}"


def _prove_boot_tables(
    old: IsoImage, new: IsoImage, old_boot: BootImage, new_boot: BootImage, *, is_replaced: bool
) -> str:
    """Check the length and the checksum in a boot information table, and return the words for the image's tables.

    In an image that is not replaced they must be right if they were right before.
    """
    words = []
    if old_boot.boot_info and new_boot.boot_info:
        was_true = is_boot_info_true(old, old_boot, old_boot.boot_info)
        is_true = is_boot_info_true(new, new_boot, new_boot.boot_info)
        _check_equal(is_true, was_true or is_replaced, "a boot-info-table's truth", old)
        words.append("boot-info-table" if was_true else "boot-info-table (its sum was wrong before)")
    if new_boot.has_grub2_pointer:
        words.append("grub2-boot-info")
    state = "made true" if is_replaced else "as before"
    return f"; {' and '.join(words)} {state}" if words else ""


def _prove_partitions(old: IsoImage, new: IsoImage, plan: ImagePlan, copies: _Copies) -> Iterator[str]:
    """Check that partitions are at their planned places; those after the data must hold the same bytes."""
    names = [partition.name for partition in new.partitions]
    _check_equal(names, [partition.name for partition in old.partitions], "the list of partitions", old)
    for before, after in zip(old.partitions, new.partitions, strict=True):
        place = map_partition(old, plan.layout, plan.replacements, before, drop=plan.drops_hfsplus)
        _check_equal((after.start, after.end), place, f"{before.name}: its place", old)
        if not plan.drops_hfsplus:
            _check_equal(after.label, before.label, f"{before.name}: its type", old)
        yield f"{before.name}: {_prove_partition(old, new, before, after, plan, copies)}"
    for old_gpt, new_gpt in zip_longest(old.gpt, new.gpt):
        is_kept = new_gpt and old_gpt and new_gpt.header.guid == old_gpt.header.guid
        _check_equal(is_kept, True, "a copy of the GPT is kept:", old)
        _check_equal(new_gpt.valid_crcs, old_gpt.valid_crcs, "whether a GPT's two sums hold", old)
    if new.gpt:
        sums = "true sums" if all(gpt.has_valid_crcs for gpt in new.gpt) else "sums as wrong as before"
        yield f"GPT: {new.gpt_copies} with {sums}, GUIDs as before"


def _prove_partition(
    old: IsoImage, new: IsoImage, before: Partition, after: Partition, plan: ImagePlan, copies: _Copies
) -> str:  # fmt: skip
    """Check the bytes of a partition after the data, and return the words for a partition."""
    count = after.end - after.start
    words = f"{after.label} at sector {after.start:,}, {count:,} sectors"
    if before.start >= plan.layout.old_tail * SECTORS_PER_BLOCK:
        if before.is_filler or any(gpt.header.entries_lba < before.end for gpt in old.backup_gpts):
            return f"{words}, moved with the image's end"
        length = (before.end - before.start) * SECTOR
        is_same = copies.are_same(before.start * SECTOR, after.start * SECTOR, length)
        _check_equal((count * SECTOR, is_same), (length, True), f"{before.name}: length and equality", old)
        return f"{words}, {length:,} bytes {_describe_copied(plan, before.start * SECTOR, length)}"
    if any(boot.entry.lba == after.span.start for boot in new.boot_images):
        return f"{words}, holds a boot image"
    if before.start == 0 and before.end >= old.blocks * SECTORS_PER_BLOCK:
        return f"{words}, covers the volume"
    is_unmoved = (before.start, before.end) == (after.start, after.end)
    return f"{words}, {'unchanged' if is_unmoved else 'follows the data'}"


def prove_new_bytes(written: Written, result: ByteSource, advance: Advance) -> str:
    """Read back every byte that was not copied. :raises ProofError: when one differs from the written byte."""
    for run in written.new_runs:
        if not run.is_in(result, advance):
            raise ProofError("bytes read back are not those that were planned", result.place.at(run.start))
    return f"{sum(run.end - run.start for run in written.new_runs):,} new bytes read back"
