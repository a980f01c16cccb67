"""Nodes of a file system and changes to them, in the types that overlays, layers and the ISO's tree share."""

from __future__ import annotations

import enum
from abc import abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Protocol, TypeAlias

from cosremaster.io.pieces import PieceTable
from cosremaster.records import Struct
from cosremaster.records.tuples import NamedTuple
from cosremaster.tree.paths import ancestors, resolve_in_root
from cosremaster.tree.superseding import NO_SUPERSEDING, Superseding

Xattrs: TypeAlias = tuple[tuple[bytes, bytes], ...]
"""Extended attributes: full names with their values, sorted by name."""


class NodeKind(enum.IntEnum):
    """The file type of a node; the values are the file-type bits of ``st_mode`` (POSIX ``<sys/stat.h>``)."""

    FIFO = 0o010000
    CHAR = 0o020000
    DIRECTORY = 0o040000
    BLOCK = 0o060000
    FILE = 0o100000
    SYMLINK = 0o120000
    SOCKET = 0o140000

    @property
    def noun(self) -> str:
        """The type's name for people."""
        return _NOUNS[self]


_NOUNS = {
    NodeKind.FIFO: "FIFO",
    NodeKind.CHAR: "character device",
    NodeKind.DIRECTORY: "directory",
    NodeKind.BLOCK: "block device",
    NodeKind.FILE: "file",
    NodeKind.SYMLINK: "symlink",
    NodeKind.SOCKET: "socket",
}


class Content(Protocol):
    """The bytes of a regular file, in memory or in any source."""

    @property
    def size(self) -> int:
        """Its length in bytes."""
        ...

    def digest(self) -> bytes:
        """Return the SHA-256 of the bytes; may read them."""
        ...

    def table(self) -> PieceTable:
        """Return the bytes as a piece table."""
        ...

    def head(self, count: int) -> bytes:
        """Return the first ``count`` bytes, or all when there are fewer."""
        ...


class Node(Struct, frozen=True, kw_only=True):
    """A name in a file system.

    :ivar path: has no leading slash and no ``.`` or ``..``; that of the root is empty.
    :ivar mode: the twelve permission bits.
    :ivar mtime: the time of the last change, in seconds since 1970.
    :ivar target: the text of a symlink.
    :ivar rdev: major and minor number of a device.
    :ivar content: the bytes of a regular file.
    :ivar link: equal for all hard links of a file; None for a file with one name.
    :ivar is_opaque: a directory that hides those below it in a stack of layers
        (Documentation/filesystems/overlayfs.rst).
    :ivar xattrs: its extended attributes (xattr(7)): full names, as in ``security.capability``, with their values,
        sorted by name. A format that cannot hold them leaves them out and says so.
    """

    path: bytes
    kind: NodeKind
    mode: int
    uid: int = 0
    gid: int = 0
    mtime: int = 0
    target: bytes = b""
    rdev: tuple[int, int] = (0, 0)
    content: Content | None = None
    link: object = None
    is_opaque: bool = False
    xattrs: Xattrs = ()


Facts: TypeAlias = tuple[int, int, int, int, int, bytes, tuple[int, int], bool]
"""What a line of ``ls -l`` shows of a node: file type with mode, user, group, time of the last change, size of the
content or the symlink's text, that text, numbers of the device, and whether it has extended attributes. A plain tuple,
as a listing of a root has hundreds of thousands of them."""


def facts_of(node: Node) -> Facts:
    """Return what a listing shows of ``node``."""
    size = len(node.target) if node.content is None else node.content.size
    bits = node.kind | node.mode
    return bits, node.uid, node.gid, node.mtime, size, node.target, node.rdev, bool(node.xattrs)


class Row(NamedTuple):
    """Nodes that stand in one directory after another: where they are, ``names``, and as many ``facts``.

    ``prefix``: the path of the directory with a slash behind it; empty for the root.
    """

    prefix: bytes
    names: Sequence[bytes]
    facts: Sequence[Facts]


