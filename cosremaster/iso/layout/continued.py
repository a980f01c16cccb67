"""Files whose data go behind the directories that move, because of libarchive.

libarchive reads an image from front to back: a directory, its continuation areas (CE, SUSP 5.1), then the data of its
files. It reads nothing of an image that has the data of a file whose record continues in front of the area, and knows
the paths of files in relocated directories (RRIP 4.1.5) only when it has read all directories.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator

from cosremaster.errors import printable
from cosremaster.iso.layout.place import Layout
from cosremaster.iso.layout.replace import FileReplacement
from cosremaster.iso.model import IsoImage
from cosremaster.iso.spans import CONTINUED_RECORDS, Span
from cosremaster.units import Lba


def list_leaving_spans(
    image: IsoImage, records: Collection[int], replacements: Iterable[FileReplacement], movable: Iterable[Span], *,
    drop: bool,
) -> list[Span]:  # fmt: skip
    """Return the spans of files that go behind the new directories, in their order.

    They are those of files whose records continue in new areas: libarchive reads such a file only if its data lie
    behind the area. Files that an HFS+ file system names stay, unless it is given up.

    :param records: the offsets of the first records of such files.
    :param replacements: where one has no old span, its new data go behind the directories anyway.
    :param drop: HFS+ file systems are given up.
    """
    replaced = _list_replaced_records(replacements)
    hfs_spans = [] if drop else [partition.span for partition in image.hfs_partitions]
    wanted = {
        span
        for tree in image.trees
        for file in tree.files
        if file.records[0].offset in records and file.records[0].offset not in replaced
        for span in file.spans
    }
    starts = {(span.start, span.blocks) for span in wanted if not any(span.overlaps(hfs) for hfs in hfs_spans)}
    return [span for span in movable if (span.start, span.blocks) in starts]


def _list_replaced_records(replacements: Iterable[FileReplacement]) -> set[int]:
    """Return the offsets of the first records of files whose new data need a span of their own."""
    return {file.records[0].offset for new in replacements if new.old_span is None for _, file in new.files}


def warn_of_continued(
    image: IsoImage, layout: Layout, replacements: Iterable[FileReplacement], records: Collection[int]
) -> Iterator[str]:
    """Yield a warning if libarchive cannot read the image, because a file lies before the rest of its record.

    :param records: the offsets of the first records of files that continue in new areas.
    """
    areas = (placement.start for placement in layout.appended if placement.span.label == CONTINUED_RECORDS)
    first = min(areas, default=Lba(0))
    records = set(records) - _list_replaced_records(replacements)
    for file in image.files if records else ():
        if file.records[0].offset in records and file.size and layout.map_block(file.start) < first:
            reason = "has a long name or is in a relocated directory, and its data cannot move"
            yield f"{printable(file.path)} {reason}: bsdtar, and all that use libarchive, will not read the image"
            return
