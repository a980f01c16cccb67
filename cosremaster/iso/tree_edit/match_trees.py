"""Which entries of another tree are the same things as those of the primary one."""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator

from msgspec import Struct

from cosremaster.io.source import ByteSource
from cosremaster.iso.model import IsoTree
from cosremaster.iso.tree_edit.directories import DirectoryEntry, EditableDirectory, EditableTree, read_editable_trees
from cosremaster.units import Lba

_MOST_COMPARED = 10**6
_SAMPLES = 4
"""Files by whose data a directory is known that has another name in the other tree."""


def read_matched_trees(source: ByteSource, image_trees: Iterable[IsoTree]) -> list[EditableTree]:
    """What :func:`read_folders` reads, the entries of all trees with the keys of the first one's."""
    primary, *others = read_editable_trees(source, image_trees)
    for other in others:
        match_entries(primary, other)
    return [primary, *others]


def match_entries(primary: EditableTree, other: EditableTree) -> None:
    """Gives the entries of ``other`` the keys of those of ``primary`` that are the same things: by their data, else by
    their names; directories by their names, else by what is in them. All others lose their keys."""
    for folder in other.directories():
        for entry in folder.entries:
            entry.primary_name = None
    alike = _TreeMatcher(primary, other, _DataIndex(primary), _samples(other))
    waiting = [(primary.root, other.root)]
    while waiting:
        one, two = waiting.pop()
        for known, match in alike.pairs(one, two):
            match.primary_name = known.primary_name
            if known.directory is not None and match.directory is not None:
                waiting.append((known.directory, match.directory))


class _DataIndex:
    """Where in a tree data are named. Folders have numbers, those below one the numbers behind its own."""

    def __init__(self, tree: EditableTree) -> None:
        folders = list(tree.directories())
        self.number = {id(folder): number for number, folder in enumerate(folders)}
        self.end = {id(folder): number + 1 for number, folder in enumerate(folders)}
        self._by_data: dict[Lba, list[int]] = {}
        for number, folder in reversed(list(enumerate(folders))):
            if folder.named_in is not None and folder is not tree.root:
                self.end[id(folder.named_in)] = max(self.end[id(folder.named_in)], self.end[id(folder)])
            for lba in _own_data(folder):
                self._by_data.setdefault(lba, []).append(number)
        for numbers in self._by_data.values():
            numbers.reverse()

    def below(self, folder: EditableDirectory, lba: Lba) -> int | None:
        """The number of the first folder below ``folder`` that names data at ``lba``."""
        numbers = self._by_data.get(lba, [])
        at = bisect_right(numbers, self.number[id(folder)])
        return numbers[at] if at < len(numbers) and numbers[at] < self.end[id(folder)] else None


def _own_data(folder: EditableDirectory) -> set[Lba]:
    return {entry.records[0].lba for entry in folder.entries if entry.directory is None and entry.records[0].length}


def _samples(tree: EditableTree) -> dict[int, tuple[Lba, ...]]:
    """Some data that are named in or below each folder, by its id."""
    found: dict[int, tuple[Lba, ...]] = {}
    for folder in reversed(list(tree.directories())):
        some = sorted(_own_data(folder))[:_SAMPLES]
        for entry in folder.entries:
            if len(some) < _SAMPLES and entry.directory is not None and not entry.is_relocated_record:
                some += found[id(entry.directory)]
        found[id(folder)] = tuple(some[:_SAMPLES])
    return found


