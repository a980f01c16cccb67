"""Check the Rock Ridge fields of directory records (SUSP 1.12 and RRIP 1.12; section numbers are theirs)."""

from __future__ import annotations

import stat
from collections.abc import Collection, Iterator

from cosremaster.errors import ImageError
from cosremaster.iso.ecma119.records import DIRECTORY, DirectoryRecord
from cosremaster.iso.rockridge.read import cut_components, walk_fields
from cosremaster.units import Lba
from cosremaster.verification.finding import Finding, fails, holds
from cosremaster.verification.subject import Subject, SubjectTree

_NUMBERS = {b"PX": (4, 12, 20, 28), b"CL": (4,), b"PL": (4,)}  # both-endian: RRIP 4.1.1, 4.1.5


def check_rock_ridge(subject: Subject) -> Iterator[Finding]:
    """Check that fields are well-formed, agree with their record, and lead to directories."""
    for tree in subject.trees:
        if tree.skip is None:
            continue
        starts = {directory.lba for directory in tree.directories}
        findings = [
            finding for record in tree.records for finding in _check_record(subject, tree, record, tree.skip, starts)
        ]
        yield from findings
        if not findings:
            message = f"{tree.name}: Rock Ridge fields of {len(tree.records):,} records hold"
            yield holds("rockridge.sound", message, subject.place_at(tree.root))


def _check_record(
    subject: Subject, tree: SubjectTree, record: DirectoryRecord, skip: int, directories: Collection[Lba]
) -> Iterator[Finding]:
    """Check the fields of one record.

    :param skip: bytes in front of the record's first field.
    :param directories: first blocks of all directories.
    """
    place = tree.place_of(subject.place, record)
    raw = subject.source.read(record.offset, 255)
    try:
        fields = [field for _, field in walk_fields(subject.source, raw[: raw[0]], record.offset, skip, tree.base)]
    except ImageError as error:
        yield fails("rockridge.malformed", f"{tree.name}: {error.message}", place)
        return
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
    if child_link is not None and Lba(tree.base + int.from_bytes(child_link[4:8], "little")) not in directories:
        yield fails("rockridge.relocated", f"{tree.name}: its relocated directory is not where CL says", place)
