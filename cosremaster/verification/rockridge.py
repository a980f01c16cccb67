"""Check the Rock Ridge fields of directory records (SUSP 1.12 and RRIP 1.12; section numbers are theirs)."""

from __future__ import annotations

import stat
from bisect import bisect_right
from collections import deque
from collections.abc import Iterable, Iterator

from cosremaster.errors import ImageError, Place
from cosremaster.iso.ecma119.records import DIRECTORY, DirectoryRecord
from cosremaster.iso.ecma119.system_use import SystemUsePrefix
from cosremaster.iso.rockridge.read import (
    CE_HEAD,
    ROCK_RIDGE_EXTENSIONS,
    cut_components,
    find_extensions,
    read_root_fields,
    walk_fields,
)
from cosremaster.iso.spans import Span
from cosremaster.records import Struct
from cosremaster.records.lazy_dataclass import replace
from cosremaster.units import BLOCK, Lba, blocks_for, lba_offset
from cosremaster.verification.finding import Finding, Level, fails, holds, note
from cosremaster.verification.subject import Subject, SubjectTree

_NUMBERS = {b"PX": (4, 12, 20, 28), b"CL": (4,), b"PL": (4,)}  # both-endian: RRIP 4.1.1, 4.1.5


class _RecordCheck(Struct, frozen=True):
    """What the check of a record's fields needs of its tree.

    ``skip``: bytes in front of the record's first field. ``prefix``: those of the root's. ``directories``: the first
    blocks of all directories. ``files``: the spans of all data of files, by their order.
    """

    subject: Subject
    tree: SubjectTree
    skip: int
    prefix: SystemUsePrefix
    directories: frozenset[Lba]
    files: list[Span]


def check_rock_ridge(subject: Subject) -> Iterator[Finding]:
    """Check that fields are well-formed, agree with their record, and lead to directories."""
    files = sorted(
        (Span(record.lba, record.blocks, "") for tree in subject.trees for record in tree.files if record.length),
        key=lambda span: span.start,
    )
    for tree in subject.trees:
        if tree.skip is None:
            continue
        starts = frozenset(directory.lba for directory in tree.directories)
        dot = subject.source.read(lba_offset(tree.root), 255)
        prefix = SystemUsePrefix.from_area(dot[34 : dot[0]], tree.skip)
        check = _RecordCheck(subject, tree, tree.skip, prefix, starts, files)
        findings = [finding for record in tree.records for finding in _check_record(check, record)]
        findings += [finding for at in _list_dots(subject, tree) for finding in _check_dot(check, at)]
        findings += _check_extension(check)
        yield from findings
        if all(finding.level is Level.NOTE for finding in findings):
            message = f"{tree.name}: Rock Ridge fields of {len(tree.records):,} records hold"
            yield holds("rockridge.sound", message, subject.place_at(tree.root))


def _list_dots(subject: Subject, tree: SubjectTree) -> Iterator[int]:
    """Yield the byte offset of the ``.`` and the ``..`` of each directory."""
    for directory in tree.directories:
        start = lba_offset(directory.lba)
        yield start
        yield start + subject.source.read(start, 1)[0]


def _check_dot(check: _RecordCheck, offset: int) -> Iterator[Finding]:
    """Check the continuation areas of the ``.`` or ``..`` at byte ``offset`` of the image."""
    source, place = check.subject.source, check.subject.place.at(offset)
    raw, areas = source.read(offset, 255), list[tuple[int, int]]()
    raw = raw[: raw[0]]
    if CE_HEAD not in raw:
        return
    try:
        deque(walk_fields(source, raw, offset, check.skip, check.tree.base, areas=areas), maxlen=0)
    except ImageError as error:
        yield fails("rockridge.malformed", f"{check.tree.name}: {error.message}", place)
    yield from _check_areas(check, areas, place)


