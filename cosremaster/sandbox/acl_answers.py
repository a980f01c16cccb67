"""Answers to calls about ACLs in a namespace with a single id, whose kernel refuses those that name another.

Only such ACLs are recorded; all other extended attributes are the kernel's. ``trusted.*`` it refuses, as in every user
namespace. New files do not inherit a recorded default ACL.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Callable

from cosremaster.sandbox.acls import ACCESS, DEFAULT, mode_of_acl, names_other_ids, read_acl, renew_acl
from cosremaster.sandbox.inodes import InodeFacts, InodeReader
from cosremaster.sandbox.process_view import Call, FileTarget, ProcessView, error_of
from cosremaster.sandbox.records import InodeRecords, Record

_CREATE, _REPLACE = 1, 2
_MAX_VALUE = 65536


class AclAnswers:
    """Records ACLs, and shows them to whoever asks."""

    def __init__(self, view: ProcessView, records: InodeRecords, reader: InodeReader) -> None:
        """Take the view of the processes, and where ACLs are recorded."""
        self._view = view
        self._records = records
        self._reader = reader
        self._is_used = bool(records.acls())

    def answer(self, call: Call, is_valid: Callable[[], bool]) -> int | None:
        """Return what ``call`` returns, or None to let the kernel do it."""
        action = call.name.lstrip("lf") if "list" not in call.name else "listxattr"
        if action == "listxattr":
            return self._list(call, is_valid) if self._is_used else None
        if action != "setxattr" and not self._is_used:
            return None
        name = self._view.memory.read_path(call.pid, call.arguments[1])
        if name not in (ACCESS, DEFAULT):
            return None
        if action == "setxattr":
            return self._set(call, name, is_valid)
        return self._get(call, name, is_valid) if action == "getxattr" else self._remove(call, name, is_valid)

    def _read(self, call: Call, is_valid: Callable[[], bool]) -> tuple[FileTarget, InodeFacts, Record | None]:
        """Return the file of ``call``, its inode and its record."""
        target = self._view.locate(call)
        inode = self._reader.read(*target)
        if not is_valid():
            raise error_of(errno.ESRCH)
        return target, inode, self._records.find(inode)

    def _set(self, call: Call, name: bytes, is_valid: Callable[[], bool]) -> int | None:
        """Record an ACL that the kernel would refuse; let it have one that it takes."""
        size, flags = call.arguments[3], call.arguments[4]
        if size > _MAX_VALUE:
            return None
        value = self._view.memory.read(call.pid, call.arguments[2], size)
        target, inode, record = self._read(call, is_valid)
        acls = dict(record.acls or {}) if record else {}
        entries = read_acl(value)
        if not names_other_ids(entries):
            if record and acls.pop(name, None) is not None:
                record.acls = acls
            return None
        kind = inode.mode & 0o170000
        if kind == stat.S_IFLNK or (name == DEFAULT and kind != stat.S_IFDIR):
            return -errno.EOPNOTSUPP if kind == stat.S_IFLNK else -errno.EACCES
        is_present = name in acls or self._has_native(target, name)
        if (flags & _CREATE and is_present) or (flags & _REPLACE and not is_present):
            return -errno.EEXIST if is_present else -errno.ENODATA
        with contextlib.suppress(OSError):
            os.removexattr(target.path, name)
        if name == ACCESS:
            os.chmod(target.path, inode.mode & 0o7000 | mode_of_acl(entries))
        acls[name] = value
        self._records.open(inode, target.path, follow=target.follow).acls = acls
        self._is_used = True
        return 0

    @staticmethod
    def _has_native(target: FileTarget, name: bytes) -> bool:
        """Tell whether the kernel holds the ACL ``name`` of ``target``."""
        try:
            return bool(os.getxattr(target.path, name))
        except OSError:
            return False

    def _get(self, call: Call, name: bytes, is_valid: Callable[[], bool]) -> int | None:
        """Show a recorded ACL, with the permissions that the mode has by now."""
        _, inode, record = self._read(call, is_valid)
        value = record.acls.get(name) if record and record.acls else None
        if value is None:
            return None
        return self._hand_over(call, 2, renew_acl(value, inode.mode) if name == ACCESS else value)

    def _list(self, call: Call, is_valid: Callable[[], bool]) -> int | None:
        """Show the names of recorded ACLs beside those that the kernel holds."""
        target, _, record = self._read(call, is_valid)
        if not record or not record.acls:
            return None
        names = [os.fsencode(name) for name in os.listxattr(target.path, follow_symlinks=target.follow)]
        listing = b"".join(name + b"\0" for name in (*names, *sorted(record.acls)))
        return self._hand_over(call, 1, listing)

    def _hand_over(self, call: Call, address_at: int, data: bytes) -> int:
        """Write ``data`` to the buffer of ``call`` if it has one, and return what the call returns."""
        size = call.arguments[address_at + 1]
        if size and size < len(data):
            return -errno.ERANGE
        if size:
            self._view.memory.write(call.pid, call.arguments[address_at], data)
        return len(data)

    def _remove(self, call: Call, name: bytes, is_valid: Callable[[], bool]) -> int | None:
        """Drop a recorded ACL; the mode stays, as when the kernel removes one."""
        _, _, record = self._read(call, is_valid)
        if not record or not record.acls or name not in record.acls:
            return None
        record.acls = {other: value for other, value in record.acls.items() if other != name}
        return 0
