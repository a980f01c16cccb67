"""Whiteouts: names in an overlay that take away what lies below it (OCI image-spec, layer.md, "Whiteouts")."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from msgspec import Struct

from cosremaster.errors import OverlayError, Place
from cosremaster.tree.nodes import Node, NodeKind
from cosremaster.tree.paths import join

PREFIX = b".wh."
OPAQUE = b".wh..wh..opq"
RESERVED = b".wh..wh."


class WhiteoutSplit(Struct, frozen=True):
    """The nodes of an overlay without its whiteouts, the paths these hide, and the directories they empty."""

    nodes: tuple[Node, ...]
    hidden_paths: tuple[bytes, ...]
    opaque_directories: tuple[bytes, ...]


def split_whiteouts(nodes: Iterable[Node], place: Place, warn: Callable[[str], None]) -> WhiteoutSplit:
    """``nodes`` of the overlay ``place``. :raises OverlayError: a whiteout that hides no name, or is a directory."""
    kept: list[Node] = []
    hidden: list[bytes] = []
    opaque: list[bytes] = []
    for node in nodes:
        folder, _, name = node.path.rpartition(b"/")
        if not name.startswith(PREFIX):
            kept.append(node)
            continue
        here = place.inside(node.path)
        if node.kind is NodeKind.DIRECTORY:
            raise OverlayError("cannot be added: a whiteout is an empty file, and this is a directory", here)
        if name == OPAQUE:
            opaque.append(folder)
        elif name.startswith(RESERVED):
            warn(f"{here}: this name is reserved for whiteouts that are not known; it is left out")
        elif name[len(PREFIX) :] in (b"", b".", b".."):
            raise OverlayError("cannot be added: a whiteout that hides no name", here)
        else:
            hidden.append(join(folder, name[len(PREFIX) :]))
    return WhiteoutSplit(tuple(kept), tuple(hidden), tuple(opaque))
