"""Which blocks of an image are known, which of them must stay, and where its tail begins."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain

from cosremaster.boot.eltorito import BootCatalog
from cosremaster.boot.firmware import FirmwareHeader
from cosremaster.boot.gpt import Gpt
from cosremaster.io.source import ByteSource
from cosremaster.iso.model import BootImage, IsoTree, Partition
from cosremaster.iso.spans import SYSTEM_AREA, Span
from cosremaster.iso.udf.read import Udf
from cosremaster.units import BLOCK, SECTORS_PER_BLOCK, Lba, blocks_for, lba_offset


def list_tree_spans(trees: Iterable[IsoTree]) -> Iterator[Span]:
    """What directories and path tables take."""
    for tree in trees:
        yield from (Span(one.lba, blocks_for(one.length), "path table") for one in tree.path_tables)
        yield from (Span(one.lba, blocks_for(one.length), "directory") for one in tree.directories)


def list_fixed_spans(
    descriptors: Iterable[Span],
    trees: Sequence[IsoTree],
    catalog: BootCatalog | None,
    images: Sequence[BootImage],
    partitions: Sequence[Partition],
    firmware: Iterable[FirmwareHeader],
    udf: Udf | None,
) -> tuple[Span, ...]:
    """Everything that must stay where it is, but not what lies in partitions behind the trees' data."""
    sure = [SYSTEM_AREA, *descriptors, *list_tree_spans(trees), *(udf.metadata_spans if udf else ())]
    if catalog:
        sure.append(Span(catalog.lba, blocks_for(catalog.length), "boot catalog"))
    odd = (file for tree in trees for file in tree.files if not all(record.is_plain for record in file.records))
    sure += [span for file in odd for span in file.spans]
    files = {span.start: span for tree in trees for file in tree.files for span in file.spans}
    for one in udf.files if udf else ():
        alone = [(lba, length) for lba, length in one.extents if lba not in files]
        sure += [Span(lba, blocks_for(length), "file of UDF alone") for lba, length in alone]
    end = max(span.end for span in (*sure, *files.values()))
    appended = [one.span for one in partitions if one.span.start >= end]
    for image in images:
        span = Span(image.entry.lba, blocks_for(image.length), "boot image")
        if not any(span.overlaps(one) for one in appended):
            sure.append(span)
    starts = {*files, *(image.entry.lba for image in images)}
    for partition in partitions:
        span = partition.span
        if not (partition.is_filler or partition.covers_volume(trees) or span.start >= end or span.start in starts):
            sure.append(span)
    for header in firmware:
        for target in header.targets:
            first = target.start // BLOCK
            span = Span(Lba(first), blocks_for(target.start + max(1, target.length)) - first, header.name)
            if trees[0].directories[0].lba < first < end:
                sure.append(span)
    return tuple(sure)


def find_tail(
    size: int,
    trees: Sequence[IsoTree],
    fixed: Sequence[Span],
    partitions: Iterable[Partition],
    gpt: Sequence[Gpt],
    udf: Udf | None,
) -> Lba:
    """Where what ends the image begins: the first appended partition, backup GPT or last anchor behind all data."""
    end = find_data_end(trees, fixed)
    starts = [size // BLOCK, *(one.span.start for one in partitions)]
    starts += [one.header.entries_lba // SECTORS_PER_BLOCK for one in gpt[1:]]
    starts += [one.header.my_lba // SECTORS_PER_BLOCK for one in gpt[1:]]
    if udf and udf.tail_anchors:
        starts.append(udf.tail_anchors.start)
    return Lba(max(end, min((start for start in starts if start >= end), default=end)))


def find_data_end(trees: Iterable[IsoTree], fixed: Iterable[Span]) -> Lba:
    """The block behind everything that is known and no part of the tail."""
    files = (span for tree in trees for file in tree.files for span in file.spans)
    return max(span.end for span in chain(files, fixed))


def find_unreferenced(source: ByteSource, holes: Iterable[Span]) -> Iterator[Span]:
    """The parts of ``holes`` that hold anything but zeros: nobody knows who points there."""
    for hole in holes:
        first, last, at = -1, -1, int(hole.start)
        for chunk in source.chunks(lba_offset(hole.start), hole.blocks * BLOCK):
            if chunk.strip(b"\0"):
                front = len(chunk) - len(chunk.lstrip(b"\0"))
                first = at + front // BLOCK if first < 0 else first
                last = at + blocks_for(len(chunk.rstrip(b"\0")))
            at += len(chunk) // BLOCK
        if first >= 0:
            yield Span(Lba(first), last - first, hole.label)
