"""Volume descriptors, path tables, directory records; whether all trees say the same (ECMA-119)."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from itertools import chain

from cosremaster.errors import printable
from cosremaster.io.source import ByteSource
from cosremaster.iso.ecma119.records import PRIMARY, SUPPLEMENTARY, VolumeDescriptor
from cosremaster.iso.layout.spans import Span
from cosremaster.iso.model import DIRECTORY, MULTI_EXTENT, DirectoryRecord, Extent
from cosremaster.units import BLOCK, Lba, lba_offset
from cosremaster.verification.finding import Finding, Level, fails, holds, judge, note
from cosremaster.verification.subject import Subject, SubjectTree, place_of_path

_BOTH = ((80, 4), (120, 2), (124, 2), (128, 2), (132, 4), (158, 4), (166, 4))  # 8.4.8 to 8.4.13, the root's record


def check_descriptors(subject: Subject) -> Iterator[Finding]:
    """Sizes, and numbers that stand twice."""
    for base, descriptors in subject.sets:
        for one in descriptors:
            if one.type in (PRIMARY, SUPPLEMENTARY):
                yield from _descriptor(subject, one, base)
    if subject.sets and subject.primary is None:
        yield fails("volume.no-primary", "has no primary volume descriptor", subject.place)


def _descriptor(subject: Subject, one: VolumeDescriptor, base: Lba) -> Iterator[Finding]:
    place = subject.place.at(lba_offset(one.lba))
    kind = "primary" if one.type == PRIMARY else "supplementary"
    what = f"{kind} volume descriptor at block {one.lba}"
    wrong = [at for at, size in _BOTH if not _twice(one.raw, at, size)]
    yield judge(
        not wrong, "volume.both-endian", f"{what}: both byte orders agree",
        f"{what}: little- and big-endian differ at byte {', '.join(map(str, wrong))}", place,
    )  # fmt: skip
    end = (base + one.blocks) * BLOCK
    yield judge(
        one.blocks > 0 and end <= subject.source.size, "volume.size",
        f"{what}: {one.blocks:,} blocks, inside the image",
        f"{what}: says {one.blocks:,} blocks, which end {end - subject.source.size:,} bytes behind the image", place,
    )  # fmt: skip
    size = int.from_bytes(one.raw[128:130], "little")
    if size != BLOCK:
        yield fails("volume.block-size", f"{what}: logical blocks of {size} bytes", place)


def _twice(raw: bytes, at: int, size: int) -> bool:
    """A number little-endian and then big-endian (7.2.3, 7.3.3)."""
    return raw[at : at + size] == raw[at + size : at + 2 * size][::-1]


def check_path_tables(subject: Subject) -> Iterator[Finding]:
    """Every path table names every directory, its place and its parent (9.4)."""
    for tree in subject.trees:
        wanted = _directories(tree)
        for big, field in ((False, 140), (False, 144), (True, 148), (True, 152)):
            lba = int.from_bytes(tree.descriptor.raw[field : field + 4], "big" if big else "little")
            if lba:
                yield _path_table(subject, tree, Lba(tree.base + lba), big, wanted)


def _path_table(
    subject: Subject, tree: SubjectTree, lba: Lba, big: bool, wanted: set[tuple[Lba, bytes, Lba]]
) -> Finding:
    what = f"{tree.name} path table ({'big' if big else 'little'}-endian) at block {lba}"
    length = int.from_bytes(tree.descriptor.raw[132:136], "little")
    place = subject.place.at(lba_offset(lba))
    check = f"pathtable.{'big' if big else 'little'}"
    if length > 1 << 26 or lba_offset(lba) + length > subject.source.size:
        return fails(check, f"{what}: lies outside the image", place)
    try:
        found = _entries(subject.source.read(lba_offset(lba), length), ">" if big else "<", tree.base)
    except (struct.error, IndexError):
        return fails(check, f"{what}: cannot be read", place)
    odd = sorted(found ^ wanted)
    return judge(
        not odd, check, f"{what}: {len(found):,} directories, as in the tree",
        f"{what}: says something else than the tree of {printable(odd[0][1]) if odd else ''}", place,
    )  # fmt: skip


def _entries(raw: bytes, order: str, base: Lba) -> set[tuple[Lba, bytes, Lba]]:
    """Block, identifier and parent's block of each entry."""
    rows, at = list[tuple[Lba, bytes, int]](), 0
    while at < len(raw):
        size, extended, lba, parent = struct.unpack_from(f"{order}BBIH", raw, at)
        if not size:
            break
        rows.append((Lba(base + lba + extended), raw[at + 8 : at + 8 + size], parent))
        at += 8 + size + size % 2
    return {(lba, name, rows[parent - 1][0]) for lba, name, parent in rows}


