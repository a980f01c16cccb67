"""Match the entries of a Joliet, UDF or second ISO 9660 tree with the entries of the primary tree."""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from itertools import takewhile

from cosremaster.io.source import ByteSource
from cosremaster.iso.model import IsoTree
from cosremaster.iso.tree_edit.directories import DirectoryEntry, EditableDirectory, EditableTree
from cosremaster.iso.tree_edit.read_editable import read_editable_trees
from cosremaster.records import Struct
from cosremaster.units import Lba

_MAX_COMPARISONS = 10**6
"""The most pairs of names that are compared in one directory."""
_MAX_NAMESAKES = 64
"""The most names of one file that are compared by their letters."""
_SAMPLES = 4
"""The number of files whose data identify a directory that has another name in the other tree."""


def read_matched_trees(source: ByteSource, image_trees: Iterable[IsoTree]) -> list[EditableTree]:
    """Return the trees of :func:`read_editable_trees`, all entries with the names that the primary tree gives them.

    :raises ImageError: when a record is malformed.
    :raises UnsupportedError: when a directory has an extended attribute record.
    """
    primary, *others = read_editable_trees(source, image_trees)
    for other in others:
        match_entries(primary, other)
    return [primary, *others]


def match_entries(primary: EditableTree, other: EditableTree) -> None:
    """Set ``primary_name`` of each entry of ``other`` to the name of the same entry of ``primary``.

    Files match by their data, else by their names; directories by their names, else by the files below them. What
    ``primary`` does not show keeps its own name. Where several entries of ``primary`` may be the same one, the name is
    None.
    """
    matcher = _TreeMatcher(primary, other)
    waiting: list[tuple[EditableDirectory | None, EditableDirectory]] = [(primary.root, other.root)]
    while waiting:
        primary_directory, directory = waiting.pop()
        for primary_entry, entry in matcher.pair_directory(primary_directory, directory):
            if entry.directory is not None:
                waiting.append((primary_entry.directory if primary_entry else None, entry.directory))


class _DataIndex:
    """Finds the directories of a tree that name a file's data.

    ``number`` and ``end``: by a directory's id, its number, and the number behind those of the directories below it.
    """

    def __init__(self, tree: EditableTree) -> None:
        """Number the directories of ``tree``, each before those below it, and index the data of their files."""
        directories = list(tree.directories())
        self.number = {id(directory): number for number, directory in enumerate(directories)}
        self.end = {id(directory): number + 1 for number, directory in enumerate(directories)}
        self._numbers_by_data: dict[Lba, list[int]] = {}
        for number, directory in reversed(list(enumerate(directories))):
            if directory.named_in is not None and directory is not tree.root:
                above = id(directory.named_in)
                self.end[above] = max(self.end[above], self.end[id(directory)])
            for lba in _file_blocks(directory):
                self._numbers_by_data.setdefault(lba, []).append(number)
        for numbers in self._numbers_by_data.values():
            numbers.reverse()

    def find_below(self, directory: EditableDirectory, lba: Lba) -> int | None:
        """Return the number of the first directory below ``directory`` that names the data at ``lba``."""
        numbers = self._numbers_by_data.get(lba, [])
        at = bisect_right(numbers, self.number[id(directory)])
        return numbers[at] if at < len(numbers) and numbers[at] < self.end[id(directory)] else None


def _file_blocks(directory: EditableDirectory) -> set[Lba]:
    """Return the first blocks of the data of all files in ``directory``."""
    return {entry.records[0].lba for entry in directory.entries if entry.has_data}


def _sample_data(tree: EditableTree) -> dict[int, tuple[Lba, ...]]:
    """Return, by each directory's id, the first blocks of a few files in or below it."""
    samples: dict[int, tuple[Lba, ...]] = {}
    for directory in reversed(list(tree.directories())):
        blocks = sorted(_file_blocks(directory))[:_SAMPLES]
        for entry in directory.entries:
            if len(blocks) < _SAMPLES and entry.directory is not None and not entry.is_relocated_record:
                blocks += samples[id(entry.directory)]
        samples[id(directory)] = tuple(blocks[:_SAMPLES])
    return samples


