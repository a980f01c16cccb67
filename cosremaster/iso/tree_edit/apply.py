"""Apply edits to an editable tree: entries leave it, get other paths, and are added (xorriso: grafting).

The directories are changed in place. :class:`AppliedEdits` lists what left the tree and what is new in it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from cosremaster.errors import Place, UnsupportedError, printable
from cosremaster.iso.ecma119.identifiers import IdentifierAllocator
from cosremaster.iso.ecma119.records import ASSOCIATED
from cosremaster.iso.edits import IsoEdits
from cosremaster.iso.tree_edit.directories import MAX_LEVEL, UDF, DirectoryEntry, EditableDirectory, EditableTree
from cosremaster.iso.udf.nodes import encode_target
from cosremaster.records import Struct, field
from cosremaster.tree.nodes import Node, NodeKind
from cosremaster.tree.paths import parent_of
from cosremaster.units import BLOCK

MAX_NAME, MAX_TARGET, XORRISO_TARGET = 255, 4095, 1024
"""The most bytes of a name (POSIX NAME_MAX), of a symlink's text (Linux PATH_MAX), and of a symlink's text for libisofs
(LIBISOFS_NODE_PATH_MAX)."""
MAX_UDF_TARGET = BLOCK - 176
"""The most bytes of a symlink's path components inside its UDF file entry (ECMA-167, 4/14.9.23)."""


class AppliedEdits(Struct):
    """What the edits did to a tree.

    ``removed_entries``, ``removed_directories``: what is no longer in the tree.
    ``new_entries``: added entries by path.
    ``orphan_paths``: new paths whose directory the tree does not have.
    ``unknown_paths``: old paths that the tree does not have.
    ``unheld_paths``: new paths of what the tree cannot hold, such as symlinks in Joliet.
    """

    removed_entries: list[DirectoryEntry] = field(default_factory=list)
    removed_directories: list[EditableDirectory] = field(default_factory=list)
    new_entries: dict[bytes, DirectoryEntry] = field(default_factory=dict)
    orphan_paths: list[bytes] = field(default_factory=list)
    unknown_paths: list[bytes] = field(default_factory=list)
    unheld_paths: list[bytes] = field(default_factory=list)


def apply_edits(tree: EditableTree, edits: IsoEdits, place: Place) -> AppliedEdits:
    """Apply ``edits`` to ``tree``, and give identifiers to all entries that need records.

    :raises UnsupportedError: when the tree cannot hold an entry, has no identifier left for it, or has another entry
        of that name.
    """
    return _TreeEditor(tree, place).apply(edits)


class _PathIndex:
    """Finds entries of a tree by path, as long as no entry leaves the tree."""

    def __init__(self, tree: EditableTree, place: Place) -> None:
        """Index ``tree`` of the image at ``place``."""
        self._place = place
        self._directories: dict[bytes, EditableDirectory] = {b"": tree.root}
        self._entries: dict[int, dict[bytes, DirectoryEntry | None]] = {}
        """By the directory's id and by name; None where two entries have the name."""

    def find_directory(self, path: bytes) -> EditableDirectory | None:
        """Return the directory at ``path``, None where there is none.

        :raises UnsupportedError: when two entries have a name that is part of the path.
        """
        ancestor = path
        while ancestor not in self._directories:
            ancestor = parent_of(ancestor)
        directory: EditableDirectory | None = self._directories[ancestor]
        for name in path[len(ancestor) :].strip(b"/").split(b"/") if path != ancestor else ():
            entry = self._find_name(directory, name, path) if directory else None
            directory = entry.directory if entry else None
        if directory is not None:
            self._directories[path] = directory
        return directory

    def find_entry(self, path: bytes) -> tuple[EditableDirectory, DirectoryEntry] | None:
        """Return the entry at ``path`` and the directory that holds it, None where there is none.

        :raises UnsupportedError: when two entries have a name that is part of the path.
        """
        parent, _, name = path.rpartition(b"/")
        directory = self.find_directory(parent)
        entry = self._find_name(directory, name, path) if directory else None
        return (directory, entry) if directory and entry else None

    def add_entry(self, directory: EditableDirectory, entry: DirectoryEntry) -> None:
        """Note that ``entry`` is in ``directory`` now."""
        if id(directory) in self._entries and not entry.is_hidden:
            self._entries[id(directory)][entry.primary_name or b""] = entry

    def _find_name(self, directory: EditableDirectory, name: bytes, path: bytes) -> DirectoryEntry | None:
        """Return the entry called ``name`` in ``directory``, None where there is none."""
        if id(directory) not in self._entries:
            entries: dict[bytes, DirectoryEntry | None] = {}
            for entry in directory.entries:
                if entry.primary_name is not None and not entry.is_hidden:
                    entries[entry.primary_name] = None if entry.primary_name in entries else entry
            self._entries[id(directory)] = entries
        entries = self._entries[id(directory)]
        match = entries.get(name)
        if match is None and name in entries:
            what = f"two things on the image are called {printable(name)}, so nothing there can be changed by name"
            raise UnsupportedError(what, self._place.inside(path))
        return match


