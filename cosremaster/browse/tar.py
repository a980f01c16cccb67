"""Nodes as a tar archive (POSIX.1-2001 pax, by the standard library) with everything kept, streamed."""

from __future__ import annotations

import os
import tarfile
from collections.abc import Iterable, Iterator
from functools import cached_property

from msgspec import Struct

from cosremaster.browse.order import files_in_order
from cosremaster.io.pieces import Literal, Piece, PieceTable, Range, Zeros
from cosremaster.tree.nodes import Node, NodeKind

BLOCKING = 10240
_TYPES = {
    NodeKind.FIFO: tarfile.FIFOTYPE, NodeKind.CHAR: tarfile.CHRTYPE, NodeKind.BLOCK: tarfile.BLKTYPE,
    NodeKind.DIRECTORY: tarfile.DIRTYPE, NodeKind.SYMLINK: tarfile.SYMTYPE, NodeKind.FILE: tarfile.REGTYPE,
}  # fmt: skip


class TarStream(Struct, frozen=True, dict=True):  # no slots, so that a cached property has where to be kept
    """A tar archive of ``nodes`` as a source of pieces: directories first, then data in the order they are read.

    A socket cannot be in a tar archive and is left out. The same nodes make the same bytes. Headers are kept once they
    are made, 512 bytes or more for each node; data are read when they are asked for.
    """

    nodes: tuple[Node, ...]
    name: str = "tar"

    def table(self) -> PieceTable:
        """The whole archive; its length is known without reading data."""
        return PieceTable([Range(self, 0, self._whole.length)])

    def chunks(self, offset: int, length: int) -> Iterator[bytes]:
        """``length`` bytes of the archive from ``offset``; data are decoded once if that only grows."""
        return self._whole.cut(offset, offset + length).chunks()

    @cached_property
    def _whole(self) -> PieceTable:
        pieces: list[Piece] = []
        length = 0
        for node, head in self._heads():
            pieces.append(Literal(head))
            length += len(head)
            if node.content is not None and node.content.size:
                padding = -node.content.size % tarfile.BLOCKSIZE
                pieces += [*node.content.table().pieces, Zeros(padding)]
                length += node.content.size + padding
        return PieceTable([*pieces, Zeros(_end(length))])

    def _heads(self) -> Iterator[tuple[Node, bytes]]:
        """Each node with its header blocks; a name of a file that stands before it goes as a link, without content."""
        linked: dict[object, str] = {}
        for node in self.nodes:
            info = tarfile.TarInfo(os.fsdecode(node.path))
            info.type, info.mode, info.mtime = _TYPES[node.kind], node.mode, node.mtime
            info.uid, info.gid, (info.devmajor, info.devminor) = node.uid, node.gid, node.rdev
            info.linkname = os.fsdecode(node.target)
            if node.content is not None:
                info.size = node.content.size
            if node.link is not None and node.link in linked:
                info.type, info.linkname, info.size = tarfile.LNKTYPE, linked[node.link], 0
                node = _without_content(node)  # noqa: PLW2901
            elif node.link is not None:
                linked[node.link] = info.name
            yield node, info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")


def build_tar(nodes: Iterable[Node]) -> TarStream:
    """The tar archive of ``nodes``, whose paths are relative to its root."""
    nodes = [node for node in nodes if node.kind is not NodeKind.SOCKET and node.path]
    folders = [node for node in nodes if node.kind is NodeKind.DIRECTORY]
    others = [node for node in nodes if node.kind not in (NodeKind.DIRECTORY, NodeKind.FILE)]
    return TarStream((*folders, *files_in_order(nodes), *others))


def _without_content(node: Node) -> Node:
    return Node(path=node.path, kind=node.kind, mode=node.mode, link=node.link)


def _end(length: int) -> int:
    """Two blocks of zeros, and as many as fill the last record."""
    end = 2 * tarfile.BLOCKSIZE
    return end + -(length + end) % BLOCKING
