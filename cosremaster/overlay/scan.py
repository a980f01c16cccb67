"""Directories and files of this machine as nodes."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from msgspec import Struct

from cosremaster.errors import OverlayError, Place
from cosremaster.io.descriptors import MIN_HOLE, data_runs, read_into
from cosremaster.io.pieces import PieceTable, Range, Zeros
from cosremaster.io.streams import CHUNK, sha256_of
from cosremaster.tree.nodes import Node, NodeKind
from cosremaster.tree.paths import join

MAX_TIME = 0xFFFFFFFF
"""Times are unsigned 32-bit seconds in every layer; others are brought into that range."""

CHANGED = "changed while it was being read"


def clamp_mtime(mtime: int, newest: int | None) -> int:
    """``mtime`` in seconds, brought between 0 and ``newest``, and into what a layer can say."""
    return max(0, min(mtime, MAX_TIME if newest is None else newest, MAX_TIME))


def open_long_path(path: bytes, flags: int) -> int:
    """``os.open`` for a path of any length: one longer than the system takes at once is walked."""
    try:
        return os.open(path, flags | os.O_CLOEXEC)
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG or b"/" not in path:
            raise
    folder, _, name = path.rstrip(b"/").rpartition(b"/")
    above = os.open(b"/" if path.startswith(b"/") else b".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for part in folder.split(b"/"):
            if part:
                below = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=above)
                os.close(above)
                above = below
        return os.open(name, flags | os.O_CLOEXEC, dir_fd=above)
    finally:
        os.close(above)


class HostFile(Struct, frozen=True):
    """A regular file of this machine as it was when it was found; a source of pieces and a content."""

    path: bytes
    size: int
    mtime_ns: int

    @property
    def name(self) -> str:
        """The path, for people."""
        return os.fsdecode(self.path)

    def chunks(self, offset: int, length: int) -> Iterator[bytes]:
        """``length`` bytes from ``offset``. :raises OverlayError: unreadable, or no longer the same file."""
        with self._reading() as fd:
            end = offset + length
            while offset < end:
                data = os.pread(fd, min(CHUNK, end - offset), offset)
                if not data:
                    raise self._wrong(CHANGED)
                yield data
                offset += len(data)

    def fill(self, offset: int, views: Sequence[memoryview]) -> None:
        """Fills ``views`` with the bytes from ``offset`` on. Raises as :meth:`chunks`."""
        with self._reading() as fd:
            if read_into(fd, offset, views) < sum(map(len, views)):
                raise self._wrong(CHANGED)

    @contextmanager
    def _reading(self) -> Iterator[int]:
        """The file, open; what was read of it counts when it is still the same file afterwards."""
        try:
            fd = open_long_path(self.path, os.O_RDONLY)
        except OSError as error:
            raise self._wrong(f"cannot be opened: {error.strerror}") from error
        try:
            yield fd
            now = os.fstat(fd)
        except OSError as error:
            raise self._wrong(f"cannot be read: {error.strerror}") from error
        finally:
            os.close(fd)
        if (now.st_size, now.st_mtime_ns) != (self.size, self.mtime_ns):
            raise self._wrong(CHANGED)

    def _wrong(self, message: str) -> OverlayError:
        return OverlayError(message, Place().inside(self.path))

    def digest(self) -> bytes:
        """SHA-256 of the whole file."""
        return sha256_of(self.chunks(0, self.size))

    def table(self) -> PieceTable:
        """The whole file. Large holes are zeros that need no reading; the last byte is read, so that a change of the
        file is noticed."""
        with self._reading() as fd:
            if self.size <= MIN_HOLE or os.fstat(fd).st_blocks * 512 >= self.size:
                return PieceTable([Range(self, 0, self.size)])
            runs = data_runs(fd, 0, self.size - 1)
            pieces = [Range(self, start, count) if data else Zeros(count) for start, count, data in runs]
        return PieceTable([*pieces, Range(self, self.size - 1, 1)])

    def head(self, count: int) -> bytes:
        """The first ``count`` bytes."""
        return b"".join(self.chunks(0, min(count, self.size)))


class SourceScan(Struct, frozen=True):
    """What was found under one source: nodes with paths from it, sorted; ``single`` for a plain file.

    The node of a single file has the file's own name as its path.
    """

    nodes: tuple[Node, ...]
    is_single_file: bool


def scan_source(source: bytes, newest: int | None) -> SourceScan:
    """The directory or file ``source`` as nodes with the owners, modes and times it has here.

    ``newest``: no mtime is later than this (SOURCE_DATE_EPOCH), in seconds. Symlinks below a directory
    stay symlinks; ``source`` itself may be one.

    :raises OverlayError: missing, unreadable, a socket, or not a file or directory.
    """
    place = Place().inside(source)
    try:
        status = os.stat(source)
    except OSError as error:
        raise OverlayError(f"cannot be added: {error.strerror}", place) from error
    if stat.S_ISDIR(status.st_mode):
        nodes = sorted(_walk(source, b"", newest), key=lambda node: node.path)
        return SourceScan(tuple(nodes), False)
    if not stat.S_ISREG(status.st_mode):
        raise OverlayError("cannot be added: it is neither a file nor a directory", place)
    name = os.path.basename(os.path.normpath(source))
    return SourceScan((_node(source, name, source, None, True, newest),), True)


def _walk(folder: bytes, path: bytes, newest: int | None) -> Iterator[Node]:
    """Everything below ``folder``, whose path in the overlay is ``path``."""
    waiting = [(folder, path)]
    while waiting:
        folder, path = waiting.pop()
        fd = -1
        try:
            try:
                fd = open_long_path(folder, os.O_RDONLY | os.O_DIRECTORY)
                names = sorted(os.fsencode(name) for name in os.listdir(fd))
            except OSError as error:
                raise OverlayError(f"cannot be listed: {error.strerror}", Place().inside(folder)) from error
            for name in names:
                full, below = os.path.join(folder, name), join(path, name)
                node = _node(full, below, name, fd, False, newest)
                yield node
                if node.kind is NodeKind.DIRECTORY:
                    waiting.append((full, below))
        finally:
            if fd >= 0:
                os.close(fd)


def _node(full: bytes, path: bytes, name: bytes, folder: int | None, followed: bool, newest: int | None) -> Node:
    """The node for one thing on disk, which is called ``name`` in the open ``folder``."""
    try:
        status = os.stat(name, dir_fd=folder, follow_symlinks=followed)
        kind = NodeKind(stat.S_IFMT(status.st_mode))
        target = os.readlink(name, dir_fd=folder) if kind is NodeKind.SYMLINK else b""
    except OSError as error:
        raise OverlayError(f"cannot be added: {error.strerror}", Place().inside(full)) from error
    if kind is NodeKind.SOCKET:
        raise OverlayError("cannot be added: it is a socket", Place().inside(full))
    if kind is NodeKind.FILE and not os.access(name, os.R_OK, dir_fd=folder):
        raise OverlayError("cannot be added: Permission denied", Place().inside(full))
    device = kind in (NodeKind.CHAR, NodeKind.BLOCK)
    linked = kind is NodeKind.FILE and status.st_nlink > 1
    return Node(
        path=path, kind=kind, mode=0o777 if kind is NodeKind.SYMLINK else stat.S_IMODE(status.st_mode),
        uid=status.st_uid, gid=status.st_gid, mtime=clamp_mtime(status.st_mtime_ns // 1_000_000_000, newest),
        target=target, rdev=(os.major(status.st_rdev), os.minor(status.st_rdev)) if device else (0, 0),
        content=HostFile(full, status.st_size, status.st_mtime_ns) if kind is NodeKind.FILE else None,
        link=(status.st_dev, status.st_ino) if linked else None,
    )  # fmt: skip
