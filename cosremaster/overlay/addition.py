"""What items of an overlay become: nodes for a file system, and the promise to make them once that is known."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from cosremaster.records import Struct, replace
from cosremaster.tree.nodes import Node
from cosremaster.tree.paths import join


class PreparedItem(Protocol):
    """An item of an overlay whose files on this machine were read and checked."""

    def additions(self, tree: Mapping[bytes, Node]) -> Sequence[Addition]:
        """Return what the item adds to the file system ``tree``, in order.

        ``tree`` maps normal paths to nodes. Removals and the items before this one have already changed it. It is
        valid only during the call.

        :raises OverlayError: the item does not fit this file system.
        """
        ...


class AttributedPath(Struct, frozen=True):
    """A path of an overlay, and the full names of those of its extended attributes that a warning is about."""

    path: bytes
    names: tuple[bytes, ...]


class Addition(Struct, frozen=True):
    """Nodes to be laid over a file system, and the paths that are removed from it before.

    ``nodes`` have paths below ``dest`` and are laid in their order. ``is_single_file``: there is one node, a file. It
    goes into ``dest`` if that is a directory in the file system or ``into_directory`` is set; otherwise ``dest`` is its
    new path. ``source`` names the origin in errors. ``hidden_paths`` and the contents of ``opaque_directories`` (both
    below ``dest``) are removed before any node is laid. ``has_explicit_ownership``: owners and modes were given for
    exactly these nodes, so the user is warned when an existing directory keeps its own. ``is_archive``: the nodes are
    as somebody packed them. ``skipped_xattrs``: extended attributes of the source that the nodes have not.
    ``is_exact``: the nodes are those of the file system itself after a change: paths are real ones, an existing
    directory gets the attributes of its node, and a node of any type takes the place of any other. ``root``: the
    directory that ``dest`` becomes where it is not there, under an empty path; None: a missing parent of the nodes.

    An addition is its own :class:`PreparedItem`: it does not depend on the file system.
    """

    nodes: tuple[Node, ...]
    dest: bytes
    is_single_file: bool
    into_directory: bool
    source: str
    hidden_paths: tuple[bytes, ...] = ()
    opaque_directories: tuple[bytes, ...] = ()
    has_explicit_ownership: bool = False
    is_archive: bool = False
    skipped_xattrs: tuple[AttributedPath, ...] = ()
    is_exact: bool = False
    root: Node | None = None

    def additions(self, tree: Mapping[bytes, Node]) -> tuple[Addition, ...]:
        """Return the addition itself."""
        return (self,)


def respell_addition(addition: Addition, spell: Callable[[bytes], bytes]) -> Addition:
    """Return ``addition`` with each path as ``spell`` writes it: in the names that the file system has for it."""
    dest = spell(addition.dest)
    start = len(dest) + 1 if dest else 0
    nodes = addition.nodes
    if not addition.is_single_file or addition.into_directory:
        nodes = tuple(replace(node, path=spell(join(dest, node.path))[start:]) for node in nodes)
    return replace(addition, dest=dest, nodes=nodes)
