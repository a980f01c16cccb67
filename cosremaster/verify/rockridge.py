"""Rock Ridge fields of directory records (SUSP 1.12 and RRIP 1.12; section numbers are theirs)."""

from __future__ import annotations

import stat
from collections.abc import Iterator

from cosremaster.errors import ImageError
from cosremaster.iso.model import DIRECTORY, DirectoryRecord
from cosremaster.iso.records import place_of
from cosremaster.units import BLOCK, Lba, lba_bytes
from cosremaster.verify.finding import Finding, fails, holds
from cosremaster.verify.subject import Subject, Tree

MAX_CONTINUATIONS = 64
_NUMBERS = {b"PX": (4, 12, 20, 28), b"CL": (4,), b"PL": (4,), b"CE": (4, 12, 20)}  # both-endian, 4.1.1, 4.1.5, 5.1


def check_rock_ridge(subject: Subject) -> Iterator[Finding]:
    """Fields are well-formed, agree with the record they are in, and lead to directories."""
    for tree in subject.trees:
        if not tree.rock_ridge:
            continue
        starts = {one.lba for one in tree.directories}
        bad = [finding for one in tree.records for finding in _record(subject, tree, one, starts)]
        yield from bad
        if not bad:
            message = f"{tree.name}: Rock Ridge fields of {len(tree.records):,} records hold"
            yield holds("rockridge.sound", message, subject.place.at(lba_bytes(tree.directories[0].lba)))


def _record(subject: Subject, tree: Tree, one: DirectoryRecord, starts: set[Lba]) -> Iterator[Finding]:
    place = place_of(subject.place, one).at(one.offset)
    try:
        fields = dict(_fields(subject, tree, one))
    except ImageError as error:
        yield fails("rockridge.malformed", f"{tree.name}: {error.message}", place)
        return
    for name, places in _NUMBERS.items():
        raw = fields.get(name)
        if raw and any(raw[at : at + 4] != raw[at + 4 : at + 8][::-1] for at in places):
            yield fails("rockridge.both-endian", f"{tree.name}: numbers in {name.decode()} differ in byte order", place)
    if b"NM" not in fields:
        yield fails("rockridge.name", f"{tree.name}: has no NM field", place)
    mode = fields.get(b"PX")
    if mode is None:
        yield fails("rockridge.mode", f"{tree.name}: has no PX field", place)
    elif b"CL" not in fields and stat.S_ISDIR(int.from_bytes(mode[4:8], "little")) != bool(one.flags & DIRECTORY):
        yield fails(
            "rockridge.mode", f"{tree.name}: its mode and its record disagree on whether it is a directory", place
        )
    if b"CL" in fields and Lba(tree.base + int.from_bytes(fields[b"CL"][4:8], "little")) not in starts:
        yield fails("rockridge.relocated", f"{tree.name}: its relocated directory is not where CL says", place)


def _fields(subject: Subject, tree: Tree, one: DirectoryRecord) -> Iterator[tuple[bytes, bytes]]:
    """Signature and bytes of each field, continuations followed (5.1). :raises ImageError: they are malformed."""
    raw = subject.source.at(one.offset, 255)
    start = 33 + raw[32] + (raw[32] + 1) % 2
    area, seen = raw[start : raw[0]], 0
    while True:
        following: bytes | None = None
        at = 0
        while at + 4 <= len(area) and area[at : at + 2] != b"ST" and area[at]:
            length = area[at + 2]
            if length < 4 or at + length > len(area):
                raise ImageError(f"system use field at byte {at} does not fit its area")
            field = area[at : at + length]
            if field[:2] in _NUMBERS and length < _NUMBERS[field[:2]][-1] + 8:
                raise ImageError(f"{field[:2].decode()} field is too short")
            if field[:2] == b"CE":
                following = field
            yield field[:2], field
            at += length
        if following is None:
            return
        seen += 1
        block, offset, length = (int.from_bytes(following[at : at + 4], "little") for at in (4, 12, 20))
        area = subject.source.at((tree.base + block) * BLOCK + offset, length)
        if seen > MAX_CONTINUATIONS or offset + length > BLOCK or len(area) < length or not area:
            raise ImageError(f"continuation at block {block} lies nowhere")
