"""Which entries of another tree are the same things as those of the primary one."""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator

from msgspec import Struct

from cosremaster.io.files import FileSource
from cosremaster.iso.model import IsoTree
from cosremaster.iso.tree_edit.directories import Entry, Folder, FolderTree, read_folders
from cosremaster.units import Lba

_MOST_COMPARED = 10**6
_SAMPLES = 4
"""Files by whose data a directory is known that has another name in the other tree."""


def aligned_folders(source: FileSource, image_trees: Iterable[IsoTree]) -> list[FolderTree]:
    """What :func:`read_folders` reads, the entries of all trees with the keys of the first one's."""
    primary, *others = read_folders(source, image_trees)
    for other in others:
        align(primary, other)
    return [primary, *others]


def align(primary: FolderTree, other: FolderTree) -> None:
    """Gives the entries of ``other`` the keys of those of ``primary`` that are the same things: by their data, else by
    their names; directories by their names, else by what is in them. All others lose their keys."""
    for folder in other.folders():
        for entry in folder.entries:
            entry.key = None
    alike = _Alike(primary, other, _Named(primary), _samples(other))
    waiting = [(primary.root, other.root)]
    while waiting:
        one, two = waiting.pop()
        for known, match in alike.pairs(one, two):
            match.key = known.key
            if known.folder is not None and match.folder is not None:
                waiting.append((known.folder, match.folder))


class _Named:
    """Where in a tree data are named. Folders have numbers, those below one the numbers behind its own."""

    def __init__(self, tree: FolderTree) -> None:
        folders = list(tree.folders())
        self.number = {id(folder): number for number, folder in enumerate(folders)}
        self.end = {id(folder): number + 1 for number, folder in enumerate(folders)}
        self._by_data: dict[Lba, list[int]] = {}
        for number, folder in reversed(list(enumerate(folders))):
            if folder.above is not None and folder is not tree.root:
                self.end[id(folder.above)] = max(self.end[id(folder.above)], self.end[id(folder)])
            for lba in _own_data(folder):
                self._by_data.setdefault(lba, []).append(number)
        for numbers in self._by_data.values():
            numbers.reverse()

    def below(self, folder: Folder, lba: Lba) -> int | None:
        """The number of the first folder below ``folder`` that names data at ``lba``."""
        numbers = self._by_data.get(lba, [])
        at = bisect_right(numbers, self.number[id(folder)])
        return numbers[at] if at < len(numbers) and numbers[at] < self.end[id(folder)] else None


def _own_data(folder: Folder) -> set[Lba]:
    return {entry.records[0].lba for entry in folder.entries if entry.folder is None and entry.records[0].length}


def _samples(tree: FolderTree) -> dict[int, tuple[Lba, ...]]:
    """Some data that are named in or below each folder, by its id."""
    found: dict[int, tuple[Lba, ...]] = {}
    for folder in reversed(list(tree.folders())):
        some = sorted(_own_data(folder))[:_SAMPLES]
        for entry in folder.entries:
            if len(some) < _SAMPLES and entry.folder is not None and not entry.led_to:
                some += found[id(entry.folder)]
        found[id(folder)] = tuple(some[:_SAMPLES])
    return found


class _Alike(Struct, frozen=True):
    """Two trees. ``samples``: of ``other``."""

    primary: FolderTree
    other: FolderTree
    named: _Named
    samples: dict[int, tuple[Lba, ...]]

    def pairs(self, one: Folder, two: Folder) -> Iterator[tuple[Entry, Entry]]:
        """Entries of folder ``one`` and those of ``two`` that are the same."""
        known = _Known(one, self.named)
        taken: set[int] = set()
        left: list[Entry] = []
        for match in two.entries:
            found = None if match.hidden else self._first(known.alike(match, self.samples), taken)
            if found is not None:
                yield found, match
            elif not match.hidden:
                left.append(match)
        by_made = self._by_made(one, taken) if left else {}
        for match in left:
            names = (match.identifier, self.primary.style.made(match.shown, match.folder is not None, ""))
            same = (by_made.get((name, match.folder is not None)) for name in names)
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
    def _first(entries: Iterator[Entry], taken: set[int]) -> Entry | None:
        found = next((entry for entry in entries if id(entry) not in taken), None)
        taken |= {id(found)}
        return found

    def _by_made(self, one: Folder, taken: set[int]) -> dict[tuple[bytes, bool], Entry]:
        """What nothing but a name tells of, by the identifiers that it has here and would have there."""
        found: dict[tuple[bytes, bool], Entry] = {}
        for entry in one.entries:
            if entry.hidden or id(entry) in taken or (entry.folder is None and entry.records[0].length):
                continue
            directory = entry.folder is not None
            found.setdefault((entry.identifier, directory), entry)
            found.setdefault((self.other.style.made(entry.key or b"", directory, ""), directory), entry)
        return found


def _shortened(known: Entry, match: Entry) -> bool:
    """The name of ``known`` has the letters and digits that one of ``match`` begins with, its extension too."""
    if (known.folder is None) != (match.folder is None):
        return False
    (base, _, ending), (other, _, other_ending) = (one.shown.lower().rpartition(b".") for one in (known, match))
    pairs = ((base or ending, other or other_ending), (ending if base else b"", other_ending if other else b""))
    return all(_letters(longer).startswith(_letters(short)) for short, longer in pairs) and bool(_letters(pairs[0][0]))


def _letters(name: bytes) -> bytes:
    return re.sub(rb"[^a-z0-9]", b"", name)


class _Known:
    """The entries of a folder of the primary tree, as they may be looked for."""

    def __init__(self, folder: Folder, named: _Named) -> None:
        self._folder, self._named = folder, named
        entries = [entry for entry in folder.entries if not entry.hidden]
        self._by_name = {entry.key or b"": entry for entry in entries}
        self._by_folded = {name.lower(): entry for name, entry in self._by_name.items()}
        self._by_data: dict[Lba, list[Entry]] = {}
        for entry in entries:
            if entry.folder is None and entry.records[0].length:
                self._by_data.setdefault(entry.records[0].lba, []).append(entry)
        children = [(named.number[id(entry.folder)], entry) for entry in entries if entry.folder is not None]
        children.sort(key=lambda child: child[0])
        self._numbers, self._children = [number for number, _ in children], [entry for _, entry in children]

    def alike(self, match: Entry, samples: dict[int, tuple[Lba, ...]]) -> Iterator[Entry]:
        """What ``match`` may be, the likeliest first."""
        named = (self._by_name.get(match.shown), self._by_folded.get(match.shown.lower()))
        by_name = [entry for entry in named if entry is not None]
        if match.folder is not None:
            yield from (entry for entry in by_name if entry.folder is not None)
            yield from self._above(samples[id(match.folder)])
        elif match.records[0].length:
            same = self._by_data.get(match.records[0].lba, [])
            yield from (entry for entry in by_name if entry.records[0].lba == match.records[0].lba and entry in same)
            yield from same
        else:
            yield from (entry for entry in by_name if entry.folder is None and not entry.records[0].length)

    def _above(self, data: tuple[Lba, ...]) -> Iterator[Entry]:
        """The directories in the folder that these data are named below."""
        for lba in data:
            number = self._named.below(self._folder, lba)
            if number is not None:
                at = bisect_left(self._numbers, number + 1) - 1
                if at >= 0:
                    yield self._children[at]
