"""Receive what a script changed, and make nodes of it whose contents are in a spool."""

from __future__ import annotations

import hashlib
import stat
from collections.abc import Callable, Iterator, Mapping, Set
from typing import Any

from cosremaster.io.pieces import Piece, Zeros
from cosremaster.io.spool import Spool
from cosremaster.records import replace
from cosremaster.sandbox.settings import SERVICE_POLICY, helper_files
from cosremaster.sandbox.unpack import MOUNT_POINTS
from cosremaster.sandbox.wire import FrameKind, FrameWire, Record, receive_work
from cosremaster.tree.content import BytesContent, PieceContent
from cosremaster.tree.nodes import Content, Node, NodeKind

NOT_OF_IMAGES = frozenset((SERVICE_POLICY, *MOUNT_POINTS))
"""Paths that a script may remove though the image never had them."""

_MAX_TIME = 0xFFFFFFFF
_EMPTY = BytesContent(b"")


class ChangeCollector:
    """The nodes and removed paths that come over a wire, beside the ``tree`` as it was before the script.

    ``max_mtime``: no changed time is later. ``dropped``: what no layer takes, with the word for its kind.
    """

    def __init__(self, tree: Mapping[bytes, Node], spool: Spool, max_mtime: int | None) -> None:
        """Begin with no changes."""
        self._tree, self._spool = tree, spool
        self._max_mtime = _MAX_TIME if max_mtime is None else min(max_mtime, _MAX_TIME)
        self.nodes: list[Node] = []
        self.removed: list[bytes] = []
        self.dropped: list[tuple[str, bytes]] = []
        self._contents: dict[int, Content] = {}
        self._helpers = {path: hashlib.sha256(data).digest() for path, data in helper_files(tree).items()}

    def receive(self, wire: FrameWire) -> None:
        """Take all changes. :raises WireError: the sender ended before. Raises as :meth:`Spool.append`."""
        _, removed = receive_work(wire, FrameKind.REMOVED)
        self.removed = [path for path in removed if path in self._tree or path not in NOT_OF_IMAGES]
        while True:
            kind, value = receive_work(wire, FrameKind.NODES, FrameKind.END)
            if kind is FrameKind.END:
                break
            for record in value:
                self._take(record, wire)
        self.dropped = value
        self.nodes = self._drop_unchanged()

    def _take(self, record: Record, wire: FrameWire) -> None:
        """Take one node."""
        path, bits, uid, gid, mtime, details, xattrs, link = record
        kind, old = NodeKind(stat.S_IFMT(bits)), self._tree.get(path)
        if old is None or mtime != old.mtime:
            mtime = max(0, min(mtime, self._max_mtime))
        node = Node(
            path=path, kind=kind, mode=stat.S_IMODE(bits), uid=uid, gid=gid, mtime=mtime, xattrs=xattrs,
            link=("script", link) if link else None,
        )  # fmt: skip
        if kind is NodeKind.SYMLINK:
            node = replace(node, target=details)
        elif kind in (NodeKind.CHAR, NodeKind.BLOCK):
            node = replace(node, rdev=tuple(details))
        elif kind is NodeKind.FILE:
            node = replace(node, content=self._take_content(details, link, old, wire))
        if old is not None and old.kind is not kind:
            self.removed.append(path)
        self.nodes.append(node)

    def _take_content(self, details: Any, link: int, old: Node | None, wire: FrameWire) -> Content:
        """Return the content of a file: the ``old`` one where the bytes are equal."""
        if details is None:
            return self._contents[link]
        content = self._spool_bytes(details) if isinstance(details, bytes) else self._spool_frames(details, wire)
        old_content = None if old is None else old.content
        if old_content is not None and old_content.size == content.size and old_content.digest() == content.digest():
            content = old_content
        if link:
            self._contents[link] = content
        return content

    def _spool_bytes(self, data: bytes) -> Content:
        """Return ``data`` as a content in the spool."""
        if not data:
            return _EMPTY
        return PieceContent((self._spool.append((data,), packed=False),), hashlib.sha256(data).digest())

    def _spool_frames(self, size: int, wire: FrameWire) -> Content:
        """Return the content of ``size`` bytes that comes over ``wire``."""
        digest, pieces, position = hashlib.sha256(), list[Piece](), 0
        while position < size:
            holes: list[Zeros] = []
            run = self._spool.append(_data_until_hole(size - position, holes, wire, digest.update), packed=False)
            for zeros in holes:
                for chunk in zeros.chunks():
                    digest.update(chunk)
            position += run.length + sum(zeros.length for zeros in holes)
            pieces += [run, *holes]
        return PieceContent(tuple(piece for piece in pieces if piece.length), digest.digest())

    def _drop_unchanged(self) -> list[Node]:
        """Return the nodes that differ from those before; all names of a file or none."""
        names: dict[object, set[object]] = {}
        for node in self.nodes:
            old = self._tree.get(node.path)
            if old is not None and old.link is not None:
                names.setdefault(old.link, set()).add(node.link or node.path)
        split = {link for link, new_links in names.items() if len(new_links) > 1}
        changed = {node.path for node in self.nodes if not self._is_unchanged(node, split)}
        links = {node.link for node in self.nodes if node.link is not None and node.path in changed}
        return [node for node in self.nodes if node.path in changed or node.link in links]

    def _is_unchanged(self, node: Node, split: Set[object]) -> bool:
        """Tell whether the tree has ``node`` already; ``split``: old hard links whose names no longer are one file."""
        old = self._tree.get(node.path)
        if old is None:
            return node.content is not None and node.content.digest() == self._helpers.get(node.path)
        if (node.link is not None and old.link is None) or old.link in split:
            return False
        return (
            (node.kind, node.mode, node.uid, node.gid, node.target, node.rdev, node.xattrs)
            == (old.kind, old.mode, old.uid, old.gid, old.target, old.rdev, old.xattrs)
            and (node.mtime == old.mtime)
            and (node.content is old.content or (node.content is _EMPTY and old.content is None))
        )  # fmt: skip


def _data_until_hole(
    length: int, holes: list[Zeros], wire: FrameWire, observe: Callable[[bytes], object]
) -> Iterator[bytes]:  # fmt: skip
    """Yield the next bytes of a file that has ``length`` more, up to a hole, which is added to ``holes``."""
    while length > 0:
        kind, value = receive_work(wire, FrameKind.DATA, FrameKind.HOLE)
        if kind is FrameKind.HOLE:
            holes.append(Zeros(value))
            return
        observe(value)
        length -= len(value)
        yield value
