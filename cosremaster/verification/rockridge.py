"""Rock Ridge fields of directory records (SUSP 1.12 and RRIP 1.12; section numbers are theirs)."""

from __future__ import annotations

import stat
from collections.abc import Iterator

from cosremaster.errors import ImageError
from cosremaster.iso.model import DIRECTORY, DirectoryRecord
from cosremaster.iso.rockridge.read import cut_components, walk_fields
from cosremaster.units import Lba, lba_offset
from cosremaster.verification.finding import Finding, fails, holds
from cosremaster.verification.subject import Subject, SubjectTree

_NUMBERS = {b"PX": (4, 12, 20, 28), b"CL": (4,), b"PL": (4,)}  # both-endian: RRIP 4.1.1, 4.1.5


def check_rock_ridge(subject: Subject) -> Iterator[Finding]:
    """Fields are well-formed, agree with the record they are in, and lead to directories."""
    for tree in subject.trees:
        if tree.skip is None:
            continue
        starts = {one.lba for one in tree.directories}
        bad = [finding for one in tree.records for finding in _record(subject, tree, one, tree.skip, starts)]
        yield from bad
        if not bad:
            message = f"{tree.name}: Rock Ridge fields of {len(tree.records):,} records hold"
            yield holds("rockridge.sound", message, subject.place.at(lba_offset(tree.directories[0].lba)))


def _record(
    subject: Subject, tree: SubjectTree, one: DirectoryRecord, skip: int, starts: set[Lba]
) -> Iterator[Finding]:
    place = tree.place_of(subject.place, one)
    raw = subject.source.read(one.offset, 255)
    try:
        told = [field for _, field in walk_fields(subject.source, raw[: raw[0]], one.offset, skip, tree.base)]
    except ImageError as error:
        yield fails("rockridge.malformed", f"{tree.name}: {error.message}", place)
        return
    if any(field[:2] == b"SL" and len(cut_components(field)) != max(len(field) - 5, 0) for field in told):
        yield fails("rockridge.symlink", f"{tree.name}: a part of its symlink ends behind its field", place)
    found = {field[:2]: field for field in told}
    for name, places in _NUMBERS.items():
        field = found.get(name, b"")
        if any(field[at : at + 4] != field[at + 4 : at + 8][::-1] for at in places):
            yield fails("rockridge.both-endian", f"{tree.name}: numbers in {name.decode()} differ in byte order", place)
    if b"NM" not in found:
        yield fails("rockridge.name", f"{tree.name}: has no NM field", place)
    mode = found.get(b"PX", b"")
    if len(mode) < 8:
        yield fails("rockridge.mode", f"{tree.name}: has no PX field", place)
    elif b"CL" not in found and stat.S_ISDIR(int.from_bytes(mode[4:8], "little")) != bool(one.flags & DIRECTORY):
        yield fails(
            "rockridge.mode", f"{tree.name}: its mode and its record disagree on whether it is a directory", place
        )
    if b"CL" in found and Lba(tree.base + int.from_bytes(found[b"CL"][4:8], "little")) not in starts:
        yield fails("rockridge.relocated", f"{tree.name}: its relocated directory is not where CL says", place)