class _TreeMatcher:
    """Matches the directories of two trees."""

    def __init__(self, primary: EditableTree, other: EditableTree) -> None:
        """Begin with no entries that match; the entries of both trees are as on the image."""
        self.primary, self.other = primary, other

    @cached_property
    def primary_index(self) -> _DataIndex:
        """The data of the files of ``primary``; few trees are matched by them."""
        return _DataIndex(self.primary)

    @cached_property
    def samples(self) -> dict[int, tuple[Lba, ...]]:
        """Samples of ``other``, see :func:`_sample_data`."""
        return _sample_data(self.other)

    def pair_directory(
        self, primary_directory: EditableDirectory | None, directory: EditableDirectory
    ) -> list[tuple[DirectoryEntry | None, DirectoryEntry]]:
        """Set the primary names in ``directory``; return each entry, at least of a directory, with that of ``primary``.

        The files of directories that nobody asked for yet are matched as soon as somebody does.
        """
        if primary_directory is not None and primary_directory.unread and directory.unread:
            pairs = _pair_by_name(primary_directory, directory)
            if pairs is not None:
                self._match_later(primary_directory, directory)
                return pairs
        return self.match_now(primary_directory, directory, directory.entries)

    def match_now(
        self, primary_directory: EditableDirectory | None, directory: EditableDirectory,
        entries: Sequence[DirectoryEntry],
    ) -> list[tuple[DirectoryEntry | None, DirectoryEntry]]:  # fmt: skip
        """Set the primary names of ``entries`` of ``directory``, and return those that match with what they match."""
        for entry in entries:
            entry.primary_name = None
        shown: Iterable[tuple[DirectoryEntry | None, DirectoryEntry]]
        shown = ((None, entry) for entry in entries if not entry.is_hidden)
        pairs = list(self.match_entries(primary_directory, entries) if primary_directory else shown)
        for primary_entry, entry in pairs:
            entry.primary_name = primary_entry.primary_name if primary_entry else entry.shown_name
            entry.is_outside_primary = primary_entry is None
        return pairs

    def _match_later(self, primary_directory: EditableDirectory, directory: EditableDirectory) -> None:
        """Match the files of both directories when the entries of either are first read, before any is changed."""
        assert primary_directory.unread is not None and directory.unread is not None
        later = _LaterMatch(self, primary_directory, directory)
        primary_directory.unread.followers += (later,)
        directory.unread.followers += (later,)

    def match_entries(
        self, primary_directory: EditableDirectory, entries: Iterable[DirectoryEntry]
    ) -> Iterator[tuple[DirectoryEntry | None, DirectoryEntry]]:
        """Yield each of the ``entries`` of the other tree with the same entry of ``primary_directory``, None for none.

        Entries that may be several ones are left out.
        """
        candidates = _CandidateIndex(self, primary_directory)
        taken: set[int] = set()
        unmatched: list[DirectoryEntry] = []
        for entry in entries:
            if entry.is_hidden:
                continue
            match = _take_first(candidates.find_candidates(entry), taken)
            if match is not None:
                yield match, entry
            else:
                unmatched.append(entry)
        remaining: list[DirectoryEntry] = []
        for entry in unmatched:
            namesakes = candidates.find_namesakes(entry, folded=self.primary.rock_ridge is None)
            match = _take_first(namesakes, taken)
            if match is not None:
                yield match, entry
            else:
                remaining.append(entry)
        if remaining:
            yield from self._match_by_identifier(remaining, primary_directory, taken)

    def _match_by_identifier(
        self, unmatched: list[DirectoryEntry], primary_directory: EditableDirectory, taken: set[int]
    ) -> Iterator[tuple[DirectoryEntry | None, DirectoryEntry]]:
        """Yield the pairs that only identifiers tell: equal ones, else the only one that looks shortened.

        An entry that can be none of them is paired with None.
        """
        by_identifier = self._index_identifiers(primary_directory, taken)
        compares_all = len(unmatched) * len(by_identifier) < _MAX_COMPARISONS
        remaining: list[DirectoryEntry] = []
        for entry in unmatched:
            is_directory = entry.directory is not None
            own = self.primary.naming.make_identifier(entry.shown_name, is_directory, "")
            equal = (by_identifier.get((identifier, is_directory)) for identifier in (entry.identifier, own))
            match = _take_first((candidate for candidate in equal if candidate is not None), taken)
            if match is not None:
                yield match, entry
                continue
            likely = [
                candidate
                for candidate in (by_identifier.values() if compares_all and not entry.has_data else ())
                if id(candidate) not in taken and _is_shortened(candidate, entry)
            ]
            if len({id(candidate) for candidate in likely}) == 1:
                taken.add(id(likely[0]))
                yield likely[0], entry
            else:
                remaining.append(entry)
        candidates = (entry for entry in primary_directory.entries if not (entry.is_hidden or entry.has_data))
        kinds = {entry.directory is not None for entry in candidates if id(entry) not in taken}
        for entry in remaining:
            has_data = bool(self.samples[id(entry.directory)]) if entry.directory is not None else entry.has_data
            if has_data or (entry.directory is not None) not in kinds:
                yield None, entry

    def _index_identifiers(
        self, directory: EditableDirectory, taken: set[int]
    ) -> dict[tuple[bytes, bool], DirectoryEntry]:
        """Return the entries of ``directory`` that no data identify, by identifier and by whether it is a directory.

        Each has the identifier of the primary tree and the one that the other tree would give it.
        """
        by_identifier: dict[tuple[bytes, bool], DirectoryEntry] = {}
        for entry in directory.entries:
            if entry.is_hidden or id(entry) in taken or entry.has_data:
                continue
            is_directory = entry.directory is not None
            by_identifier.setdefault((entry.identifier, is_directory), entry)
            other = self.other.naming.make_identifier(entry.primary_name or b"", is_directory, "")
            by_identifier.setdefault((other, is_directory), entry)
        return by_identifier


