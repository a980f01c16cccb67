"""Lay nodes into an empty directory: owners, modes, extended attributes and times last.

What only real root may make (devices, ids that are not mapped) is remembered instead, and comes back in the result.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Mapping

from cosremaster.sandbox.wire import FrameKind, FrameWire, Record

MOUNT_POINTS = {b"dev": 0o755, b"proc": 0o555, b"sys": 0o555, b"run": 0o755, b"tmp": 0o1777}
"""Directories that a script finds whatever the image has at these paths, and the modes of new ones."""

_IMPLIED_MODE = 0o755
_REFUSALS = frozenset((errno.EPERM, errno.EACCES, errno.EINVAL, errno.ENOTSUP, errno.ENODATA, errno.EOVERFLOW))
FileId = tuple[int, int]
"""Device and inode: what names of one file have in common."""


class Unpacker:
    """Nodes laid into the working directory.

    :ivar owners: users and groups that could not be set, by file.
    :ivar devices: device nodes, which have a place-holder: type, major and minor number.
    :ivar acls: ACLs that could not be set, by file; ``xattrs``: other extended attributes.
    :ivar displaced: paths of :data:`MOUNT_POINTS` at which the image has something else than a directory.
    """

    def __init__(
        self, *, has_owners: bool, has_devices: bool = False, mount_points: Mapping[bytes, int] = MOUNT_POINTS
    ) -> None:
        """Begin with nothing.

        ``has_owners``: every id from 0 to 65535 can be set; ``has_devices``: devices can be made. ``mount_points``:
        directories that have to be there, with the modes of new ones.
        """
        self._has_owners, self._has_devices, self._mount_points = has_owners, has_devices, mount_points
        self.owners: dict[FileId, tuple[int, int]] = {}
        self.devices: dict[FileId, tuple[int, int, int]] = {}
        self.acls: dict[FileId, dict[bytes, bytes]] = {}
        self.xattrs: dict[FileId, dict[bytes, bytes]] = {}
        self.displaced: list[bytes] = []
        self._directories: list[Record] = []
        self._made: set[bytes] = {b""}
        self._links: dict[int, bytes] = {}

    def take_nodes(self, wire: FrameWire, end: FrameKind = FrameKind.END) -> None:
        """Lay all nodes that come over ``wire`` until frame ``end``, then the attributes of directories."""
        while True:
            kind, records = wire.receive(FrameKind.NODES, end)
            if kind is end:
                break
            for record in records:
                self._lay(record, wire)
        for name, mode in self._mount_points.items():
            if name not in self._made:
                os.mkdir(name)
                os.chmod(name, mode)
        for record in reversed(self._directories):
            self._set_attributes(record, record[0] or b".")

    def _lay(self, record: Record, wire: FrameWire) -> None:
        """Lay one node; the bytes of a large file come over ``wire``."""
        path, bits, details = record[0], record[1], record[5]
        kind = stat.S_IFMT(bits)
        if path in self._mount_points and kind != stat.S_IFDIR:
            self.displaced.append(path)
            if isinstance(details, int) and stat.S_ISREG(bits):
                _write_data(-1, details, wire)
            return
        self._make_parents(path)
        if kind == stat.S_IFDIR:
            if path not in self._made:
                os.mkdir(path, 0o700)
                self._made.add(path)
            self._directories.append(record)
            return
        link = record[7]
        if link and link in self._links:
            os.link(self._links[link], path, follow_symlinks=False)
            return
        self._make(record, wire)
        if link:
            self._links[link] = path
        self._set_attributes(record, path)

    def _make_parents(self, path: bytes) -> None:
        """Make the directories above ``path`` that no node stands for."""
        parent = path.rpartition(b"/")[0]
        if parent not in self._made:
            self._make_parents(parent)
            os.mkdir(parent)
            os.chmod(parent, _IMPLIED_MODE)
            self._made.add(parent)

    def _make(self, record: Record, wire: FrameWire) -> None:
        """Make the file of ``record``, without its attributes."""
        path, bits, details = record[0], record[1], record[5]
        kind = stat.S_IFMT(bits)
        if kind == stat.S_IFREG:
            if not isinstance(details, int):
                write_file(path, details, 0o600)
                return
            fd = _make_file(path)
            try:
                _write_data(fd, details, wire)
            finally:
                os.close(fd)
        elif kind == stat.S_IFLNK:
            os.symlink(details, path)
        elif kind in (stat.S_IFCHR, stat.S_IFBLK):
            self._make_device(path, kind, details)
        else:
            os.mknod(path, kind | 0o600)

    def _make_device(self, path: bytes, kind: int, numbers: tuple[int, int]) -> None:
        """Make a device, or a place-holder for it: user namespaces are allowed character device 0:0 alone."""
        if self._has_devices:
            os.mknod(path, kind | 0o600, os.makedev(*numbers))
            return
        try:
            os.mknod(path, stat.S_IFCHR | 0o600, 0)
        except OSError:
            os.mknod(path, stat.S_IFREG | 0o600)
        status = os.lstat(path)
        self.devices[status.st_dev, status.st_ino] = (kind, *numbers)

    def _set_attributes(self, record: Record, path: bytes) -> None:
        """Give ``path`` the attributes of ``record``; a change of owner clears special bits, so it comes first."""
        _, bits, uid, gid, mtime, _, xattrs, _ = record
        if uid or gid:
            self._set_owner(path, uid, gid)
        if not stat.S_ISLNK(bits):
            os.chmod(path, stat.S_IMODE(bits))
        for name, value in xattrs:
            self._set_xattr(path, name, value)
        os.utime(path, ns=(mtime * 1_000_000_000, mtime * 1_000_000_000), follow_symlinks=False)

    def _set_owner(self, path: bytes, uid: int, gid: int) -> None:
        """Give ``path`` its owner, or remember it."""
        if self._has_owners:
            with contextlib.suppress(OSError):  # an id above 65535 is not mapped
                os.chown(path, uid, gid, follow_symlinks=False)
                return
        status = os.lstat(path)
        self.owners[status.st_dev, status.st_ino] = (uid, gid)

    def _set_xattr(self, path: bytes, name: bytes, value: bytes) -> None:
        """Give ``path`` an extended attribute, or remember it."""
        try:
            os.setxattr(path, name, value, follow_symlinks=False)
        except OSError as error:
            if error.errno not in _REFUSALS:
                raise
            status = os.lstat(path)
            refused = self.acls if name.startswith(b"system.posix_acl_") else self.xattrs
            refused.setdefault((status.st_dev, status.st_ino), {})[name] = value


def _make_file(path: bytes) -> int:
    """Make the file ``path``, which must not exist, and open it for writing."""
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)


def write_file(path: bytes, data: bytes, mode: int) -> None:
    """Make the file ``path``, which must not exist, with ``data`` and ``mode``."""
    fd = _make_file(path)
    try:
        _write_at(fd, memoryview(data), 0)
        os.fchmod(fd, mode)
    finally:
        os.close(fd)


def _write_data(fd: int, length: int, wire: FrameWire) -> None:
    """Write ``length`` bytes that come over ``wire`` to ``fd``, holes as holes; -1: drop them."""
    position = 0
    while position < length:
        kind, value = wire.receive(FrameKind.DATA, FrameKind.HOLE)
        if kind is FrameKind.HOLE:
            position += value
            continue
        if fd >= 0:
            _write_at(fd, memoryview(value), position)
        position += len(value)
    if fd >= 0:
        os.ftruncate(fd, length)


def _write_at(fd: int, view: memoryview, position: int) -> None:
    """Write all of ``view`` to ``fd`` at ``position``."""
    while view:
        count = os.pwrite(fd, view, position)
        position, view = position + count, view[count:]
