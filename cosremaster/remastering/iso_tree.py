"""Requests to change the ISO's own tree, as edits of it (docs/iso-tree.md).

The rules of overlays over the image's names.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING

from cosremaster.errors import OverlayError, Place, UsageError, printable
from cosremaster.io.pieces import PieceTable
from cosremaster.io.source import ByteSource
from cosremaster.iso.edits import IsoEdits
from cosremaster.iso.model import IsoImage, SourceImage
from cosremaster.overlay.addition import Addition, PreparedItem, respell_addition
from cosremaster.overlay.merge import merge, resolve_location
from cosremaster.overlay.patterns import Pattern
from cosremaster.overlay.request import names_directory, parse_dest
from cosremaster.records import Struct, field, replace
from cosremaster.tree.content import is_same_content
from cosremaster.tree.nodes import Action, Edits, Node, NodeKind, RootedTree
from cosremaster.tree.paths import ancestors, join

if TYPE_CHECKING:
    from cosremaster.iso.tree_edit.directories import EditableDirectory


class Rename(Struct, frozen=True):
    """A new path for ``old``.

    ``new``: the path, or the directory to move it into when ``into``; both are normal paths.
    """

    old: bytes
    new: bytes
    into: bool = False

    @classmethod
    def parse(cls, rename: str | tuple[str, str]) -> Rename:
        """Read ``OLD:NEW``, split at the last ``:/``, or a pair of the two.

        :raises UsageError: one is missing, not absolute where it has to be, or holds ``..``.
        """
        if isinstance(rename, str):
            old, colon, new = rename.rpartition(":/")
            if not colon or not old:
                raise UsageError(f"--rename-iso {rename!r}: OLD:NEW is wanted, NEW absolute")
            rename = old, "/" + new
        old, new = rename
        option = f"--rename-iso {old}:{new}"
        if "::" in old or "::" in new:
            raise UsageError(f"{option}: names in a FAT file system cannot be changed (remove and add the file)")
        source = parse_dest("/" + old.lstrip("/"), option)
        if not source:
            raise UsageError(f"{option}: the root directory cannot be renamed")
        return cls(source, parse_dest(new, option), names_directory(new))


class IsoTreeRequest(Struct, frozen=True, kw_only=True):
    """The requested changes of the ISO's own tree: first ``remove``, then ``rename``, then ``add``."""

    add: Sequence[PreparedItem] = ()
    remove: Sequence[Pattern] = ()
    rename: Sequence[Rename] = ()
    allow_missing: bool = False
    force_type: bool = False


def plan_iso_tree(image: SourceImage, source: ByteSource, request: IsoTreeRequest) -> IsoEdits:
    """Return the edits of the tree of ``image``, which is in ``source``, that ``request`` asks for.

    :raises OverlayError: there is nothing to remove or rename, a new path is in use, or types do not agree.
    :raises UsageError: ``image`` has no volume.
    """
    if not (request.add or request.remove or request.rename):
        return IsoEdits()
    volume = image.volume
    if volume is None:
        raise UsageError(f"{image.place}: is no ISO, so it has no tree of its own to change")
    from cosremaster.iso.lazy_nodes import LazyNodes  # noqa: PLC0415 - a change of a layer goes without

    nodes = LazyNodes(volume, source)
    tree = _RenamedTree(nodes)
    spelling = _Spelling({} if volume.has_rock_ridge else _read_other_names(volume, source), tree)
    removals = [spelling.pattern(pattern) for pattern in request.remove]
    removal = merge(tree.nodes, (), removals, image.place, allow_missing=request.allow_missing)
    if removal.removed_paths:
        tree.nodes = _ChangedNodes.of(nodes, removal.removed_paths, {})
    for rename in request.rename:
        spelled = replace(rename, old=spelling.path(rename.old), new=spelling.path(rename.new))
        _rename(tree, spelled, image.place, request.force_type)
    items = [_RespelledItem(item, spelling) for item in request.add]
    edits = merge(tree.nodes, items, (), image.place, force_type=request.force_type)
    return _iso_edits(tree, removal, edits)


