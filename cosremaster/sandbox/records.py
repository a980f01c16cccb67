"""What a script said of inodes that the kernel does not hold: owners, devices and ACLs, by the inode's numbers."""

from __future__ import annotations

import contextlib
import os
import time
from collections import deque
from collections.abc import Mapping
from typing import TypeAlias

from cosremaster.records.tuples import NamedTuple
from cosremaster.sandbox.inodes import InodeFacts, InodeKey

Owner: TypeAlias = tuple[int, int]
"""User and group."""
Acls: TypeAlias = Mapping[bytes, bytes]
"""Values of ``system.posix_acl_access`` and ``system.posix_acl_default``, as setxattr(2) takes them."""

_PIN_TIME = 20_000_000
"""Nanoseconds: two ticks of a slow kernel's clock, by which files get their times."""

MAX_RECORDS = 2_000_000
"""A script that makes files, gives them away and removes them again must not fill the memory."""


class Device(NamedTuple):
    """A device that a script made, for which a place-holder stands in the tree; ``kind``: the bits of its type."""

    kind: int
    major: int
    minor: int


class Record:
    """What is recorded of an inode.

    :ivar born_by: the inode is not this if it was made later, in nanoseconds since 1970: some file systems give the
        number of a removed inode to a new file.
    :ivar owner: None if nobody said who owns it.
    """

    __slots__ = ("acls", "born_by", "device", "owner")

    def __init__(self, born_by: int, owner: Owner | None = None) -> None:
        """Begin with at most an owner."""
        self.born_by, self.owner = born_by, owner
        self.device: Device | None = None
        self.acls: Acls | None = None


class InodeRecords:
    """All that is recorded.

    A hit is checked against the time at which the inode was made. Where a file system does not tell that time, its
    numbers alone count (tmpfs gives none twice).
    """

    def __init__(
        self, owners: Mapping[InodeKey, Owner], devices: Mapping[InodeKey, Device], acls: Mapping[InodeKey, Acls],
        started: int, reusing: int | None = None,
    ) -> None:  # fmt: skip
        """Begin with the ``owners``, ``devices`` and ``acls`` of files that were made up to ``started``.

        ``reusing``: the device of the file system that gives the numbers of removed files to new ones; None: none does.
        """
        self._reusing = reusing
        self._pins: deque[tuple[int, int]] = deque()
        self._records = {key: Record(started, owner) for key, owner in owners.items()}
        for key, device in devices.items():
            self._records.setdefault(key, Record(started)).device = device
        for key, values in acls.items():
            self._records.setdefault(key, Record(started)).acls = values

    def __len__(self) -> int:
        """Return how many inodes are recorded."""
        return len(self._records)

    def __contains__(self, key: InodeKey) -> bool:
        """Tell whether an inode with these numbers is recorded."""
        return key in self._records

    def find(self, inode: InodeFacts) -> Record | None:
        """Return the record of ``inode``."""
        record = self._records.get(inode.key)
        if record is None or inode.birth <= record.born_by:
            return record
        del self._records[inode.key]
        return None

    def open(self, inode: InodeFacts, path: bytes, *, follow: bool) -> Record:
        """Return the record of ``inode``, which is at ``path``; an empty one if nothing is recorded of it.

        :raises OverflowError: there are as many as can be.
        """
        record = self.find(inode)
        if record is None:
            if len(self._records) >= MAX_RECORDS:
                raise OverflowError(f"more than {MAX_RECORDS} files were given to other owners")
            record = self._records[inode.key] = Record(inode.birth)
            self._pin(inode, path, follow=follow)
        return record

    def _pin(self, inode: InodeFacts, path: bytes, *, follow: bool) -> None:
        """Keep the number of a new ``inode`` from another file, until that would be younger by the kernel's clock.

        On other file systems nothing is opened: a script could not unmount what it mounted.
        """
        if inode.key[0] != self._reusing:
            return
        now = time.time_ns()
        while self._pins and not self._pins[0][0] <= now < self._pins[0][0] + _PIN_TIME:
            os.close(self._pins.popleft()[1])
        if inode.birth + _PIN_TIME > now:
            with contextlib.suppress(OSError):  # it is gone, or there are too many at once
                flags = os.O_PATH | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW)
                self._pins.append((now, os.open(path, flags)))

    def owners(self) -> dict[InodeKey, Owner]:
        """Return the owner of each inode of which it is recorded."""
        return {key: record.owner for key, record in self._records.items() if record.owner}

    def devices(self) -> dict[InodeKey, Device]:
        """Return the devices."""
        return {key: record.device for key, record in self._records.items() if record.device}

    def acls(self) -> dict[InodeKey, Acls]:
        """Return the recorded ACLs of each inode that has any."""
        return {key: record.acls for key, record in self._records.items() if record.acls}
