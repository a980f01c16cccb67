"""Applying edits to a tree of folders: entries leave, get other names, and come (xorriso calls the last grafting).

Changes the folders; says what of the image is given up and what comes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from msgspec import Struct, field

from cosremaster.errors import Place, UnsupportedError, printable
from cosremaster.iso.ecma119.identifiers import IdentifierAllocator
from cosremaster.iso.ecma119.records import ASSOCIATED
from cosremaster.iso.edits import IsoEdits
from cosremaster.iso.tree_edit.directories import MAX_LEVEL, DirectoryEntry, EditableDirectory, EditableTree
from cosremaster.tree.nodes import Node, NodeKind
from cosremaster.tree.paths import parent_of

MAX_NAME, MAX_TARGET, XORRISO_TARGET = 255, 4095, 1024
"""Bytes of a name and of a symlink's text that systems take (POSIX NAME_MAX, Linux PATH_MAX), and libisofs
(LIBISOFS_NODE_PATH_MAX)."""


class AppliedEdits(Struct):
    """What became of a tree. ``left``: entries that are no longer in it, and ``folders`` likewise; ``came``: new
    entries, by path; ``missing``: new paths whose directory the tree does not have; ``unknown``: old paths that it
    does not have."""

    removed_entries: list[DirectoryEntry] = field(default_factory=list)
    removed_directories: list[EditableDirectory] = field(default_factory=list)
    new_entries: dict[bytes, DirectoryEntry] = field(default_factory=dict)
    orphan_paths: list[bytes] = field(default_factory=list)
    unknown_paths: list[bytes] = field(default_factory=list)


def apply_edits(tree: EditableTree, edits: IsoEdits, place: Place) -> AppliedEdits:
    """Applies ``edits`` to ``tree``, and gives identifiers to what has none.

    :raises UnsupportedError: the tree cannot hold something, has no identifier left, or has a name already.
    """
    done = AppliedEdits()
    leave, move = _detached(tree, edits, done, place)
    for entry in leave:
        _drop(entry, done)
    _check_relocation_dirs(tree, done, place)
    paths = PathIndex(tree, place)
    coming: list[tuple[bytes, Node | list[DirectoryEntry]]] = [(node.path, node) for node in edits.added]
    coming += [(edits.renamed[old], entries) for old, entries in move.items()]
    moved: list[EditableDirectory] = []
    for path, what in sorted(coming, key=lambda one: one[0]):  # parents first
        home = paths.find_directory(parent_of(path))
        if home is None:
            done.orphan_paths.append(path)
            for entry in what if isinstance(what, list) else ():
                _drop(entry, done)
            continue
        new = _new(tree, what, home, place) if isinstance(what, Node) else None
        done.new_entries |= {path: new} if new else {}
        for entry in what if isinstance(what, list) else [new] if new else []:
            home.entries.append(entry)
            home.is_changed = True
            entry.primary_name = path.rpartition(b"/")[2]
            paths.add_entry(home, entry)
            if entry.directory is not None:
                _settle(entry, entry.directory, home)
                moved.append(entry.directory)
    _relocate(tree, moved)
    for folder in tree.directories():
        if folder.is_changed:
            _identify(tree, folder, place)
    return done


class PathIndex:
    """Finds what stands at a path of a tree that nothing leaves meanwhile.

    :raises UnsupportedError: two things have a name that is on the way there.
    """

    def __init__(self, tree: EditableTree, place: Place) -> None:
        self._place = place
        self._folders: dict[bytes, EditableDirectory] = {b"": tree.root}
        self._names: dict[int, dict[bytes, DirectoryEntry | None]] = {}

    def find_directory(self, path: bytes) -> EditableDirectory | None:
        """The folder at ``path``; None where there is none."""
        above = path
        while above not in self._folders:
            above = parent_of(above)
        folder: EditableDirectory | None = self._folders[above]
        for name in path[len(above) :].strip(b"/").split(b"/") if path != above else ():
            entry = self._find(folder, name, path) if folder else None
            folder = entry.directory if entry else None
        if folder is not None:
            self._folders[path] = folder
        return folder

    def find_entry(self, path: bytes) -> tuple[EditableDirectory, DirectoryEntry] | None:
        """The entry at ``path`` and the folder it is in; None where there is none."""
        parent, _, name = path.rpartition(b"/")
        folder = self.find_directory(parent)
        entry = self._find(folder, name, path) if folder else None
        return (folder, entry) if folder and entry else None

    def add_entry(self, folder: EditableDirectory, entry: DirectoryEntry) -> None:
        """``entry`` is in ``folder`` now."""
        if id(folder) in self._names and not entry.is_hidden:
            self._names[id(folder)][entry.primary_name or b""] = entry

    def _find(self, folder: EditableDirectory, name: bytes, path: bytes) -> DirectoryEntry | None:
        if id(folder) not in self._names:
            names: dict[bytes, DirectoryEntry | None] = {}
            for one in folder.entries:
                if one.primary_name is not None and not one.is_hidden:
                    names[one.primary_name] = None if one.primary_name in names else one
            self._names[id(folder)] = names
        names = self._names[id(folder)]
        found = names.get(name)
        if found is None and name in names:
            what = f"two things on the image are called {printable(name)}, so nothing there can be changed by name"
            raise UnsupportedError(what, self._place.inside(path))
        return found


def _detached(
    tree: EditableTree, edits: IsoEdits, done: AppliedEdits, place: Place
) -> tuple[list[DirectoryEntry], dict[bytes, list[DirectoryEntry]]]:
    """Takes what leaves and what moves out of its folders: (what leaves, what moves by its old path)."""
    paths, leave, move = PathIndex(tree, place), list[DirectoryEntry](), dict[bytes, list[DirectoryEntry]]()
    parted: dict[int, tuple[EditableDirectory, set[int]]] = {}
    for path in (*edits.removed, *edits.renamed):
        found = paths.find_entry(path)
        if found is None:
            done.unknown_paths.append(path)
            continue
        folder, entry = found
        _, ids = parted.setdefault(id(folder), (folder, set()))
        if id(entry) in ids:
            continue
        # an associated file (9.1.6) goes where its file goes
        both = [entry] if entry.directory else [*_associated(folder, entry), entry]
        ids |= {id(one) for one in both}
        if path in edits.renamed:
            move[path] = both
        else:
            leave += both
    for folder, ids in parted.values():
        folder.entries = [one for one in folder.entries if id(one) not in ids]
        folder.is_changed = True
    for entry in (one for both in move.values() for one in both):
        entry.is_renamed = True
        if entry.is_placeholder and entry.directory is not None and entry.directory.entry is not None:
            entry.records, entry.is_placeholder = (
                entry.directory.entry.records,
                False,
            )  # its true record becomes this one
            _take_away(entry.directory)
    return leave, move


def _associated(folder: EditableDirectory, entry: DirectoryEntry) -> Iterator[DirectoryEntry]:
    if not any(record.flags & ASSOCIATED for one in folder.entries for record in one.records[:1]):
        return
    yield from (
        one for one in folder.entries if one.is_hidden and not one.directory and one.identifier == entry.identifier
    )


def _drop(entry: DirectoryEntry, done: AppliedEdits) -> None:
    """Notes that an entry is no longer in its folder, nor anything below it."""
    waiting = [entry]
    while waiting:
        one = waiting.pop()
        done.removed_entries.append(one)
        if one.directory is None:
            continue
        done.removed_directories.append(one.directory)
        waiting += [below for below in one.directory.entries if not below.is_relocated_record]
        if one.is_placeholder:
            _take_away(one.directory)


def _take_away(folder: EditableDirectory) -> None:
    """Takes a relocated directory's record from where it stands."""
    if folder.parent is not None:
        folder.parent.entries = [one for one in folder.parent.entries if one is not folder.entry]
        folder.parent.is_changed = True