class _TreeEditor(Struct):
    """Applies edits to one tree of the image at ``place``.

    ``own_names``: the names that the tree shows of removed entries, by their directory's id and their primary name.
    """

    tree: EditableTree
    place: Place
    applied: AppliedEdits = field(default_factory=AppliedEdits)
    own_names: dict[tuple[int, bytes | None], bytes] = field(default_factory=dict)

    def apply(self, edits: IsoEdits) -> AppliedEdits:
        """Apply ``edits`` as :func:`apply_edits` says."""
        removed, moved = self._detach(edits)
        for entry in removed:
            self._drop(entry)
        self._check_relocation_dirs()
        arrivals: list[tuple[bytes, Node | list[DirectoryEntry]]] = [(node.path, node) for node in edits.added]
        arrivals += [(edits.renamed[old_path], entries) for old_path, entries in moved.items()]
        _relocate_deep_directories(self.tree, self._attach(sorted(arrivals, key=lambda arrival: arrival[0])))
        for directory in self.tree.directories():
            if directory.is_changed:
                self._allocate_identifiers(directory)
        return self.applied

    def _detach(self, edits: IsoEdits) -> tuple[list[DirectoryEntry], dict[bytes, list[DirectoryEntry]]]:
        """Take removed and renamed entries out of their directories.

        Return the removed ones, and the renamed ones by their old path. The associated files of a file (9.1.6) go where
        the file goes.
        """
        paths = _PathIndex(self.tree, self.place)
        removed, moved = list[DirectoryEntry](), dict[bytes, list[DirectoryEntry]]()
        detached: dict[int, tuple[EditableDirectory, set[int]]] = {}
        for path in (*edits.removed, *edits.renamed):
            match = paths.find_entry(path)
            if match is None:
                self.applied.unknown_paths.append(path)
                continue
            directory, entry = match
            _, detached_ids = detached.setdefault(id(directory), (directory, set()))
            if id(entry) in detached_ids:
                continue
            entries = [entry] if entry.directory else [*_associated_files(directory, entry), entry]
            detached_ids |= {id(item) for item in entries}
            if path in edits.renamed:
                moved[path] = entries
            else:
                removed += entries
                self.own_names[id(directory), entry.primary_name] = entry.shown_name
        for directory, detached_ids in detached.values():
            directory.entries = [entry for entry in directory.entries if id(entry) not in detached_ids]
            directory.is_changed = True
        for entry in (entry for entries in moved.values() for entry in entries):
            entry.is_renamed = True
            if entry.is_placeholder and entry.directory is not None and entry.directory.entry is not None:
                # the true record of a relocated directory replaces the placeholder
                entry.records, entry.is_placeholder = entry.directory.entry.records, False
                _take_relocated_record(entry.directory)
        return removed, moved

    def _drop(self, dropped: DirectoryEntry) -> None:
        """Note that ``dropped``, and everything below it, is no longer in the tree."""
        waiting = [dropped]
        while waiting:
            entry = waiting.pop()
            self.applied.removed_entries.append(entry)
            if entry.directory is None:
                continue
            self.applied.removed_directories.append(entry.directory)
            waiting += [below for below in entry.directory.entries if not below.is_relocated_record]
            if entry.is_placeholder:
                _take_relocated_record(entry.directory)

    def _check_relocation_dirs(self) -> None:
        """Check that no removed directory holds the record of a relocated directory that stays.

        :raises UnsupportedError: when one does.
        """
        for directory in self.applied.removed_directories:
            if any(entry.is_relocated_record for entry in directory.directory_entries):
                name = (directory.entry.primary_name if directory.entry else None) or b""
                raise UnsupportedError(
                    "cannot be removed: deep directories are recorded in it", self.place.inside(name)
                )
            if directory is self.tree.relocation_directory:
                self.tree.relocation_directory = None

    def _attach(self, arrivals: Iterable[tuple[bytes, Node | list[DirectoryEntry]]]) -> list[EditableDirectory]:
        """Put new nodes and moved entries at their new paths, which are sorted; return the directories among them."""
        paths = _PathIndex(self.tree, self.place)
        attached: list[EditableDirectory] = []
        for path, arrival in arrivals:
            parent = paths.find_directory(parent_of(path))
            if parent is None:
                self.applied.orphan_paths.append(path)
                for entry in arrival if isinstance(arrival, list) else ():
                    self._drop(entry)
                continue
            entries = arrival if isinstance(arrival, list) else self._make_entries(arrival, parent)
            for entry in entries:
                parent.entries.append(entry)
                parent.is_changed = True
                entry.primary_name = path.rpartition(b"/")[2]
                paths.add_entry(parent, entry)
                if entry.directory is not None:
                    _move_directory(entry.directory, parent, entry)
                    attached.append(entry.directory)
        return attached

    def _make_entries(self, node: Node, parent: EditableDirectory) -> list[DirectoryEntry]:
        """Return the entry for ``node`` in ``parent``; none where this tree has no such kind of entry (as Joliet).

        :raises UnsupportedError: when the tree cannot hold it.
        """
        name = node.path.rpartition(b"/")[2]
        if len(name) > MAX_NAME or len(node.target) > MAX_TARGET:
            what = f"its name has more than {MAX_NAME}" if len(name) > MAX_NAME else f"it has more than {MAX_TARGET:,}"
            raise UnsupportedError(f"a {node.kind.noun} cannot be added: {what} bytes", self.place.inside(node.path))
        if not self._can_hold(node, parent):
            if self.tree.kind == "ISO 9660":
                raise UnsupportedError(
                    f"a {node.kind.noun} cannot be added: the image has no Rock Ridge", self.place.inside(node.path)
                )
            self.applied.unheld_paths.append(node.path)
            return []
        entry = DirectoryEntry(name, b"", node=node, shown_name=self.own_names.get((id(parent), name), b""))
        if node.kind is NodeKind.DIRECTORY:
            entry.directory = EditableDirectory(None, parent, parent.level + 1, parent, entry, node, is_changed=True)
        self.applied.new_entries[node.path] = entry
        return [entry]

    def _can_hold(self, node: Node, parent: EditableDirectory) -> bool:
        """Return whether the tree has such a kind of entry.

        7-Zip opens no UDF file system with symlinks, so the first is written only where no other tree can hold it.
        """
        if self.tree.kind == UDF and node.kind is NodeKind.SYMLINK:
            is_wanted = self.tree.has_symlinks or _is_outside_primary(parent)
            return is_wanted and len(encode_target(node.target)) <= MAX_UDF_TARGET
        return node.kind in (NodeKind.FILE, NodeKind.DIRECTORY) or self.tree.rock_ridge is not None

    def _allocate_identifiers(self, directory: EditableDirectory) -> None:
        """Give identifiers to the entries that need records, in the order of their names; then sort them in.

        :raises UnsupportedError: when there is no identifier left, or another entry has the name.
        """
        tree = self.tree
        unnamed = sorted(
            (entry for entry in directory.entries if entry.needs_records),
            key=lambda entry: (entry.primary_name or b"", not entry.is_hidden),
        )
        unchanged = [entry for entry in directory.entries if not entry.needs_records]
        identifiers = IdentifierAllocator(tree.naming, (entry.identifier for entry in unchanged), self.place)
        taken_names = {entry.primary_name for entry in unchanged if not entry.is_hidden}
        own_names = {entry.shown_name.lower() for entry in unchanged if entry.primary_name is None}
        associated: list[DirectoryEntry] = []  # they sort before their file and get its identifier
        for entry in unnamed:
            name = entry.primary_name or b""
            if entry.is_hidden and entry.directory is None:
                associated.append(entry)
                continue
            if not entry.is_hidden:
                if entry.primary_name in taken_names:
                    raise UnsupportedError(
                        "is there already, so nothing else can have the name", self.place.inside(name)
                    )
                if name.lower() in own_names:
                    what = f"has other things under this name in its {tree.kind} tree than in the others"
                    raise UnsupportedError(f"{what}, so nothing can be changed there", self.place.inside(name))
                taken_names.add(entry.primary_name)
            is_directory = entry.directory is not None and not entry.is_placeholder
            if not entry.records and entry.shown_name:
                name = entry.shown_name  # it takes the place of an entry of that name
            entry.identifier = identifiers.allocate(name, directory=is_directory)
            entry.shown_name = name if tree.rock_ridge else tree.naming.display_name(entry.identifier)
            for companion in associated:
                companion.identifier, companion.shown_name = entry.identifier, entry.shown_name
            associated = []
        unnamed.sort(key=lambda entry: tree.naming.sort_key(entry.identifier))
        directory.entries = list(_merge_entries(tree, unchanged, unnamed))


