"""Extract nodes into a folder: never outside it, through no symlink, completely or not at all."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeAlias

from cosremaster.browse.container import Container, NodeRef
from cosremaster.browse.mtree import mtree_lines
from cosremaster.browse.order import files_in_order
from cosremaster.errors import CorruptError, OutputError, Place, UnsupportedError
from cosremaster.io.descriptors import write_all, write_error
from cosremaster.io.part_files import PartFile, lock_part, part_path, remove_stale_parts, remove_tree
from cosremaster.io.pieces import PieceTable, Zeros
from cosremaster.overlay.attributes import name_some
from cosremaster.records import Struct, replace
from cosremaster.tree.content import MIN_HOLE
from cosremaster.tree.nodes import Node, NodeKind
from cosremaster.tree.paths import parent_of
from cosremaster.tree.xattrs import ACLS

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


MAX_DEPTH = 250
"""Directories in directories; what is deeper many programs cannot even remove."""


Paths: TypeAlias = tuple[bytes, ...]
"""Paths relative to the folder."""


class Extracted(Struct, frozen=True):
    """The number of extracted files, folders and other nodes, their bytes, and the mtree file for what could not be
    made. ``without_xattrs``: paths whose extended attributes could not all be set.
    """

    files: int
    folders: int
    others: int
    bytes: int
    mtree: Path | None
    without_xattrs: Paths = ()


def select_nodes(reference: NodeRef) -> list[Node]:
    """Return the nodes at and below ``reference`` with paths relative to the target folder; a file keeps its name.

    Parents that are symlinks are followed as in a chroot.

    :raises CorruptError: two nodes lead to one place.
    """
    container, top = reference.container, reference.node
    if top.kind is not NodeKind.DIRECTORY:
        return [replace(top, path=top.path.rpartition(b"/")[2])]
    real = _real_nodes(container)
    prefix = top.path + b"/" if top.path else b""
    nodes = [replace(node, path=path[len(prefix) :]) for path, node in real.items() if path.startswith(prefix)]
    return [node for node in nodes if node.path]


def find_root(reference: NodeRef) -> list[Node]:
    """Return the directory at ``reference`` as the root of an archive; nothing where it has no entry of its own."""
    top = reference.container.own_node(reference.node.path)
    return [] if top is None or top.kind is not NodeKind.DIRECTORY else [replace(top, path=b"")]


def acl_warnings(reference: NodeRef) -> list[str]:
    """Return the warning that :func:`select_nodes` lack access control lists of the archive at ``reference``, if so."""
    layer, top = reference.container.layer, reference.node.path
    paths = () if layer is None else layer.index.list_lost_acls(layer)
    lost = [path for path in paths if not top or path == top or path.startswith(top + b"/")]
    if not lost:
        return []
    return [
        f"{reference.place}: access control lists name users or groups that its own /etc/passwd and /etc/group lack,"
        f" and are left out: {name_some(lost)}"
    ]


def _real_nodes(container: Container) -> dict[bytes, Node]:
    """Return all nodes, sorted by the path where an unpacker puts them, with every missing parent as a directory."""
    nodes: dict[bytes, Node] = {}
    folders = {b"": b""}  # where each parent really is: the files of a directory share it
    for path in container.walk_below(b""):
        node = container.node(path)
        assert node is not None
        if path.count(b"/") > MAX_DEPTH:
            raise UnsupportedError(f"lies deeper than {MAX_DEPTH} directories", container.place.inside(path))
        parent, _, name = path.rpartition(b"/")
        if parent not in folders:
            folders[parent] = container.resolve(parent, last=True)
        folder = folders[parent]
        if name in (b"", b".", b".."):
            continue
        real = folder + b"/" + name if folder else name
        earlier = nodes.get(real)
        if earlier is None or earlier.kind is NodeKind.DIRECTORY:
            nodes[real] = node
        while folder and folder not in nodes:
            directory = container.node(folder)
            implied = Node(path=folder, kind=NodeKind.DIRECTORY, mode=0o755)
            nodes[folder] = directory if directory is not None and directory.kind is NodeKind.DIRECTORY else implied
            folder = parent_of(folder)
    for path, node in nodes.items():
        parent = parent_of(path)
        if parent and nodes[parent].kind is not NodeKind.DIRECTORY:
            raise CorruptError(f"stands below a {nodes[parent].kind.noun}", container.place.inside(node.path))
    return dict(sorted(nodes.items()))


def extract_nodes(
    nodes: Iterable[Node], target: Path, advance: Callable[[int], None], *, root: Node | None = None, notes: bool = True
) -> Extracted:
    """Make ``nodes`` (from :func:`select_nodes`) in the folder ``target``, which must not exist or be empty.

    Root makes owners, device nodes and all extended attributes. An ordinary user makes data with permission bits and
    the attributes of users; a file ``TARGET.mtree`` beside the folder describes owners, modes and devices, unless
    ``notes`` is False. ``root``: what the folder itself stands for (from :func:`find_root`), which root gives it, and
    the mtree file describes; else it is a new folder of the user.

    :raises OutputError: the folder cannot be written; nothing stays behind then.
    """
    nodes = list(nodes)
    place = Place((str(target),))
    sidecar = None if os.geteuid() == 0 or not notes else Path(f"{target}.mtree")
    _check_target(target, sidecar, place)
    parent = target.absolute().parent
    half = part_path(parent)
    half_notes: PartFile | None = None
    try:
        remove_stale_parts(parent)
        half.mkdir(0o700)
        with _open_folder(half) as folder:
            lock_part(folder)
            maker = _NodeMaker(folder, place, advance)
            maker.make(nodes)
            if sidecar is not None:
                half_notes = PartFile(parent)
                lines = mtree_lines(nodes if root is None else [root, *nodes])
                write_all(half_notes.fd, b"".join(lines), lambda error: write_error(error, "notes", place))
                os.replace(half_notes.path, sidecar)
            half.chmod(0o777 & ~_read_umask())
            if root is not None:
                maker.finish_top(root)
            if target.is_dir():
                target.rmdir()
            half.rename(target)
    except OSError as error:
        raise write_error(error, "what was extracted", place) from error
    finally:
        if half_notes is not None:
            half_notes.close()
        if half.exists():
            remove_tree(half)
    kinds = [node.kind for node in nodes]
    files = kinds.count(NodeKind.FILE)
    folders = kinds.count(NodeKind.DIRECTORY)
    size = sum(node.content.size for node in nodes if node.content is not None)
    return Extracted(files, folders, len(kinds) - files - folders, size, sidecar, tuple(maker.without_xattrs))


def _check_target(target: Path, sidecar: Path | None, place: Place) -> None:
    """Check that ``target`` and ``sidecar`` can be made."""
    if target.is_symlink() or (target.exists() and (not target.is_dir() or any(target.iterdir()))):
        raise OutputError("exists already and is no empty folder", place)
    if target.exists() and os.path.samefile(target, "."):  # it is replaced, and a shell in it would see nothing
        raise OutputError("is the working directory; the name of a new folder is wanted", place)
    if not target.absolute().parent.is_dir():
        raise OutputError(f"cannot be written: there is no folder {target.parent}", place)
    if sidecar is not None and sidecar.exists():
        raise OutputError("exists already", Place((str(sidecar),)))


def _read_umask() -> int:
    """Return the process's umask."""
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