def _check_relocation_dirs(tree: EditableTree, done: AppliedEdits, place: Place) -> None:
    """:raises UnsupportedError: relocated directories stay, but not the one that they are recorded in."""
    for folder in done.removed_directories:
        if any(one.is_relocated_record for one in folder.entries):
            name = (folder.entry.primary_name if folder.entry else None) or b""
            raise UnsupportedError("cannot be removed: deep directories are recorded in it", place.inside(name))
        if folder is tree.relocation_directory:
            tree.relocation_directory = None


def _settle(entry: DirectoryEntry, folder: EditableDirectory, home: EditableDirectory) -> None:
    """A folder stands in ``home`` now, where ``entry`` leads to it."""
    folder.is_reparented = folder.is_reparented or folder.parent is not home
    folder.is_changed = folder.is_changed or folder.is_reparented
    folder.parent, folder.named_in, folder.entry = home, home, entry
    _relevel(folder, home.level + 1)


def _relevel(folder: EditableDirectory, level: int) -> None:
    waiting = [(folder, level)]
    while waiting:
        one, its = waiting.pop()
        one.level = its
        waiting += [(entry.directory, its + 1) for entry in one.entries if entry.directory and not entry.is_placeholder]


def _new(tree: EditableTree, node: Node, home: EditableDirectory, place: Place) -> DirectoryEntry | None:
    """An entry for ``node``; None where the tree has nothing of that kind.

    :raises UnsupportedError: the tree cannot hold it."""
    name = node.path.rpartition(b"/")[2]
    if len(name) > MAX_NAME or len(node.target) > MAX_TARGET:
        what = f"its name has more than {MAX_NAME}" if len(name) > MAX_NAME else f"it has more than {MAX_TARGET:,}"
        raise UnsupportedError(f"a {node.kind.noun} cannot be added: {what} bytes", place.inside(node.path))
    if node.kind not in (NodeKind.FILE, NodeKind.DIRECTORY) and tree.rock_ridge is None:
        if tree.kind == "ISO 9660":
            raise UnsupportedError(
                f"a {node.kind.noun} cannot be added: the image has no Rock Ridge", place.inside(node.path)
            )
        return None  # a Joliet tree has files and directories alone
    entry = DirectoryEntry(name, b"", node=node)
    if node.kind is NodeKind.DIRECTORY:
        entry.directory = EditableDirectory(None, home, home.level + 1, home, entry, node, is_changed=True)
    return entry


