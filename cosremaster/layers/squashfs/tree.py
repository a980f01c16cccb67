"""A squashfs layer as nodes by path, each made when it is read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from msgspec import Struct

from cosremaster.errors import Place
from cosremaster.io.pieces import PieceTable
from cosremaster.io.streams import sha256_of
from cosremaster.layers.squashfs.directories import SquashfsEntry
from cosremaster.layers.squashfs.filesystem import SquashfsFilesystem
from cosremaster.layers.squashfs.inodes import DIRECTORY, NO_XATTR, Inode
from cosremaster.tree.nodes import Node, NodeKind, Xattrs

_OPAQUE = (b"trusted.overlay.opaque", b"y")


class SquashfsContent(Struct, frozen=True):
    """The content of the file ``inode``; its blocks are found when they are needed."""

    filesystem: SquashfsFilesystem
    inode: Inode

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
        return self.table().read(0, count)


class SquashfsTree(Mapping[bytes, Node]):
    """The nodes of a squashfs file system by path, the root's, which is empty, left out."""

    def __init__(self, table: PieceTable, place: Place) -> None:
        """Open the file system whose bytes are ``table``."""
        self.filesystem = SquashfsFilesystem(table, place)
        self._directories: dict[bytes, dict[bytes, SquashfsEntry]] = {}
        self._shared_xattrs: dict[int, Xattrs] = {}
        self._count: int | None = None

    def entry(self, path: bytes) -> SquashfsEntry | None:
        """Return the directory entry at ``path``; None where there is none."""
        parent, _, name = path.rpartition(b"/")
        directory = self.directory(parent)
        return None if directory is None else directory.get(name)

    def directory(self, path: bytes) -> dict[bytes, SquashfsEntry] | None:
        """Return the entries of the directory at ``path`` by name; None where there is no directory."""
        if path in self._directories:
            return self._directories[path]
        if not path:
            inode = self.filesystem.root
        else:
            entry = self.entry(path)
            if entry is None or entry.type != DIRECTORY:
                return None
            inode = self.filesystem.inode(entry.reference)
        self._directories[path] = {entry.name: entry for entry in self.filesystem.listing(inode)}
        return self._directories[path]

    def __getitem__(self, path: bytes) -> Node:
        """Return the node at ``path``. :raises KeyError: there is none."""
        entry = self.entry(path) if path else None
        if entry is None:
            raise KeyError(path)
        return self._node(path, self.filesystem.inode(entry.reference))

    def _node(self, path: bytes, inode: Inode) -> Node:
        """Return the node of ``inode`` at ``path``."""
        kind = inode.kind
        xattrs = self._xattrs(inode.xattr)
        return Node(
            path=path, kind=kind, mode=inode.mode, uid=self.filesystem.owner(inode.uid),
            gid=self.filesystem.owner(inode.gid), mtime=inode.mtime, target=inode.target, rdev=inode.rdev,
            content=SquashfsContent(self.filesystem, inode) if kind is NodeKind.FILE else None,
            link=inode.number if inode.nlink > 1 and kind is not NodeKind.DIRECTORY else None,
            is_opaque=kind is NodeKind.DIRECTORY and _OPAQUE in xattrs, xattrs=xattrs,
        )  # fmt: skip

    def _xattrs(self, number: int) -> Xattrs:
        """Return the extended attributes ``number``; files that share them share the value."""
        if number == NO_XATTR:
            return ()
        if number not in self._shared_xattrs:
            self._shared_xattrs[number] = tuple(sorted(self.filesystem.xattrs(number).items()))
        return self._shared_xattrs[number]

    def __contains__(self, path: object) -> bool:
        """Tell whether there is a node at ``path``."""
        return isinstance(path, bytes) and bool(path) and self.entry(path) is not None

    def __iter__(self) -> Iterator[bytes]:
        """Yield every path, parents before children."""
        return (path for path, _ in self.filesystem.walk())

    def __len__(self) -> int:
        """Return how many paths there are; counted once."""
        if self._count is None:
            self._count = sum(1 for _ in self)
        return self._count