class _ChangedNodes(RootedTree):
    """``nodes`` without those at the paths ``hidden``, and with ``own`` ones behind them; few nodes are read for that.

    A path that is among ``own`` and among those of ``nodes`` is hidden, too.
    """

    def __init__(self, nodes: RootedTree, hidden: AbstractSet[bytes], own: Mapping[bytes, Node]) -> None:
        """Keep the arguments."""
        self._nodes, self._hidden, self._own = nodes, hidden, own

    @classmethod
    def of(cls, nodes: RootedTree, leaving: Collection[bytes], coming: Mapping[bytes, Node]) -> _ChangedNodes:
        """Return ``nodes`` without those at the paths ``leaving``, and then with those of ``coming``."""
        known = nodes if isinstance(nodes, cls) else cls(nodes, frozenset(), {})
        hidden = known._hidden | {*leaving, *coming}
        own = {path: node for path, node in known._own.items() if path not in leaving}
        return cls(known._nodes, hidden, {**own, **coming})

    def __getitem__(self, path: bytes) -> Node:
        """Return the node at ``path``. Raises as that of ``nodes``, also where it is hidden."""
        if path in self._own:
            return self._own[path]
        if path in self._hidden:
            raise KeyError(path)
        return self._nodes[path]

    def __contains__(self, path: object) -> bool:
        """Return whether there is a node at ``path``."""
        return path in self._own or (path not in self._hidden and path in self._nodes)

    def __iter__(self) -> Iterator[bytes]:
        """Yield every path, in the order of ``nodes``."""
        yield from (path for path in self._nodes if path not in self._hidden)
        yield from self._own

    def __len__(self) -> int:
        """Count the nodes."""
        return sum(1 for _ in self)

    def list_paths(self) -> Collection[bytes]:
        """Return all paths."""
        return [*(path for path in self._nodes.list_paths() if path not in self._hidden), *self._own]

    def read_root(self) -> Node:
        """Return the node of the root."""
        return self._nodes.read_root()


class _RenamedTree(Struct):
    """The tree while its entries are renamed.

    ``renamed``: the path on the image -> the present path; ``new_parents``: directories that renames needed.
    """

    nodes: RootedTree
    renamed: dict[bytes, bytes] = field(default_factory=dict)
    new_parents: dict[bytes, Node] = field(default_factory=dict)
    _origins: dict[bytes, bytes] = field(default_factory=dict)

    def origin(self, path: bytes) -> bytes:
        """Return the path on the image of the entry that is at ``path`` now."""
        for parent in (path, *reversed(list(ancestors(path)))) if self.renamed else ():
            if parent in self._origins:
                return self._origins[parent] + path[len(parent) :]
        return path

    def rename(self, old: bytes, new: bytes) -> None:
        """Move the entry at ``old``, and all below, to the free path ``new``."""
        origin = self.origin(old)
        moved = sorted(path for path in self.nodes.list_paths() if path == old or path.startswith(old + b"/"))
        targets = [new + path[len(old) :] for path in moved]
        nodes = [replace(self.nodes[path], path=target) for path, target in zip(moved, targets, strict=True)]
        self.nodes = _ChangedNodes.of(self.nodes, set(moved), dict(zip(targets, nodes, strict=True)))
        for path, target in zip(moved, targets, strict=True):
            if path in self.new_parents:
                self.new_parents[target] = replace(self.new_parents.pop(path), path=target)
        for source, path in self.renamed.items():
            if path == old or path.startswith(old + b"/"):
                self.renamed[source] = new + path[len(old) :]
        if new not in self.new_parents:
            self.renamed[origin] = new
        self._origins = {path: source for source, path in self.renamed.items()}


def _rename(tree: _RenamedTree, rename: Rename, image: Place, force_type: bool) -> None:
    """Rename an entry of ``tree``.

    :raises OverlayError: there is no entry at the old path, the new one is in use, or no directory can hold it.
    """
    old, _ = resolve_location(tree.nodes, rename.old, image, None)
    node = tree.nodes.get(old)
    place = image.inside(rename.old)
    if node is None:
        from cosremaster.tree.similar import suggest_path  # noqa: PLC0415 - only where a path is not there

        raise OverlayError(f"cannot be renamed: it is not there{suggest_path(old, tree.nodes)}", place)
    new, parents = resolve_location(tree.nodes, rename.new, image, node, force_type=force_type)
    target = tree.nodes.get(new)
    if rename.into or (target is not None and target.kind is NodeKind.DIRECTORY):
        new, parents = resolve_location(tree.nodes, join(rename.new, old.rpartition(b"/")[2]), image, node)
        target = tree.nodes.get(new)
    if new == old:
        return
    if target is not None:
        raise OverlayError(
            f"cannot become {printable(new)}, which is there already (--remove-iso takes it away)", place
        )
    if new.startswith(old + b"/"):
        raise OverlayError("cannot be moved into itself", place)
    tree.nodes = _ChangedNodes.of(tree.nodes, (), parents) if parents else tree.nodes
    tree.new_parents |= parents
    tree.rename(old, new)