def _is_outside_primary(directory: EditableDirectory) -> bool:
    """Return whether ``directory`` is one that the primary tree does not show, or below one."""
    above: EditableDirectory | None = directory
    while above is not None and above.entry is not None:
        if above.entry.is_outside_primary:
            return True
        above = above.named_in
    return False


def _associated_files(directory: EditableDirectory, file: DirectoryEntry) -> Iterator[DirectoryEntry]:
    """Yield the associated files (9.1.6) of ``file`` in ``directory``."""
    if not any(record.flags & ASSOCIATED for entry in directory.entries for record in entry.records[:1]):
        return
    for entry in directory.entries:
        if entry.is_hidden and not entry.directory and entry.identifier == file.identifier:
            yield entry


def _take_relocated_record(directory: EditableDirectory) -> None:
    """Take the true record of a relocated directory out of the relocation directory."""
    if directory.parent is not None:
        directory.parent.entries = [entry for entry in directory.parent.entries if entry is not directory.entry]
        directory.parent.is_changed = True


def _move_directory(directory: EditableDirectory, parent: EditableDirectory, entry: DirectoryEntry) -> None:
    """Make ``directory`` a directory in ``parent``, named by ``entry``."""
    directory.is_reparented = directory.is_reparented or directory.parent is not parent
    directory.is_changed = directory.is_changed or directory.is_reparented
    directory.parent, directory.named_in, directory.entry = parent, parent, entry
    _set_levels(directory, parent.level + 1)


