"""A squashfs layer as nodes by path, each made when it is read."""

from __future__ import annotations

from collections.abc import Iterator

from cosremaster.errors import Place
from cosremaster.io.pieces import PieceTable
from cosremaster.layers.on_demand import OnDemandTree
from cosremaster.layers.squashfs.directories import SquashfsEntry
from cosremaster.layers.squashfs.filesystem import SquashfsFilesystem
from cosremaster.layers.squashfs.inodes import Inode
from cosremaster.tree.nodes import Row, facts_of


class SquashfsTree(OnDemandTree[SquashfsEntry, Inode]):
    """The nodes of a squashfs file system by path."""

    filesystem: SquashfsFilesystem

    def __init__(self, table: PieceTable, place: Place) -> None:
        """Open the file system whose bytes are ``table``."""
        super().__init__()
        self.filesystem = SquashfsFilesystem(table, place)

    def walk_rows(self, path: bytes = b"") -> Iterator[Row]:
        """Yield what :meth:`walk_nodes` does, as rows, without a node for each name where its inode is a plain one."""
        directory = self.directory_inode(path)
        if directory is not None:
            for prefix, entries in self.filesystem.walk_runs(path, directory):
                facts = [
                    known or facts_of(self.make_node(entry.name, entry))
                    for known, entry in zip(self.filesystem.list_facts(entries), entries, strict=True)
                ]
                yield Row(prefix, [name for name, _, _, _ in entries], facts)