def _directories(tree: SubjectTree) -> set[tuple[Lba, bytes, Lba]]:
    """What a path table of the tree has to say."""
    root = tree.directories[0].lba
    places: dict[tuple[bytes, ...], Lba] = {(): root}
    for one in tree.records:
        if one.flags & DIRECTORY:
            places[(*one.parent, one.identifier)] = one.lba
    found = {(lba, path[-1], places[path[:-1]]) for path, lba in places.items() if path}
    return found | {(root, b"\0", root)}


def check_records(subject: Subject) -> Iterator[Finding]:
    """Directory records: both byte orders, data inside the volume, ``.`` and ``..``, runs of extents."""
    for tree in subject.trees:
        bad = list(chain(_records(subject, tree), _dots(subject, tree)))
        yield from bad
        if all(finding.level is Level.NOTE for finding in bad):
            message = f"{tree.name}: {len(tree.records):,} records in {len(tree.directories):,} directories hold"
            yield holds("record.sound", message, subject.place.at(lba_offset(tree.directories[0].lba)))


def _records(subject: Subject, tree: SubjectTree) -> Iterator[Finding]:
    end = tree.base + tree.descriptor.blocks
    run: DirectoryRecord | None = None
    for one in tree.records:
        place = tree.place_of(subject.place, one)
        raw = subject.source.read(one.offset, 34)
        if not (_twice(raw, 2, 4) and _twice(raw, 10, 4)):
            yield fails("record.both-endian", f"{tree.name}: block or length differ between the byte orders", place)
        if one.length and (lba_offset(one.lba) + one.length) > subject.source.size:
            yield fails("record.outside", f"{tree.name}: its data lie outside the image", place)
        elif one.length and one.lba + one.blocks > max(end, subject.blocks):
            yield fails("record.outside-volume", f"{tree.name}: its data end behind the volume", place)
        if run is not None and (run.parent, run.identifier) != (one.parent, one.identifier):
            yield fails("record.extents", f"{tree.name}: says more extents follow, and none does", place)
        run = one if one.flags & MULTI_EXTENT else None
    if run is not None:
        place = tree.place_of(subject.place, run)
        yield fails("record.extents", f"{tree.name}: says more extents follow, and none does", place)


def _dots(subject: Subject, tree: SubjectTree) -> Iterator[Finding]:
    """The first two records of a directory: itself and its parent (6.8.2.2)."""
    places: dict[tuple[bytes, ...], Extent] = {(): tree.directories[0]}
    for one in tree.records:
        if one.flags & DIRECTORY:
            places[(*one.parent, one.identifier)] = Extent(one.lba, one.length)
    selves = 0
    for path, directory in places.items():
        raw = subject.source.read(lba_offset(directory.lba), 512)
        for wanted, name in ((directory, "."), (places[path[:-1]], "..")):
            size = raw[0] if raw else 0
            found = Extent(Lba(tree.base + int.from_bytes(raw[2:6], "little")), int.from_bytes(raw[10:14], "little"))
            if name == ".." and found == directory and tree.descriptor.type == SUPPLEMENTARY:
                selves += path != ()
            elif size < 34 or found != wanted or not (_twice(raw, 2, 4) and _twice(raw, 10, 4)):
                place = place_of_path(subject.place, tree.names[path]).at(lba_offset(directory.lba))
                yield fails("record.dot", f"{tree.name}: its {name} leads to block {found.lba}", place)
            raw = raw[size:]
    if selves:  # libisofs makes them so
        place = subject.place.at(lba_offset(tree.directories[0].lba))
        yield note("record.parent", f"{tree.name}: .. leads to the directory itself in {selves:,} directories", place)


