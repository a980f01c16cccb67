"""How many bytes a tree takes on the disk where an image was made: what ``du -B 1 -s`` says of it.

live-build (``binary_rootfs``) and livecd-rootfs (``lb_binary_layered``) write that number beside a squashfs file. Their
ext4 file system is not known here, so only differences are counted, with its ordinary blocks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial

from cosremaster.layers.model import Layer
from cosremaster.layers.stacks import StackedTree
from cosremaster.remastering.stacked_edits import StackedEdits
from cosremaster.tree.nodes import Edits, Node, NodeKind
from cosremaster.tree.paths import ancestors

BLOCK = 4096
"""Bytes of a block of ext4 (mke2fs(8)); a directory has one block, unless its names need more."""

INLINE_TARGET = 60
"""Bytes of a symlink's text from which on it takes a block (Documentation/filesystems/ext4, "Symbolic Links")."""


def count_bytes(kind: int, size: int) -> int:
    """Return the bytes on the disk of an inode; ``kind``: a :class:`NodeKind`, ``size``: of its data or its text."""
    if kind == NodeKind.DIRECTORY:
        return BLOCK
    if kind == NodeKind.FILE or (kind == NodeKind.SYMLINK and size >= INLINE_TARGET):
        return -(-size // BLOCK) * BLOCK
    return 0


def measure_layer_usage(layer: Layer) -> int:
    """Return the bytes of all inodes of ``layer``, that of its root left out."""
    return sum(count_bytes(kind, size) for kind, size in layer.inodes(frozenset()))


def measure_growth(edits: StackedEdits) -> int:
    """Return by how many bytes the layer itself grows."""
    return _measure_growth([edits.layer.tree()], edits, lambda _: False)


def measure_shown_growth(edits: StackedEdits, covers: Sequence[Layer], others: Mapping[bytes, Edits]) -> int:
    """Return by how many bytes the tree grows that the layer, those below it and ``covers`` above it show together.

    ``others``: what changes in the same run in layers below, by their paths.
    """
    lower = [(layer.tree(), others.get(layer.address[0])) for layer in edits.stack.lower]
    trees = [tree if changes is None else EditedTree(tree, changes) for tree, changes in lower]
    above = [cover.tree() for cover in covers]
    is_covered = partial(_is_covered, above)
    return _measure_growth([*trees, edits.layer.tree()], edits.shown, is_covered)


class EditedTree(Mapping[bytes, Node]):
    """The nodes of ``tree`` after ``edits``."""

    def __init__(self, tree: Mapping[bytes, Node], edits: Edits) -> None:
        """Lay ``edits`` over ``tree``."""
        self._tree, self._removed = tree, edits.removed_paths
        self._added = {node.path: node for node, _ in edits.additions}

    def __getitem__(self, path: bytes) -> Node:
        """Return the node at ``path``. :raises KeyError: there is none."""
        if path in self._added:
            return self._added[path]
        if path in self._removed:
            raise KeyError(path)
        return self._tree[path]

    def __iter__(self) -> Iterator[bytes]:
        """Yield every path."""
        yield from self._added
        yield from (path for path in self._tree if path not in self._removed and path not in self._added)

    def __len__(self) -> int:
        """Return how many paths there are."""
        return sum(1 for _ in self)


def _is_covered(trees: Iterable[Mapping[bytes, Node]], path: bytes) -> bool:
    """Return whether one of ``trees`` shows something of its own at ``path``, or hides what lies below it there."""
    return any(_covers(tree, path) for tree in trees)


def _covers(tree: Mapping[bytes, Node], path: bytes) -> bool:
    """Return whether ``tree`` shows something of its own at ``path``, or hides what lies below it there."""
    if path in tree:
        return True
    owners = (tree.get(parent) for parent in ancestors(path))
    return any(owner.kind is not NodeKind.DIRECTORY or owner.is_opaque for owner in owners if owner is not None)


def _measure_growth(trees: Sequence[Mapping[bytes, Node]], edits: Edits, is_covered: Callable[[bytes], bool]) -> int:
    """Return by how many bytes the tree that ``trees`` show, the lowest first, grows by ``edits``.

    What :func:`is_covered` at a path does not change.
    """
    added = [node for node, _ in edits.additions if not is_covered(node.path)]
    removed = {path for path in edits.removed_paths if not is_covered(path)} | {node.path for node in added}
    freed = sum(_count_once(_freed_nodes(trees, removed)))
    return sum(_count_once((node.link, node) for node in added)) - freed


def _freed_nodes(trees: Sequence[Mapping[bytes, Node]], removed: Iterable[bytes]) -> Iterator[tuple[object, Node]]:
    """Yield the nodes at the ``removed`` paths with what their hard links have in common.

    Left out are those that keep another name.
    """
    shown = StackedTree(trees)
    linked: dict[int, dict[object, set[bytes]]] = {}
    nodes = list[tuple[object, Node]]()
    for path in removed:
        node = shown.get(path)
        if node is not None and node.link is not None:
            number = next(number for number in reversed(range(len(trees))) if path in trees[number])
            linked.setdefault(number, {}).setdefault(node.link, set()).add(path)
            nodes.append(((number, node.link), node))
        elif node is not None:
            nodes.append((None, node))
    remaining = {
        (number, node.link)
        for number, names in linked.items()
        for path, node in trees[number].items()
        if node.link in names and path not in names[node.link]
    }
    yield from ((key, node) for key, node in nodes if key is None or key not in remaining)


def _count_once(nodes: Iterable[tuple[object, Node]]) -> Iterator[int]:
    """Yield the bytes of each of ``nodes``; of those that have something in common only once."""
    seen = set[object]()
    for key, node in nodes:
        if key is not None and key in seen:
            continue
        seen.add(key)
        yield count_bytes(node.kind, node.content.size if node.content is not None else len(node.target))
