"""An ext4 file system as nodes by path, each made when it is read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from cosremaster.errors import CorruptError, Place
from cosremaster.io.pieces import PieceTable
from cosremaster.io.streams import sha256_of
from cosremaster.layers.ext4.filesystem import ROOT, Ext4Filesystem
from cosremaster.layers.ext4.inodes import Ext4Inode
from cosremaster.records import Struct
from cosremaster.tree.nodes import Node, NodeKind
from cosremaster.tree.paths import ancestors, parent_of

_DEVICES = (NodeKind.BLOCK, NodeKind.CHAR)


class Ext4Content(Struct, frozen=True):
    """The content of the file ``inode``; its extents are read when they are needed."""

    filesystem: Ext4Filesystem
    inode: Ext4Inode

    @property
    def size(self) -> int:
        """Its length in bytes."""
        return self.inode.size

    def digest(self) -> bytes:
        """Return the SHA-256 of the bytes; reads them."""
        return sha256_of(self.table().chunks())

    def table(self) -> PieceTable:
        """Return the bytes as a piece table."""
        return self.filesystem.data(self.inode)

    def head(self, count: int) -> bytes:
        """Return the first ``count`` bytes, or all when there are fewer."""
        return self.table().read(0, min(count, self.size))


class Ext4Tree(Mapping[bytes, Node]):
    """The nodes of an ext4 file system by path, the root's, which is empty, left out."""

    def __init__(self, table: PieceTable, place: Place) -> None:
        """Open the file system whose bytes are ``table``."""
        self.filesystem = Ext4Filesystem(table, place)
        self._directories: dict[bytes, dict[bytes, int]] = {}
        self._count: int | None = None

    def names(self, path: bytes) -> Mapping[bytes, int] | None:
        """Return the names in the directory ``path`` with their inodes' numbers; None where there is no directory."""
        known = path in self._directories
        for directory in () if known else (b"", *ancestors(path), path):  # may be more levels than Python can call
            if directory in self._directories:
                continue
            number = self._directories[parent_of(directory)].get(directory.rpartition(b"/")[2]) if directory else ROOT
            inode = None if number is None else self.filesystem.inode(number)
            if inode is None or inode.mode & 0o170000 != NodeKind.DIRECTORY:
                return None
            self._directories[directory] = {entry.name: entry.inode for entry in self.filesystem.listing(inode)}
        return self._directories[path]

    def _number(self, path: bytes) -> int | None:
        """Return the number of the inode at ``path``; None where there is nothing."""
        parent, _, name = path.rpartition(b"/")
        names = self.names(parent)
        return None if names is None else names.get(name)

    def __getitem__(self, path: bytes) -> Node:
        """Return the node at ``path``. :raises KeyError: there is none."""
        number = self._number(path) if path else None
        if number is None:
            raise KeyError(path)
        return self._node(path, self.filesystem.inode(number))

    def _node(self, path: bytes, inode: Ext4Inode) -> Node:
        """Return the node of ``inode`` at ``path``. :raises CorruptError: it has no known type."""
        try:
            kind = inode.kind
        except ValueError as error:
            message = f"ext4 inode {inode.number} has no type of a file"
            raise CorruptError(message, self.filesystem.place.inside(path)) from error
        return Node(
            path=path, kind=kind, mode=inode.mode & 0o7777, uid=inode.uid, gid=inode.gid, mtime=inode.mtime,
            target=self.filesystem.target(inode) if kind is NodeKind.SYMLINK else b"",
            rdev=inode.rdev if kind in _DEVICES else (0, 0),
            content=Ext4Content(self.filesystem, inode) if kind is NodeKind.FILE else None,
            link=inode.number if inode.links > 1 and kind is not NodeKind.DIRECTORY else None,
            xattrs=self.filesystem.xattrs(inode),
        )  # fmt: skip

    def __contains__(self, path: object) -> bool:
        """Tell whether there is a node at ``path``."""
        return isinstance(path, bytes) and bool(path) and self._number(path) is not None

    def __iter__(self) -> Iterator[bytes]:
        """Yield every path, parents before children."""
        return (path for path, _ in self.filesystem.walk())

    def __len__(self) -> int:
        """Return how many paths there are; counted once."""
        if self._count is None:
            self._count = sum(1 for _ in self)
        return self._count