def _iso_edits(tree: _RenamedTree, removal: Edits, edits: Edits) -> IsoEdits:
    """Return the edits of the image's tree: the ``removal``, then the renames of ``tree``, then ``edits``."""
    removed = [*removal.removed, *(tree.origin(path) for path in edits.removed if path not in tree.new_parents)]
    for path in edits.removed:
        tree.new_parents.pop(path, None)
        removed += [old for old, new in tree.renamed.items() if new.startswith(path + b"/")]
    replaced: dict[bytes, PieceTable] = {}
    added, unchanged = list[Node](), list(edits.unchanged)
    for node, action in edits.additions:
        old = tree.nodes.get(node.path) if action is Action.REPLACED else None
        if old is None:
            added.append(node)
        elif old.content is None or node.content is None:
            if tree.new_parents.pop(node.path, None) is None:
                removed.append(tree.origin(node.path))
            added.append(node)
        elif is_same_content(old.content, node.content):
            unchanged.append(node.path)
        else:
            replaced[tree.origin(node.path)] = node.content.table()
    removed_paths = set(removed)
    return IsoEdits(
        replaced=replaced, removed=tuple(dict.fromkeys(removed)),
        renamed={old: new for old, new in tree.renamed.items() if old not in removed_paths},
        added=tuple(sorted([*added, *tree.new_parents.values()], key=lambda node: node.path)),
        unchanged=tuple(sorted(unchanged)), warnings=edits.warnings,
    )  # fmt: skip


class _Spelling(Struct, frozen=True):
    """Finds the names of the primary tree for the names that people know.

    Without Rock Ridge people also use names in lower case, or those of Joliet. ``other_names``: for each directory of
    the image, such names and the primary tree's name for each; empty with Rock Ridge.
    """

    other_names: Mapping[bytes, Mapping[bytes, bytes]]
    tree: _RenamedTree

    def path(self, path: bytes) -> bytes:
        """Return ``path`` in the primary tree's names, as far as its entries exist now."""
        if not self.other_names:
            return path
        spelled = b""
        for part in path.split(b"/") if path else ():
            names = self.other_names.get(self.tree.origin(spelled), {})
            name = names.get(part) or names.get(part.lower())
            spelled = join(spelled, name if name is not None and join(spelled, name) in self.tree.nodes else part)
        return spelled

    def pattern(self, pattern: Pattern) -> Pattern:
        """Return ``pattern`` in the primary tree's names, if it is a path."""
        return Pattern(self.path(pattern.literal_prefix)) if pattern.is_literal else pattern

    def addition(self, addition: Addition) -> Addition:
        """Return ``addition`` with paths in the primary tree's names."""
        return respell_addition(addition, self.path)


class _RespelledItem(Struct, frozen=True):
    """An item whose additions get paths in the primary tree's names."""

    item: PreparedItem
    spelling: _Spelling

    def additions(self, tree: Mapping[bytes, Node]) -> Sequence[Addition]:
        """Return the additions of the item, with other paths."""
        return [self.spelling.addition(addition) for addition in self.item.additions(tree)]


def _read_other_names(image: IsoImage, source: ByteSource) -> dict[bytes, dict[bytes, bytes]]:
    """Return, for each directory, its entries' names in other trees and in lower case -> names in the primary tree."""

    from cosremaster.iso.merged import read_merged_trees  # noqa: PLC0415 - a change of a layer goes without

    primary, *others = read_merged_trees(image, source).all_trees
    other_names: dict[bytes, dict[bytes, bytes]] = {}
    for tree in (*others, primary):
        waiting: list[tuple[EditableDirectory, bytes]] = [(tree.root, b"")]
        while waiting:
            directory, path = waiting.pop()
            names = other_names.setdefault(path, {})
            for entry in directory.entries:
                if entry.primary_name is None:
                    continue
                names |= {entry.shown_name.lower(): entry.primary_name, entry.shown_name: entry.primary_name}
                if entry.directory is not None:
                    waiting.append((entry.directory, join(path, entry.primary_name)))
    return other_names
