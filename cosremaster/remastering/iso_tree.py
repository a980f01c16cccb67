"""What was asked of the ISO's own tree, as edits of it: the overlay's rules over the names on the image."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from msgspec import Struct, field
from msgspec.structs import replace

from cosremaster.errors import OverlayError, UsageError, printable
from cosremaster.io.pieces import PieceTable
from cosremaster.io.source import ByteSource
from cosremaster.iso.edits import IsoEdits
from cosremaster.iso.model import IsoImage, SourceImage
from cosremaster.iso.nodes import read_nodes
from cosremaster.iso.tree_edit.directories import EditableDirectory
from cosremaster.iso.tree_edit.match_trees import read_matched_trees
from cosremaster.overlay.addition import Addition, PreparedItem
from cosremaster.overlay.merge import merge, resolve_location
from cosremaster.overlay.patterns import Pattern
from cosremaster.overlay.request import parse_dest
from cosremaster.tree.nodes import Action, Node, NodeKind
from cosremaster.tree.paths import ancestors, join


class Rename(Struct, frozen=True):
    """``old`` becomes ``new``, absolute normal paths; ``into``: in the directory ``new``, under its own name."""

    old: bytes
    new: bytes
    into: bool = False

    @classmethod
    def parse(cls, asked: str | tuple[str, str]) -> Rename:
        """``OLD:NEW``, split at the last ``:/``, or the two by themselves.

        :raises UsageError: one is missing, not absolute where it has to be, or holds ``..``.
        """
        if isinstance(asked, str):
            old, colon, new = asked.rpartition(":/")
            if not colon or not old:
                raise UsageError(f"--rename-iso {asked!r}: OLD:NEW is wanted, NEW absolute")
            asked = old, "/" + new
        old, new = asked
        what = f"--rename-iso {old}:{new}"
        source = parse_dest("/" + old.lstrip("/"), what)
        if not source:
            raise UsageError(f"{what}: the root directory cannot be renamed")
        return cls(source, parse_dest(new, what), new.endswith("/"))


class IsoTreeRequest(Struct, frozen=True, kw_only=True):
    """What is asked: ``remove`` comes first, then ``rename``, then ``add``."""

    add: Sequence[PreparedItem] = ()
    remove: Sequence[Pattern] = ()
    rename: Sequence[Rename] = ()
    allow_missing: bool = False
    force_type: bool = False


def plan_iso_tree(image: SourceImage, source: ByteSource, asked: IsoTreeRequest) -> IsoEdits:
    """The edits of the tree of ``image`` that ``asked`` comes to.

    :raises OverlayError: there is nothing to remove or rename, something is there already, or types do not agree.
    :raises UsageError: ``image`` is no ISO.
    """
    if not (asked.add or asked.remove or asked.rename):
        return IsoEdits()
    volume = image.volume
    if volume is None:
        raise UsageError(f"{image.place}: is no ISO, so it has no tree of its own to change")
    tree = _Renamed({path: node for path, node in read_nodes(volume, source).items() if path})
    known = {} if volume.has_rock_ridge else _other_names(volume, source)

    def alias(path: bytes) -> bytes:
        return _spelled(path, known, tree) if known else path

    removals = [_known_by(one, alias) for one in asked.remove]
    first = merge(tree.nodes, (), removals, image.place, allow_missing=asked.allow_missing)
    tree.nodes = {path: node for path, node in tree.nodes.items() if path not in first.removed_paths}
    for rename in asked.rename:
        _rename(tree, replace(rename, old=alias(rename.old), new=alias(rename.new)), volume, asked.force_type)
    items = [_Respelled(item, alias) for item in asked.add]
    edits = merge(tree.nodes, items, (), image.place, force_type=asked.force_type)
    removed = [*first.removed, *(tree.origin(path) for path in edits.removed if path not in tree.made)]
    for path in edits.removed:
        tree.made.pop(path, None)
        removed += [old for old, new in tree.renamed.items() if new.startswith(path + b"/")]
    exchanged: dict[bytes, PieceTable] = {}
    added, unchanged = list[Node](), list(edits.unchanged)
    for node, action in edits.additions:
        before = tree.nodes.get(node.path)
        if action is not Action.REPLACED or before is None:
            added.append(node)
        elif before.content is not None and node.content is not None:
            same = before.content.size == node.content.size and before.content.digest() == node.content.digest()
            if same:
                unchanged.append(node.path)
            else:
                exchanged[tree.origin(node.path)] = node.content.table()
        else:
            if tree.made.pop(node.path, None) is None:
                removed.append(tree.origin(node.path))
            added.append(node)
    gone = set(removed)
    added += tree.made.values()
    return IsoEdits(
        replaced=exchanged, removed=tuple(dict.fromkeys(removed)),
        renamed={old: new for old, new in tree.renamed.items() if old not in gone},
        added=tuple(sorted(added, key=lambda node: node.path)), unchanged=tuple(sorted(unchanged)),
        warnings=edits.warnings,
    )  # fmt: skip


class _Renamed(Struct):
    """The tree while things get other names. ``renamed``: where things were and are now; ``made``: parents that had to
    come for that."""

    nodes: dict[bytes, Node]
    renamed: dict[bytes, bytes] = field(default_factory=dict)
    made: dict[bytes, Node] = field(default_factory=dict)
    _old: dict[bytes, bytes] = field(default_factory=dict)

    def origin(self, path: bytes) -> bytes:
        """Where what is at ``path`` now was on the image."""
        for above in (path, *reversed(list(ancestors(path)))) if self.renamed else ():
            if above in self._old:
                return self._old[above] + path[len(above) :]
        return path

    def rename(self, old: bytes, new: bytes) -> None:
        """What is at ``old`` now, and below, gets another place; ``new`` is free."""
        origin = self.origin(old)
        for path in [path for path in self.nodes if path == old or path.startswith(old + b"/")]:
            now = new + path[len(old) :]
            self.nodes[now] = replace(self.nodes.pop(path), path=now)
            if path in self.made:
                self.made[now] = replace(self.made.pop(path), path=now)
        for before, path in self.renamed.items():
            if path == old or path.startswith(old + b"/"):
                self.renamed[before] = new + path[len(old) :]
        if new not in self.made:
            self.renamed[origin] = new
        self._old = {after: before for before, after in self.renamed.items()}


def _rename(tree: _Renamed, asked: Rename, image: IsoImage, force_type: bool) -> None:
    """:raises OverlayError: there is nothing at the old path, something at the new one, or no way there."""
    old, _ = resolve_location(tree.nodes, asked.old, image.place, None)
    node = tree.nodes.get(old)
    place = image.place.inside(asked.old)
    if node is None:
        raise OverlayError("cannot be renamed: it is not there", place)
    new, made = resolve_location(tree.nodes, asked.new, image.place, node, force_type=force_type)
    there = tree.nodes.get(new)
    if asked.into or (there is not None and there.kind is NodeKind.DIRECTORY):
        new, made = resolve_location(tree.nodes, join(asked.new, old.rpartition(b"/")[2]), image.place, node)
        there = tree.nodes.get(new)
    if new == old:
        return
    if there is not None:
        raise OverlayError(
            f"cannot become {printable(new)}, which is there already (--remove-iso takes it away)", place
        )
    if new.startswith(old + b"/"):
        raise OverlayError("cannot be moved into itself", place)
    tree.nodes |= made
    tree.made |= made
    tree.rename(old, new)


def _known_by(pattern: Pattern, alias: Callable[[bytes], bytes]) -> Pattern:
    return Pattern(alias(pattern.literal_prefix)) if pattern.is_literal else pattern


class _Respelled(Struct, frozen=True):
    """An item whose additions get paths as the tree spells them, by ``alias``."""

    item: PreparedItem
    alias: Callable[[bytes], bytes]

    def additions(self, tree: Mapping[bytes, Node]) -> Sequence[Addition]:
        """Return the additions of the item, with other paths."""
        return [_placed(addition, self.alias) for addition in self.item.additions(tree)]


def _placed(addition: Addition, alias: Callable[[bytes], bytes]) -> Addition:
    """``addition`` at paths as the tree spells them."""
    dest = alias(addition.dest)
    skip = len(dest) + 1 if dest else 0
    single = addition.is_single_file and not addition.into_directory
    nodes = [one if single else replace(one, path=alias(join(dest, one.path))[skip:]) for one in addition.nodes]
    return replace(addition, dest=dest, nodes=tuple(nodes))


def _other_names(image: IsoImage, source: ByteSource) -> dict[bytes, dict[bytes, bytes]]:
    """Without Rock Ridge people know things by other names too, in lower case or as Joliet has them: for each directory
    those names, and what the primary tree calls it."""
    primary, *others = read_matched_trees(source, image.trees)
    known: dict[bytes, dict[bytes, bytes]] = {}
    for tree in (*others, primary):
        waiting: list[tuple[EditableDirectory, bytes]] = [(tree.root, b"")]
        while waiting:
            folder, path = waiting.pop()
            names = known.setdefault(path, {})
            for one in folder.entries:
                if one.primary_name is None:
                    continue
                names |= {one.shown_name.lower(): one.primary_name, one.shown_name: one.primary_name}
                if one.directory is not None:
                    waiting.append((one.directory, join(path, one.primary_name)))
    return known


def _spelled(path: bytes, known: Mapping[bytes, Mapping[bytes, bytes]], tree: _Renamed) -> bytes:
    """``path`` as the primary tree spells it now, as far as it is there."""
    found = b""
    for part in path.split(b"/") if path else ():
        names = known.get(tree.origin(found), {})
        name = names.get(part) or names.get(part.lower())
        found = join(found, name if name is not None and join(found, name) in tree.nodes else part)
    return found