def row_of(node: Node) -> Row:
    """Return the row of ``node`` alone."""
    directory, slash, name = node.path.rpartition(b"/")
    return Row(directory + slash, (name,), (facts_of(node),))


class RootedTree(Mapping[bytes, Node]):
    """Nodes by path of a file system whose root has a mode, owners and times. Its path, which is empty, is no key."""

    @abstractmethod
    def read_root(self) -> Node:
        """Return the node of the root."""

    def list_paths(self) -> Collection[bytes]:
        """Return all paths. Trees that know them without reading nodes override this."""
        return self.keys()


class ListedTree(RootedTree):
    """Nodes by path that are read directory by directory: nobody has to go over all of them to know one directory.

    A directory is a node of its own, never implied by what is below it.
    """

    @abstractmethod
    def list_directory(self, path: bytes) -> Sequence[bytes]:
        """Return the paths in the directory ``path``, sorted; none if it is no directory."""

    @abstractmethod
    def walk_paths(self, path: bytes = b"") -> Iterator[bytes]:
        """Yield every path below the directory ``path``, sorted, each directory before its content."""

    @abstractmethod
    def walk_nodes(self, path: bytes = b"") -> Iterator[Node]:
        """Yield every node below the directory ``path``, sorted, each directory before its content."""

    @abstractmethod
    def walk_rows(self, path: bytes = b"") -> Iterator[Row]:
        """Yield what :meth:`walk_nodes` does, as rows: for listings, which make no node of each name."""


class ArchiveTree(Mapping[bytes, Node]):
    """Nodes by path of an archive, which need not have an entry for each directory: one without is no node."""

    @cached_property
    def implied_directories(self) -> frozenset[bytes]:
        """The directories that no entry names, only paths below them; without the root."""
        parents = {path.rpartition(b"/")[0] for path in self}  # few: entries of one directory share it
        missing = parents.difference(self, (b"",))
        return frozenset(above for path in missing for above in (*ancestors(path), path)).difference(self)


class Action(enum.Enum):
    """The kinds of changes to a path."""

    ADDED = "added"
    REPLACED = "replaced"
    PARENT = "made as a parent"
    REMOVED = "removed"
    UNCHANGED = "unchanged"


class Edits(Struct, frozen=True):
    """The changes to a layer.

    :ivar removed_paths: the paths of entries to be removed, those of replaced entries included.
    :ivar additions: new nodes, each with the kind of its change; sorted by path, parents before children.
    :ivar removed: the paths that are removed and not replaced, without those below another.
    :ivar unchanged: paths of the overlay that the layer has already.
    :ivar superseding: which entries of an archive stay though they are replaced.
    """

    removed_paths: frozenset[bytes]
    additions: tuple[tuple[Node, Action], ...]
    removed: tuple[bytes, ...]
    unchanged: tuple[bytes, ...]
    warnings: tuple[str, ...]
    superseding: Superseding = NO_SUPERSEDING

    @property
    def is_empty(self) -> bool:
        """Whether the layer stays as it is."""
        return not self.removed_paths and not self.additions

    def paths(self, action: Action) -> tuple[bytes, ...]:
        """Return the paths of the additions whose change is ``action``."""
        return tuple(node.path for node, kind in self.additions if kind is action)


def resolve_links(path: bytes, find_node: Callable[[bytes], Node | None], *, follow_last: bool = True) -> bytes:
    """Return ``path`` with the symlinks of the tree in which ``find_node`` finds nodes followed as in a chroot.

    :param follow_last: whether a symlink at the end of ``path`` is followed too.
    :raises SymlinkLoopError: they form a loop.
    """

    def link_target(below: bytes) -> bytes | None:
        """Return the text of the symlink at ``below``, None for any other node."""
        node = find_node(below)
        return node.target if node is not None and node.kind is NodeKind.SYMLINK else None

    return resolve_in_root(path, link_target, follow_last=follow_last)