@contextmanager
def _open_folder(path: Path | bytes, dir_fd: int | None = None) -> Iterator[int]:
    """Open a directory, not a symlink to one, for the context."""
    fd = os.open(path, _FOLDER, dir_fd=dir_fd)
    try:
        yield fd
    finally:
        os.close(fd)


class _NodeMaker:
    """Makes nodes below an open folder, each step relative to a descriptor, following no symlink."""

    def __init__(self, root: int, place: Place, advance: Callable[[int], None]) -> None:
        """Begin below the open folder ``root``."""
        self._root = root
        self._place = place
        self._advance = advance
        self._is_root = os.geteuid() == 0
        self.without_xattrs: list[bytes] = []
        """Paths whose extended attributes could not all be set."""

    def make(self, nodes: list[Node]) -> None:
        """Make directories, then data, then other nodes, and set the directories' modes and times last."""
        folders = sorted((node for node in nodes if node.kind is NodeKind.DIRECTORY), key=lambda node: node.path)
        for node in folders:
            with self._folder(node) as (fd, name):
                os.mkdir(name, 0o700, dir_fd=fd)
        first: dict[object, Node] = {}
        for node in files_in_order(nodes):
            if node.link is not None and node.link in first:
                self._link(first[node.link], node)
                continue
            if node.link is not None:
                first[node.link] = node
            self._file(node)
        for node in nodes:
            if node.kind in (NodeKind.FILE, NodeKind.DIRECTORY):
                continue
            if node.link is not None and node.link in first:
                self._link(first[node.link], node)
            elif self._other(node) and node.link is not None:
                first[node.link] = node
        for node in reversed(folders):
            with self._folder(node) as (fd, name):
                self._finish(node, fd, name)

    def finish_top(self, node: Node) -> None:
        """Give the open folder itself the attributes of ``node``, which an ordinary user finds in the mtree file."""
        if self._is_root:
            self._finish(node, self._root, b".")
        elif node.xattrs:
            self.without_xattrs.append(b".")

    @contextmanager
    def _folder(self, node: Node) -> Iterator[tuple[int, bytes]]:
        """Open the directory of ``node`` for the context, and return its descriptor and the node's name in it."""
        *parents, name = node.path.split(b"/")
        fd = os.dup(self._root)
        try:
            for part in parents:
                below = os.open(part, _FOLDER, dir_fd=fd)
                os.close(fd)
                fd = below
            yield fd, name
        finally:
            os.close(fd)

    def _file(self, node: Node) -> None:
        """Write a regular file."""
        with self._folder(node) as (fd, name):
            file = os.open(name, _NEW, 0o600, dir_fd=fd)
            try:
                if node.content is not None:
                    self._write(file, node.content.table(), self._place.inside(node.path))
            finally:
                os.close(file)
            self._finish(node, fd, name)

    def _write(self, file: int, data: PieceTable, place: Place) -> None:
        """Write ``data`` to the descriptor ``file`` of the new file at ``place``; holes stay holes.

        :raises OutputError: that cannot be done.
        """
        for piece in data.pieces:
            if isinstance(piece, Zeros) and piece.length >= MIN_HOLE:
                os.lseek(file, piece.length, os.SEEK_CUR)
                self._advance(piece.length)
                continue
            for chunk in piece.chunks():
                write_all(file, chunk, lambda error: write_error(error, "a file", place))
                self._advance(len(chunk))
        os.ftruncate(file, data.length)

    def _link(self, first: Node, node: Node) -> None:
        """Make a hard link to ``first``."""
        with self._folder(first) as (source, old), self._folder(node) as (fd, name):
            os.link(old, name, src_dir_fd=source, dst_dir_fd=fd, follow_symlinks=False)

    def _other(self, node: Node) -> bool:
        """Make a symlink, FIFO, socket or device, and return whether that could be made."""
        with self._folder(node) as (fd, name):
            if node.kind is NodeKind.SYMLINK:
                self._symlink(node, fd, name)
            elif node.kind is NodeKind.FIFO:
                os.mkfifo(name, 0o600, dir_fd=fd)
            elif self._is_root:
                os.mknod(name, node.kind | 0o600, os.makedev(*node.rdev), dir_fd=fd)
            else:
                return False  # the mtree file tells of it
            self._finish(node, fd, name)
            return True

    def _symlink(self, node: Node, fd: int, name: bytes) -> None:
        """Make a symlink ``name`` in the folder ``fd``. :raises UnsupportedError: no symlink can have its text."""
        if not node.target:
            raise UnsupportedError("is a symlink without a target, which cannot be made", self._place.inside(node.path))
        os.symlink(node.target, name, dir_fd=fd)

    def _finish(self, node: Node, fd: int, name: bytes) -> None:
        """Set owner, extended attributes, mode and time, in the order in which none undoes another.

        A new owner takes capabilities away, a mode the right to set attributes; a mode changes the mask of an ACL.
        """
        if self._is_root:
            os.chown(name, node.uid, node.gid, dir_fd=fd, follow_symlinks=False)
        acls = [xattr for xattr in node.xattrs if xattr[0] in ACLS]
        are_set = self._set_xattrs([xattr for xattr in node.xattrs if xattr[0] not in ACLS], fd, name)
        if node.kind is not NodeKind.SYMLINK:
            os.chmod(name, node.mode if self._is_root else node.mode & 0o777, dir_fd=fd)
        if not (self._set_xattrs(acls, fd, name) and are_set):
            self.without_xattrs.append(node.path or b".")
        os.utime(name, (node.mtime, node.mtime), dir_fd=fd, follow_symlinks=False)

    def _set_xattrs(self, xattrs: Sequence[tuple[bytes, bytes]], fd: int, name: bytes) -> bool:
        """Set extended attributes of ``name`` in the folder ``fd``; return whether all could be set."""
        are_set = True
        for attribute, value in xattrs:
            try:
                os.setxattr(b"/proc/self/fd/%d/%s" % (fd, name), attribute, value, follow_symlinks=False)
            except (OSError, AttributeError):  # a file system without them, a missing right, another system
                are_set = False
        return are_set