def _set_levels(top: EditableDirectory, top_level: int) -> None:
    """Set the level of ``top`` to ``top_level``, and those of the directories below it to match."""
    waiting = [(top, top_level)]
    while waiting:
        directory, level = waiting.pop()
        directory.level = level
        for entry in directory.directory_entries:
            if entry.directory and not entry.is_placeholder:
                waiting.append((entry.directory, level + 1))


def _relocate_deep_directories(tree: EditableTree, moved: Iterable[EditableDirectory]) -> None:
    """Record directories in and below ``moved`` in the relocation directory where they would be too deep (RRIP 4.1.5).

    Their own entries become placeholders (CL). A tree without a relocation directory is left as it is.
    """
    relocation, waiting, seen = tree.relocation_directory, list(moved)[::-1], set[int]()
    while waiting and relocation is not None:
        directory = waiting.pop()
        if id(directory) in seen:
            continue
        seen.add(id(directory))
        waiting += [entry.directory for entry in directory.directory_entries if entry.directory and not entry.is_hidden]
        entry = directory.entry
        if directory.level <= MAX_LEVEL or directory.parent is relocation or entry is None or not directory.named_in:
            continue
        on_image = bool(entry.records)
        true_entry = DirectoryEntry(entry.primary_name, b"", entry.records, directory, is_hidden=True, node=entry.node)
        true_entry.is_renamed = entry.is_renamed = on_image
        entry.is_placeholder = True
        directory.entry, directory.parent = true_entry, relocation
        directory.is_changed = directory.is_reparented = True
        directory.named_in.is_changed = relocation.is_changed = True
        relocation.entries.append(true_entry)
        _set_levels(directory, relocation.level + 1)


