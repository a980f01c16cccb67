"""A directory tree as it can be changed: folders, and the entries in them in the order of their records.

What :mod:`cosremaster.iso.trees` reads as values for everybody, read once more with what only changing it needs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from cosremaster.errors import ImageError, UnsupportedError
from cosremaster.files import FileSource
from cosremaster.iso.model import ASSOCIATED, DIRECTORY, MULTI_EXTENT, Directory, DirectoryRecord, Tree
from cosremaster.iso.names import Naming, joliet_style, style_of
from cosremaster.iso.records import Descriptor, place_of, read_directory
from cosremaster.iso.ridge import Dialect
from cosremaster.iso.susp import fields, read_fields, skip_of
from cosremaster.iso.trees import JOLIET, entry_name, extent_of
from cosremaster.nodes import Node, join
from cosremaster.units import BLOCK, Lba, lba_bytes

DEEPEST = 8
"""Levels of directories, the root's the first (6.8.2.1)."""


@dataclass(slots=True, eq=False)
class Entry:
    """A name in a folder. ``key``: its name in the primary tree, None where that has no such; ``shown``: in its own.

    ``records``: those on the image, all of one file; none: a new one. ``folder``: what it leads to. ``placeholder``:
    its folder is recorded elsewhere (CL, RRIP 4.1.5.1), by an entry that is ``hidden``, as an associated file's is.
    ``renamed``: its records are made anew, for its key. ``node``: what a new one is. ``more``: how many records a
    file's new size takes beside those it has.
    """

    key: bytes | None
    identifier: bytes
    records: tuple[DirectoryRecord, ...] = ()
    folder: Folder | None = None
    placeholder: bool = False
    hidden: bool = False
    renamed: bool = False
    node: Node | None = None
    more: int = 0
    shown: bytes = b""

    @property
    def is_directory(self) -> bool:
        """It leads to a folder."""
        return self.folder is not None

    @property
    def fresh(self) -> bool:
        """It has no record that can stay as it is."""
        return self.renamed or not self.records


