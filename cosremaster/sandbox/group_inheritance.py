"""Groups of new files in directories with the set-group-ID bit, where the groups of directories are records alone.

A file gets the group that its directory had when the file was made (inode(7)). The kernel tells which of two files is
older: by the time at which they were made, and within a tick of its clock by their numbers, which count up.
"""

from __future__ import annotations

import contextlib
import os
import stat
import time
from collections.abc import Iterator

from cosremaster.records.tuples import NamedTuple
from cosremaster.sandbox.inodes import InodeFacts, InodeKey, InodeReader
from cosremaster.sandbox.records import InodeRecords, Owner

_DELETED = b" (deleted)"


class Age(NamedTuple):
    """When an inode was made; a greater one is younger."""

    birth: int
    number: int


_OLDEST = Age(0, 0)


class InheritedGroups:
    """Knows which group each directory gave to new files, and since when."""

    def __init__(self, records: InodeRecords, reader: InodeReader, started: int) -> None:
        """Begin with the owners of ``records``.

        ``started``: files that were made up to then, in nanoseconds since 1970, are not new.
        """
        self._records, self._reader, self._started = records, reader, started
        self._changes: dict[InodeKey, list[tuple[Age, int | None]]] = {}
        self._settled: set[InodeKey] = set()
        self._descriptors = b"/proc/self/fd"

    @contextlib.contextmanager
    def below_proc(self) -> Iterator[None]:
        """Let relative paths begin in /proc for a while, and absolute ones anywhere."""
        self._descriptors = b"self/fd"
        try:
            yield
        finally:
            self._descriptors = b"/proc/self/fd"

    def is_settled(self, key: InodeKey) -> bool:
        """Tell whether the inode is known to have no other group than its own."""
        return key in self._settled

    def find_owner(self, path: bytes, follow: bool, inode: InodeFacts) -> Owner:
        """Return the owner of ``inode``, which is at ``path``: the recorded one, or with the group of its directory.

        That is recorded then.

        :raises OSError: it is gone.
        """
        record = self._records.find(inode)
        if record is not None and record.owner is not None:
            return record.owner
        group = None if inode.key in self._settled else self._find_group(path, follow, inode)
        if group:
            owner = (inode.uid, group)
            with contextlib.suppress(OverflowError):  # recorded, as it may move and the directory may change
                self._records.open(inode, path, follow=follow).owner = owner
            return owner
        self._settled.add(inode.key)
        return inode.uid, inode.gid

    def _find_group(self, path: bytes, follow: bool, inode: InodeFacts) -> int | None:
        """Return the group that the directory of ``inode`` gave it; None for no group."""
        if inode.birth and inode.birth <= self._started:
            return None
        parent_path = self._find_parent(path, follow)
        if parent_path is None:
            return None
        parent = self._reader.read(parent_path, False)
        if not hands_on_group(parent):
            return None
        changes = self._changes.get(parent.key)
        if changes is None:
            return self.find_owner(parent_path, False, parent)[1]
        age = Age(inode.birth, inode.key[1])
        return next(group for since, group in reversed(changes) if since <= age)

    def _find_parent(self, path: bytes, follow: bool) -> bytes | None:
        """Return the directory in which the file at ``path`` has its name; None if it has none."""
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW))
        try:
            name = os.readlink(b"%b/%d" % (self._descriptors, descriptor))
        finally:
            os.close(descriptor)
        is_name = name.startswith(b"/") and name != b"/" and not name.endswith(_DELETED)
        return os.path.dirname(name) if is_name else None

    def note_change(self, path: bytes, directory: InodeFacts, before: int | None, group: int) -> None:
        """Note that from now on new files in ``directory`` get ``group``, and those until now ``before``."""
        changes = self._changes.setdefault(directory.key, [(_OLDEST, before)])
        changes.append((self._read_present(path), group))

    def _read_present(self, directory: bytes) -> Age:
        """Return an age between those of all files that exist now and of all that will be made in ``directory``."""
        try:
            descriptor = os.open(directory, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
        except OSError:
            return Age(time.time_ns(), 0)
        try:
            inode = self._reader.read(b"%b/%d" % (self._descriptors, descriptor), True)
        finally:
            os.close(descriptor)
        return Age(inode.birth, inode.key[1])


def hands_on_group(inode: InodeFacts) -> bool:
    """Tell whether ``inode`` is a directory whose new files get its group."""
    return stat.S_ISDIR(inode.mode) and bool(inode.mode & stat.S_ISGID)
