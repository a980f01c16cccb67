"""An ext4 file system as nodes by path, each made when it is read."""

from __future__ import annotations

from cosremaster.errors import Place
from cosremaster.io.pieces import PieceTable
from cosremaster.layers.ext4.directories import Ext4Entry
from cosremaster.layers.ext4.filesystem import Ext4Filesystem
from cosremaster.layers.ext4.inodes import Ext4Inode
from cosremaster.layers.on_demand import OnDemandTree


class Ext4Tree(OnDemandTree[Ext4Entry, Ext4Inode]):
    """The nodes of an ext4 file system by path."""

    filesystem: Ext4Filesystem

    def __init__(self, table: PieceTable, place: Place) -> None:
        """Open the file system whose bytes are ``table``."""
        super().__init__()
        self.filesystem = Ext4Filesystem(table, place)
