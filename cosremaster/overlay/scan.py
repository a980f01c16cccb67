"""Read directories and files of this machine as nodes."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

from cosremaster.errors import OverlayError, Place
from cosremaster.io.descriptors import MIN_HOLE, data_runs, read_into
from cosremaster.io.part_files import is_part_name
from cosremaster.io.pieces import PieceTable, Range, Zeros
from cosremaster.io.streams import CHUNK, sha256_of
from cosremaster.overlay.addition import AttributedPath
from cosremaster.overlay.attributes import DEFAULT_CHOICE, XattrChoice, name_some, read_attributes
from cosremaster.records import Struct
from cosremaster.suggestions import suggest_file
from cosremaster.tree.nodes import Node, NodeKind, Xattrs
from cosremaster.tree.paths import join

MAX_TIME = 0xFFFFFFFF
"""Times are unsigned 32-bit seconds since 1970 in every layer."""

_WITH_XATTRS = (NodeKind.FILE, NodeKind.DIRECTORY)
"""Linux has attributes of users, and capabilities, for these alone (xattr(7)); those of others are not read."""

CHANGED = "changed while it was being read"


def clamp_mtime(mtime: int, max_mtime: int | None) -> int:
    """Return the nearest time to ``mtime`` from 0 to ``max_mtime`` that a layer can express, in seconds."""
    return max(0, min(mtime, MAX_TIME if max_mtime is None else max_mtime, MAX_TIME))


def is_mtime_held(mtime: int, max_mtime: int | None) -> bool:
    """Return whether a layer can hold ``mtime``, or it becomes ``max_mtime`` anyway."""
    return 0 <= mtime <= MAX_TIME or (mtime > 0 and max_mtime is not None)


def time_warning(paths: Sequence[bytes], place: Place) -> str:
    """Return the warning that ``paths`` of the source ``place`` have times that no layer can hold."""
    return f"{place}: times before 1970 or after 2106 become the nearest that a layer holds: {name_some(paths)}"


def open_long_path(path: bytes, flags: int) -> int:
    """Open a path of any length as ``os.open`` does. One that is too long for a system call is walked."""
    try:
        return os.open(path, flags | os.O_CLOEXEC)
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG or b"/" not in path:
            raise
    directory, _, name = path.rstrip(b"/").rpartition(b"/")
    parent_fd = os.open(b"/" if path.startswith(b"/") else b".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for part in directory.split(b"/"):
            if part:
                child_fd = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=parent_fd)
                os.close(parent_fd)
                parent_fd = child_fd
        return os.open(name, flags | os.O_CLOEXEC, dir_fd=parent_fd)
    finally:
        os.close(parent_fd)


class HostFile(Struct, frozen=True):
    """A regular file of this machine as it was when it was scanned; a source of pieces and a content.

    ``size``: bytes. ``ctime_ns``: when its inode changed last, by the kernel's clock, which nobody sets back; 0 where
    nobody looked.
    """

    path: bytes
    size: int
    mtime_ns: int
    ctime_ns: int = 0

    @property
    def name(self) -> str:
        """The path as text."""
        return os.fsdecode(self.path)

    def chunks(self, offset: int, length: int) -> Iterator[bytes]:
        """Yield ``length`` bytes from ``offset``. :raises OverlayError: unreadable, or the file has changed."""
        with self._reading() as fd:
            end = offset + length
            while offset < end:
                data = os.pread(fd, min(CHUNK, end - offset), offset)
                if not data:
                    raise self._error(CHANGED)
                yield data
                offset += len(data)

    def fill(self, offset: int, views: Sequence[memoryview]) -> None:
        """Fill ``views`` with the bytes from ``offset`` on. Raises as :meth:`chunks`."""
        with self._reading() as fd:
            if read_into(fd, offset, views) < sum(map(len, views)):
                raise self._error(CHANGED)

    def stamp(self) -> str:
        """Return the file's path, size and time, which stand for its bytes."""
        return f"{self.path!r} {self.size} {self.mtime_ns}"

    def exact(self) -> HostFile:
        """Return the file for who has no checksum of its bytes: no time that was set back hides a change of it."""
        return ExactHostFile(self.path, self.size, self.mtime_ns, self.ctime_ns) if self.ctime_ns else self

    def check_unchanged(self) -> None:
        """Compare the file with what was scanned. :raises OverlayError: it changed, or cannot be opened."""
        with self._reading():
            pass

    @contextmanager
    def _reading(self) -> Iterator[int]:
        """Open the file for reading. :raises OverlayError: unreadable, or it has changed when the context ends."""
        try:
            fd = open_long_path(self.path, os.O_RDONLY)
        except OSError as error:
            raise self._error(f"cannot be opened: {error.strerror}") from error
        try:
            yield fd
            now = os.fstat(fd)
        except OSError as error:
            raise self._error(f"cannot be read: {error.strerror}") from error
        finally:
            os.close(fd)
        if not self._is_state(now):
            raise self._error(CHANGED)

    def _is_state(self, status: os.stat_result) -> bool:
        """Return whether ``status`` is that of the file as it was scanned."""
        return (status.st_size, status.st_mtime_ns) == (self.size, self.mtime_ns)

    def _error(self, message: str) -> OverlayError:
        """Return an error about this file."""
        return OverlayError(message, Place().inside(self.path))

    def digest(self) -> bytes:
        """Return the SHA-256 of the whole file."""
        return sha256_of(self.chunks(0, self.size))

    def table(self) -> PieceTable:
        """Return the whole file as pieces.

        Large holes become zeros that need no reading. The last byte is always read, so that a change is noticed.
        """
        with self._reading() as fd:
            if self.size <= MIN_HOLE or os.fstat(fd).st_blocks * 512 >= self.size:
                return PieceTable([Range(self, 0, self.size)])
            runs = data_runs(fd, 0, self.size - 1)
            pieces = [Range(self, start, count) if data else Zeros(count) for start, count, data in runs]
        return PieceTable([*pieces, Range(self, self.size - 1, 1)])

    def head(self, count: int) -> bytes:
        """Return the first ``count`` bytes."""
        return b"".join(self.chunks(0, min(count, self.size)))


