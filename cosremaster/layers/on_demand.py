"""What file systems that are read on demand have in common: paths lead to inodes, and inodes to nodes.

A format's ``filesystem`` module says what its inodes and listings are, by deriving :class:`OnDemandFilesystem`;
:class:`OnDemandTree` makes nodes of them, each when it is asked for.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from threading import Lock
from typing import Any, Generic, Protocol, TypeVar

from cosremaster.errors import CorruptError, Place
from cosremaster.io.pieces import PieceTable
from cosremaster.io.streams import sha256_of
from cosremaster.records import Struct
from cosremaster.tree.nodes import ListedTree, Node, NodeKind, Row, Xattrs, facts_of
from cosremaster.tree.paths import parent_of

MAX_LISTINGS = 1 << 28
"""Bytes of all directories together that are believed, some 10 million names. Crafted ones could overlap."""
MAX_PATH = 1 << 16
"""Bytes of a path that are believed: below so many directories, 16 times what Linux resolves at once."""
_CACHED_DIRECTORIES = 64
_OPAQUE = (b"trusted.overlay.opaque", b"y")


class _Inode(Protocol):
    """What every inode tells."""

    @property
    def number(self) -> int:
        """Its number, which no other has."""
        ...

    @property
    def size(self) -> int:
        """Bytes of its data, or of its listing."""
        ...

    @property
    def mode(self) -> int:
        """The permission bits; the bits of its type may stand before them."""
        ...

    @property
    def mtime(self) -> int:
        """The time of the last change, in seconds since 1970."""
        ...

    @property
    def nlink(self) -> int:
        """How many names it has."""
        ...

    @property
    def rdev(self) -> tuple[int, int]:
        """Major and minor number of a device; zeros for all else."""
        ...


class _Entry(Protocol):
    """What every entry of a directory tells."""

    @property
    def name(self) -> bytes:
        """The name."""
        ...


AnyInode = TypeVar("AnyInode", bound=_Inode)
AnyEntry = TypeVar("AnyEntry", bound=_Entry)


class OnDemandFilesystem(ABC, Generic[AnyEntry, AnyInode]):
    """A file system whose inodes, directories and data are read when they are needed.

    ``noun``: its name in sentences, with an article; ``max_listings``: bytes of all its directories that are believed.
    """

    noun: str
    place: Place
    max_listings: int = MAX_LISTINGS

    @property
    @abstractmethod
    def root(self) -> AnyInode:
        """The inode of the root directory."""

    @abstractmethod
    def inode_of(self, entry: AnyEntry) -> AnyInode:
        """Return the inode that ``entry`` leads to. :raises CorruptError: it cannot be one."""

    @abstractmethod
    def find_directory(self, entry: AnyEntry) -> AnyInode | None:
        """Return the inode of the directory that ``entry`` leads to; None where it leads to something else."""

    @abstractmethod
    def listing(self, directory: AnyInode) -> Iterable[AnyEntry]:
        """Return the entries of ``directory`` sorted by name, without those of itself and its parent.

        :raises CorruptError: it is damaged.
        """

    @abstractmethod
    def kind_of(self, path: bytes, entry: AnyEntry, inode: AnyInode) -> NodeKind:
        """Return the type of ``inode``, to which ``entry`` at ``path`` leads.

        :raises CorruptError: there is no such type, or both do not agree about it.
        """

    @abstractmethod
    def owners_of(self, inode: AnyInode) -> tuple[int, int]:
        """Return the user and the group of ``inode``. :raises CorruptError: they are not there."""

    @abstractmethod
    def xattrs_of(self, inode: AnyInode) -> Xattrs:
        """Return the extended attributes of ``inode``, sorted by name. :raises CorruptError: they are damaged."""

    @abstractmethod
    def target(self, inode: AnyInode) -> bytes:
        """Return the text of the symlink ``inode``. :raises CorruptError: it is damaged."""

    @abstractmethod
    def data(self, inode: AnyInode) -> PieceTable:
        """Return the data of the file ``inode``. :raises CorruptError: what leads to them is damaged."""

    def runs(self, directory: AnyInode) -> Iterator[Sequence[AnyEntry]]:
        """Yield the entries of ``directory`` in runs, in which no directory is followed by another entry.

        :raises CorruptError: it is damaged.
        """
        return ((entry,) for entry in self.listing(directory))

    def walk(self, path: bytes = b"", directory: AnyInode | None = None) -> Iterator[tuple[bytes, AnyEntry]]:
        """Yield path and entry of everything below ``directory`` (the root by default), each directory before its
        content.

        :raises CorruptError: a directory is damaged, or has two names: so a small image would unfold without end.
        """
        for prefix, entries in self.walk_runs(path, directory):
            for entry in entries:
                yield prefix + entry.name, entry

    def walk_runs(
        self, path: bytes = b"", directory: AnyInode | None = None
    ) -> Iterator[tuple[bytes, Sequence[AnyEntry]]]:
        """Yield what :meth:`walk` does as :meth:`runs` of entries, each with what stands before its names.

        :raises CorruptError: as :meth:`walk`.
        """
        top = self.root if directory is None else directory
        seen, room = {top.number}, self.max_listings - top.size
        open_directories = [(path + b"/" if path else b"", self.runs(top))]
        while open_directories:
            prefix, runs = open_directories[-1]
            for entries in runs:
                yield prefix, entries
                inode = self.find_directory(entries[-1])
                if inode is not None:
                    child = prefix + entries[-1].name
                    room -= inode.size
                    if inode.number in seen or room < 0 or len(child) > MAX_PATH:
                        problem = self._describe_excess(inode.number in seen, room)
                        raise CorruptError(problem, self.place.inside(child[:255]))
                    seen.add(inode.number)
                    open_directories.append((child + b"/", self.runs(inode)))
                    break
            else:
                open_directories.pop()

    def _describe_excess(self, is_repeated: bool, room: int) -> str:
        """Return why a directory is not entered: it was already, or no ``room`` is left for its listing."""
        if is_repeated:
            return f"{self.noun} directory has two names, or stands below itself"
        if room < 0:
            return f"{self.noun} file system has directories that claim more than {self.max_listings:,} bytes"
        return f"{self.noun} directory is deeper than a path of {MAX_PATH:,} bytes"


class InodeContent(Struct, frozen=True):
    """The content of the file ``inode``; what leads to its bytes is read when they are needed."""

    filesystem: OnDemandFilesystem[Any, Any]
    inode: _Inode

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


class OnDemandTree(ListedTree, Generic[AnyEntry, AnyInode]):
    """The nodes of a file system by path, the root's, which is empty, left out."""

    filesystem: OnDemandFilesystem[AnyEntry, AnyInode]

    def __init__(self) -> None:
        """Begin without directories in memory; the format's class opens the file system."""
        self._directories: OrderedDict[bytes, dict[bytes, AnyEntry]] = OrderedDict()
        self._absent = b""
        """The directory, with a slash, that was not there when a path was last looked up in vain."""
        self._lock = Lock()
        self._count: int | None = None

    def entry(self, path: bytes) -> AnyEntry | None:
        """Return the directory entry at ``path``; None where there is none."""
        parent, _, name = path.rpartition(b"/")
        directory = self.directory(parent)
        return None if directory is None else directory.get(name)

    def directory(self, path: bytes) -> dict[bytes, AnyEntry] | None:
        """Return the entries of the directory at ``path`` by name; None where there is no directory.

        The way leads down from the nearest directory that is in memory: there may be more levels than Python can call.
        """
        if self._absent and (path + b"/").startswith(self._absent):
            return None
        unread, entries = [], self._remembered(path)
        while entries is None:
            unread.append(path)
            if not path:
                break
            path = parent_of(path)
            entries = self._remembered(path)
        for directory in reversed(unread):
            entry = (entries or {}).get(directory.rpartition(b"/")[2])
            inode = self.filesystem.root if not directory else self._find_directory(entry)
            if inode is None:
                self._absent = directory + b"/"
                return None
            entries = self._read_directory(directory, inode)
        return entries

    def _find_directory(self, entry: AnyEntry | None) -> AnyInode | None:
        """Return the inode of the directory that ``entry`` leads to; None where there is none."""
        return None if entry is None else self.filesystem.find_directory(entry)

    def _remembered(self, path: bytes) -> dict[bytes, AnyEntry] | None:
        """Return the entries of the directory at ``path``, None where they are not in memory."""
        with self._lock:
            entries = self._directories.get(path)
            if entries is not None:
                self._directories.move_to_end(path)
            return entries

    def _read_directory(self, path: bytes, inode: AnyInode) -> dict[bytes, AnyEntry]:
        """Return the entries of the directory at ``path``, and remember them."""
        entries = {entry.name: entry for entry in self.filesystem.listing(inode)}
        with self._lock:
            self._directories[path] = entries
            if len(self._directories) > _CACHED_DIRECTORIES:
                self._directories.popitem(last=False)
        return entries

    def directory_inode(self, path: bytes) -> AnyInode | None:
        """Return the inode of the directory at ``path``; None where there is none."""
        return self._find_directory(self.entry(path)) if path else self.filesystem.root

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
                yield self.make_node(child, entry)

    def walk_rows(self, path: bytes = b"") -> Iterator[Row]:
        """Yield what :meth:`walk_nodes` does, as rows."""
        directory = self.directory_inode(path)
        if directory is not None:
            for prefix, entries in self.filesystem.walk_runs(path, directory):
                facts = [facts_of(self.make_node(prefix + entry.name, entry)) for entry in entries]
                yield Row(prefix, [entry.name for entry in entries], facts)

    def __getitem__(self, path: bytes) -> Node:
        """Return the node at ``path``. :raises KeyError: there is none."""
        entry = self.entry(path) if path else None
        if entry is None:
            raise KeyError(path)
        return self.make_node(path, entry)

    def read_root(self) -> Node:
        """Return the node of the root. :raises CorruptError: its inode is damaged."""
        return self._make_node(b"", self.filesystem.root, NodeKind.DIRECTORY)

    def make_node(self, path: bytes, entry: AnyEntry) -> Node:
        """Return the node at ``path`` that ``entry`` leads to. :raises CorruptError: its inode is damaged."""
        inode = self.filesystem.inode_of(entry)
        return self._make_node(path, inode, self.filesystem.kind_of(path, entry, inode))

    def _make_node(self, path: bytes, inode: AnyInode, kind: NodeKind) -> Node:
        """Return the node of ``inode``, which is of ``kind``. Raises as :meth:`make_node`."""
        filesystem = self.filesystem
        xattrs = filesystem.xattrs_of(inode)
        uid, gid = filesystem.owners_of(inode)
        return Node(
            path=path, kind=kind, mode=inode.mode & 0o7777, uid=uid, gid=gid, mtime=inode.mtime, rdev=inode.rdev,
            target=filesystem.target(inode).partition(b"\0")[0] if kind is NodeKind.SYMLINK else b"",  # as Linux has it
            content=InodeContent(filesystem, inode) if kind is NodeKind.FILE else None,
            link=inode.number if inode.nlink > 1 and kind is not NodeKind.DIRECTORY else None,
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
