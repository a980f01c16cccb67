"""List the blocks of an image that must stay at their place, and find its tail."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection, Iterable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from itertools import accumulate, chain

from cosremaster.errors import ImageError
from cosremaster.io.source import ByteSource, data_chunks
from cosremaster.iso.model import IsoImage, IsoTree
from cosremaster.iso.spans import SYSTEM_AREA, Span
from cosremaster.units import BLOCK, SECTORS_PER_BLOCK, Lba, blocks_for, lba_offset

_STRUCTURES = frozenset((
    "system area", "volume descriptor", "directory", "path table", "continuation area", "extended attribute record",
    "UDF anchor", "UDF directory", "UDF file entry", "UDF file set", "UDF volume descriptors",
))  # fmt: skip
"""The labels of spans that no file's data can share; a boot image and a partition may be a file."""


def list_fixed_spans(image: IsoImage, descriptors: Iterable[Span]) -> tuple[Span, ...]:
    """Return the spans of ``image`` that must stay at their place.

    Spans in partitions after the data of the trees are left out: such partitions are part of the tail.

    :param image: the image; its ``fixed_spans`` and its ``tail`` are not used.
    :param descriptors: the spans of the volume descriptors.
    """
    udf, catalog = image.udf, image.catalog
    spans = [SYSTEM_AREA, *descriptors, *_list_tree_spans(image.trees), *(udf.metadata_spans if udf else ())]
    if catalog:
        spans.append(Span(catalog.lba, blocks_for(catalog.length), "boot catalog"))
    directories = ((tree, directory) for tree in image.trees for directory in tree.index if not directory.is_plain)
    others = (file for tree, directory in directories for file in tree.files[directory.files])
    spans += [s for file in others if not all(record.is_plain for record in file.records) for s in file.spans]
    spans += list_udf_only_spans(image)
    end = max(chain((span.end for span in spans), (tree.data_end for tree in image.trees)))
    spans += _list_boot_images(image, end)
    spans += _list_partitions(image, end)
    spans += _list_firmware_targets(image, end)
    spans += _list_limine_halves(image, end)
    return tuple(spans)


def _list_tree_spans(trees: Iterable[IsoTree]) -> Iterator[Span]:
    """Yield the spans of path tables, directories, and of what records name beside files."""
    for tree in trees:
        yield from (Span(table.lba, blocks_for(table.length), "path table") for table in tree.path_tables)
        yield from (Span(extent.lba, blocks_for(extent.length), "directory") for extent in tree.directories)
        yield from tree.other_spans


def list_udf_only_spans(image: IsoImage) -> Iterator[Span]:
    """Yield the spans of data that only UDF names, or of which the other trees name the first blocks alone."""
    if image.udf is None:
        return
    named = dict[Lba, int]()
    for start, end in (run for tree in image.trees for run in tree.block_runs):
        named[start] = max(end - start, named.get(start, 0))
    for file in image.udf.files:
        yield from (span for span in file.spans if span.blocks > named.get(span.start, 0))


def _list_boot_images(image: IsoImage, end: Lba) -> Iterator[Span]:
    """Yield the spans of boot images, except those in partitions that begin at block ``end`` or later."""
    appended = [partition.span for partition in image.partitions if partition.span.start >= end]
    for boot in image.boot_images:
        span = Span(boot.entry.lba, blocks_for(boot.length), "boot image")
        if not any(span.overlaps(partition) for partition in appended):
            yield span


def _list_partitions(image: IsoImage, end: Lba) -> Iterator[Span]:
    """Yield the spans of partitions before block ``end`` that neither a file nor a boot image begins."""
    partitions = (each for each in image.partitions if not (each.is_filler or each.covers_volume(image.trees)))
    spans = [partition.span for partition in partitions if partition.span.start < end]
    starts = {boot.entry.lba for boot in image.boot_images}
    if spans:
        starts = starts.union(*(tree.find_starts({span.start for span in spans}) for tree in image.trees))
    yield from (span for span in spans if span.start not in starts)


def _list_firmware_targets(image: IsoImage, end: Lba) -> Iterator[Span]:
    """Yield the spans inside the volume, before block ``end``, that headers of firmware point at."""
    for header in image.firmware:
        for target in header.targets:
            first = target.start // BLOCK
            if image.trees[0].directories[0].lba < first < end:
                yield Span(Lba(first), blocks_for(target.start + max(1, target.length)) - first, header.name)


def _list_limine_halves(image: IsoImage, end: Lba) -> Iterator[Span]:
    """Yield the spans inside the volume, before block ``end``, of Limine's stage 2."""
    for start, length in image.limine.halves if image.limine else ():
        first = start // BLOCK
        if SYSTEM_AREA.end <= first < end:
            yield Span(Lba(first), blocks_for(start + length) - first, "Limine's stage 2")


