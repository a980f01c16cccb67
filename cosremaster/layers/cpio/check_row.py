"""Whether the kernel unpacks what edits mean, where archives of one file depend on each other or entries meet."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from typing import NoReturn, cast

from cosremaster.errors import OverlayError, printable
from cosremaster.layers.address import Address, format_address
from cosremaster.layers.cpio.edit import find_new_carriers, find_renewed_directories, place_new, select_kept
from cosremaster.layers.cpio.kernel import KernelFile, KernelTree
from cosremaster.layers.cpio.read import index_of
from cosremaster.layers.cpio.tree import CpioTree
from cosremaster.layers.model import Layer
from cosremaster.records import Struct, field
from cosremaster.tree.nodes import Edits, Node, NodeKind
from cosremaster.tree.paths import ancestors, parent_of
from cosremaster.tree.replacements import NO_EDITS


class _Meaning(Struct):
    """What edits mean: ``nodes``: the new node by the number of its entry; ``touched``: paths that they name.

    A path is not touched that a later archive has too: that one counts as before.
    """

    nodes: dict[int, Node] = field(default_factory=dict)
    touched: set[bytes] = field(default_factory=set)


def check_row(last: Layer, changes: Mapping[Address, Edits]) -> None:
    """Check that after ``changes``, by address, the kernel makes of the archives up to ``last`` what they say.

    What they do not name has to stay what it is, and what they add has to be unpacked, but for what a later archive
    has too.

    :raises OverlayError: it would not.
    """
    row = (*last.preceding, last)
    edits = [changes.get(archive.address, NO_EDITS) for archive in row]
    if last.is_in_archive or not _may_differ(last, row, edits):
        return
    before, after, meaning = KernelTree(is_strict=True), KernelTree(is_strict=True), _Meaning()
    total = sum(index_of(archive).entry_count for archive in row)
    start = 0
    for archive, change in zip(row, edits, strict=True):
        _unpack_old(before, archive, start)
        _unpack_new(after, archive, change, start, total, meaning)
        start += index_of(archive).entry_count
    _check_untouched(last, before, after, meaning)
    _check_additions(last, row, edits, after, meaning)
    _check_removals(last, row, edits, after)


def _may_differ(last: Layer, row: Sequence[Layer], edits: Sequence[Edits]) -> bool:
    """Return whether the kernel might make something else of ``row`` than ``edits`` say."""
    if all(change.is_empty for change in edits):
        return False
    if cast("CpioTree", last.tree()).has_met_entries:
        return True
    return any(
        _do_others_need(archive, change, row[number:], edits[number:]) or _are_in_way(change, row[number:])
        for number, (archive, change) in enumerate(zip(row[:-1], edits[:-1], strict=True), 1)
    )


def _are_in_way(change: Edits, later: Sequence[Layer]) -> bool:
    """Return whether one of ``later`` has something else where ``change`` adds a directory, or one of several names."""
    nodes = [node for node, _ in change.additions if node.kind is NodeKind.DIRECTORY or node.link is not None]
    paths = {node.path for node in nodes}
    return bool(paths) and any(
        path in paths and kind != NodeKind.DIRECTORY
        for archive in later
        for path, kind in zip(archive.paths, index_of(archive).members.file_types(), strict=True)
    )


def _do_others_need(archive: Layer, change: Edits, later: Sequence[Layer], edits: Sequence[Edits]) -> bool:
    """Return whether an entry that stays in one of ``later`` archives is in what ``change`` takes from ``archive``."""
    gone = change.removed_paths
    if not gone:
        return False
    again = {node.path for node, _ in change.additions if node.kind is NodeKind.DIRECTORY}
    for path in gone.intersection(_list_parents(later, edits)):
        node = archive.tree().get(path)
        if path not in again or (node is not None and node.kind is NodeKind.SYMLINK):
            return True
    return False


def _list_parents(archives: Sequence[Layer], edits: Sequence[Edits]) -> set[bytes]:
    """Return the directories that entries which stay in ``archives`` are in, by their names and by their paths."""
    parents = set[bytes]()
    for archive, change in zip(archives, edits, strict=True):
        for names in (index_of(archive).paths, archive.paths):
            parents.update(
                parent_of(name)
                for name, path in zip(names, archive.paths, strict=True)
                if path not in change.removed_paths
            )
    return parents | {above for parent in parents for above in ancestors(parent)}


def _unpack_old(tree: KernelTree, archive: Layer, start: int) -> None:
    """Unpack ``archive`` as it is into ``tree``; its entries are numbered from ``start`` on."""
    index = index_of(archive)
    targets = index.members.targets
    for number, (name, fields) in enumerate(zip(index.members.names, index.members.all_fields(), strict=True)):
        tree.unpack(start + number, name, fields, targets.get(number, b""))
    if index.has_trailer:
        tree.end_archive()


def _unpack_new(
    tree: KernelTree, archive: Layer, change: Edits, start: int, total: int, meaning: _Meaning
) -> None:  # fmt: skip
    """Unpack ``archive`` after ``change`` into ``tree``.

    Old entries are numbered from ``start`` on, new ones from ``total`` on behind those in ``meaning``, which gets them.
    """
    if change.is_empty and not change.superseding.drops_dead:
        _unpack_old(tree, archive, start)
        meaning.touched.difference_update(archive.paths)
        return
    old = cast("CpioTree", archive.tree())
    lasting = find_renewed_directories(old, change)
    kept = list(select_kept(archive, old, change.removed_paths.difference(lasting), change.superseding))
    carriers = find_new_carriers(archive, (member for _, member, _, _ in kept))
    offsets = index_of(archive).members.offsets
    for number, member, path, name in kept:
        entry = member.entry
        fields, data = entry.header.fields, start + number
        if entry.offset in carriers:
            source = carriers[entry.offset].entry
            fields = entry.header.with_data(source.header.size, 0).fields
            data = start + bisect_left(offsets, source.offset)
        own = start + number
        if path in lasting:
            own = total + len(meaning.nodes)
            meaning.nodes[own] = lasting[path]
        tree.unpack(own, name, fields, member.target, data)
    nodes = [node for node, _ in change.additions if node.path not in lasting]
    for node, placed in zip(nodes, place_new(archive, old, nodes, change.superseding), strict=True):
        number = total + len(meaning.nodes)
        meaning.nodes[number] = node
        tree.unpack(number, placed.final.name, placed.final.fields, node.target)
    meaning.touched.difference_update(path for _, _, path, _ in kept)
    meaning.touched |= change.removed_paths
    meaning.touched.update(node.path for node, _ in change.additions)
    tree.end_archive()


def _check_untouched(last: Layer, before: KernelTree, after: KernelTree, meaning: _Meaning) -> None:
    """Check that what no edit names is in ``after`` what it is in ``before``. :raises OverlayError: it is not."""
    pairs: dict[int, KernelFile] = {}
    for path, old in before.files.items():
        if path in meaning.touched:
            continue
        new = after.files.get(path)
        if new is None or not _is_same(old, new) or pairs.setdefault(id(old), new) is not new:
            _refuse(last, path, before, meaning)
    new_pairs: dict[int, KernelFile] = {}
    for path, new in after.files.items():
        former = before.files.get(path)
        if path not in meaning.touched and former and new_pairs.setdefault(id(new), former) is not former:
            _refuse(last, path, before, meaning)


def _is_same(old: KernelFile, new: KernelFile) -> bool:
    """Return whether the same entries made both; of a directory the first does not count."""
    if (old.kind, old.attributes) != (new.kind, new.attributes):
        return False
    return old.kind == NodeKind.DIRECTORY or old.data == new.data


def _refuse(last: Layer, path: bytes, before: KernelTree, meaning: _Meaning) -> NoReturn:
    """Raise the error for ``path``, which edits with ``meaning`` change and do not name."""
    touched, added = meaning.touched, {node.path for node in meaning.nodes.values()}
    file = before.files[path]
    if path in added:
        raise OverlayError(
            f"is a {NodeKind(file.kind).noun} in a later archive, which the kernel does not put in the place of a"
            f" directory with something in it; --layer {format_address(last.file_address)} follows it",
            last.place.inside(path),
        )
    other = next((name for name in sorted(touched) if before.files.get(name) is file), None)
    if other is not None:
        raise OverlayError(
            f"is one file with {printable(other)}, as the kernel writes a later entry into it: only all its names"
            " together can be removed or replaced",
            last.place.inside(path),
        )
    ways = sorted(name for name in touched if (way := before.files.get(name)) and way.kind != NodeKind.FILE)
    cause = (ways or sorted(touched) or [path])[0]
    raise OverlayError(
        f"cannot stay as it is: an entry for it needs {printable(cause)}, which is to be removed or replaced",
        last.place.inside(path),
    )


def _check_additions(
    last: Layer, row: Sequence[Layer], edits: Sequence[Edits], after: KernelTree, meaning: _Meaning
) -> None:
    """Check that ``after`` has what ``edits`` add, but where a later archive has it too.

    :raises OverlayError: it has not.
    """
    later: set[bytes] = set()
    for archive, change in reversed(list(zip(row, edits, strict=True))):
        for node, _ in change.additions:
            if node.path not in later and not _has_node(after, node, meaning):
                raise OverlayError(
                    "cannot be added: other entries of the archives stand in its way, so that the kernel makes"
                    " something else of it",
                    last.place.inside(node.path),
                )
        later.update(path for path in archive.paths if path not in change.removed_paths)
        later.update(node.path for node, _ in change.additions)


def _has_node(after: KernelTree, node: Node, meaning: _Meaning) -> bool:
    """Return whether what is in ``after`` at the path of ``node`` is that node, or the file that it is a name of."""
    file = after.files.get(node.path)
    if file is None or file.kind != node.kind:
        return False
    makers = [file.attributes] if node.kind is NodeKind.DIRECTORY else [file.attributes, file.data]
    return all(_is_name_of(meaning.nodes.get(number), node) for number in makers)


def _is_name_of(other: Node | None, node: Node) -> bool:
    """Return whether ``other`` is ``node``, or a name of the same file."""
    if other is None:
        return False
    return other.path == node.path or (node.link is not None and other.link == node.link)


def _check_removals(last: Layer, row: Sequence[Layer], edits: Sequence[Edits], after: KernelTree) -> None:
    """Check that ``after`` has nothing that ``edits`` remove and no archive has. :raises OverlayError: it has."""
    going = {path for change in edits for path in change.removed_paths if path in after.files}
    going.difference_update(node.path for change in edits for node, _ in change.additions)
    for archive, change in zip(row, edits, strict=True) if going else ():
        going.difference_update(_list_staying(archive, change))
    for path in sorted(going):
        raise OverlayError("cannot be removed: the kernel unpacks another entry to it then", last.place.inside(path))


def _list_staying(archive: Layer, change: Edits) -> Iterable[bytes]:
    """Return the paths of ``archive`` that ``change`` does not remove."""
    return (path for path in archive.paths if path not in change.removed_paths)
