"""Applying edits to a tree of folders: entries leave, get other names, and come (xorriso calls the last grafting).

Changes the folders; says what of the image is given up and what comes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from msgspec import Struct, field

from cosremaster.errors import Place, UnsupportedError, printable
from cosremaster.iso.ecma119.identifiers import Identifiers
from cosremaster.iso.edits import IsoEdits
from cosremaster.iso.model import ASSOCIATED
from cosremaster.iso.tree_edit.directories import DEEPEST, Entry, Folder, FolderTree
from cosremaster.tree.nodes import Node, NodeKind
from cosremaster.tree.paths import parent_of

MAX_NAME, MAX_TARGET, XORRISO_TARGET = 255, 4095, 1024
"""Bytes of a name and of a symlink's text that systems take (POSIX NAME_MAX, Linux PATH_MAX), and libisofs
(LIBISOFS_NODE_PATH_MAX)."""


class Regrafted(Struct):
    """What became of a tree. ``left``: entries that are no longer in it, and ``folders`` likewise; ``came``: new
    entries, by path; ``missing``: new paths whose directory the tree does not have; ``unknown``: old paths that it
    does not have."""

    left: list[Entry] = field(default_factory=list)
    folders: list[Folder] = field(default_factory=list)
    came: dict[bytes, Entry] = field(default_factory=dict)
    missing: list[bytes] = field(default_factory=list)
    unknown: list[bytes] = field(default_factory=list)


def regraft(tree: FolderTree, edits: IsoEdits, place: Place) -> Regrafted:
    """Applies ``edits`` to ``tree``, and gives identifiers to what has none.

    :raises UnsupportedError: the tree cannot hold something, has no identifier left, or has a name already.
    """
    done = Regrafted()
    leave, move = _detached(tree, edits, done, place)
    for entry in leave:
        _drop(entry, done)
    _check_attics(tree, done, place)
    paths = Paths(tree, place)
    coming: list[tuple[bytes, Node | list[Entry]]] = [(node.path, node) for node in edits.added]
    coming += [(edits.renamed[old], entries) for old, entries in move.items()]
    moved: list[Folder] = []
    for path, what in sorted(coming, key=lambda one: one[0]):  # parents first
        home = paths.folder(parent_of(path))
        if home is None:
            done.missing.append(path)
            for entry in what if isinstance(what, list) else ():
                _drop(entry, done)
            continue
        new = _new(tree, what, home, place) if isinstance(what, Node) else None
        done.came |= {path: new} if new else {}
        for entry in what if isinstance(what, list) else [new] if new else []:
            home.entries.append(entry)
            home.changed = True
            entry.key = path.rpartition(b"/")[2]
            paths.came(home, entry)
            if entry.folder is not None:
                _settle(entry, entry.folder, home)
                moved.append(entry.folder)
    _relocate(tree, moved)
    for folder in tree.folders():
        if folder.changed:
            _identify(tree, folder, place)
    return done


class Paths:
    """Finds what stands at a path of a tree that nothing leaves meanwhile.

    :raises UnsupportedError: two things have a name that is on the way there.
    """

    def __init__(self, tree: FolderTree, place: Place) -> None:
        self._place = place
        self._folders: dict[bytes, Folder] = {b"": tree.root}
        self._names: dict[int, dict[bytes, Entry | None]] = {}

    def folder(self, path: bytes) -> Folder | None:
        """The folder at ``path``; None where there is none."""
        above = path
        while above not in self._folders:
            above = parent_of(above)
        folder: Folder | None = self._folders[above]
        for name in path[len(above) :].strip(b"/").split(b"/") if path != above else ():
            entry = self._find(folder, name, path) if folder else None
            folder = entry.folder if entry else None
        if folder is not None:
            self._folders[path] = folder
        return folder

    def locate(self, path: bytes) -> tuple[Folder, Entry] | None:
        """The entry at ``path`` and the folder it is in; None where there is none."""
        parent, _, name = path.rpartition(b"/")
        folder = self.folder(parent)
        entry = self._find(folder, name, path) if folder else None
        return (folder, entry) if folder and entry else None

    def came(self, folder: Folder, entry: Entry) -> None:
        """``entry`` is in ``folder`` now."""
        if id(folder) in self._names and not entry.hidden:
            self._names[id(folder)][entry.key or b""] = entry

    def _find(self, folder: Folder, name: bytes, path: bytes) -> Entry | None:
        if id(folder) not in self._names:
            names: dict[bytes, Entry | None] = {}
            for one in folder.entries:
                if one.key is not None and not one.hidden:
                    names[one.key] = None if one.key in names else one
            self._names[id(folder)] = names
        names = self._names[id(folder)]
        found = names.get(name)
        if found is None and name in names:
            what = f"two things on the image are called {printable(name)}, so nothing there can be changed by name"
            raise UnsupportedError(what, self._place.inside(path))
        return found


def _detached(
    tree: FolderTree, edits: IsoEdits, done: Regrafted, place: Place
) -> tuple[list[Entry], dict[bytes, list[Entry]]]:
    """Takes what leaves and what moves out of its folders: (what leaves, what moves by its old path)."""
    paths, leave, move = Paths(tree, place), list[Entry](), dict[bytes, list[Entry]]()
    parted: dict[int, tuple[Folder, set[int]]] = {}
    for path in (*edits.removed, *edits.renamed):
        found = paths.locate(path)
        if found is None:
            done.unknown.append(path)
            continue
        folder, entry = found
        _, ids = parted.setdefault(id(folder), (folder, set()))
        if id(entry) in ids:
            continue
        # an associated file (9.1.6) goes where its file goes
        both = [entry] if entry.folder else [*_associated(folder, entry), entry]
        ids |= {id(one) for one in both}
        if path in edits.renamed:
            move[path] = both
        else:
            leave += both
    for folder, ids in parted.values():
        folder.entries = [one for one in folder.entries if id(one) not in ids]
        folder.changed = True
    for entry in (one for both in move.values() for one in both):
        entry.renamed = True
        if entry.placeholder and entry.folder is not None and entry.folder.entry is not None:
            entry.records, entry.placeholder = entry.folder.entry.records, False  # its true record becomes this one
            _take_away(entry.folder)
    return leave, move


def _associated(folder: Folder, entry: Entry) -> Iterator[Entry]:
    if not any(record.flags & ASSOCIATED for one in folder.entries for record in one.records[:1]):
        return
    yield from (one for one in folder.entries if one.hidden and not one.folder and one.identifier == entry.identifier)


def _drop(entry: Entry, done: Regrafted) -> None:
    """Notes that an entry is no longer in its folder, nor anything below it."""
    waiting = [entry]
    while waiting:
        one = waiting.pop()
        done.left.append(one)
        if one.folder is None:
            continue
        done.folders.append(one.folder)
        waiting += [below for below in one.folder.entries if not below.led_to]
        if one.placeholder:
            _take_away(one.folder)


def _take_away(folder: Folder) -> None:
    """Takes a relocated directory's record from where it stands."""
    if folder.parent is not None:
        folder.parent.entries = [one for one in folder.parent.entries if one is not folder.entry]
        folder.parent.changed = True