def _merge_entries(
    tree: EditableTree, unchanged: list[DirectoryEntry], unnamed: list[DirectoryEntry]
) -> Iterator[DirectoryEntry]:
    """Yield ``unchanged`` in its order, and each entry of ``unnamed`` before the first that has to follow it (9.3)."""
    index = 0
    for entry in unnamed:
        key = tree.naming.sort_key(entry.identifier)
        while index < len(unchanged) and tree.naming.sort_key(unchanged[index].identifier) <= key:
            yield unchanged[index]
            index += 1
        yield entry
    yield from unchanged[index:]


def edit_warnings(tree: EditableTree, applied: AppliedEdits) -> Iterator[str]:
    """Yield a sentence for each kind of new name that some readers do not show."""
    if applied.orphan_paths and tree.kind != "ISO 9660":  # who names what it does not show knows that
        more = f" and {len(applied.orphan_paths) - 1:,} more" if len(applied.orphan_paths) > 1 else ""
        first = printable(applied.orphan_paths[0])
        yield f"{first}{more} will not be in the {tree.kind} tree, which does not show that directory"
    symlinks = [path for path, entry in applied.new_entries.items() if entry.node and entry.node.target]
    if tree.kind == UDF and symlinks and not tree.has_symlinks:
        yield f"{printable(symlinks[0])} is a symlink in UDF: 7-Zip opens no UDF file system that has one"
    for path, entry in applied.new_entries.items() if tree.rock_ridge is not None else ():
        if entry.node and len(entry.node.target) > XORRISO_TARGET:
            limit = f"{XORRISO_TARGET:,} bytes"
            yield f"{printable(path)} leads to more than {limit}: xorriso reads no image with such a symlink"
            return


def altered_name_warnings(tree: EditableTree) -> Iterator[str]:
    """Yield a sentence if a primary tree without Rock Ridge shows new entries under other names than their own.

    Upper and lower case do not count: readers choose the case.
    """
    altered = [
        (entry.primary_name, entry.shown_name)
        for entry in tree.read_entries()
        if entry.needs_records and entry.primary_name and entry.primary_name.lower() != entry.shown_name.lower()
    ]
    if altered and tree.rock_ridge is None:
        more = f", and {len(altered) - 1:,} more have other names too" if len(altered) > 1 else ""
        name, shown_name = altered[0]
        yield f"the image has no Rock Ridge: {printable(name)} is called {printable(shown_name)} on it{more}"


def shortened_name_warnings(tree: EditableTree) -> Iterator[str]:
    """Yield a sentence if a Joliet tree or UDF shows new entries under other names than their own."""
    altered = [
        (entry.primary_name, entry.shown_name)
        for entry in tree.read_entries()
        if entry.needs_records and not entry.is_hidden and entry.primary_name not in (None, entry.shown_name)
    ]
    if altered:
        more = f", and {len(altered) - 1:,} more have other names there" if len(altered) > 1 else ""
        name, shown_name = altered[0]
        what = f"{printable(name or b'')} is called {printable(shown_name)} in the {tree.kind} tree"
        yield f"{what}, which cannot hold that name{more}"
