"""Taking nodes out into a folder: never outside it, through no symlink, complete or not at all."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from msgspec import Struct

from cosremaster.browse.container import Container, NodeRef
from cosremaster.browse.mtree import mtree_lines
from cosremaster.browse.order import files_in_order
from cosremaster.errors import CorruptError, OutputError, Place, UnsupportedError
from cosremaster.io.descriptors import write_all, write_error
from cosremaster.tree.nodes import Node, NodeKind
from cosremaster.tree.paths import parent_of

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


MAX_DEPTH = 250
"""Directories in directories; what is deeper many programs cannot even remove."""


class Extracted(Struct, frozen=True):
    """What came out: how many of each, and the mtree file with what could not be made, where there is one."""

    files: int
    folders: int
    others: int
    bytes: int
    mtree: Path | None


def select_nodes(looked: NodeRef) -> list[Node]:
    """The nodes at and below ``looked``, with paths as they come out: relative to a directory, a file by its name.

    Parents that are symlinks are followed as in a chroot. :raises CorruptError: two things come to one place.
    """
    container, top = looked.container, looked.node
    if top.kind is not NodeKind.DIRECTORY:
        return [_moved(top, top.path.rpartition(b"/")[2])]
    real = _real_nodes(container)
    prefix = top.path + b"/" if top.path else b""
    nodes = [_moved(node, path[len(prefix) :]) for path, node in real.items() if path.startswith(prefix)]
    return [node for node in nodes if node.path]


def _moved(node: Node, path: bytes) -> Node:
    return Node(
        path=path, kind=node.kind, mode=node.mode, uid=node.uid, gid=node.gid, mtime=node.mtime, target=node.target,
        rdev=node.rdev, content=node.content, link=node.link,
    )  # fmt: skip


def _real_nodes(container: Container) -> dict[bytes, Node]:
    """All nodes by the path where an unpacker puts them, every missing parent made a directory, sorted."""
    nodes: dict[bytes, Node] = {}
    for path in container.below(b""):
        node = container.node(path)
        assert node is not None
        if path.count(b"/") > MAX_DEPTH:
            raise UnsupportedError(f"lies deeper than {MAX_DEPTH} directories", container.place.inside(path))
        parent, _, name = path.rpartition(b"/")
        folder = container.resolve(parent, last=True) if parent else b""
        if name in (b"", b".", b".."):
            continue
        real = folder + b"/" + name if folder else name
        known = nodes.get(real)
        if known is None or known.kind is NodeKind.DIRECTORY:
            nodes[real] = node
        while folder and folder not in nodes:
            there = container.node(folder)
            made = Node(path=folder, kind=NodeKind.DIRECTORY, mode=0o755)
            nodes[folder] = there if there is not None and there.kind is NodeKind.DIRECTORY else made
            folder = parent_of(folder)
    for path, node in nodes.items():
        parent = parent_of(path)
        if parent and nodes[parent].kind is not NodeKind.DIRECTORY:
            raise CorruptError(f"stands below a {nodes[parent].kind.noun}", container.place.inside(node.path))
    return dict(sorted(nodes.items()))


def extract_nodes(
    nodes: Iterable[Node], target: Path, advance: Callable[[int], None], *, notes: bool = True
) -> Extracted:
    """Makes ``nodes`` (as :func:`select_nodes` gives them) in ``target``, a folder that must not exist or be empty.

    Root gets owners and device nodes. An ordinary user gets the data with permission bits, and beside the folder a
    file ``TARGET.mtree`` that tells the rest, unless ``notes`` is False.

    :raises OutputError: it cannot be written; nothing is left then.
    """
    nodes = list(nodes)
    place = Place((str(target),))
    sidecar = None if os.geteuid() == 0 or not notes else target.with_name(target.name + ".mtree")
    _check(target, sidecar, place)
    half = target.absolute().parent / f".cosremaster-{secrets.token_hex(8)}.part"
    half_notes = half.with_suffix(".mtree")
    try:
        half.mkdir(0o700)
        with _opened(half) as root:
            _Maker(root, place, advance).make(nodes)
        if sidecar is not None:
            with half_notes.open("xb") as file:
                file.writelines(mtree_lines(nodes))
            os.replace(half_notes, sidecar)
        half.chmod(0o777 & ~_umask())
        if target.is_dir():
            target.rmdir()
        half.rename(target)
    except OSError as error:
        raise write_error(error, "what was extracted", place) from error
    finally:
        half_notes.unlink(missing_ok=True)
        if half.exists():
            _remove(half)
    kinds = [node.kind for node in nodes]
    files = kinds.count(NodeKind.FILE)
    folders = kinds.count(NodeKind.DIRECTORY)
    size = sum(node.content.size for node in nodes if node.content is not None)
    return Extracted(files, folders, len(kinds) - files - folders, size, sidecar)


def _check(target: Path, sidecar: Path | None, place: Place) -> None:
    if target.is_symlink() or (target.exists() and (not target.is_dir() or any(target.iterdir()))):
        raise OutputError("exists already and is no empty folder", place)
    if not target.absolute().parent.is_dir():
        raise OutputError(f"cannot be written: there is no folder {target.parent}", place)
    if sidecar is not None and sidecar.exists():
        raise OutputError("exists already", Place((str(sidecar),)))


def _umask() -> int:
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


def _remove(folder: Path) -> None:
    """Takes away a half-made folder, directories without permissions too."""
    for path, names, _ in os.walk(folder):
        for name in names:
            if not os.path.islink(os.path.join(path, name)):
                os.chmod(os.path.join(path, name), 0o700)
    shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _opened(path: Path | bytes, dir_fd: int | None = None) -> Iterator[int]:
    fd = os.open(path, _FOLDER, dir_fd=dir_fd)
    try:
        yield fd
    finally:
        os.close(fd)


class _Maker:
    """Makes nodes below an open folder, each step relative to a descriptor, no symlink followed."""

    def __init__(self, root: int, place: Place, advance: Callable[[int], None]) -> None:
        self._root = root
        self._place = place
        self._advance = advance
        self._is_root = os.geteuid() == 0

    def make(self, nodes: list[Node]) -> None:
        """Directories, then data, then all that leads elsewhere, last the directories' modes and times."""
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
            if node.kind not in (NodeKind.FILE, NodeKind.DIRECTORY):
                self._other(node)
        for node in reversed(folders):
            with self._folder(node) as (fd, name):
                self._finish(node, fd, name)

    @contextmanager
    def _folder(self, node: Node) -> Iterator[tuple[int, bytes]]:
        """The open directory that ``node`` lies in, and its name there."""
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
        with self._folder(node) as (fd, name):
            file = os.open(name, _NEW, 0o600, dir_fd=fd)
            try:
                for chunk in node.content.table().chunks() if node.content is not None else ():
                    write_all(file, chunk, lambda error: write_error(error, "a file", self._place.inside(node.path)))
                    self._advance(len(chunk))
            finally:
                os.close(file)
            self._finish(node, fd, name)

    def _link(self, first: Node, node: Node) -> None:
        with self._folder(first) as (source, old), self._folder(node) as (fd, name):
            os.link(old, name, src_dir_fd=source, dst_dir_fd=fd, follow_symlinks=False)

    def _other(self, node: Node) -> None:
        """A symlink, FIFO, socket or device."""
        with self._folder(node) as (fd, name):
            if node.kind is NodeKind.SYMLINK:
                os.symlink(node.target, name, dir_fd=fd)
            elif node.kind is NodeKind.FIFO:
                os.mkfifo(name, 0o600, dir_fd=fd)
            elif self._is_root:
                os.mknod(name, node.kind | 0o600, os.makedev(*node.rdev), dir_fd=fd)
            else:
                return  # the mtree file tells of it
            self._finish(node, fd, name)

    def _finish(self, node: Node, fd: int, name: bytes) -> None:
        """Owner, mode and time, in the order in which none undoes another."""
        if self._is_root:
            os.chown(name, node.uid, node.gid, dir_fd=fd, follow_symlinks=False)
        if node.kind is not NodeKind.SYMLINK:
            os.chmod(name, node.mode if self._is_root else node.mode & 0o777, dir_fd=fd)
        os.utime(name, (node.mtime, node.mtime), dir_fd=fd, follow_symlinks=False)
