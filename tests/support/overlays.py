"""Nodes and additions in a few words, laid over a small image."""

from collections.abc import Iterable, Iterator, Sequence

from cosremaster.errors import Place
from cosremaster.overlay.addition import Addition, PreparedItem
from cosremaster.overlay.merge import merge
from cosremaster.overlay.patterns import Pattern
from cosremaster.tree.content import BytesContent
from cosremaster.tree.nodes import Action, ArchiveTree, Edits, Node, NodeKind


def directory(path: bytes, mode: int = 0o755, mtime: int = 1) -> Node:
    return Node(path=path, kind=NodeKind.DIRECTORY, mode=mode, mtime=mtime, uid=7)


def file(path: bytes, data: bytes = b"data", mode: int = 0o644, mtime: int = 50) -> Node:
    return Node(path=path, kind=NodeKind.FILE, mode=mode, mtime=mtime, content=BytesContent(data))


def symlink(path: bytes, target: bytes) -> Node:
    return Node(path=path, kind=NodeKind.SYMLINK, mode=0o777, target=target)


IMAGE = (
    *(
        directory(b"usr"),
        directory(b"usr/bin", 0o711),
        directory(b"etc"),
        directory(b"empty"),
        directory(b"var"),
        directory(b"var/log"),
    ),
    *(
        symlink(b"bin", b"usr/bin"),
        symlink(b"sbin", b"/usr/sbin/"),
        symlink(b"usr/sbin", b"bin"),
        symlink(b"var/up", b"../../../etc/."),
    ),
    *(
        symlink(b"dangling", b"/gone"),
        symlink(b"loop1", b"loop2"),
        symlink(b"loop2", b"/loop1"),
        symlink(b"tofile", b"etc/motd"),
    ),
    *(file(b"etc/motd", b"hello\n"), file(b"usr/bin/sh", b"\x7fELF", 0o4755), file(b"script", b"#!/bin/sh\n", 0o644)),
)


class Entries(ArchiveTree):
    """The nodes of an archive."""

    def __init__(self, nodes: Iterable[Node]) -> None:
        self._nodes = {node.path: node for node in nodes}

    def __getitem__(self, path: bytes) -> Node:
        return self._nodes[path]

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._nodes)

    def __len__(self) -> int:
        return len(self._nodes)


def folder_of(*nodes: Node, dest: bytes = b"") -> Addition:
    return Addition(nodes, dest, False, False, "overlay")


def single_node(node: Node, dest: bytes, *, into: bool = False) -> Addition:
    return Addition((node,), dest, True, into, node.path.decode())


def merged(
    *items: PreparedItem, image: Iterable[Node] = IMAGE, remove: Sequence[bytes] = (), allow_missing: bool = False,
    force_type: bool = False,
) -> Edits:  # fmt: skip
    tree = Entries(image)
    patterns = [Pattern(text) for text in remove]
    place = Place(("in.iso", "rootfs.cxz"))
    return merge(tree, items, patterns, place, allow_missing=allow_missing, force_type=force_type)


def reasons(edits: Edits) -> dict[bytes, str]:
    """New paths with why, which must come sorted."""
    paths = [node.path for node, _ in edits.additions]
    assert paths == sorted(paths)
    return {node.path: action.value for node, action in edits.additions}


ADDED, REPLACED, PARENT = Action.ADDED.value, Action.REPLACED.value, Action.PARENT.value