class _TreeMatcher(Struct, frozen=True):
    """Two trees. ``samples``: of ``other``."""

    primary: EditableTree
    other: EditableTree
    named: _DataIndex
    samples: dict[int, tuple[Lba, ...]]

    def pairs(self, one: EditableDirectory, two: EditableDirectory) -> Iterator[tuple[DirectoryEntry, DirectoryEntry]]:
        """Entries of folder ``one`` and those of ``two`` that are the same."""
        known = _CandidateIndex(one, self.named)
        taken: set[int] = set()
        left: list[DirectoryEntry] = []
        for match in two.entries:
            found = None if match.is_hidden else self._first(known.alike(match, self.samples), taken)
            if found is not None:
                yield found, match
            elif not match.is_hidden:
                left.append(match)
        by_made = self._by_made(one, taken) if left else {}
        for match in left:
            names = (
                match.identifier,
                self.primary.naming.make_identifier(match.shown_name, match.directory is not None, ""),
            )
            same = (by_made.get((name, match.directory is not None)) for name in names)
            found = self._first((entry for entry in same if entry is not None), taken)
            if found is not None:
                yield found, match
                continue
            others = by_made.values() if len(left) * len(by_made) < _MOST_COMPARED else ()
            likely = [entry for entry in others if id(entry) not in taken and _shortened(entry, match)]
            if len({id(entry) for entry in likely}) == 1:
                taken.add(id(likely[0]))
                yield likely[0], match

    @staticmethod
    def _first(entries: Iterator[DirectoryEntry], taken: set[int]) -> DirectoryEntry | None:
        found = next((entry for entry in entries if id(entry) not in taken), None)
        taken |= {id(found)}
        return found

    def _by_made(self, one: EditableDirectory, taken: set[int]) -> dict[tuple[bytes, bool], DirectoryEntry]:
        """What nothing but a name tells of, by the identifiers that it has here and would have there."""
        found: dict[tuple[bytes, bool], DirectoryEntry] = {}
        for entry in one.entries:
            if entry.is_hidden or id(entry) in taken or (entry.directory is None and entry.records[0].length):
                continue
            directory = entry.directory is not None
            found.setdefault((entry.identifier, directory), entry)
            found.setdefault(
                (self.other.naming.make_identifier(entry.primary_name or b"", directory, ""), directory), entry
            )
        return found


def _shortened(known: DirectoryEntry, match: DirectoryEntry) -> bool:
    """The name of ``known`` has the letters and digits that one of ``match`` begins with, its extension too."""
    if (known.directory is None) != (match.directory is None):
        return False
    (base, _, ending), (other, _, other_ending) = (one.shown_name.lower().rpartition(b".") for one in (known, match))
    pairs = ((base or ending, other or other_ending), (ending if base else b"", other_ending if other else b""))
    return all(_letters(longer).startswith(_letters(short)) for short, longer in pairs) and bool(_letters(pairs[0][0]))


def _letters(name: bytes) -> bytes:
    return re.sub(rb"[^a-z0-9]", b"", name)


class _CandidateIndex:
    """The entries of a folder of the primary tree, as they may be looked for."""

    def __init__(self, folder: EditableDirectory, named: _DataIndex) -> None:
        self._folder, self._named = folder, named
        entries = [entry for entry in folder.entries if not entry.is_hidden]
        self._by_name = {entry.primary_name or b"": entry for entry in entries}
        self._by_folded = {name.lower(): entry for name, entry in self._by_name.items()}
        self._by_data: dict[Lba, list[DirectoryEntry]] = {}
        for entry in entries:
            if entry.directory is None and entry.records[0].length:
                self._by_data.setdefault(entry.records[0].lba, []).append(entry)
        children = [(named.number[id(entry.directory)], entry) for entry in entries if entry.directory is not None]
        children.sort(key=lambda child: child[0])
        self._numbers, self._children = [number for number, _ in children], [entry for _, entry in children]

    def alike(self, match: DirectoryEntry, samples: dict[int, tuple[Lba, ...]]) -> Iterator[DirectoryEntry]:
        """What ``match`` may be, the likeliest first."""
        named = (self._by_name.get(match.shown_name), self._by_folded.get(match.shown_name.lower()))
        by_name = [entry for entry in named if entry is not None]
        if match.directory is not None:
            yield from (entry for entry in by_name if entry.directory is not None)
            yield from self._above(samples[id(match.directory)])
        elif match.records[0].length:
            same = self._by_data.get(match.records[0].lba, [])
            yield from (entry for entry in by_name if entry.records[0].lba == match.records[0].lba and entry in same)
            yield from same
        else:
            yield from (entry for entry in by_name if entry.directory is None and not entry.records[0].length)

    def _above(self, data: tuple[Lba, ...]) -> Iterator[DirectoryEntry]:
        """The directories in the folder that these data are named below."""
        for lba in data:
            number = self._named.below(self._folder, lba)
            if number is not None:
                at = bisect_left(self._numbers, number + 1) - 1
                if at >= 0:
                    yield self._children[at]
