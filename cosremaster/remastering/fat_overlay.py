"""Requested changes of FAT file systems on an image, by the rules of overlays, as edits of their files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

from cosremaster.boot.fat_edit import FatEdits, FatEntry
from cosremaster.boot.fat_names import fold_path, fold_paths, spell_path
from cosremaster.errors import LayerError, Place, UnsupportedError, UsageError, printable
from cosremaster.io.streams import same_bytes
from cosremaster.iso.edits import IsoEdits
from cosremaster.iso.fats import LocatedFat, find_fats, read_fat_nodes
from cosremaster.iso.model import IsoImage, SourceImage
from cosremaster.overlay.addition import Addition, PreparedItem, respell_addition
from cosremaster.overlay.merge import merge
from cosremaster.overlay.patterns import Pattern
from cosremaster.records import Struct, field, replace
from cosremaster.tree.content import is_same_content
from cosremaster.tree.nodes import Action, Edits, Node, NodeKind
from cosremaster.tree.paths import parent_of


class FatItems(Struct, frozen=True):
    """The requested changes of the file system at ``address``: first ``removals``, then the additions ``items``."""

    address: bytes
    items: tuple[PreparedItem, ...]
    removals: tuple[Pattern, ...]


class FatOverlay(Struct, frozen=True, kw_only=True):
    """What a request does to a FAT file system, which has the key ``fat``.

    ``before`` and ``after``: the nodes that change, by path, as far as they exist. ``unchanged``: requested changes
    that it has already.
    """

    fat: object
    edits: FatEdits
    before: Mapping[bytes, Node] = field(default_factory=dict)
    after: Mapping[bytes, Node] = field(default_factory=dict)
    unchanged: tuple[bytes, ...] = ()


def key_of(fat: LocatedFat) -> object:
    """Return what a file system is known by: its path, or else its place in the image."""
    return fat.paths[0] if fat.paths else fat.offset


def lay_over_fats(
    image: SourceImage, iso: IsoEdits, requests: Sequence[FatItems], *, allow_missing: bool, force_type: bool
) -> tuple[FatOverlay, ...]:
    """Return what ``requests`` do to the FAT file systems of ``image``, whose tree ``iso`` changes before.

    File systems with the same bytes (a file of the tree, and an appended partition) change alike.

    :raises LayerError: when there is no such file system.
    :raises OverlayError: when there is nothing to remove, or types do not agree.
    :raises UnsupportedError: when FAT cannot hold a node.
    """
    if image.volume is None:
        raise UsageError(f"{image.place}: is no ISO, so it has no FAT file system to change")
    fats = find_fats(image.volume, iso).fats
    overlays: dict[object, FatOverlay] = {}
    for request in requests:
        fat = _find_fat(image.volume, iso, fats, request.address)
        if key_of(fat) in overlays:
            raise UsageError(f"{fat.name} is named in two ways; its changes need one address")
        overlay = _lay_over(fat, request, allow_missing=allow_missing, force_type=force_type)
        for twin in (fat, *(other for other in fats if other is not fat and _have_same_bytes(fat, other))):
            overlays.setdefault(key_of(twin), replace(overlay, fat=key_of(twin)))
    return tuple(overlays.values())


def _find_fat(image: IsoImage, iso: IsoEdits, fats: Sequence[LocatedFat], address: bytes) -> LocatedFat:
    """Return the file system at ``address``; a tree without Rock Ridge is searched in any case of letters.

    :raises LayerError: when there is none.
    """

    def spell(path: bytes) -> object:
        """Return ``path`` as it is compared."""
        return path if image.has_rock_ridge else fold_path(path)

    for fat in fats:
        names = {path for old in fat.paths for path in (old, iso.new_path(old)) if path is not None}
        if spell(address) in {spell(path) for path in names} or address.lower() in fat.aliases:
            return fat
    known = ", ".join(printable(fat.address) for fat in fats) or "none"
    raise LayerError(f"has no FAT file system {printable(address)}; those it has: {known}", image.place)


def _have_same_bytes(fat: LocatedFat, other: LocatedFat) -> bool:
    """Return whether two file systems are the same, byte for byte; what follows them does not count."""
    if fat.fat.bpb != other.fat.bpb:
        return False
    tables = [one.table.cut(0, min(one.table.length, one.fat.bpb.total_size)) for one in (fat, other)]
    return same_bytes(tables[0].chunks(), tables[1].chunks())


def _lay_over(fat: LocatedFat, request: FatItems, *, allow_missing: bool, force_type: bool) -> FatOverlay:
    """Return what ``request`` does to ``fat``. Raises as :func:`lay_over_fats`."""
    nodes, place = read_fat_nodes(fat.fat, fat.table), fat.fat.place
    names = fold_paths(nodes)
    removals = [
        Pattern(spell_path(names, pattern.literal_prefix)) if pattern.is_literal else pattern
        for pattern in request.removals
    ]
    removal = merge(nodes, (), removals, place, allow_missing=allow_missing)
    remaining = {path: node for path, node in nodes.items() if path not in removal.removed_paths}
    items = [_SpelledItem(item) for item in request.items]
    return _make_overlay(nodes, remaining, removal, merge(remaining, items, (), place, force_type=force_type), place)


class _SpelledItem(Struct, frozen=True):
    """An item whose additions get paths in the letters that the file system has them in."""

    item: PreparedItem

    def additions(self, tree: Mapping[bytes, Node]) -> Sequence[Addition]:
        """Return the additions of the item, with other paths."""
        names = fold_paths(tree)
        return [respell_addition(addition, partial(spell_path, names)) for addition in self.item.additions(tree)]


def _make_overlay(
    nodes: Mapping[bytes, Node], remaining: Mapping[bytes, Node], removal: Edits, edits: Edits, place: Place
) -> FatOverlay:
    """Return the changes that ``removal`` and then ``edits`` make.

    ``nodes``: those of the file system; ``remaining``: those of them that ``removal`` leaves.
    """
    removed, replaced = set(removal.removed_paths), {}
    added, unchanged = list[FatEntry](), list(edits.unchanged)
    same = set(edits.unchanged)
    for node, action in edits.additions:
        if node.kind not in (NodeKind.FILE, NodeKind.DIRECTORY):
            reason = f"is a {node.kind.noun}, which a FAT file system cannot hold"
            raise UnsupportedError(reason, place.inside(node.path))
        old = remaining.get(node.path) if action is Action.REPLACED else None
        if old is None or old.content is None or node.content is None:
            added.append(FatEntry(node.path, None if node.content is None else node.content.table(), node.mtime))
        elif is_same_content(old.content, node.content):
            unchanged.append(node.path)
            same.add(node.path)
        else:
            replaced[node.path] = node.content.table()
    removed |= edits.removed_paths - replaced.keys() - same
    after = {node.path: node for node, _ in edits.additions if node.path not in same}
    return FatOverlay(
        fat=None,
        edits=FatEdits(
            removed=tuple(sorted(path for path in removed if parent_of(path) not in removed)), replaced=replaced,
            added=tuple(added),
        ),
        before={path: nodes[path] for path in (*removed, *replaced)}, after=after, unchanged=tuple(sorted(unchanged)),
    )  # fmt: skip
