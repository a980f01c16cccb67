"""Say what somebody may have meant by a path that is not there: a like name, or a layer that has the path."""

from __future__ import annotations

from collections.abc import Iterator

from cosremaster.browse.container import Container, NodeRef, enter
from cosremaster.browse.walk import find_archives
from cosremaster.errors import CosremasterError
from cosremaster.layers.member_files import MemberKeeper
from cosremaster.suggestions import format_suggestion
from cosremaster.tree.similar import follow_similar

_DEPTH = 2
"""Archives in archives that are looked into: an initramfs, and the root file system in it."""

_MOST_ENTERED = 8
"""Archives of a container that are looked into; each may have to be decoded."""


def suggest_path(container: Container, path: bytes) -> str:
    """Return the end of a sentence about ``path``, which ``container`` lacks; empty where nothing is like it."""
    with MemberKeeper() as members:
        address = next(_layers_with(container, path, _DEPTH, members), None) or _similar_path(container, path)
    return format_suggestion([address] if address else [])


def _layers_with(container: Container, path: bytes, depth: int, members: MemberKeeper) -> Iterator[str]:
    """Yield the address of each node at ``path`` in an archive inside ``container``, the deepest first."""
    for name in sorted(find_archives(container))[:_MOST_ENTERED] if depth else ():
        node = container.node(name)
        if node is None:
            continue
        try:
            inside = enter(container, node, members=members)
            yield from _layers_with(inside, path, depth - 1, members)
            found = inside.node(inside.resolve(path, last=False))
        except CosremasterError:
            continue
        if found is not None:
            yield NodeRef(inside, found).address


def _similar_path(container: Container, path: bytes) -> str | None:
    """Return the address of the path in ``container`` that is most like ``path``; None where none is."""
    match, is_whole = follow_similar(path, container.list_names)
    if is_whole:
        return _address_of(container, match)
    same = sorted(other for other in container.nodes if other.rpartition(b"/")[2] == path.rpartition(b"/")[2])
    return _address_of(container, same[0] if same else match)


def _address_of(container: Container, path: bytes) -> str | None:
    """Return the address of ``path`` in ``container``; None for the root, and where it is not there."""
    node = container.node(path) if path else None
    return None if node is None else NodeRef(container, node).address
