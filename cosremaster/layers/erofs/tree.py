"""An EROFS layer as nodes by path, each made when it is read."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from itertools import chain
from threading import Lock

from cosremaster.errors import CorruptError, Place
from cosremaster.io.pieces import PieceTable
from cosremaster.io.streams import sha256_of
from cosremaster.layers.erofs.directories import DIRECTORY_TYPE, ErofsEntry
from cosremaster.layers.erofs.filesystem import ErofsFilesystem
from cosremaster.layers.erofs.inodes import ErofsInode
from cosremaster.records import Struct
from cosremaster.tree.nodes import ListedTree, Node, NodeKind, Row, facts_of
from cosremaster.tree.paths import parent_of

_CACHED_DIRECTORIES = 64
_OPAQUE = (b"trusted.overlay.opaque", b"y")


class ErofsContent(Struct, frozen=True):
    """The content of the file ``inode``; its extents are found when they are needed."""

    filesystem: ErofsFilesystem
    inode: ErofsInode

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

    def find_places(self) -> None:
        """Find where the bytes stand, without reading them. :raises CorruptError: what leads to them is damaged."""
        if self.inode.layout.is_compressed:
            self.filesystem.extents(self.inode)
        else:
            self.table()

    def head(self, count: int) -> bytes:
        """Return the first ``count`` bytes, or all when there are fewer."""
        return self.table().read(0, count)


class ErofsTree(ListedTree):
    """The nodes of an EROFS file system by path, the root's, which is empty, left out."""

    def __init__(self, table: PieceTable, place: Place) -> None:
        """Open the file system whose bytes are ``table``."""
        self.filesystem = ErofsFilesystem(table, place)
        self._directories: OrderedDict[bytes, dict[bytes, ErofsEntry]] = OrderedDict()
        self._lock = Lock()
        self._count: int | None = None

    def entry(self, path: bytes) -> ErofsEntry | None:
        """Return the directory entry at ``path``; None where there is none."""
        parent, _, name = path.rpartition(b"/")
        directory = self.directory(parent)
        return None if directory is None else directory.get(name)

    def directory(self, path: bytes) -> dict[bytes, ErofsEntry] | None:
        """Return the entries of the directory at ``path`` by name; None where there is no directory.

        The way leads down from the nearest directory that is in memory: there may be more levels than Python can call.
        """
        unread, entries = [], self._remembered(path)
        while entries is None:
            unread.append(path)
            if not path:
                break
            path = parent_of(path)
            entries = self._remembered(path)
        for directory in reversed(unread):
            entry = (entries or {}).get(directory.rpartition(b"/")[2])
            if directory and (entry is None or entry.type != DIRECTORY_TYPE):
                return None
            inode = self.filesystem.root if entry is None else self.filesystem.inode(entry.nid)
            entries = self._read_directory(directory, inode)
        return entries

    def _remembered(self, path: bytes) -> dict[bytes, ErofsEntry] | None:
        """Return the entries of the directory at ``path``, None where they are not in memory."""
        with self._lock:
            known = self._directories.get(path)
            if known is not None:
                self._directories.move_to_end(path)
            return known

    def _read_directory(self, path: bytes, inode: ErofsInode) -> dict[bytes, ErofsEntry]:
        """Return the entries of the directory at ``path``, and remember them."""
        entries = {entry.name: entry for entry in self.filesystem.listing(inode)}
        with self._lock:
            self._directories[path] = entries
            if len(self._directories) > _CACHED_DIRECTORIES:
                self._directories.popitem(last=False)
        return entries

    def directory_inode(self, path: bytes) -> ErofsInode | None:
        """Return the inode of the directory at ``path``; None where there is none."""
        if not path:
            return self.filesystem.root
        entry = self.entry(path)
        return None if entry is None or entry.type != DIRECTORY_TYPE else self.filesystem.inode(entry.nid)

    def check_inodes(self) -> None:
        """Read every inode, its attributes and where its data stand. :raises CorruptError: damage, with its place."""
        linked: set[object] = set()
        for node in self.walk_nodes():
            if node.link is not None and node.link in linked:
                continue
            linked.add(node.link)
            if isinstance(node.content, ErofsContent):
                node.content.find_places()

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

    def list_directory(self, path: bytes) -> Sequence[bytes]:
        """Return the paths in the directory ``path``, sorted; none if it is no directory."""
        prefix = path + b"/" if path else b""
        return [prefix + name for name in self.directory(path) or ()]

    def walk_paths(self, path: bytes = b"") -> Iterator[bytes]:
        """Yield every path below the directory ``path``, sorted, each directory before its content."""
        directory = self.directory_inode(path)
        return (child for child, _ in self.filesystem.walk(path, directory)) if directory is not None else iter(())

    def walk_nodes(self, path: bytes = b"") -> Iterator[Node]:
        """Yield every node below the directory ``path``, sorted, each directory before its content."""
        directory = self.directory_inode(path)
        if directory is not None:
            for child, entry in self.filesystem.walk(path, directory):
                yield self._node(child, entry)

    def walk_rows(self, path: bytes = b"") -> Iterator[Row]:
        """Yield what :meth:`walk_nodes` does, as rows."""
        for node in self.walk_nodes(path):
            directory, slash, name = node.path.rpartition(b"/")
            yield Row(directory + slash, (name,), (facts_of(node),))

    def __getitem__(self, path: bytes) -> Node:
        """Return the node at ``path``. :raises KeyError: there is none."""
        entry = self.entry(path) if path else None
        if entry is None:
            raise KeyError(path)
        return self._node(path, entry)

    def _node(self, path: bytes, entry: ErofsEntry) -> Node:
        """Return the node at ``path`` that ``entry`` leads to.

        :raises CorruptError: it has no known type, or the entry lies about it: then a directory would seem empty.
        """
        filesystem, inode = self.filesystem, self.filesystem.inode(entry.nid)
        try:
            kind = inode.kind
        except ValueError as error:
            where = filesystem.place.inside(path[:255])
            raise CorruptError(f"EROFS inode {inode.nid} has no type of a file", where) from error
        if (kind is NodeKind.DIRECTORY) != (entry.type == DIRECTORY_TYPE):
            message = f"EROFS inode {inode.nid} and its name do not agree whether it is a directory"
            raise CorruptError(message, filesystem.place.inside(path[:255]))
        xattrs = filesystem.xattrs(inode)
        return Node(
            path=path, kind=kind, mode=inode.mode & 0o7777, uid=inode.uid, gid=inode.gid, mtime=inode.mtime,
            target=filesystem.target(inode) if kind is NodeKind.SYMLINK else b"", rdev=inode.rdev,
            content=ErofsContent(filesystem, inode) if kind is NodeKind.FILE else None,
            link=inode.nid if inode.nlink > 1 and kind is not NodeKind.DIRECTORY else None,
            is_opaque=kind is NodeKind.DIRECTORY and _OPAQUE in xattrs, xattrs=xattrs,
        )  # fmt: skip

    def __contains__(self, path: object) -> bool:
        """Tell whether there is a node at ``path``."""
        return isinstance(path, bytes) and bool(path) and self.entry(path) is not None

    def __iter__(self) -> Iterator[bytes]:
        """Yield every path, parents before children."""
        return self.walk_paths()

    def __len__(self) -> int:
        """Return how many paths there are; counted once."""
        if self._count is None:
            self._count = sum(1 for _ in self)
        return self._count
