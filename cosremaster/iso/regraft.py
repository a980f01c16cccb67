"""Applying edits to a tree of folders: entries leave, get other names, and come (xorriso calls the last grafting).

Changes the folders; says what of the image is given up and what comes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from cosremaster.errors import Place, UnsupportedError, show
from cosremaster.iso.edits import IsoEdits
from cosremaster.iso.folders import DEEPEST, Entry, Folder, FolderTree
from cosremaster.iso.names import Identifiers
from cosremaster.nodes import Kind, Node, ancestors, parent_of


@dataclass(slots=True)
class Regrafted:
    """What became of a tree. ``left``: entries that are no longer in it, and ``folders`` likewise; ``came``: new
    entries, by path; ``missing``: new paths whose directory the tree does not have."""

    left: list[Entry] = field(default_factory=list)
    folders: list[Folder] = field(default_factory=list)
    came: dict[bytes, Entry] = field(default_factory=dict)
    missing: list[bytes] = field(default_factory=list)


def regraft(tree: FolderTree, edits: IsoEdits, place: Place) -> Regrafted:
    """Applies ``edits`` to ``tree``, and gives identifiers to what has none.

    :raises UnsupportedError: the tree cannot hold something, or has no identifier left.
    """
    done = Regrafted()
    for path in edits.removed:
        found = tree.locate(path)
        if found is not None:
            _remove(tree, *found, done)
    waiting = {node.path: node for node in edits.added}
    for old, new in edits.renamed.items():
        for above in ancestors(new):
            if above in waiting and tree.folder_at(above) is None:
                _add(tree, waiting.pop(above), done, place)
        _rename(tree, old, new, done)
    for node in waiting.values():
        _add(tree, node, done, place)
    for folder in tree.folders():
        if folder.changed:
            _identify(tree, folder, place)
    return done


def _remove(tree: FolderTree, folder: Folder, entry: Entry, done: Regrafted) -> None:
    associated = [one for one in folder.entries if one.hidden and one.identifier == entry.identifier and not one.folder]
    folder.entries = [one for one in folder.entries if one is not entry and one not in associated]
    folder.changed = True
    waiting = [entry, *associated]
    while waiting:
        one = waiting.pop()
        done.left.append(one)
        if one.folder is None:
            continue
        done.folders.append(one.folder)
        waiting += [below for below in one.folder.entries if not below.hidden]
        if one.placeholder:
            _take_from_attic(tree, one.folder)


def _rename(tree: FolderTree, old: bytes, new: bytes, done: Regrafted) -> None:
    found, home = tree.locate(old), tree.folder_at(parent_of(new))
    if found is None:
        return
    folder, entry = found
    if home is None:  # a directory that this tree does not show
        _remove(tree, folder, entry, done)
        done.missing.append(new)
        return
    folder.entries.remove(entry)
    home.entries.append(entry)
    folder.changed = home.changed = True
    entry.key, entry.renamed = new.rpartition(b"/")[2], True
    if entry.folder is None or (home is folder and not entry.placeholder):
        return
    entry.folder.above = home
    entry.folder.changed = entry.folder.reparented = True
    if entry.placeholder and entry.folder.entry is not None:  # its true record becomes this one
        entry.records, entry.placeholder = entry.folder.entry.records, False
        _take_from_attic(tree, entry.folder)
    entry.folder.parent, entry.folder.entry = home, entry
    _relevel(entry.folder, home.level + 1)
    _relocate(tree, entry)


def _relevel(folder: Folder, level: int) -> None:
    waiting = [(folder, level)]
    while waiting:
        one, its = waiting.pop()
        one.level = its
        waiting += [(entry.folder, its + 1) for entry in one.entries if entry.folder and not entry.placeholder]


def _add(tree: FolderTree, node: Node, done: Regrafted, place: Place) -> None:
    folder = tree.folder_at(parent_of(node.path))
    if folder is None:
        done.missing.append(node.path)
        return
    if node.kind not in (Kind.FILE, Kind.DIRECTORY) and tree.dialect is None:
        if tree.kind == "ISO 9660":
            raise UnsupportedError(
                f"a {node.kind.noun} cannot be added: the image has no Rock Ridge", place.inside(node.path)
            )
        return  # a Joliet tree has files and directories alone
    entry = Entry(node.path.rpartition(b"/")[2], b"", node=node)
    folder.entries.append(entry)
    folder.changed = True
    done.came[node.path] = entry
    if node.kind is not Kind.DIRECTORY:
        return
    entry.folder = Folder(None, folder, folder.level + 1, folder, entry, node, changed=True)
    _relocate(tree, entry)


def _relocate(tree: FolderTree, entry: Entry) -> None:
    """A directory that would stand too deep is recorded in the folder for such (RRIP 4.1.5), where the volume has one;
    ``entry`` only leads there."""
    folder, attic = entry.folder, tree.attic
    if folder is None or attic is None or folder.level <= DEEPEST or folder.above is attic:
        return
    true = Entry(entry.key, b"", entry.records, folder, hidden=True, renamed=entry.renamed, node=entry.node)
    entry.placeholder, folder.entry, folder.parent = True, true, attic
    _relevel(folder, attic.level + 1)
    attic.entries.append(true)
    attic.changed = True


def _take_from_attic(tree: FolderTree, folder: Folder) -> None:
    if tree.attic is not None and folder.entry in tree.attic.entries:
        tree.attic.entries.remove(folder.entry)
        tree.attic.changed = True


def _identify(tree: FolderTree, folder: Folder, place: Place) -> None:
    """Identifiers for the folder's new names, in the names' order; then the entries stand in the order of theirs."""
    fresh = sorted((one for one in folder.entries if one.fresh), key=lambda one: one.key or b"")
    stay = [one for one in folder.entries if not one.fresh]
    identifiers = Identifiers(tree.style, (one.identifier for one in stay), place)
    for one in fresh:
        name = one.key or b""
        directory = one.folder is not None and not one.placeholder
        one.identifier = identifiers.add(name, directory=directory)
        one.shown = name if tree.dialect else tree.style.shown(one.identifier)
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


def shown_missing(tree: FolderTree, done: Regrafted) -> Iterator[str]:
    """A sentence if the tree does not show something new."""
    if done.missing:
        more = f" and {len(done.missing) - 1:,} more" if len(done.missing) > 1 else ""
        yield f"{show(done.missing[0])}{more} will not be in the {tree.kind} tree, which does not show that directory"