def _relocate(tree: EditableTree, moved: Iterable[EditableDirectory]) -> None:
    """Directories in or below ``moved`` that would stand too deep are recorded in the folder for such (RRIP 4.1.5),
    where the volume has one; their own entries only lead there."""
    attic, waiting, seen = tree.relocation_directory, list(moved)[::-1], set[int]()
    while waiting and attic is not None:
        folder = waiting.pop()
        if id(folder) in seen:
            continue
        seen.add(id(folder))
        waiting += [one.directory for one in folder.entries if one.directory is not None and not one.is_hidden]
        entry = folder.entry
        if folder.level <= MAX_LEVEL or folder.parent is attic or entry is None or folder.named_in is None:
            continue
        true = DirectoryEntry(
            entry.primary_name,
            b"",
            entry.records,
            folder,
            is_hidden=True,
            is_renamed=bool(entry.records),
            node=entry.node,
        )
        entry.is_placeholder, entry.is_renamed = True, bool(entry.records)
        folder.entry, folder.parent = true, attic
        folder.is_changed = folder.is_reparented = folder.named_in.is_changed = attic.is_changed = True
        attic.entries.append(true)
        _relevel(folder, attic.level + 1)


def _identify(tree: EditableTree, folder: EditableDirectory, place: Place) -> None:
    """Identifiers for the folder's new names, in the names' order; then the entries stand in the order of theirs.

    :raises UnsupportedError: there is none left, or something has the name already.
    """
    fresh = sorted(
        (one for one in folder.entries if one.needs_records),
        key=lambda one: (one.primary_name or b"", not one.is_hidden),
    )
    stay = [one for one in folder.entries if not one.needs_records]
    identifiers = IdentifierAllocator(tree.naming, (one.identifier for one in stay), place)
    names = {one.primary_name for one in stay if not one.is_hidden}
    associated: list[DirectoryEntry] = []
    for one in fresh:
        name = one.primary_name or b""
        if one.is_hidden and one.directory is None:
            associated.append(one)
            continue
        if not one.is_hidden and one.primary_name in names:
            raise UnsupportedError("is there already, so nothing else can have the name", place.inside(name))
        names |= set() if one.is_hidden else {one.primary_name}
        directory = one.directory is not None and not one.is_placeholder
        one.identifier = identifiers.allocate(name, directory=directory)
        one.shown_name = name if tree.rock_ridge else tree.naming.display_name(one.identifier)
        for before in associated:
            before.identifier, before.shown_name = one.identifier, one.shown_name
        associated = []
    fresh.sort(key=lambda one: tree.naming.sort_key(one.identifier))
    folder.entries = list(_merged(tree, stay, fresh))


def _merged(tree: EditableTree, stay: list[DirectoryEntry], fresh: list[DirectoryEntry]) -> Iterator[DirectoryEntry]:
    """``stay`` in its order, each of ``fresh`` before the first that has to follow it (9.3)."""
    at = 0
    for one in fresh:
        order = tree.naming.sort_key(one.identifier)
        while at < len(stay) and tree.naming.sort_key(stay[at].identifier) <= order:
            yield stay[at]
            at += 1
        yield one
    yield from stay[at:]


def edit_warnings(tree: EditableTree, done: AppliedEdits) -> Iterator[str]:
    """What of the new names some readers do not show, a sentence each."""
    if done.orphan_paths:
        more = f" and {len(done.orphan_paths) - 1:,} more" if len(done.orphan_paths) > 1 else ""
        first = printable(done.orphan_paths[0])
        yield f"{first}{more} will not be in the {tree.kind} tree, which does not show that directory"
    long = [path for path, one in done.new_entries.items() if one.node and len(one.node.target) > XORRISO_TARGET]
    for path in long[:1] if tree.rock_ridge is not None else ():
        yield (
            f"{printable(path)} leads to more than {XORRISO_TARGET:,} bytes: xorriso reads no image with such a symlink"
        )


def altered_name_warnings(tree: EditableTree) -> Iterator[str]:
    """A sentence if new names of a primary tree without Rock Ridge are not what was asked for, in any case of letters
    (which readers choose)."""
    apart = [
        (one.primary_name, one.shown_name)
        for folder in tree.directories()
        for one in folder.entries
        if one.needs_records and one.primary_name and one.primary_name.lower() != one.shown_name.rstrip(b".").lower()
    ]
    if apart and tree.rock_ridge is None:
        more = f", and {len(apart) - 1:,} more have other names too" if len(apart) > 1 else ""
        yield f"the image has no Rock Ridge: {printable(apart[0][0])} is called {printable(apart[0][1])} on it{more}"
