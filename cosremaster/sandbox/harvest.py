"""Find what changed between two scans of a file system, and send it over a wire as nodes."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator, Mapping, Set
from typing import Any, TypeAlias

from cosremaster.records.tuples import NamedTuple
from cosremaster.sandbox.acls import ACCESS, renew_acl
from cosremaster.sandbox.scan import PathFacts
from cosremaster.sandbox.wire import CHUNK, INLINE, FrameKind, FrameWire, Record, RecordBatch

_SECOND = 1_000_000_000
_MIN_HOLE = 1 << 16
_HOST_LABELS = {b"security.selinux": "/sys/fs/selinux/enforce", b"security.SMACK64": "/sys/fs/smackfs"}
"""Attributes that a security module of this machine gives to each file by itself, and where it shows."""


FindGroup: TypeAlias = Callable[[bytes], "int | None"]
"""Returns the group that the new file at a path got from its directory; None for no group."""


class RecordedFacts(NamedTuple):
    """What was recorded of files because the kernel refuses it to a user; by device and inode.

    ``owners``: user and group. ``devices``: type, major and minor number of the device that a file stands for.
    ``acls``: as extended attributes, beside those that the file has.
    """

    owners: Mapping[tuple[int, int], tuple[int, int]]
    devices: Mapping[tuple[int, int], tuple[int, int, int]]
    acls: Mapping[tuple[int, int], Mapping[bytes, bytes]]


class Harvest:
    """The changes from the scan ``before`` to the scan ``after``, with what was recorded at both times."""

    def __init__(
        self, before: Mapping[bytes, PathFacts], after: Mapping[bytes, PathFacts], old: RecordedFacts,
        new: RecordedFacts, *, lost_xattrs: Mapping[tuple[int, int], Mapping[bytes, bytes]], started: int,
        find_group: FindGroup | None, mapped: Set[tuple[int, int]] | None = frozenset(),
        reused: Set[tuple[int, int]] = frozenset(),
    ) -> None:  # fmt: skip
        """Compare two scans.

        ``lost_xattrs``: extended attributes of the beginning that no file got; the files keep them.
        ``started``: nanoseconds since 1970; a directory with an earlier time got it from a program.
        ``find_group``: groups of directories with the set-group-ID bit are records, which no kernel hands on; this
        returns what a new file got.
        ``mapped``: files that programs could write to as memory, for which tmpfs sets no time; None: any could be.
        ``reused``: numbers of files of the beginning that belong to other files now.
        """
        self._before, self._after, self._old, self._new = before, after, old, new
        self._lost_xattrs, self._started, self._find_group = lost_xattrs, started, find_group
        self._mapped, self._reused = mapped, reused
        self._labels = tuple(name for name, place in _HOST_LABELS.items() if os.path.exists(place))
        self._old_files = {facts.key for facts in before.values()} - reused if find_group else set()
        self._sent_links: set[int] = set()
        self.dropped: list[tuple[str, bytes]] = []

    def removed_paths(self) -> list[bytes]:
        """Return the paths that are gone, without those below another."""
        removed: list[bytes] = []
        for path in self._before:
            if path not in self._after and (not path or path.rpartition(b"/")[0] in self._after):
                removed.append(path)
        return sorted(removed)

    def changed_paths(self) -> list[bytes]:
        """Return the paths that are new or touched, and the other names of such files; sorted."""
        changed = {path for path, facts in self._after.items() if self._is_changed(path, facts)}
        links = {
            facts.key
            for facts in (self._after[path] for path in changed)
            if facts.links > 1 and not stat.S_ISDIR(facts.mode)
        }
        if links:
            others = (path for path, facts in self._after.items() if facts.key in links)
            changed.update(others)
        return sorted(changed)

    def _is_changed(self, path: bytes, facts: PathFacts) -> bool:
        """Tell whether ``path`` has to be looked at."""
        before, key = self._before.get(path), facts.key
        if before is None or facts.is_touched_since(before):
            return True
        if stat.S_ISDIR(facts.mode) and facts.mtime != before.mtime and facts.mtime < self._started:
            return True
        if key != before.key or key in self._reused:
            return self._is_other_directory(path, before, facts)
        if key in self._mapped if self._mapped is not None else stat.S_ISREG(facts.mode):
            return True
        return any(old.get(key) != new.get(key) for old, new in zip(self._old, self._new, strict=True))

    def _is_other_directory(self, path: bytes, before: PathFacts, facts: PathFacts) -> bool:
        """Tell whether a directory that took the place of another has more than another time."""
        owner = self._old.owners.get(before.key, (before.uid, before.gid))
        recorded = {**self._lost_xattrs.get(before.key, {}), **self._old.acls.get(before.key, {})}
        old = owner, self._join_xattrs(before, recorded)
        return old != (self._owner(path, facts), self._xattrs(facts))

    def send(self, wire: FrameWire) -> None:
        """Send all changes: removed paths, then nodes with their contents, then the dropped paths as the end."""
        wire.send(FrameKind.REMOVED, self.removed_paths())
        batch = RecordBatch(wire)
        for path in self.changed_paths():
            facts = self._after[path]
            record = self._make_record(path, facts)
            if record is None:
                continue
            batch.add(record)
            if isinstance(record[5], int):
                batch.flush()
                _send_content(path, facts.size, wire)
        batch.flush()
        wire.send(FrameKind.END, self.dropped)

    def _make_record(self, path: bytes, facts: PathFacts) -> Record | None:
        """Return the node at ``path`` as a record, or None for what no layer takes."""
        kind, key = stat.S_IFMT(facts.mode), facts.key
        details: Any = b""
        link = facts.inode if facts.links > 1 and kind != stat.S_IFDIR else 0
        if key in self._new.devices:
            kind, *details = self._new.devices[key]
            details = tuple(details)
        elif kind in (stat.S_IFCHR, stat.S_IFBLK):
            details = (os.major(facts.rdev), os.minor(facts.rdev))
        if (kind == stat.S_IFCHR and details == (0, 0)) or kind == stat.S_IFSOCK:
            self.dropped.append(("socket" if kind == stat.S_IFSOCK else "whiteout", path))
            return None
        if kind == stat.S_IFLNK:
            details = os.readlink(path)
        elif kind == stat.S_IFREG:
            details = self._read_details(path, facts, link)
        uid, gid = self._owner(path, facts)
        mode = kind | stat.S_IMODE(facts.mode)
        return (path, mode, uid, gid, facts.mtime // _SECOND, details, self._xattrs(facts), link)

    def _read_details(self, path: bytes, facts: PathFacts, link: int) -> bytes | int | None:
        """Return the bytes of a small file, the size of a large file, None for a further name of a file."""
        if link:
            if link in self._sent_links:
                return None
            self._sent_links.add(link)
        if facts.size > INLINE:
            return facts.size
        fd = open_to_read(path)
        try:
            return os.pread(fd, facts.size, 0) if facts.size else b""
        finally:
            os.close(fd)

    def _owner(self, path: bytes, facts: PathFacts) -> tuple[int, int]:
        """Return user and group of ``path``."""
        owner = self._new.owners.get(facts.key)
        if owner is not None and not facts.uid and not facts.gid:
            return owner
        if self._find_group is not None and path and facts.key not in self._old_files:
            group = self._find_group(path) if self._after[path.rpartition(b"/")[0]].mode & stat.S_ISGID else None
            return facts.uid, facts.gid if group is None else group
        return facts.uid, facts.gid

    def _xattrs(self, facts: PathFacts) -> tuple[tuple[bytes, bytes], ...]:
        """Return the extended attributes of a path with ``facts`` now."""
        lost = {} if facts.key in self._reused else self._lost_xattrs.get(facts.key, {})
        return self._join_xattrs(facts, {**lost, **self._new.acls.get(facts.key, {})})

    def _join_xattrs(self, facts: PathFacts, recorded: dict[bytes, bytes]) -> tuple[tuple[bytes, bytes], ...]:
        """Return the extended attributes of ``facts`` with ``recorded`` ones, without labels of this machine."""
        if ACCESS in recorded:
            recorded[ACCESS] = renew_acl(recorded[ACCESS], facts.mode)
        own = {name: value for name, value in facts.xattrs if not name.startswith(self._labels)} if facts.xattrs else {}
        return tuple(sorted({**own, **recorded}.items()))


def open_to_read(path: bytes) -> int:
    """Open the file ``path``, never through a symlink at its end."""
    return os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)


def _send_content(path: bytes, size: int, wire: FrameWire) -> None:
    """Send the ``size`` bytes of the file ``path``, its large holes as such."""
    fd = open_to_read(path)
    try:
        for start, length, is_data in _data_runs(fd, size):
            if not is_data:
                wire.send(FrameKind.HOLE, length)
                continue
            position, end = start, start + length
            while position < end:
                data = os.pread(fd, min(CHUNK, end - position), position)
                if not data:
                    raise OSError(errno.EIO, "the file became shorter")
                wire.send_data(data)
                position += len(data)
    finally:
        os.close(fd)


def _data_runs(fd: int, size: int) -> Iterator[tuple[int, int, bool]]:
    """Yield the runs of data and of large holes in a file: offset, length, and whether it is data."""
    start = position = 0
    while position < size:
        try:
            data = os.lseek(fd, position, os.SEEK_DATA)
        except OSError:  # ENXIO: nothing but a hole follows
            data = size
        if data - position >= _MIN_HOLE:
            if position > start:
                yield start, position - start, True
            yield position, data - position, False
            start = data
        position = os.lseek(fd, data, os.SEEK_HOLE) if data < size else size
    if size > start:
        yield start, size - start, True