def _check_attics(tree: FolderTree, done: Regrafted, place: Place) -> None:
    """:raises UnsupportedError: relocated directories stay, but not the one that they are recorded in."""
    for folder in done.folders:
        if any(one.led_to for one in folder.entries):
            name = (folder.entry.key if folder.entry else None) or b""
            raise UnsupportedError("cannot be removed: deep directories are recorded in it", place.inside(name))
        if folder is tree.attic:
            tree.attic = None


def _settle(entry: Entry, folder: Folder, home: Folder) -> None:
    """A folder stands in ``home`` now, where ``entry`` leads to it."""
    folder.reparented = folder.reparented or folder.parent is not home
    folder.changed = folder.changed or folder.reparented
    folder.parent, folder.above, folder.entry = home, home, entry
    _relevel(folder, home.level + 1)


def _relevel(folder: Folder, level: int) -> None:
    waiting = [(folder, level)]
    while waiting:
        one, its = waiting.pop()
        one.level = its
        waiting += [(entry.folder, its + 1) for entry in one.entries if entry.folder and not entry.placeholder]


def _new(tree: FolderTree, node: Node, home: Folder, place: Place) -> Entry | None:
    """An entry for ``node``; None where the tree has nothing of that kind.

    :raises UnsupportedError: the tree cannot hold it."""
    name = node.path.rpartition(b"/")[2]
    if len(name) > MAX_NAME or len(node.target) > MAX_TARGET:
        what = f"its name has more than {MAX_NAME}" if len(name) > MAX_NAME else f"it has more than {MAX_TARGET:,}"
        raise UnsupportedError(f"a {node.kind.noun} cannot be added: {what} bytes", place.inside(node.path))
    if node.kind not in (NodeKind.FILE, NodeKind.DIRECTORY) and tree.dialect is None:
        if tree.kind == "ISO 9660":
            raise UnsupportedError(
                f"a {node.kind.noun} cannot be added: the image has no Rock Ridge", place.inside(node.path)
            )
        return None  # a Joliet tree has files and directories alone
    entry = Entry(name, b"", node=node)
    if node.kind is NodeKind.DIRECTORY:
        entry.folder = Folder(None, home, home.level + 1, home, entry, node, changed=True)
    return entry


