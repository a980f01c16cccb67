"""Check UDF: its descriptors, sizes and files (ECMA-167)."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain

from cosremaster.errors import ImageError, Place, UnsupportedError
from cosremaster.iso.udf.read import Udf, UdfFile, read_udf
from cosremaster.units import BLOCK, Lba, blocks_for
from cosremaster.verification.finding import Finding, fails, holds, judge, note
from cosremaster.verification.other_trees import OtherFile, PrimaryFiles
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
    """Check the descriptor tags (ECMA-167, 3/7.2), and that the last block is an anchor.

    Every fault of a tag is told: where a change mends one, another is still known to have been there before.
    """
    damaged = [tag for tag in udf.tags if not tag.is_sound]
    for tag in damaged:
        place, label = subject.place.at(tag.offset), f"UDF {tag.name}"
        if not tag.has_valid_checksum:
            yield fails("udf.tag-checksum", f"{label}: its tag's checksum is wrong", place)
        if tag.tag_location != tag.true_location:
            message = f"{label}: says block {tag.tag_location:,}, stands at {tag.true_location:,}"
            yield fails("udf.tag-place", message, place)
        if not tag.has_valid_crc:
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
    end = _find_end(subject)
    failure = f"UDF partition: ends {partition.end - end:,} blocks behind the volume"
    yield judge(partition.end <= end, "udf.partition", message, failure, place)
    for offset, size in zip(udf.integrity_descriptors, udf.integrity_sizes, strict=True):
        if size != partition.blocks:
            message = f"UDF integrity: says {size:,} blocks, the partition has {partition.blocks:,}"
            yield fails("udf.integrity", message, subject.place.at(offset))
    if udf.integrity_counts and udf.integrity_counts[1] != udf.directory_count:
        message = f"UDF integrity: counts {udf.integrity_counts[1]:,} directories, there are {udf.directory_count:,}"
        yield note("udf.counts", message, subject.place.at(udf.integrity_descriptors[-1]))


def _check_files(subject: Subject, udf: Udf) -> Iterator[Finding]:
    """Check that the data of every UDF file are inside the volume, and those of a file of the ISO 9660 tree.

    Files that UDF alone has are no fault, see :mod:`~cosremaster.verification.other_trees`.
    """
    iso_files = subject.files_by_lba()
    strays = list[tuple[tuple[str, ...], UdfFile]]()
    failures = 0
    for path, file in udf.named_files():
        total = sum(length for _, length in file.extents)
        if total != file.size and not file.is_inline:
            failures += 1
            message = f"UDF: says {file.size:,} bytes and has extents of {total:,}"
            yield fails("udf.file-size", message, _place_of(subject, path, file))
        elif file.extents and iso_files.get(file.extents[0][0], (b"", 0))[1] != total:
            strays.append((path, file))
    udf_starts = {file.extents[0][0] for file in udf.files if file.extents}
    primary = PrimaryFiles(subject, udf_starts, udf.metadata_spans) if strays else None
    faults = dict[Lba, str]()
    for path, file in strays:
        for lba, length in file.extents:
            fault = primary and primary.find_fault(OtherFile("/".join(path).encode("utf-8", "replace"), lba, length))
            if fault or lba + blocks_for(length) > _find_end(subject):
                faults[lba] = fault or "it ends behind the volume"
                message = f"UDF: block {lba:,}, {length:,} bytes, is no file of the ISO 9660 tree: {faults[lba]}"
                yield fails("udf.file", message, _place_of(subject, path, file))
    iso_starts = (
        {lba for lba, _, length in subject.main_tree.list_whole_files() if length} if subject.main_tree else set()
    )
    if hidden := len(iso_starts - udf_starts):
        yield note("udf.hidden", f"UDF: {hidden:,} files of the ISO 9660 tree are not in it", subject.place)
    if strays and not faults:
        yield note("udf.only", f"UDF: {len(strays):,} files are not in the ISO 9660 tree", subject.place)
    if not failures and not faults:
        which = "all others" if strays else "all"
        yield holds(
            "udf.file", f"UDF: {len(udf.files):,} files, the data of {which} are those of ISO 9660", subject.place
        )


def _find_end(subject: Subject) -> int:
    """Return the block after UDF's volume: Windows discs have a volume of ISO 9660 that ends before it."""
    return max(subject.blocks, subject.source.size // BLOCK)


def _place_of(subject: Subject, path: tuple[str, ...], file: UdfFile) -> Place:
    """Return the place of a file entry."""
    return subject.place.inside("/".join(path)).at(file.entry_offset)
