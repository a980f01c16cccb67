"""Link counts and file serial numbers of hard links of which one gets other bytes or leaves (PX, RRIP 1.12, 4.1.1).

Names with one serial number are one file: libarchive gives them all the bytes of the first.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from itertools import count

from cosremaster.io.source import ByteSource
from cosremaster.iso.ecma119.records import pack_both_endian
from cosremaster.iso.edits import IsoEdits
from cosremaster.iso.layout.replace import FileReplacement, LinkChanges
from cosremaster.iso.model import IsoFile, IsoImage, IsoTree
from cosremaster.iso.rockridge.read import find_susp_skip, walk_fields
from cosremaster.records import Struct
from cosremaster.units import Lba, lba_offset

_LINKS, _SERIAL = 12, 36
"""Offsets in a PX field of the number of links and of the file serial number."""


class _LinkedFile(Struct, frozen=True):
    """A name of a file. ``fields``: byte offset and bytes of the PX field of each of its records."""

    file: IsoFile
    fields: tuple[tuple[int, bytes], ...]

    @property
    def links(self) -> int:
        """The number of links."""
        return int.from_bytes(self.fields[0][1][_LINKS : _LINKS + 4], "little") if self.fields else 1

    @property
    def serial(self) -> int:
        """The file serial number, 0 without one."""
        return int.from_bytes(self.fields[0][1][_SERIAL : _SERIAL + 4], "little") if self.fields else 0

    def patch(self, links: int, serial: int = 0) -> Iterator[tuple[int, bytes]]:
        """Yield the patches that give it other numbers; ``serial``: 0 to keep its own."""
        for at, raw in self.fields:
            if links != self.links:
                yield at + _LINKS, pack_both_endian(links)
            if serial and len(raw) >= _SERIAL + 8:
                yield at + _SERIAL, pack_both_endian(serial)


def plan_link_changes(
    image: IsoImage, source: ByteSource, replacements: Sequence[FileReplacement], edits: IsoEdits
) -> LinkChanges:
    """Return what changes in the records of hard links.

    A name that gets bytes of its own gets a serial number of its own, and a link count without the names that keep the
    old bytes; these lose those that left.
    """
    own = [replacement for replacement in replacements if replacement.old_span is None]
    if not (own or edits.removed):
        return LinkChanges()
    numbers = {file.records[0].offset: index for index, new in enumerate(own) for _, file in new.files}
    groups: list[list[_LinkedFile]] = []
    for tree in image.trees:
        if tree.has_rock_ridge and tree.directories:
            groups += _list_changed_groups(source, tree, numbers.keys(), edits)
    groups = [names for names in groups if len(names) > 1 or names[0].links > 1]
    if not groups:
        return LinkChanges()
    new_serials = _allocate_serials(image, source, len(own))
    patches: dict[int, bytes] = {}
    for names in groups:
        patches.update(_patch_group(names, numbers, new_serials, edits))
    return LinkChanges(patches, frozenset(new_serials))


def _list_changed_groups(
    source: ByteSource, tree: IsoTree, replaced: Collection[int], edits: IsoEdits
) -> Iterator[list[_LinkedFile]]:
    """Yield the names in ``tree`` of each file of which one name changes.

    :param replaced: the offsets of the first records of names that get other bytes.
    """
    candidates = tree.files if replaced else tree.find_files_in(edits.may_change_in)
    changed_files = [
        file
        for file in candidates
        if file.records[0].offset in replaced or (edits.removed and edits.new_path(file.path) is None)
    ]
    changed = {_identify(file) for file in changed_files}
    groups: dict[tuple[Lba | None, int], list[_LinkedFile]] = defaultdict(list)
    skip = _read_skip(source, tree)
    for file in _list_sharing(tree, {_find_key(file) for file in changed_files}):
        linked = _LinkedFile(file, tuple(_read_fields(source, tree, file, skip)))
        if linked.serial or file.size:
            groups[_find_key(file), linked.serial].append(linked)
        elif _identify(file) in changed:
            yield [linked]  # without data and serial numbers nothing tells which names are one file
    for names in groups.values():
        if any(_identify(linked.file) in changed for linked in names):
            yield names


def _list_sharing(tree: IsoTree, keys: AbstractSet[Lba | None]) -> Iterator[IsoFile]:
    """Yield the files of ``tree`` whose key is one of ``keys``."""
    starts = {key for key in keys if key is not None}
    yield from (file for file in tree.find_files_at(starts) if file.size)
    if None in keys:
        yield from tree.find_empty_files()


def _identify(file: IsoFile) -> tuple[bytes, int]:
    """Return what no two files of a tree have in common."""
    return file.path, file.records[0].offset


def _find_key(file: IsoFile) -> Lba | None:
    """Return the first block of the data of ``file``, None without data."""
    return file.start if file.size else None


def _read_skip(source: ByteSource, tree: IsoTree) -> int:
    """Return the bytes in front of the fields of each record of ``tree``."""
    return find_susp_skip(source.read(lba_offset(tree.directories[0].lba), 255)) or 0


def _read_fields(source: ByteSource, tree: IsoTree, file: IsoFile, skip: int) -> Iterator[tuple[int, bytes]]:
    """Yield the byte offset and the bytes of the PX field of each record of ``file``."""
    for record in file.records:
        raw = source.read(record.offset, 255)
        fields = walk_fields(source, raw[: raw[0]], record.offset, skip, tree.base, strict=False)
        yield from ((at, px) for at, px in fields if px[:2] == b"PX" and len(px) >= _LINKS + 8)


def _allocate_serials(image: IsoImage, source: ByteSource, number: int) -> list[int]:
    """Return so many file serial numbers that no file of ``image`` has."""
    used: set[int] = set()
    for tree in image.trees:
        if tree.has_rock_ridge and tree.directories and number:
            skip = _read_skip(source, tree)
            used.update(_LinkedFile(file, tuple(_read_fields(source, tree, file, skip))).serial for file in tree.files)
    free = (serial for serial in count(1) if serial not in used)
    return [next(free) for _ in range(number)]


def _patch_group(
    names: Sequence[_LinkedFile], numbers: Mapping[int, int], new_serials: Sequence[int], edits: IsoEdits
) -> Iterator[tuple[int, bytes]]:
    """Yield the patches of the names of one file.

    :param numbers: by the offset of a name's first record, the number of the replacement that gives it other bytes.
    """
    replaced: dict[int, list[_LinkedFile]] = defaultdict(list)
    staying, lost = list[_LinkedFile](), 0
    for linked in names:
        number = numbers.get(linked.file.records[0].offset)
        if number is not None:
            replaced[number].append(linked)
        elif edits.removed and edits.new_path(linked.file.path) is None:
            lost += 1
        else:
            staying.append(linked)
    lost += sum(map(len, replaced.values()))
    for linked in staying:
        yield from linked.patch(max(1, linked.links - lost))
    for number, group in replaced.items():
        for linked in group:
            yield from linked.patch(len(group), new_serials[number] if linked.serial else 0)
