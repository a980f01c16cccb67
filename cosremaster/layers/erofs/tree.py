"""An EROFS layer as nodes by path, each made when it is read."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain

from cosremaster.errors import Place
from cosremaster.io.pieces import PieceTable
from cosremaster.layers.erofs.directories import DIRECTORY_TYPE, ErofsEntry
from cosremaster.layers.erofs.filesystem import ErofsFilesystem
from cosremaster.layers.erofs.inodes import ErofsInode
from cosremaster.layers.on_demand import OnDemandTree
from cosremaster.tree.nodes import NodeKind


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
                self.filesystem.find_data(self.filesystem.inode(entry.nid))

    def list_unsorted(self) -> Iterator[tuple[bytes, ErofsInode]]:
        """Yield path and inode of each directory whose names are not sorted, or not all different.

        Linux looks for a name by halves.
        """
        directories = (path for path, entry in self.filesystem.walk() if entry.type == DIRECTORY_TYPE)
        for path in chain((b"",), directories):
            inode = self.directory_inode(path)
            if inode is not None:
                names = [entry.name for entry in self.filesystem.full_listing(inode)]
                if names != sorted(set(names)):
                    yield path, inode
