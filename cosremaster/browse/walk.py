"""Through all layers: everything that stands in a container, and in the containers in it."""

from __future__ import annotations

from collections.abc import Iterator

from cosremaster.browse.container import Container, NodeRef, enter, is_container
from cosremaster.browse.order import files_in_order

DEPTH = 6
"""Containers in containers that are entered; more only a bomb has."""


def walk(container: Container, path: bytes = b"", depth: int = DEPTH) -> Iterator[tuple[NodeRef, int]]:
    """Everything below ``path``, each directory and container before what is in it, with how deep it stands.

    Raises as reading a layer does.
    """
    holders = archives_in(container) if depth else frozenset()
    base = path.count(b"/") + 1 if path else 0
    for name in container.below(path):
        node = container.node(name)
        assert node is not None
        level = name.count(b"/") - base
        yield NodeRef(container, node), level
        if name in holders:
            for looked, deeper in walk(enter(container, node), b"", depth - 1):
                yield looked, level + 1 + deeper


def archives_in(container: Container) -> frozenset[bytes]:
    """The paths of the files in ``container`` that are containers; each one's first bytes are read, in order."""
    seen: dict[object, bool] = {}
    found = set()
    for node in files_in_order(container.nodes[path] for path in container.nodes):
        key = node.path if node.link is None else node.link
        if key not in seen:
            seen[key] = is_container(node)
        if seen[key]:
            found.add(node.path)
    return frozenset(found)