def check_overlaps(subject: Subject) -> Iterator[Finding]:
    """No two extents share blocks unless they begin together, as those of hard links do."""
    spans = [Span(one.lba, 1, "volume descriptor") for _, group in subject.sets for one in group]
    for tree in subject.trees:
        spans += tree.metadata
        spans += (Span(one.lba, one.blocks, printable(tree.path_of(one))) for one in tree.files if one.length)
    if subject.catalog:
        spans.append(Span(subject.catalog.lba, 1, "boot catalog"))
    spans.sort(key=lambda span: (span.start, span.blocks))
    clashes, last = 0, Span(Lba(0), 16, "system area")
    for span in spans:
        if span.start < last.end and span.start != last.start:
            clashes += 1
            place = subject.place.at(lba_offset(span.start))
            yield fails("extent.overlap", f"{last.label} and {span.label} share blocks", place)
        if span.end > last.end:
            last = span
    if not clashes:
        yield holds("extent.overlap", f"{len(spans):,} extents, none inside another", subject.place)


def check_agreement(subject: Subject) -> Iterator[Finding]:
    """Joliet and other trees lead to the same data as the primary one; trees of a partition say all the same."""
    main = subject.main
    for tree in subject.trees:
        twin = next((one for one in subject.trees if one.base == 0 and tree.name.startswith(one.name)), None)
        if tree.base and twin:
            yield _same_tree(subject.source, tree, twin)
        elif main and tree is not main:
            yield from _same_data(subject, tree, main)


def _same_tree(source: ByteSource, tree: SubjectTree, twin: SubjectTree) -> Finding:
    """The tree of a partition names what the volume's names: paths, flags, places and lengths of files."""
    rows = ({_row(source, one) for one in each.records} for each in (tree, twin))
    odd = sorted(set.symmetric_difference(*rows))
    place = source.place.at(lba_offset(tree.directories[0].lba))
    return judge(
        not odd, "tree.second", f"{tree.name}: says of {len(tree.records):,} records what {twin.name} says",
        f"{tree.name}: disagrees with {twin.name} on {printable(b'/'.join(odd[0][0])) if odd else ''}", place,
    )  # fmt: skip


def _row(source: ByteSource, one: DirectoryRecord) -> tuple[tuple[bytes, ...], int, int, int, bytes]:
    """Path, flags, recording date; place and length of files."""
    when = source.read(one.offset + 18, 7)
    if one.flags & DIRECTORY:
        return (*one.parent, one.identifier), one.flags, 0, 0, when
    return (*one.parent, one.identifier), one.flags, one.lba if one.length else 0, one.length, when


def _same_data(subject: Subject, tree: SubjectTree, main: SubjectTree) -> Iterator[Finding]:
    known = {(one.lba, one.length) for one in main.files if one.length}
    here = {(one.lba, one.length) for one in tree.files if one.length}
    odd = [one for one in tree.files if one.length and (one.lba, one.length) not in known]
    for one in odd:
        message = f"{tree.name}: block {one.lba}, {one.length:,} bytes, is no file of the {main.name} tree"
        yield fails("tree.joliet", message, tree.place_of(subject.place, one))
    if not odd:
        place = subject.place.at(lba_offset(tree.directories[0].lba))
        yield holds("tree.joliet", f"{tree.name}: every file's data are those of the {main.name} tree", place)
    if hidden := len(known - here):
        what = f"{tree.name}: {hidden:,} extents of the {main.name} tree are not in it"
        yield note("tree.hidden", what, subject.place.at(lba_offset(tree.directories[0].lba)))
