"""Check UDF: its descriptors, sizes and files (ECMA-167)."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain

from cosremaster.errors import ImageError, UnsupportedError
from cosremaster.iso.udf.read import Udf, read_udf
from cosremaster.verification.finding import Finding, fails, holds, judge, note
from cosremaster.verification.subject import Subject


def check_udf(subject: Subject) -> Iterator[Finding]:
    """Check UDF's tags, sizes that are recorded twice, and that its files are those of ISO 9660."""
    try:
        udf = read_udf(subject.source, subject.blocks)
    except (ImageError, UnsupportedError) as error:
        level = fails if isinstance(error, ImageError) else note
        yield level("udf.unreadable", error.message, error.place or subject.place)
        return
    if udf is not None:
        yield from chain(_check_tags(subject, udf), _check_sizes(subject, udf), _check_files(subject, udf))


def _check_tags(subject: Subject, udf: Udf) -> Iterator[Finding]:
    """Check the descriptor tags (ECMA-167, 3/7.2), and that the last block is an anchor."""
    damaged = [tag for tag in udf.tags if not tag.is_sound]
    for tag in damaged:
        place, label = subject.place.at(tag.offset), f"UDF {tag.name}"
        if not tag.has_valid_checksum:
            yield fails("udf.tag-checksum", f"{label}: its tag's checksum is wrong", place)
        elif tag.tag_location != tag.true_location:
            message = f"{label}: says block {tag.tag_location:,}, stands at {tag.true_location:,}"
            yield fails("udf.tag-place", message, place)
        else:
            yield fails("udf.crc", f"{label}: its CRC is wrong", place)
    if not damaged:
        yield holds("udf.tags", f"UDF: {len(udf.tags):,} descriptors hold", subject.place_at(udf.anchors[0]))
    if udf.tail_anchors is None:
        yield fails("udf.last-anchor", "UDF: the volume's last block is no anchor", subject.place)


def _check_sizes(subject: Subject, udf: Udf) -> Iterator[Finding]:
    """Check the partition, and the sizes in the integrity descriptors."""
    partition, place = udf.partition, subject.place.at(udf.partition_descriptors[0])
    if len(set(udf.partition_lengths)) != 1 or len(udf.partition_lengths) != 2:
        yield fails("udf.sequences", "UDF: its two volume descriptor sequences differ", place)
    message = f"UDF partition: blocks {partition.start:,} to {partition.end - 1:,}"
    failure = f"UDF partition: ends {partition.end - subject.blocks:,} blocks behind the volume"
    yield judge(partition.end <= subject.blocks, "udf.partition", message, failure, place)
    for offset, size in zip(udf.integrity_descriptors, udf.integrity_sizes, strict=True):
        if size != partition.blocks:
            message = f"UDF integrity: says {size:,} blocks, the partition has {partition.blocks:,}"
            yield fails("udf.integrity", message, subject.place.at(offset))
    if udf.integrity_counts and udf.integrity_counts[1] != udf.directory_count:
        message = f"UDF integrity: counts {udf.integrity_counts[1]:,} directories, there are {udf.directory_count:,}"
        yield note("udf.counts", message, subject.place.at(udf.integrity_descriptors[-1]))


def _check_files(subject: Subject, udf: Udf) -> Iterator[Finding]:
    """Check that the data of every UDF file are those of a file of the ISO 9660 tree."""
    iso_files = subject.files_by_lba()
    failures = 0
    for file in udf.files:
        place = subject.place.inside("/".join(file.path)).at(file.entry_offset)
        total = sum(length for _, length in file.extents)
        if total != file.size and not file.is_inline:
            failures += 1
            yield fails("udf.file-size", f"UDF: says {file.size:,} bytes and has extents of {total:,}", place)
        elif file.extents and iso_files.get(file.extents[0][0], (b"", 0))[1] != total:
            failures += 1
            message = f"UDF: block {file.extents[0][0]:,}, {total:,} bytes, is no file of the ISO 9660 tree"
            yield fails("udf.file", message, place)
    udf_starts = {file.extents[0][0] for file in udf.files if file.extents}
    iso_starts = (
        {lba for lba, _, length in subject.main_tree.list_whole_files() if length} if subject.main_tree else set()
    )
    if hidden := len(iso_starts - udf_starts):
        yield note("udf.hidden", f"UDF: {hidden:,} files of the ISO 9660 tree are not in it", subject.place)
    if not failures:
        yield holds("udf.file", f"UDF: {len(udf.files):,} files, the data of all are those of ISO 9660", subject.place)