@dataclass(slots=True, eq=False)
class Folder:
    """A directory. ``extent``: where it stands on the image, None for a new one; ``node``: what a new one is.

    ``parent``: where its ``..`` leads, itself for the root; ``above``: the folder that its name stands in, another
    one where it is relocated; ``level``: the root's is 1. ``entry``: its own record's. ``changed``: it is laid anew;
    ``reparented``: its ``..`` is made anew; ``moves``: it gets other blocks.
    """

    extent: Directory | None
    parent: Folder | None
    level: int
    above: Folder | None = None
    entry: Entry | None = None
    node: Node | None = None
    entries: list[Entry] = field(default_factory=list)
    changed: bool = False
    reparented: bool = False
    moves: bool = False

    def find(self, key: bytes) -> Entry | None:
        """The entry that people see under ``key``."""
        return next((one for one in self.entries if one.key == key and not one.hidden), None)

    @property
    def blocks(self) -> int:
        """Blocks on the image."""
        return -(-self.extent.length // BLOCK) if self.extent else 0

    @property
    def subfolders(self) -> int:
        """The directories in it, as their parents count them in link counts."""
        return sum(1 for one in self.entries if one.folder is not None)


@dataclass(slots=True, eq=False)
class FolderTree:
    """The folders of one root. ``kind``: in words; ``base``: the block from which its numbers count; ``descriptors``:
    those of the image that have it, none for UDF.

    ``dialect``: how Rock Ridge is written, None without; ``counts``: directories' link counts count their
    subdirectories; ``attic``: the folder that relocated directories are recorded in, None where there is none.
    """

    kind: str
    base: Lba
    descriptors: tuple[Descriptor, ...]
    root: Folder
    style: Naming
    dialect: Dialect | None = None
    counts: bool = False
    attic: Folder | None = None

    def folders(self) -> Iterator[Folder]:
        """Every folder, those above before those below."""
        waiting = [self.root]
        while waiting:
            folder = waiting.pop()
            yield folder
            waiting += [one.folder for one in reversed(folder.entries) if one.folder and not one.hidden]

    def shown_files(self) -> Iterator[tuple[bytes, Entry]]:
        """Everything but directories, by the path that this tree shows."""
        waiting = [(b"", self.root)]
        while waiting:
            path, folder = waiting.pop()
            for entry in folder.entries:
                if entry.hidden:
                    continue
                below = join(path, entry.shown)
                if entry.folder is not None:
                    waiting.append((below, entry.folder))
                else:
                    yield below, entry

    def spread_moves(self) -> None:
        """Whatever lies below a directory that moves moves too: libarchive, which reads an image front to back, finds
        no directory that stands before the one that names it."""
        spread = True
        while spread:  # a relocated directory may be met before the one that it is recorded in
            spread = False
            for folder in self.folders():
                if not folder.moves and (folder.extent is None or _must_follow(folder, self.root)):
                    folder.moves = folder.changed = spread = True

    def locate(self, path: bytes) -> tuple[Folder, Entry] | None:
        """The entry at ``path`` and the folder it is in; None where there is none."""
        parent, _, name = path.rpartition(b"/")
        folder = self.folder_at(parent)
        entry = folder.find(name) if folder else None
        return (folder, entry) if folder and entry else None

    def folder_at(self, path: bytes) -> Folder | None:
        """The folder at ``path``; None where there is none."""
        folder: Folder | None = self.root
        for name in path.split(b"/") if path else ():
            entry = folder.find(name) if folder else None
            folder = entry.folder if entry else None
        return folder


def _must_follow(folder: Folder, root: Folder) -> bool:
    if folder is root or folder.parent is None or folder.above is None or folder.extent is None:
        return False
    before = folder.reparented and folder.parent.extent and folder.extent.lba < folder.parent.extent.lba
    return bool(folder.parent.moves or folder.above.moves or before)


def read_folders(source: FileSource, image_trees: Iterable[Tree]) -> list[FolderTree]:
    """A tree of folders for each root, the primary one first, whose names are everybody's keys.

    :raises ImageError: a record is malformed. :raises UnsupportedError: a directory has an extended attribute record.
    """
    groups: dict[tuple[Lba, int], list[tuple[Tree, Descriptor]]] = {}
    for tree in image_trees:
        descriptor = Descriptor(tree.descriptor, source.at(lba_bytes(tree.descriptor), BLOCK))
        groups.setdefault((Lba(tree.base + descriptor.root.lba), tree.base), []).append((tree, descriptor))
    found = [_read_one(source, group) for group in groups.values()]
    for other in found[1:]:
        align(found[0], other)
    return found


def _read_one(source: FileSource, group: list[tuple[Tree, Descriptor]]) -> FolderTree:
    trees, descriptors = tuple(tree for tree, _ in group), tuple(one for _, one in group)
    base, joliet = trees[0].base, trees[0].kind == JOLIET
    root = Folder(Directory(Lba(base + descriptors[0].root.lba), descriptors[0].root.length), None, 1)
    root.parent = root
    assert root.extent is not None
    head = source.at(lba_bytes(root.extent.lba), 255)
    skip = None if joliet else skip_of(head)
    folders, sample = _walk(source, root, base, skip, joliet)
    files = [one.identifier for folder in folders for one in folder.entries if one.folder is None]
    names = [one.identifier for folder in folders for one in folder.entries if one.folder is not None]
    enhanced = any(tree.kind == "ISO 9660:1999" for tree in trees)
    style: Naming = joliet_style(files, names) if joliet else style_of(files, names, enhanced=enhanced)
    attic = next((folder for folder in folders for one in folder.entries if one.hidden and one.folder), None)
    dialect, counts = None, False
    if skip is not None:
        own = [one for _, one in fields(source, head[: head[0]], lba_bytes(root.extent.lba), skip, base)]
        dialect = Dialect.of(own if sample is None else sample, skip)
        px = next((one for one in own if one[:2] == b"PX" and len(one) > 16), b"")
        counts = int.from_bytes(px[12:16], "little") == 2 + root.subfolders
    return FolderTree(trees[0].kind, base, descriptors, root, style, dialect, counts, attic)


def _walk(
    source: FileSource, root: Folder, base: Lba, skip: int | None, joliet: bool
) -> tuple[list[Folder], list[bytes] | None]:
    """Every folder below ``root``, physically, and the Rock Ridge fields of one file's record."""
    found, waiting = list[Folder](), [root]
    sample: list[bytes] | None = None
    stand: dict[Lba, Folder] = {root.extent.lba: root} if root.extent else {}
    placeholders: list[tuple[Folder, Entry, Lba]] = []
    while waiting:
        folder = waiting.pop()
        found.append(folder)
        assert folder.extent is not None
        run: list[DirectoryRecord] = []
        for record, raw in read_directory(source, folder.extent, (), base):
            extra = None if skip is None else read_fields(source, raw, record.offset, skip, base)
            key = entry_name(record, extra, joliet=joliet)
            if record.flags & DIRECTORY:
                if not record.plain:
                    raise UnsupportedError(
                        "has an extended attribute record, so nothing can be added to or taken from its tree",
                        place_of(source.place, record),
                    )
                below = Folder(extent_of(record), folder, folder.level + 1, folder)
                below.entry = Entry(key, record.identifier, (record,), below, shown=key)
                below.entry.hidden = extra is not None and extra.relocated
                if record.lba in stand:
                    raise ImageError("directory tree leads into itself", source.place.at(record.offset))
                stand[record.lba] = below
                folder.entries.append(below.entry)
                waiting.append(below)
                continue
            run.append(record)
            if record.flags & MULTI_EXTENT:
                continue
            entry = Entry(key, record.identifier, tuple(run), hidden=bool(record.flags & ASSOCIATED), shown=key)
            run = []
            folder.entries.append(entry)
            if extra is not None and extra.child is not None:
                placeholders.append((folder, entry, extra.child))
            elif skip is not None and sample is None:
                sample = [one for _, one in fields(source, raw, record.offset, skip, base)]
    for folder, entry, lba in placeholders:
        if lba not in stand:
            raise ImageError("relocated directory is not where it should be", source.place.at(entry.records[0].offset))
        entry.folder, entry.placeholder = stand[lba], True
        stand[lba].above = folder
    return found, sample


def align(primary: FolderTree, other: FolderTree) -> None:
    """Gives the entries of ``other`` the keys of those of ``primary`` that are the same things."""
    ours, theirs, waiting = _data_below(primary), _data_below(other), [(primary.root, other.root)]
    while waiting:
        one, two = waiting.pop()
        for known, match in _matches(one, two, ours, theirs):
            match.key = known.key
            if known.folder is not None and match.folder is not None:
                waiting.append((known.folder, match.folder))


def _matches(one: Folder, two: Folder, ours: _Data, theirs: _Data) -> Iterator[tuple[Entry, Entry]]:
    """Entries of folder ``one`` and those of ``two`` that are the same: by their data, else by their names;
    directories by their names, else by what is in them. All others of ``two`` lose their keys."""
    known = [entry for entry in one.entries if not entry.hidden]
    by_name = {entry.key or b"": entry for entry in known}
    by_folded = {name.lower(): entry for name, entry in by_name.items()}
    by_data: dict[Lba, list[Entry]] = {}
    for entry in known:
        if entry.folder is None and entry.records and entry.records[0].length:
            by_data.setdefault(entry.records[0].lba, []).append(entry)
    taken: set[int] = set()
    for match in two.entries:
        name, match.key = match.key or b"", None
        named = [entry for entry in (by_name.get(name), by_folded.get(name.lower())) if entry is not None]
        if match.folder is not None:
            below = theirs[id(match.folder)]
            alike = [entry for entry in named if entry.folder is not None]
            alike = alike or [entry for entry in known if entry.folder and below & ours[id(entry.folder)]]
        elif match.records[0].length:
            same = by_data.get(match.records[0].lba, [])
            alike = [entry for entry in named if any(entry is other for other in same)] or same
        else:
            alike = [entry for entry in named if entry.folder is None and not entry.records[0].length]
        found = next((entry for entry in alike if id(entry) not in taken), None)
        if found is not None:
            taken.add(id(found))
            yield found, match


_Data: TypeAlias = Mapping[int, frozenset[Lba]]
"""A folder's id -> where the data of the files below it begin."""


def _data_below(tree: FolderTree) -> _Data:
    found: dict[int, frozenset[Lba]] = {}
    for folder in reversed(list(tree.folders())):
        own = {entry.records[0].lba for entry in folder.entries if entry.folder is None and entry.records[0].length}
        below = [found[id(entry.folder)] for entry in folder.entries if entry.folder and not entry.hidden]
        found[id(folder)] = frozenset(own).union(*below)
    return found