class ExactHostFile(HostFile, frozen=True):
    """A file whose inode has to stay too: another one of its size may have its time, as reproducible builds set it."""

    def stamp(self) -> str:
        """Return the file's path, size and times, which stand for its bytes."""
        return f"{self.path!r} {self.size} {self.mtime_ns} {self.ctime_ns}"

    def _is_state(self, status: os.stat_result) -> bool:
        """Return whether ``status`` is that of the file as it was scanned."""
        return status.st_ctime_ns == self.ctime_ns and HostFile._is_state(self, status)


class SourceScan(Struct, frozen=True):
    """The nodes of one source, with paths relative to it, in order.

    The node of a single file has the name of the file as its path. ``skipped_xattrs``: extended attributes that the
    nodes have not; ``unreadable_xattrs``: paths with such that cannot be read.
    ``out_of_time``: the paths whose times no layer can hold. ``root``: the directory
    that was read, or the archive's entry for it, under an empty path; None without.
    """

    nodes: tuple[Node, ...]
    is_single_file: bool
    skipped_xattrs: tuple[AttributedPath, ...] = ()
    unreadable_xattrs: tuple[bytes, ...] = ()
    out_of_time: tuple[bytes, ...] = ()
    root: Node | None = None


class _Scanner:
    """Makes the nodes of one source; ``max_mtime``: no mtime is later, in seconds since 1970.

    ``choice``: the extended attributes that they have.
    """

    def __init__(self, max_mtime: int | None, choice: XattrChoice) -> None:
        """Begin without nodes."""
        self._max_mtime, self._choice = max_mtime, choice
        self.skipped_xattrs: list[AttributedPath] = []
        self.unreadable_xattrs: list[bytes] = []
        self.out_of_time: list[bytes] = []

    def make_node(self, host_path: bytes, path: bytes, directory: int | None, name: bytes) -> Node:
        """Return a node for the file at ``host_path`` of this machine, with the path ``path`` in the overlay.

        ``name``: its name in the open ``directory``. Without one it is the source itself: symlinks are followed.
        """
        place = Place().inside(host_path)
        try:
            status = os.stat(name, dir_fd=directory, follow_symlinks=directory is None)
            kind = NodeKind(stat.S_IFMT(status.st_mode))
            target = os.readlink(name, dir_fd=directory) if kind is NodeKind.SYMLINK else b""
        except OSError as error:
            raise OverlayError(f"cannot be added: {error.strerror}", place) from error
        if kind is NodeKind.SOCKET:
            raise OverlayError("cannot be added: it is a socket", place)
        if kind is NodeKind.FILE and not os.access(name, os.R_OK, dir_fd=directory):
            raise OverlayError("cannot be added: Permission denied", place)
        if kind is NodeKind.FILE and not status.st_size:
            _check_is_empty(name, directory, place)
        xattrs = self._read_xattrs(host_path, path, directory, name) if kind in _WITH_XATTRS else ()
        mtime = status.st_mtime_ns // 1_000_000_000
        if not is_mtime_held(mtime, self._max_mtime):
            self.out_of_time.append(path)
        is_device = kind in (NodeKind.CHAR, NodeKind.BLOCK)
        is_hard_linked = kind is NodeKind.FILE and status.st_nlink > 1
        file = HostFile(host_path, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
        return Node(
            path=path, kind=kind, mode=0o777 if kind is NodeKind.SYMLINK else stat.S_IMODE(status.st_mode),
            uid=status.st_uid, gid=status.st_gid, mtime=clamp_mtime(mtime, self._max_mtime), target=target,
            rdev=(os.major(status.st_rdev), os.minor(status.st_rdev)) if is_device else (0, 0),
            content=file if kind is NodeKind.FILE else None,
            link=(status.st_dev, status.st_ino) if is_hard_linked else None, xattrs=xattrs,
        )  # fmt: skip

    def _read_xattrs(self, host_path: bytes, path: bytes, directory: int | None, name: bytes) -> Xattrs:
        """Return the extended attributes of a file, and note which are skipped; parameters as :meth:`make_node`."""
        attributes = read_attributes(host_path, directory, name, self._choice)
        if attributes.skipped:
            self.skipped_xattrs.append(AttributedPath(path, attributes.skipped))
        if attributes.is_unreadable:
            self.unreadable_xattrs.append(path)
        return attributes.taken

    def scan(self, nodes: Iterable[Node], *, is_single_file: bool, root: Node | None = None) -> SourceScan:
        """Return the scan of ``nodes``."""
        return SourceScan(
            tuple(nodes), is_single_file, tuple(sorted(self.skipped_xattrs, key=lambda entry: entry.path)),
            tuple(sorted(self.unreadable_xattrs)), tuple(sorted(self.out_of_time)), root,
        )  # fmt: skip


def _check_is_empty(name: bytes, directory: int | None, place: Place) -> None:
    """Check that a file of size 0 has no bytes. :raises OverlayError: it has, as files of /proc do."""
    try:
        fd = os.open(name, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK, dir_fd=directory)
        try:
            has_bytes = bool(os.read(fd, 1))
        finally:
            os.close(fd)
    except OSError:  # what cannot be read without waiting is no empty file
        has_bytes = True
    if has_bytes:
        raise OverlayError("cannot be added: it has bytes, but its size is 0, as in /proc; add a copy of it", place)


def scan_source(source: bytes, max_mtime: int | None, choice: XattrChoice = DEFAULT_CHOICE) -> SourceScan:
    """Return the directory or file ``source`` as nodes, sorted by path, with its owners, modes and times.

    ``max_mtime``: no mtime is later (SOURCE_DATE_EPOCH), in seconds since 1970. ``choice``: the extended attributes
    that are read. Symlinks below a directory stay
    symlinks; ``source`` itself may be one.

    :raises OverlayError: missing, unreadable, a socket, or neither a file nor a directory.
    """
    place = Place().inside(source)
    try:
        status = os.stat(source)
    except OSError as error:
        meant = suggest_file(source, error)
        raise OverlayError(f"cannot be added: {error.strerror}{meant}", place) from error
    scanner = _Scanner(max_mtime, choice)
    if stat.S_ISDIR(status.st_mode):
        nodes = sorted(_walk(source, scanner), key=lambda node: node.path)
        mtime = clamp_mtime(status.st_mtime_ns // 1_000_000_000, max_mtime)
        root = Node(
            path=b"", kind=NodeKind.DIRECTORY, mode=stat.S_IMODE(status.st_mode), uid=status.st_uid, gid=status.st_gid,
            mtime=mtime,
        )  # fmt: skip
        return scanner.scan(nodes, is_single_file=False, root=root)
    if not stat.S_ISREG(status.st_mode):
        raise OverlayError("cannot be added: it is neither a file nor a directory", place)
    name = os.path.basename(os.path.normpath(source))
    return scanner.scan([scanner.make_node(source, name, None, source)], is_single_file=True)


def _walk(source: bytes, scanner: _Scanner) -> Iterator[Node]:
    """Yield the node of everything below the directory ``source``."""
    pending = [(source, b"")]
    while pending:
        directory, path = pending.pop()
        fd = -1
        try:
            try:
                fd = open_long_path(directory, os.O_RDONLY | os.O_DIRECTORY)
                # The output may be made in this folder, under a temporary name.
                names = sorted(os.fsencode(name) for name in os.listdir(fd) if not is_part_name(name))
            except OSError as error:
                raise OverlayError(f"cannot be listed: {error.strerror}", Place().inside(directory)) from error
            for name in names:
                host_path = os.path.join(directory, name)
                node = scanner.make_node(host_path, join(path, name), fd, name)
                yield node
                if node.kind is NodeKind.DIRECTORY:
                    pending.append((host_path, node.path))
        finally:
            if fd >= 0:
                os.close(fd)