class _LaterMatch(Struct, eq=False):
    """Matches the files of two directories, once; an image has as many of them as directories."""

    matcher: _TreeMatcher
    primary_directory: EditableDirectory
    directory: EditableDirectory
    is_done: bool = False

    def __call__(self) -> None:
        """Match the files, if they are not."""
        if not self.is_done:
            self.is_done = True
            _read_both(self.primary_directory, self.directory)
            files = [entry for entry in self.directory.entries if entry.directory is None]
            self.matcher.match_now(self.primary_directory, self.directory, files)


def _read_both(*directories: EditableDirectory) -> None:
    """Read the entries of both directories."""
    for directory in directories:
        len(directory.entries)


def _pair_by_name(
    primary_directory: EditableDirectory, directory: EditableDirectory
) -> list[tuple[DirectoryEntry | None, DirectoryEntry]] | None:
    """Return the entries of the directories in ``directory`` with those of the same name; None where one has none.

    Upper and lower case count only where that tells names apart.
    """
    by_name = {entry.shown_name: entry for entry in primary_directory.directory_entries}
    folded = {name.lower(): entry for name, entry in by_name.items()}
    if not len(primary_directory.directory_entries) == len(by_name) == len(folded):
        return None
    pairs = list[tuple[DirectoryEntry | None, DirectoryEntry]]()
    for entry in directory.directory_entries:
        match = by_name.get(entry.shown_name) or folded.get(entry.shown_name.lower())
        if match is None:
            return None
        pairs.append((match, entry))
    if len({id(match) for match, _ in pairs}) < len(pairs):
        return None
    for match, entry in pairs:
        entry.primary_name, entry.is_outside_primary = None if match is None else match.primary_name, False
    return pairs


def _take_first(candidates: Iterator[DirectoryEntry], taken: set[int]) -> DirectoryEntry | None:
    """Return the first candidate whose id is not in ``taken``, and add its id there."""
    match = next((candidate for candidate in candidates if id(candidate) not in taken), None)
    taken |= {id(match)}
    return match


