"""An EROFS layer as nodes by path, each made when it is read."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from itertools import chain

from cosremaster.errors import Place
from cosremaster.io.pieces import PieceTable
from cosremaster.layers.erofs.directories import DIRECTORY_TYPE, ErofsEntry
from cosremaster.layers.erofs.filesystem import ErofsFilesystem
from cosremaster.layers.erofs.inodes import ErofsInode
from cosremaster.layers.on_demand import OnDemandTree
from cosremaster.tree.nodes import NodeKind
from cosremaster.tree.paths import parent_of


class ErofsTree(OnDemandTree[ErofsEntry, ErofsInode]):
    """The nodes of an EROFS file system by path."""

    filesystem: ErofsFilesystem

    def __init__(self, table: PieceTable, place: Place) -> None:
        """Open the file system whose bytes are ``table``."""
        super().__init__()
        self.filesystem = ErofsFilesystem(table, place)

    def check_inodes(self) -> None:
        """Read every inode, its attributes and where its data stand. :raises CorruptError: damage, with its place."""
        linked: set[object] = set()
        for path, entry in self.filesystem.walk():
            node = self.make_node(path, entry)
            if node.link is not None and node.link in linked:
                continue
            linked.add(node.link)
            if node.kind is NodeKind.FILE:
                deque(self.filesystem.data_ranges(self.filesystem.inode(entry.nid)), maxlen=0)

    def list_faulty_directories(self) -> Iterator[tuple[bytes, ErofsInode, str]]:
        """Yield path and inode of each directory that Linux or fsck.erofs does not take, and what is wrong with it.

        Linux looks for a name by halves; fsck.erofs unpacks nothing where the entries of a directory for itself and its
        parent lead elsewhere.
        """
        root = self.filesystem.root
        directories = (path for path, entry in self.filesystem.walk() if entry.type == DIRECTORY_TYPE)
        for path in chain((b"",), directories):
            inode, parent = self.directory_inode(path), self.directory_inode(parent_of(path))
            if inode is None or parent is None:
                continue
            entries = list(self.filesystem.full_listing(inode))
            names = [entry.name for entry in entries]
            if names != sorted(set(names)):
                yield path, inode, "are not sorted, or not all different, so that Linux does not find all of them"
            expected = {b".": inode.nid, b"..": parent.nid if path else root.nid}
            if any(expected.get(name, nid) != nid for name, nid, _ in entries):
                yield path, inode, "lead elsewhere where they are those of itself and of its parent"
