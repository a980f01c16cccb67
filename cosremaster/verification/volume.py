"""Check volume descriptors, path tables and directory records, and that all trees agree (ECMA-119; its sections)."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from itertools import chain

from cosremaster.errors import printable
from cosremaster.io.source import ByteSource
from cosremaster.iso.ecma119.records import (
    DIRECTORY,
    MULTI_EXTENT,
    NEGATIVE,
    PRIMARY,
    SUPPLEMENTARY,
    DirectoryRecord,
    Extent,
    VolumeDescriptor,
)
from cosremaster.iso.spans import Span
from cosremaster.units import BLOCK, Lba, lba_offset
from cosremaster.verification.finding import Finding, Level, fails, holds, judge, note
from cosremaster.verification.other_trees import OtherFile, PrimaryFiles
from cosremaster.verification.subject import Subject, SubjectTree, place_of_path

MAX_PATH_TABLE = 1 << 26
"""Bytes; a longer path table is taken for an impossible size."""

_BOTH_ENDIAN = ((80, 4), (120, 2), (124, 2), (128, 2), (132, 4), (158, 4), (166, 4))
"""Offset and size of both-endian numbers in a volume descriptor (8.4.8 to 8.4.13, the root's record)."""

PathTableEntry = tuple[Lba, bytes, Lba]
"""Block of a directory, its identifier, block of its parent."""


def check_descriptors(subject: Subject) -> Iterator[Finding]:
    """Check sizes and both-endian numbers of volume descriptors."""
    for base, descriptors in subject.descriptor_sets:
        for descriptor in descriptors:
            if descriptor.type in (PRIMARY, SUPPLEMENTARY):
                yield from _check_descriptor(subject, descriptor, base)
    if subject.descriptor_sets and subject.primary is None:
        yield fails("volume.no-primary", "has no primary volume descriptor", subject.place)


def _check_descriptor(subject: Subject, descriptor: VolumeDescriptor, base: Lba) -> Iterator[Finding]:
    """Check one volume descriptor."""
    place = subject.place_at(descriptor.lba)
    kind = "primary" if descriptor.type == PRIMARY else "supplementary"
    label = f"{kind} volume descriptor at block {descriptor.lba}"
    wrong = ", ".join(str(at) for at, size in _BOTH_ENDIAN if not _is_both_endian(descriptor.raw, at, size))
    failure = f"{label}: little- and big-endian differ at byte {wrong}"
    yield judge(not wrong, "volume.both-endian", f"{label}: both byte orders agree", failure, place)
    blocks, excess = descriptor.blocks, (base + descriptor.blocks) * BLOCK - subject.source.size
    message = f"{label}: {blocks:,} blocks, inside the image"
    failure = f"{label}: says {blocks:,} blocks, which end {excess:,} bytes behind the image"
    yield judge(blocks > 0 and excess <= 0, "volume.size", message, failure, place)
    size = int.from_bytes(descriptor.raw[128:130], "little")
    if size != BLOCK:
        yield fails("volume.block-size", f"{label}: logical blocks of {size} bytes", place)


def _is_both_endian(raw: bytes, at: int, size: int) -> bool:
    """Return True if a number is recorded little-endian and then big-endian (7.2.3, 7.3.3)."""
    return raw[at : at + size] == raw[at + size : at + 2 * size][::-1]


def check_path_tables(subject: Subject) -> Iterator[Finding]:
    """Check that every path table has every directory, its block and its parent (9.4)."""
    for tree in subject.trees:
        expected = _expected_path_table(tree)
        for is_big_endian, field in ((False, 140), (False, 144), (True, 148), (True, 152)):
            lba = int.from_bytes(tree.descriptor.raw[field : field + 4], "big" if is_big_endian else "little")
            if lba:
                yield _check_path_table(subject, tree, Lba(tree.base + lba), is_big_endian, expected)


def _check_path_table(
    subject: Subject, tree: SubjectTree, lba: Lba, is_big_endian: bool, expected: set[PathTableEntry]
) -> Finding:
    """Check the path table at ``lba``."""
    byte_order = "big" if is_big_endian else "little"
    check, label = f"pathtable.{byte_order}", f"{tree.name} path table ({byte_order}-endian) at block {lba}"
    length = int.from_bytes(tree.descriptor.raw[132:136], "little")
    place = subject.place_at(lba)
    if length > MAX_PATH_TABLE or lba_offset(lba) + length > subject.source.size:
        return fails(check, f"{label}: lies outside the image", place)
    try:
        raw = subject.source.read(lba_offset(lba), length)
        entries = _parse_path_table(raw, ">" if is_big_endian else "<", tree.base)
    except (struct.error, IndexError):
        return fails(check, f"{label}: cannot be read", place)
    different = sorted(entries ^ expected)
    message = f"{label}: {len(entries):,} directories, as in the tree"
    failure = f"{label}: says something else than the tree of {printable(different[0][1]) if different else ''}"
    return judge(not different, check, message, failure, place)


def _parse_path_table(raw: bytes, order: str, base: Lba) -> set[PathTableEntry]:
    """Return the entries of a path table."""
    rows, at = list[tuple[Lba, bytes, int]](), 0
    while at < len(raw):
        size, extended, lba, parent = struct.unpack_from(f"{order}BBIH", raw, at)
        if not size:
            break
        rows.append((Lba(base + lba + extended), raw[at + 8 : at + 8 + size], parent))
        at += 8 + size + size % 2
    return {(lba, name, rows[parent - 1][0]) for lba, name, parent in rows}


def _expected_path_table(tree: SubjectTree) -> set[PathTableEntry]:
    """Return the entries that a path table of the tree must have."""
    extents = tree.directory_extents()
    entries = {(extent.lba, path[-1], extents[path[:-1]].lba) for path, extent in extents.items() if path}
    return entries | {(tree.root, b"\0", tree.root)}


def check_records(subject: Subject) -> Iterator[Finding]:
    """Check directory records: both byte orders, data inside the volume, ``.`` and ``..``, extents of a file."""
    for tree in subject.trees:
        findings = list(chain(_check_record_fields(subject, tree), _check_dots(subject, tree)))
        yield from findings
        if all(finding.level is Level.NOTE for finding in findings):
            message = f"{tree.name}: {len(tree.records):,} records in {len(tree.directories):,} directories hold"
            yield holds("record.sound", message, subject.place_at(tree.root))


def _check_record_fields(subject: Subject, tree: SubjectTree) -> Iterator[Finding]:
    """Check block and length of each record, and that the extents of a file follow each other (9.1.6)."""
    end = max(tree.base + tree.descriptor.blocks, subject.blocks)
    unfinished: DirectoryRecord | None = None
    extents_failure = f"{tree.name}: says more extents follow, and none does"
    for record in tree.records:
        place = tree.place_of(subject.place, record)
        raw = subject.source.read(record.offset, 34)
        if not (_is_both_endian(raw, 2, 4) and _is_both_endian(raw, 10, 4)):
            yield fails("record.both-endian", f"{tree.name}: block or length differ between the byte orders", place)
        if record.length and (lba_offset(record.lba) + record.length) > subject.source.size:
            yield fails("record.outside", f"{tree.name}: its data lie outside the image", place)
        elif record.length and record.lba + record.blocks > end:
            yield fails("record.outside-volume", f"{tree.name}: its data end behind the volume", place)
        elif not record.length and end < record.lba < tree.base + NEGATIVE:
            message = f"{tree.name}: it has no data, and names a block behind the volume: libarchive reads no further"
            yield fails("record.outside-volume", message, place)
        identity = record.parent, record.identifier
        if unfinished is not None and (unfinished.parent, unfinished.identifier) != identity:
            yield fails("record.extents", extents_failure, place)
        unfinished = record if record.flags & MULTI_EXTENT else None
    if unfinished is not None:
        yield fails("record.extents", extents_failure, tree.place_of(subject.place, unfinished))


def _check_dots(subject: Subject, tree: SubjectTree) -> Iterator[Finding]:
    """Check the first two records of each directory: itself and its parent (6.8.2.2)."""
    extents = tree.directory_extents()
    own_parents = 0
    for path, directory in extents.items():
        raw = subject.source.read(lba_offset(directory.lba), 512)
        for expected, name in ((directory, "."), (extents[path[:-1]], "..")):
            size = raw[0] if raw else 0
            extent = Extent(Lba(tree.base + int.from_bytes(raw[2:6], "little")), int.from_bytes(raw[10:14], "little"))
            if name == ".." and extent == directory:
                own_parents += path != ()
            elif size < 34 or extent != expected or not (_is_both_endian(raw, 2, 4) and _is_both_endian(raw, 10, 4)):
                place = place_of_path(subject.place, tree.names[path]).at(lba_offset(directory.lba))
                yield fails("record.dot", f"{tree.name}: its {name} leads to block {extent.lba}", place)
            raw = raw[size:]
    if own_parents:  # in Joliet trees of libisofs, and in empty directories of genisoimage
        message = f"{tree.name}: .. leads to the directory itself in {own_parents:,} directories"
        yield note("record.parent", message, subject.place_at(tree.root))


def check_overlaps(subject: Subject) -> Iterator[Finding]:
    """Check that extents share blocks only if they begin together, as those of hard links do."""
    descriptors = (descriptor for _, group in subject.descriptor_sets for descriptor in group)
    spans = [Span(descriptor.lba, 1, "volume descriptor") for descriptor in descriptors]
    for tree in subject.trees:
        spans += tree.metadata
        files = (record for record in tree.files if record.length)
        spans += (Span(record.lba, record.blocks, printable(tree.path_of(record))) for record in files)
    if subject.catalog:
        spans.append(Span(subject.catalog.lba, 1, "boot catalog"))
    spans.sort(key=lambda span: (span.start, span.blocks))
    clashes, last = 0, Span(Lba(0), 16, "system area")
    for span in spans:
        if span.start < last.end and span.start != last.start:
            clashes += 1
            yield fails("extent.overlap", f"{last.label} and {span.label} share blocks", subject.place_at(span.start))
        if span.end > last.end:
            last = span
    if not clashes:
        yield holds("extent.overlap", f"{len(spans):,} extents, none inside another", subject.place)


def check_agreement(subject: Subject) -> Iterator[Finding]:
    """Check that Joliet and other trees lead to the data of the primary tree, and a partition's trees equal those."""
    main = subject.main_tree
    for tree in subject.trees:
        twin = next((other for other in subject.trees if other.base == 0 and tree.name.startswith(other.name)), None)
        if tree.base and twin:
            yield _compare_records(subject.source, tree, twin)
        elif main and tree is not main:
            yield from _compare_data(subject, tree, main)


def _compare_records(source: ByteSource, tree: SubjectTree, twin: SubjectTree) -> Finding:
    """Compare the tree of a partition with the volume's: paths, flags, dates, places and lengths of files."""
    rows = ({_summarize_record(source, record) for record in each.records} for each in (tree, twin))
    different = sorted(set.symmetric_difference(*rows))
    message = f"{tree.name}: says of {len(tree.records):,} records what {twin.name} says"
    path = printable(b"/".join(different[0][0])) if different else ""
    failure = f"{tree.name}: disagrees with {twin.name} on {path}"
    return judge(not different, "tree.second", message, failure, source.place.at(lba_offset(tree.root)))


def _summarize_record(source: ByteSource, record: DirectoryRecord) -> tuple[tuple[bytes, ...], int, int, int, bytes]:
    """Return path, flags, block and length (0 for directories), recording date."""
    lba = length = 0
    if not record.flags & DIRECTORY:
        lba, length = record.lba if record.length else Lba(0), record.length
    return (*record.parent, record.identifier), record.flags, lba, length, source.read(record.offset + 18, 7)


def _compare_data(subject: Subject, tree: SubjectTree, main: SubjectTree) -> Iterator[Finding]:
    """Check that the data of each file of ``tree`` are those of a file of the primary tree ``main``."""
    main_extents = {(record.lba, record.length) for record in main.files if record.length}
    extents = {(record.lba, record.length) for record in tree.files if record.length}
    strays = [record for record in tree.files if record.length and (record.lba, record.length) not in main_extents]
    primary = PrimaryFiles(subject, {lba for lba, _ in extents}) if strays else None
    place, hidden_names = subject.place_at(tree.root), 0
    for record in strays:
        fault = primary and primary.find_fault(OtherFile(tree.path_of(record), record.lba, record.length))
        hidden_names += fault is None
        if fault is not None:
            message = f"{tree.name}: block {record.lba}, {record.length:,} bytes, is no file of the {main.name} tree"
            yield fails("tree.joliet", f"{message}: {fault}", tree.place_of(subject.place, record))
    if hidden_names == len(strays):
        which = "all other files" if strays else "every file"
        yield holds("tree.joliet", f"{tree.name}: the data of {which} are those of the {main.name} tree", place)
    if hidden_names:
        yield note(
            "tree.only", f"{tree.name}: {hidden_names:,} extents are those of no file of the {main.name} tree", place
        )
    if hidden := len(main_extents - extents):
        yield note("tree.hidden", f"{tree.name}: {hidden:,} extents of the {main.name} tree are not in it", place)