def _is_shortened(short: DirectoryEntry, long: DirectoryEntry) -> bool:
    """Return whether the letters and digits of ``long``'s name begin with those of ``short``'s, extensions too."""
    if (short.directory is None) != (long.directory is None):
        return False
    short_base, _, short_extension = short.shown_name.lower().rpartition(b".")
    long_base, _, long_extension = long.shown_name.lower().rpartition(b".")
    stem = _keep_alphanumeric(short_base or short_extension)
    extension = _keep_alphanumeric(short_extension if short_base else b"")
    return (
        bool(stem)
        and _keep_alphanumeric(long_base or long_extension).startswith(stem)
        and _keep_alphanumeric(long_extension if long_base else b"").startswith(extension)
    )


def _sort_by_likeness(name: bytes, candidates: list[DirectoryEntry]) -> list[DirectoryEntry]:
    """Return ``candidates``, the first ones those whose names have the longest beginning in common with ``name``."""
    if not 1 < len(candidates) <= _MAX_NAMESAKES:
        return candidates
    folded = name.lower()

    def count_common(candidate: DirectoryEntry) -> int:
        """Return how many bytes both names begin with."""
        pairs = zip(folded, (candidate.primary_name or b"").lower(), strict=False)
        return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))

    return sorted(candidates, key=count_common, reverse=True)


def _keep_alphanumeric(name: bytes) -> bytes:
    """Return the lower-case letters and the digits of ``name``."""
    return re.sub(rb"[^a-z0-9]", b"", name)


class _CandidateIndex:
    """The entries of a directory of the primary tree, by name and by data."""

    def __init__(self, matcher: _TreeMatcher, directory: EditableDirectory) -> None:
        """Index the entries of ``directory`` that are not hidden."""
        self._matcher, self._directory = matcher, directory
        self._entries = entries = [entry for entry in directory.entries if not entry.is_hidden]
        self._by_name = {entry.primary_name or b"": entry for entry in entries}
        self._by_folded_name = {name.lower(): entry for name, entry in self._by_name.items()}
        self._by_data: dict[Lba, list[DirectoryEntry]] = {}
        for entry in entries:
            if entry.has_data:
                self._by_data.setdefault(entry.records[0].lba, []).append(entry)

    @cached_property
    def _children(self) -> tuple[list[int], list[DirectoryEntry]]:
        """The numbers of the directories among the entries, and their entries."""
        number = self._matcher.primary_index.number
        children = [(number[id(entry.directory)], entry) for entry in self._entries if entry.directory is not None]
        children.sort(key=lambda child: child[0])
        return [number for number, _ in children], [entry for _, entry in children]

    def find_candidates(self, entry: DirectoryEntry) -> Iterator[DirectoryEntry]:
        """Yield the entries of the primary tree that may be ``entry`` of the other tree, the likeliest first."""
        named = (self._by_name.get(entry.shown_name), self._by_folded_name.get(entry.shown_name.lower()))
        by_name = [candidate for candidate in named if candidate is not None]
        if entry.directory is not None:
            yield from (candidate for candidate in by_name if candidate.directory is not None)
            yield from self._find_by_samples(self._matcher.samples[id(entry.directory)])
        elif entry.has_data:
            lba = entry.records[0].lba
            same_data = self._by_data.get(lba, [])
            yield from (candidate for candidate in by_name if candidate in same_data)
            yield from _sort_by_likeness(entry.shown_name, same_data)
        else:
            yield from (candidate for candidate in by_name if candidate.directory is None and not candidate.has_data)

    def find_namesakes(self, entry: DirectoryEntry, *, folded: bool) -> Iterator[DirectoryEntry]:
        """Yield the entries of the primary tree, directories only for a directory, that are called as ``entry`` is.

        ``folded``: upper and lower case do not count.
        """
        names = [self._by_name.get(entry.shown_name)]
        names += [self._by_folded_name.get(entry.shown_name.lower())] if folded else []
        is_directory = entry.directory is not None
        for candidate in names:
            if candidate is not None and (candidate.directory is not None) == is_directory:
                yield candidate

    def _find_by_samples(self, samples: tuple[Lba, ...]) -> Iterator[DirectoryEntry]:
        """Yield the directories in this directory that lead to files with these data."""
        numbers, children = self._children
        for lba in samples:
            number = self._matcher.primary_index.find_below(self._directory, lba)
            if number is not None:
                at = bisect_left(numbers, number + 1) - 1
                if at >= 0:
                    yield children[at]
