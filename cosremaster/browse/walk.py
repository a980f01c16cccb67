"""Walk through all layers: the content of a container, and of the containers in it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from cosremaster.browse.container import Container, NodeRef, enter, is_container
from cosremaster.browse.order import files_in_order
from cosremaster.errors import ImageError, UnsupportedError

if TYPE_CHECKING:
    from cosremaster.layers.member_files import MemberKeeper

DEPTH = 6
"""Containers in containers that are entered; more only a bomb has."""


def walk(
    container: Container, path: bytes = b"", members: MemberKeeper | None = None, depth: int = DEPTH,
    levels: int | None = None,
) -> Iterator[tuple[NodeRef, int]]:  # fmt: skip
    """Yield every node below ``path`` with its depth, each directory and container before its content.

    ``members``: keeps the containers in archives while these are read, so that nothing is read twice. ``levels``: nodes
    as deep as that alone; no container is entered for others. Raises as reading a layer does.
    """
    looks_inside = depth and levels != 1 and not _is_file_system(container)
    archives = find_archives(container) if looks_inside else frozenset()
    base = path.count(b"/") + 1 if path else 0
    for name in container.walk_below(path):
        level = name.count(b"/") - base
        if levels is not None and level >= levels:
            continue
        node = container.node(name)
        assert node is not None
        yield NodeRef(container, node), level
        if name not in archives or level + 1 == levels:
            continue
        try:
            inside = enter(container, node, members=members)
        except (ImageError, UnsupportedError):  # a damaged FAT file system or a strange squashfs is a plain file
            continue
        rest = None if levels is None else levels - level - 1
        for reference, deeper in walk(inside, b"", members, depth - 1, rest):
            yield reference, level + 1 + deeper


def _is_file_system(container: Container) -> bool:
    """Return whether ``container`` is a file system with random access: archives in it are the system's own.

    To look at the first bytes of each of its files would decompress most of it.
    """
    return container.layer is not None and container.layer.format.random_access


def find_archives(container: Container) -> frozenset[bytes]:
    """Return the paths of the files in ``container`` that are containers.

    The first bytes of each file are read, in order, where they were not seen before.
    """
    seen: dict[object, bool] = {}
    paths = set()
    for node in files_in_order(container.nodes[path] for path in container.nodes):
        key = node.path if node.link is None else node.link
        if key not in seen:
            seen[key] = is_container(node, container)
        if seen[key]:
            paths.add(node.path)
    return frozenset(paths)
