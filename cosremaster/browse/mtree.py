"""Describe extracted nodes as mtree(5) of libarchive: owners, modes and devices that an ordinary user cannot make."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from cosremaster.tree.nodes import Node, NodeKind

_TYPES = {
    NodeKind.FIFO: b"fifo", NodeKind.CHAR: b"char", NodeKind.BLOCK: b"block", NodeKind.DIRECTORY: b"dir",
    NodeKind.SYMLINK: b"link", NodeKind.FILE: b"file", NodeKind.SOCKET: b"socket",
}  # fmt: skip


def mtree_lines(nodes: Iterable[Node]) -> Iterator[bytes]:
    """Yield a line for each node.

    ``bsdtar -cf x.tar @DIR.mtree`` inside the folder makes an archive with everything.
    """
    yield b"#mtree\n"
    for node in nodes:
        words = [b"./" + _escape(node.path) if node.path else b".", b"type=" + _TYPES[node.kind]]
        words.append(b"mode=%04o uid=%d gid=%d time=%d.0" % (node.mode, node.uid, node.gid, node.mtime))
        if node.kind is NodeKind.SYMLINK:
            words.append(b"link=" + _escape(node.target))
        if node.kind in (NodeKind.CHAR, NodeKind.BLOCK):
            words.append(b"device=linux,%d,%d" % node.rdev)
        if node.content is not None:
            words.append(b"size=%d" % node.content.size)
        yield b" ".join(words) + b"\n"


def _escape(name: bytes) -> bytes:
    """Return ``name`` with special characters in octal, as vis(3) with VIS_OCTAL writes it."""
    return b"".join(
        bytes((char,)) if 0x21 <= char < 0x7F and char not in b"\\#*?[=" else b"\\%03o" % char for char in name
    )
