"""Nodes that a file system has after a change of its own, as a script's: which of them differ from those before.

Unlike the nodes of a source, they say all of a file: bits, extended attributes and names that they lack are gone. Of
directories alone the attributes count; what is in them has nodes of its own. A change of the time alone is none.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from cosremaster.records import replace
from cosremaster.tree.content import is_same_content
from cosremaster.tree.nodes import Node, NodeKind
from cosremaster.tree.xattrs import private_xattrs, shared_xattrs


def is_same_node(old: Node, new: Node) -> bool:
    """Return whether all but the time of two nodes at one path is the same; names of one file are not compared."""
    if (old.kind, old.uid, old.gid) != (new.kind, new.uid, new.gid):
        return False
    if shared_xattrs(old.xattrs) != shared_xattrs(new.xattrs):
        return False
    if old.kind is NodeKind.SYMLINK:
        return old.target == new.target
    if (old.mode, old.rdev) != (new.mode, new.rdev):
        return False
    if old.content is None or new.content is None:
        return old.content is new.content
    return is_same_content(old.content, new.content)


def with_private_xattrs(old: Node, new: Node) -> Node:
    """Return the directory ``new`` with what overlayfs keeps for itself in the attributes of ``old``, in its place."""
    private = private_xattrs(old.xattrs)
    if not private or NodeKind.DIRECTORY not in (old.kind, new.kind) or old.kind is not new.kind:
        return new
    return replace(new, xattrs=tuple(sorted((*shared_xattrs(new.xattrs), *private))), is_opaque=old.is_opaque)


def find_relinked(image: Mapping[bytes, Node], laid: Iterable[Node], removed: Collection[bytes]) -> set[bytes]:
    """Return the paths of ``laid`` files that have other names in common than the files of ``image`` at these paths.

    ``removed``: the paths of ``image`` that are gone.
    """
    files = {node.path: node for node in laid if node.kind is NodeKind.FILE}
    old_links = {path: old.link for path in files if (old := image.get(path)) is not None and old.link is not None}
    groups: dict[object, set[bytes]] = {}
    for node in files.values():
        groups.setdefault(node.path if node.link is None else (node.link,), set()).add(node.path)
    if not old_links and all(len(group) == 1 for group in groups.values()):
        return set()
    old_names: dict[object, set[bytes]] = {link: set() for link in old_links.values()}
    for path, node in image.items() if old_names else ():
        if node.link in old_names and path not in removed:
            old_names[node.link].add(path)
    # Of the files that the names of an old one lead to now, the one with most of them counts as that file.
    heirs: dict[object, set[bytes]] = {}
    for group in groups.values():
        for link in {old_links[path] for path in group if path in old_links}:
            heirs[link] = max(heirs.get(link, set()), group, key=len)
    relinked: set[bytes] = set()
    for group in groups.values():
        links = {old_links.get(path) for path in group}
        link = next(iter(links))
        if len(links) > 1 or (link is None and len(group) > 1):
            relinked |= group
        elif link is not None:
            staying = {path for path in old_names[link] if path not in files or path in group}
            if heirs[link] is not group or staying != group:
                relinked |= group
    return relinked
