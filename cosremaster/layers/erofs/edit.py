"""Edits of an EROFS file system: everything that is there stays in its place, and what is new follows behind it.

Inodes may stand anywhere, and their numbers tell where. So new files, symlinks and directories get inodes behind the
old image. A directory that changes gets a new listing, and its inode leads there: it is patched where it stands, so
that those below it still name it as their parent. Only an inode that has no room for new attributes is written again at
the end; then the directories below it get new listings too.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain

from cosremaster.errors import CorruptError, OverlayError, Place, UnsupportedError
from cosremaster.io.pieces import PieceTable
from cosremaster.layers.erofs.directories import DIRECTORY_TYPE, ErofsEntry
from cosremaster.layers.erofs.filesystem import ErofsFilesystem
from cosremaster.layers.erofs.inodes import ErofsInode
from cosremaster.layers.erofs.superblock import ErofsFeature
from cosremaster.layers.erofs.tree import ErofsTree
from cosremaster.layers.erofs.xattrs import find_xattr_problem
from cosremaster.records import Struct, field
from cosremaster.tree.nodes import Content, Edits, Node, NodeKind, Xattrs

_MAX_NAME, _MAX_TARGET = 255, 4095
_MAX_MAJOR, _MAX_MINOR = 0xFFF, 0xFFFFF
_MAX_COMPACT = 0xFFFF
_MAX_COUNT = (1 << 64) - 1
_VERITY = b"verity\0\0"
"""The first bytes of a superblock of dm-verity (cryptsetup, lib/verity/verity.c)."""


class ErofsAttributes(Struct, frozen=True):
    """What an inode says of a file beside its data: mode with the type, owner, time and extended attributes."""

    mode: int
    uid: int
    gid: int
    mtime: int
    nanoseconds: int = 0
    xattrs: Xattrs = ()


class NewErofsInode(Struct):
    """An inode that is written behind the image. ``nid``: its number, once it has a place."""

    attributes: ErofsAttributes
    nlink: int = 1
    rdev: tuple[int, int] = (0, 0)
    target: bytes = b""
    content: Content | None = None
    nid: int = -1


class ChangedErofsDirectory(Struct):
    """A directory with a new listing.

    ``old``: its inode, None for a new one; ``moved``: the inode that is written behind the image for it, None where the
    old one is patched. ``entries``: by name, without those of changed directories and of new inodes, whose numbers are
    not known yet.
    """

    parent: ChangedErofsDirectory | None
    old: ErofsInode | None
    moved: NewErofsInode | None = None
    attributes: ErofsAttributes | None = None
    entries: dict[bytes, ErofsEntry] = field(default_factory=dict)
    directories: dict[bytes, ChangedErofsDirectory] = field(default_factory=dict)
    new: dict[bytes, NewErofsInode] = field(default_factory=dict)

    @property
    def nid(self) -> int:
        """The number of its inode, which has its place."""
        if self.moved is not None:
            return self.moved.nid
        assert self.old is not None
        return self.old.nid

    @property
    def nlink(self) -> int:
        """How many names it has: its own, ``.``, and ``..`` in each directory in it."""
        below = sum(entry.type == DIRECTORY_TYPE for entry in self.entries.values())
        return 2 + below + len(self.directories)

    def forget(self, name: bytes) -> None:
        """Take the entry ``name`` away."""
        self.entries.pop(name, None)
        self.directories.pop(name, None)
        self.new.pop(name, None)


def check_nothing_follows(filesystem: ErofsFilesystem) -> None:
    """Check that nothing but zeros stands behind the blocks of ``filesystem``.

    :raises UnsupportedError: something does: it belongs to the old bytes, and who reads it is not known.
    """
    table = filesystem.table
    used = filesystem.superblock.block_count * filesystem.superblock.block_size
    rest = table.cut(min(used, table.length), table.length) if used else PieceTable([])
    if not any(any(chunk) for chunk in rest.chunks()):
        return
    is_verity = any(
        table.read(start, len(_VERITY)) == _VERITY
        for start in (used, used + -used % 4096)
        if start + len(_VERITY) <= table.length
    )
    noun = "hashes of dm-verity follow it" if is_verity else f"{rest.length:,} bytes that are no part of it follow it"
    message = f"is an EROFS file system that cannot be changed: {noun} in its file, and would no longer fit"
    raise UnsupportedError(message, filesystem.place.at(used))


class ErofsEditor:
    """The changed directories and new inodes, before they have places."""

    def __init__(self, tree: ErofsTree, place: Place) -> None:
        """Begin with the root, which every change rewrites."""
        self.tree, self.place = tree, place
        self.filesystem = tree.filesystem
        self.root = ChangedErofsDirectory(None, self.filesystem.root, entries=dict(tree.directory(b"") or {}))
        self.inodes: list[NewErofsInode] = []
        """New inodes that are no directories, in the order of their data."""
        self.link_counts: dict[int, int] = {}
        """The names that an old inode keeps, by its number."""
        self.gone = 0
        """How many inodes nothing names any more."""
        self._linked: dict[object, NewErofsInode] = {}
        self._opened = {self.filesystem.superblock.root}

    def apply(self, edits: Edits) -> None:
        """Make the changes ``edits``. :raises OverlayError: the format cannot hold a node.

        :raises UnsupportedError: what is there cannot be kept true.
        """
        new_directories = {node.path for node, _ in edits.additions if node.kind is NodeKind.DIRECTORY}
        self._remove(edits.removed_paths, new_directories)
        for node, _ in edits.additions:
            self._add(node)
        self._move_directories()

    def open_directory(self, path: bytes) -> ChangedErofsDirectory:
        """Return the directory at ``path``, which gets a new listing from now on."""
        directory, at = self.root, b""
        for name in path.split(b"/") if path else ():
            at = at + b"/" + name if at else name
            directory = directory.directories.get(name) or self._open(directory, name, at)
        return directory

    def _open(self, parent: ChangedErofsDirectory, name: bytes, path: bytes) -> ChangedErofsDirectory:
        """Return the directory ``name`` of ``parent``, which gets a new listing from now on."""
        entry = parent.entries.pop(name)
        if entry.nid in self._opened:
            raise CorruptError(
                "an EROFS directory has two names, or stands below itself", self.place.inside(path[:255])
            )
        self._opened.add(entry.nid)
        inode = self.filesystem.inode(entry.nid)
        listing = {child.name: child for child in self.filesystem.listing(inode)}
        parent.directories[name] = ChangedErofsDirectory(parent, inode, entries=listing)
        return parent.directories[name]

    def _remove(self, paths: Iterable[bytes], new_directories: set[bytes]) -> None:
        """Remove the entries at ``paths``; a directory that one of ``new_directories`` replaces keeps its entries."""
        removed = set(paths)
        for path in sorted(removed):
            entry = self.tree.entry(path)
            if entry is None:
                continue
            if entry.type != DIRECTORY_TYPE:
                self._count_lost_link(entry)
            elif path in new_directories:
                continue
            else:
                self.gone += 1
            parent, _, name = path.rpartition(b"/")
            if not (parent in removed and parent not in new_directories):
                self.open_directory(parent).forget(name)

    def _count_lost_link(self, entry: ErofsEntry) -> None:
        """Note that the inode of ``entry`` has a name less. :raises UnsupportedError: that cannot be written."""
        inode = self.filesystem.inode(entry.nid)
        count = self.link_counts.get(entry.nid, inode.nlink) - 1
        self.link_counts[entry.nid] = count
        if count <= 0:
            self.gone += 1

    def _add(self, node: Node) -> None:
        """Add ``node``. :raises OverlayError: the format cannot hold it."""
        _check_node(node, self.place)
        attributes = ErofsAttributes(node.kind | node.mode, node.uid, node.gid, node.mtime, 0, node.xattrs)
        if not node.path:
            self.root.attributes = attributes
            return
        parent_path, _, name = node.path.rpartition(b"/")
        parent = self.open_directory(parent_path)
        if node.kind is NodeKind.DIRECTORY:
            self._add_directory(parent, name, node.path, attributes)
            return
        parent.forget(name)
        inode = self._linked.get(node.link) if node.link is not None else None
        if inode is None:
            inode = NewErofsInode(attributes, rdev=node.rdev, target=node.target, content=node.content)
            self.inodes.append(inode)
            if node.link is not None:
                self._linked[node.link] = inode
        else:
            inode.nlink += 1
        parent.new[name] = inode

    def _add_directory(
        self, parent: ChangedErofsDirectory, name: bytes, path: bytes, attributes: ErofsAttributes
    ) -> None:
        """Add a directory, or give one that is there the ``attributes``."""
        existing = parent.entries.get(name)
        if name in parent.directories or (existing is not None and existing.type == DIRECTORY_TYPE):
            self.open_directory(path).attributes = attributes
            return
        parent.forget(name)
        parent.directories[name] = ChangedErofsDirectory(parent, None, NewErofsInode(attributes))

    def _move_directories(self) -> None:
        """Give directories whose inodes cannot be patched new ones, and those below them new listings.

        :raises UnsupportedError: a count of names cannot be patched.
        """
        waiting = [(b"", self.root)]
        while waiting:
            path, directory = waiting.pop()
            if directory.old is not None and self._must_move(directory, directory.old):
                attributes = directory.attributes or self._read_attributes(directory.old)
                directory.moved = NewErofsInode(attributes)
                for name, entry in list(directory.entries.items()):
                    if entry.type == DIRECTORY_TYPE:
                        self._open(directory, name, path + b"/" + name if path else name)
            waiting += [(path + b"/" + name if path else name, below) for name, below in directory.directories.items()]
        for nid, count in self.link_counts.items():
            if count > 0 and self.filesystem.inode(nid).is_in_metabox:
                message = "is an EROFS file system with compressed metadata, where a file cannot lose one of its names"
                raise UnsupportedError(message, self.place)

    def _must_move(self, directory: ChangedErofsDirectory, old: ErofsInode) -> bool:
        """Return whether the inode ``old`` has no room for what is new of ``directory``."""
        attributes = directory.attributes
        if old.is_in_metabox or (not old.is_extended and directory.nlink > _MAX_COMPACT):
            return True
        if attributes is None:
            return False
        if attributes.xattrs != self.filesystem.xattrs_of(old):
            return True
        return not old.is_extended and (
            max(attributes.uid, attributes.gid) > _MAX_COMPACT or attributes.mtime != old.mtime
        )

    def _read_attributes(self, inode: ErofsInode) -> ErofsAttributes:
        """Return the attributes of ``inode``."""
        xattrs = self.filesystem.xattrs_of(inode)
        return ErofsAttributes(inode.mode, inode.uid, inode.gid, inode.mtime, inode.nanoseconds, xattrs)

    def list_directories(self) -> list[ChangedErofsDirectory]:
        """Return all changed directories, each before those in it; there may be more levels than Python can call."""
        listed = [self.root]
        for directory in listed:
            listed += directory.directories.values()
        return listed

    def count_inodes(self) -> int:
        """Return how many inodes there are after the changes."""
        added = sum(directory.old is None for directory in self.list_directories())
        count = self.filesystem.superblock.inode_count + added + len(self.inodes) - self.gone
        return min(max(count, 0), _MAX_COUNT)

    @property
    def can_move_root(self) -> bool:
        """Whether the superblock has room for any number of the root's inode."""
        return self.filesystem.superblock.has(ErofsFeature.BITS48)