def _check_areas(check: _RecordCheck, areas: Iterable[tuple[int, int]], place: Place) -> Iterator[Finding]:
    """Check that continuation areas, each a byte offset and a number of bytes, are in the volume and in no file."""
    end = lba_offset(Lba(max(check.tree.base + check.tree.descriptor.blocks, check.subject.blocks)))
    for offset, length in areas:
        area = Span(Lba(offset // BLOCK), blocks_for(offset % BLOCK + length), "")
        if offset + length > end:
            yield fails("rockridge.area", f"{check.tree.name}: its fields continue behind the volume", place)
        index = bisect_right(check.files, area.start, key=lambda span: span.start)
        if any(area.overlaps(span) for span in check.files[max(0, index - 1) : index + 1]):
            yield fails("rockridge.area", f"{check.tree.name}: its fields continue in the data of a file", place)


def _check_extension(check: _RecordCheck) -> Iterator[Finding]:
    """Check that the root's ``.`` names Rock Ridge in an ER field (SUSP 5.5), where records have its fields."""
    tree, source = check.tree, check.subject.source
    fields = read_root_fields(source, tree.root, check.skip, tree.base)
    if ROCK_RIDGE_EXTENSIONS & set(find_extensions(fields)) or not any(raw[:2] in (b"PX", b"NM") for raw in fields):
        return
    level = fails if CE_HEAD in source.read(lba_offset(tree.root), 255) else note
    message = f"{tree.name}: no ER field names Rock Ridge, so that Linux and others do not show it"
    yield level("rockridge.extension", message, check.subject.place_at(tree.root))


def _check_record(check: _RecordCheck, record: DirectoryRecord) -> Iterator[Finding]:
    """Check the fields of one record."""
    for finding in _check_fields(check, record):  # few records have findings, so that few places are made
        yield replace(finding, place=check.tree.place_of(check.subject.place, record))


def _check_fields(check: _RecordCheck, record: DirectoryRecord) -> Iterator[Finding]:
    """Check the fields of one record; the findings have the image for their place."""
    subject, tree, areas = check.subject, check.tree, list[tuple[int, int]]()
    place = subject.place
    raw = subject.source.read(record.offset, 255)
    walk = walk_fields(subject.source, raw[: raw[0]], record.offset, check.skip, tree.base, areas=areas)
    try:
        fields = [field for _, field in walk]
    except ImageError as error:
        yield fails("rockridge.malformed", f"{tree.name}: {error.message}", place)
        return
    yield from _check_areas(check, areas, place)
    start = 33 + raw[32] + (1 - raw[32] % 2)
    if check.prefix.is_xa and not SystemUsePrefix(raw[start : start + check.skip]).is_xa:
        yield fails("rockridge.prefix", f"{tree.name}: has no XA record in front of its fields, as others have", place)
    if any(field[:2] == b"SL" and len(cut_components(field)) != max(len(field) - 5, 0) for field in fields):
        yield fails("rockridge.symlink", f"{tree.name}: a part of its symlink ends behind its field", place)
    by_name = {field[:2]: field for field in fields}
    for name, offsets in _NUMBERS.items():
        field = by_name.get(name, b"")
        if any(field[at : at + 4] != field[at + 4 : at + 8][::-1] for at in offsets):
            yield fails("rockridge.both-endian", f"{tree.name}: numbers in {name.decode()} differ in byte order", place)
    if b"NM" not in by_name:
        yield fails("rockridge.name", f"{tree.name}: has no NM field", place)
    child_link, mode = by_name.get(b"CL"), by_name.get(b"PX", b"")
    if len(mode) < 8:
        yield fails("rockridge.mode", f"{tree.name}: has no PX field", place)
    elif child_link is None and stat.S_ISDIR(int.from_bytes(mode[4:8], "little")) != bool(record.flags & DIRECTORY):
        message = f"{tree.name}: its mode and its record disagree on whether it is a directory"
        yield fails("rockridge.mode", message, place)
    if child_link is not None and Lba(tree.base + int.from_bytes(child_link[4:8], "little")) not in check.directories:
        yield fails("rockridge.relocated", f"{tree.name}: its relocated directory is not where CL says", place)
