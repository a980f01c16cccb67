"""Whiteouts: names in an overlay that hide files of the layers below it (OCI image-spec, layer.md, "Whiteouts")."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from cosremaster.errors import OverlayError, Place
from cosremaster.records import Struct
from cosremaster.tree.nodes import Node, NodeKind
from cosremaster.tree.paths import join

PREFIX = b".wh."
OPAQUE = b".wh..wh..opq"
RESERVED = b".wh..wh."


class WhiteoutSplit(Struct, frozen=True):
    """The nodes of an overlay without its whiteouts.

    ``hidden_paths``: the paths that whiteouts hide. ``opaque_directories``: the directories that they empty.
    """

    nodes: tuple[Node, ...]
    hidden_paths: tuple[bytes, ...]
    opaque_directories: tuple[bytes, ...]


def split_whiteouts(nodes: Iterable[Node], place: Place, warn: Callable[[str], None]) -> WhiteoutSplit:
    """Separate the whiteouts from the other ``nodes`` of the overlay ``place``.

    ``warn`` is called for each reserved name with an unknown meaning; it is left out.

    :raises OverlayError: a whiteout hides no name, or is a directory.
    """
    other_nodes: list[Node] = []
    hidden: list[bytes] = []
    opaque: list[bytes] = []
    for node in nodes:
        directory, _, name = node.path.rpartition(b"/")
        is_in_whiteout = b"/" + PREFIX in b"/" + directory  # an archive need not have an entry for a directory
        if not name.startswith(PREFIX) and not is_in_whiteout:
            other_nodes.append(node)
            continue
        origin = place.inside(node.path)
        if is_in_whiteout:
            raise OverlayError("cannot be added: it is in a whiteout, which is an empty file", origin)
        if node.kind is NodeKind.DIRECTORY:
            raise OverlayError("cannot be added: a whiteout is an empty file, and this is a directory", origin)
        if name == OPAQUE:
            opaque.append(directory)
        elif name.startswith(RESERVED):
            warn(f"{origin}: this name is reserved for whiteouts that are not known; it is left out")
        elif name[len(PREFIX) :] in (b"", b".", b".."):
            raise OverlayError("cannot be added: a whiteout that hides no name", origin)
        else:
            hidden.append(join(directory, name[len(PREFIX) :]))
    return WhiteoutSplit(tuple(other_nodes), tuple(hidden), tuple(opaque))