def list_names(directory: ChangedErofsDirectory) -> Iterator[tuple[bytes, int]]:
    """Yield the names in ``directory`` with the type of each, sorted, those of itself and its parent too."""
    own = [(b".", DIRECTORY_TYPE), (b"..", DIRECTORY_TYPE)]
    old = ((name, entry.type) for name, entry in directory.entries.items())
    new = ((name, entry_type(inode.attributes.mode)) for name, inode in directory.new.items())
    below = ((name, DIRECTORY_TYPE) for name in directory.directories)
    yield from sorted(chain(own, old, new, below))


def find_nid(directory: ChangedErofsDirectory, name: bytes) -> int:
    """Return the number of the inode of ``name`` in ``directory``; all inodes have places."""
    if name == b".":
        return directory.nid
    if name == b"..":
        return (directory.parent or directory).nid
    if name in directory.new:
        return directory.new[name].nid
    if name in directory.directories:
        return directory.directories[name].nid
    return directory.entries[name].nid


_ENTRY_TYPES = {
    NodeKind.FILE: 1, NodeKind.DIRECTORY: DIRECTORY_TYPE, NodeKind.CHAR: 3, NodeKind.BLOCK: 4, NodeKind.FIFO: 5,
    NodeKind.SOCKET: 6, NodeKind.SYMLINK: 7,
}  # fmt: skip


def entry_type(mode: int) -> int:
    """Return the type in a directory entry of a file with ``mode`` (include/linux/fs_types.h)."""
    return _ENTRY_TYPES[NodeKind(mode & 0o170000)]


def _check_node(node: Node, place: Place) -> None:
    """Check that EROFS can hold ``node``. :raises OverlayError: it cannot."""
    name = node.path.rpartition(b"/")[2]
    problem = find_xattr_problem(node.xattrs)
    if len(name) > _MAX_NAME:
        problem = f"its name is longer than {_MAX_NAME} bytes"
    elif node.kind is NodeKind.SYMLINK and not 0 < len(node.target) <= _MAX_TARGET:
        problem = "no symlink can have its text"
    elif node.rdev[0] > _MAX_MAJOR or node.rdev[1] > _MAX_MINOR:
        problem = f"device {node.rdev[0]}:{node.rdev[1]} does not fit an EROFS inode"
    if problem:
        raise OverlayError(f"cannot be added: {problem}", place.inside(node.path))