def _relocate(tree: FolderTree, moved: Iterable[Folder]) -> None:
    """Directories in or below ``moved`` that would stand too deep are recorded in the folder for such (RRIP 4.1.5),
    where the volume has one; their own entries only lead there."""
    attic, waiting, seen = tree.attic, list(moved)[::-1], set[int]()
    while waiting and attic is not None:
        folder = waiting.pop()
        if id(folder) in seen:
            continue
        seen.add(id(folder))
        waiting += [one.folder for one in folder.entries if one.folder is not None and not one.hidden]
        entry = folder.entry
        if folder.level <= DEEPEST or folder.parent is attic or entry is None or folder.above is None:
            continue
        true = Entry(entry.key, b"", entry.records, folder, hidden=True, renamed=bool(entry.records), node=entry.node)
        entry.placeholder, entry.renamed = True, bool(entry.records)
        folder.entry, folder.parent = true, attic
        folder.changed = folder.reparented = folder.above.changed = attic.changed = True
        attic.entries.append(true)
        _relevel(folder, attic.level + 1)


def _identify(tree: FolderTree, folder: Folder, place: Place) -> None:
    """Identifiers for the folder's new names, in the names' order; then the entries stand in the order of theirs.

    :raises UnsupportedError: there is none left, or something has the name already.
    """
    fresh = sorted((one for one in folder.entries if one.fresh), key=lambda one: (one.key or b"", not one.hidden))
    stay = [one for one in folder.entries if not one.fresh]
    identifiers = Identifiers(tree.style, (one.identifier for one in stay), place)
    names = {one.key for one in stay if not one.hidden}
    associated: list[Entry] = []
    for one in fresh:
        name = one.key or b""
        if one.hidden and one.folder is None:
            associated.append(one)
            continue
        if not one.hidden and one.key in names:
            raise UnsupportedError("is there already, so nothing else can have the name", place.inside(name))
        names |= set() if one.hidden else {one.key}
        directory = one.folder is not None and not one.placeholder
        one.identifier = identifiers.add(name, directory=directory)
        one.shown = name if tree.dialect else tree.style.shown(one.identifier)
        for before in associated:
            before.identifier, before.shown = one.identifier, one.shown
        associated = []
    fresh.sort(key=lambda one: tree.style.order(one.identifier))
    folder.entries = list(_merged(tree, stay, fresh))


def _merged(tree: FolderTree, stay: list[Entry], fresh: list[Entry]) -> Iterator[Entry]:
    """``stay`` in its order, each of ``fresh`` before the first that has to follow it (9.3)."""
    at = 0
    for one in fresh:
        order = tree.style.order(one.identifier)
        while at < len(stay) and tree.style.order(stay[at].identifier) <= order:
            yield stay[at]
            at += 1
        yield one
    yield from stay[at:]


def doubts(tree: FolderTree, done: Regrafted) -> Iterator[str]:
    """What of the new names some readers do not show, a sentence each."""
    if done.missing:
        more = f" and {len(done.missing) - 1:,} more" if len(done.missing) > 1 else ""
        yield (
            f"{printable(done.missing[0])}{more} will not be in the {tree.kind} tree, which does not show that"
            " directory"
        )
    long = [path for path, one in done.came.items() if one.node and len(one.node.target) > XORRISO_TARGET]
    for path in long[:1] if tree.dialect is not None else ():
        yield (
            f"{printable(path)} leads to more than {XORRISO_TARGET:,} bytes: xorriso reads no image with such a symlink"
        )


def names_apart(tree: FolderTree) -> Iterator[str]:
    """A sentence if new names of a primary tree without Rock Ridge are not what was asked for, in any case of letters
    (which readers choose)."""
    apart = [
        (one.key, one.shown)
        for folder in tree.folders()
        for one in folder.entries
        if one.fresh and one.key and one.key.lower() != one.shown.rstrip(b".").lower()
    ]
    if apart and tree.dialect is None:
        more = f", and {len(apart) - 1:,} more have other names too" if len(apart) > 1 else ""
        yield f"the image has no Rock Ridge: {printable(apart[0][0])} is called {printable(apart[0][1])} on it{more}"