def check_apart(image: IsoImage, files: Iterable[tuple[bytes, Sequence[Span]]]) -> None:
    """Check that data which leave their blocks are not in blocks of a structure of the image.

    :param files: path and spans of each file.
    :raises ImageError: when they are.
    """
    structures = [span for span in image.fixed_spans if span.blocks and span.label in _STRUCTURES]
    structures.sort(key=lambda span: span.start)
    starts, ends = [span.start for span in structures], list(accumulate((span.end for span in structures), max))
    for path, spans in files:
        for span in spans:
            index = bisect_left(starts, span.end) - 1
            if index >= 0 and ends[index] > span.start:
                raise ImageError(f"shares blocks with a {structures[index].label}", image.place.inside(path))


def find_tail(image: IsoImage, fixed: Iterable[Span]) -> Lba:
    """Return the first block of the tail: of the first appended partition, backup GPT or UDF anchor after all data."""
    end = find_data_end(image.trees, fixed)
    starts = [image.size // BLOCK, *(partition.span.start for partition in image.partitions)]
    for backup in image.backup_gpts:
        starts += [sector // SECTORS_PER_BLOCK for sector in (backup.header.entries_lba, backup.sector)]
    if image.udf and image.udf.tail_anchors:
        starts.append(image.udf.tail_anchors.start)
    starts += [start // BLOCK for start, _ in (image.limine.halves if image.limine else ())]
    return Lba(max(end, min((start for start in starts if start >= end), default=end)))


def find_data_end(trees: Iterable[IsoTree], fixed: Iterable[Span]) -> Lba:
    """Return the block after all files and all ``fixed`` spans."""
    return max(chain((tree.data_end for tree in trees), (span.end for span in fixed)))


def join_runs(trees: Iterable[IsoTree]) -> Iterator[Span]:
    """Yield the blocks of all files of ``trees``, those that touch as one span."""
    others = list[IsoTree]()  # trees mostly name the same data
    for tree in trees:
        if not any(tree.has_extents_of(other) for other in others):
            others.append(tree)
    start = end = Lba(0)
    for first, behind in sorted({run for tree in others for run in tree.joined_runs}):
        if first > end:
            if end > start:
                yield Span(start, end - start, "files")
            start = first
        end = max(end, behind)
    if end > start:
        yield Span(start, end - start, "files")


def join_kept_runs(
    trees: Iterable[IsoTree], removed: AbstractSet[Lba], replaced: Collection[tuple[Lba, Lba]]
) -> list[Span] | None:
    """Return the blocks of all files of ``trees`` but of removed ones, those that touch as one span.

    None where one of the runs ``replaced``, which are spans of their own, shares blocks with another one.

    :param removed: the first blocks of the data of removed files.
    :param replaced: the first block of each, and the one behind the last.
    """
    runs = {run for tree in trees for run in tree.list_kept_runs(removed, {start for start, _ in replaced})}
    single = runs.intersection(replaced)
    spans, start, end, is_single = list[Span](), Lba(0), Lba(0), False
    for run in sorted(runs):
        if run[0] < end and (is_single or run in single):
            return None
        if run[0] > end or is_single or run in single:
            spans += [Span(start, end - start, "files")] if end > start else []
            start, is_single = run[0], run in single
        end = max(end, run[1])
    return [*spans, Span(start, end - start, "files")] if end > start else spans


def find_slack(ends: Iterable[Lba], blocks: Iterable[Lba]) -> int | None:
    """Return by how many blocks the volumes that end at ``ends`` may get shorter; None if nothing limits it.

    No record may name a block behind the end of its volume, without data either: libarchive reads no further then.
    Blocks that are behind it already do not count.

    :param blocks: the blocks that records without data name.
    """
    named = set(blocks)
    return min((end - lba for end in set(ends) for lba in named if lba <= end), default=None)


def find_unreferenced(source: ByteSource, holes: Iterable[Span]) -> Iterator[Span]:
    """Yield the part of each hole from its first to its last block that is not zeros.

    Something unknown may point at such data.
    """
    for hole in holes:
        first, end = -1, -1
        for offset, chunk in data_chunks(source, lba_offset(hole.start), hole.blocks * BLOCK):
            if first < 0:
                first = (offset + len(chunk) - len(chunk.lstrip(b"\0"))) // BLOCK
            end = blocks_for(offset + len(chunk.rstrip(b"\0")))
        if first >= 0:
            yield Span(Lba(first), end - first, hole.label)


def find_first_data(source: ByteSource, hole: Span) -> Lba | None:
    """Return the first block of ``hole`` that is not zeros; None where all are."""
    for offset, chunk in data_chunks(source, lba_offset(hole.start), hole.blocks * BLOCK):
        return Lba((offset + len(chunk) - len(chunk.lstrip(b"\0"))) // BLOCK)
    return None
