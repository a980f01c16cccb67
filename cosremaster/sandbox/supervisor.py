"""The supervisor of a script's processes: it answers the calls that the filter sends to it.

In a namespace with a single id it records owners and ACLs in place of the kernel, and shows them to whoever asks, so
that a program that copies what stat(2) says copies the right thing. With either way of ids it records devices. What is
not recorded, and what the supervisor cannot reach, goes on to the kernel.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import stat
import struct
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import TypeAlias

from cosremaster.sandbox.acl_answers import AclAnswers
from cosremaster.sandbox.calls import Architecture, find_architectures
from cosremaster.sandbox.filter import (
    CHOWN_CALLS,
    DEVICE_CALLS,
    MAPPING_CALLS,
    MODE_CALLS,
    RENAME_CALLS,
    ROOT_CALLS,
    SOCKET_FAMILIES,
    STAT_CALLS,
    XATTR_CALLS,
)
from cosremaster.sandbox.group_inheritance import InheritedGroups, hands_on_group
from cosremaster.sandbox.inodes import InodeFacts, InodeKey, InodeReader, Shown, pack_stat, pack_statx
from cosremaster.sandbox.notifications import Notification, NotificationListener, short_turns
from cosremaster.sandbox.process_view import AT_FDCWD, Call, FileTarget, ProcessView, to_signed
from cosremaster.sandbox.records import Acls, Device, InodeRecords, Owner
from cosremaster.sandbox.scan import PathFacts

_CAP_MKNOD = 27
_FILE_TYPE = 0o170000

Handler: TypeAlias = Callable[[Call], "int | None"]
"""Returns what the call returns, a negative error number included; None to let the kernel do the call."""


class Supervisor:
    """Answers the calls of all processes under a filter, until they end or it is stopped.

    It runs in the user namespace of the script, outside its PID namespace.
    """

    def __init__(
        self,
        listener: int,
        proc_fd: int,
        owners: Mapping[InodeKey, Owner],
        devices: Mapping[InodeKey, Device] | None = None,
        acls: Mapping[InodeKey, Acls] | None = None,
        started: int = 0,
        reusing: int | None = None,
    ) -> None:
        """Make a supervisor for the filter with the descriptor ``listener``.

        :param proc_fd: /proc of the PID namespace in which the supervisor runs.
        :param owners: owners of the files in the tree, as far as they are not 0.
        :param devices: devices for which place-holders stand in the tree.
        :param acls: ACLs of files in the tree that the kernel would not take.
        :param started: when the tree was whole, in nanoseconds since 1970.
        :param reusing: the device of the file system that gives the numbers of removed files to new ones, if it does.
        """
        self._listener = NotificationListener(listener)
        self._records = InodeRecords(owners, devices or {}, acls or {}, started or time.time_ns(), reusing)
        self._view = ProcessView(proc_fd)
        self._reader = InodeReader()
        self._acls = AclAnswers(self._view, self._records, self._reader)
        self._groups = InheritedGroups(self._records, self._reader, started or time.time_ns())
        self.mapped: set[InodeKey] = set()
        """Files that programs could write to as memory: tmpfs sets no time for that."""

        self._new_device: FileTarget | None = None
        self._shows_numbers = False
        self._handlers = self._find_handlers()

    def _find_handlers(self) -> dict[tuple[int, int], tuple[Handler, Architecture, str]]:
        """Return who answers which call, by the numbers of architecture and call."""
        handlers: dict[str, Handler] = {
            **dict.fromkeys(STAT_CALLS, self._show_inode),
            **dict.fromkeys(CHOWN_CALLS, self._change_owner),
            **dict.fromkeys(XATTR_CALLS, self._answer_acl),
            **dict.fromkeys(RENAME_CALLS, self._note_move),
            **dict.fromkeys(MODE_CALLS, self._note_group_bit),
            **dict.fromkeys(DEVICE_CALLS, self._make_device),
            **dict.fromkeys((*ROOT_CALLS, "unshare", "clone"), self._expect_other_roots),
            **dict.fromkeys(MAPPING_CALLS, self._note_mapping),
            "socketcall": self._make_socket,
        }
        return {
            (architecture.audit, number): (handlers[name], architecture, name)
            for architecture in find_architectures()
            for number, name in architecture.find_numbers(handlers).items()
        }

    def owners(self) -> dict[InodeKey, Owner]:
        """Return the owners that the script gave, and those of the beginning."""
        return self._records.owners()

    def devices(self) -> dict[InodeKey, Device]:
        """Return the devices that the script made, and those of the beginning."""
        return self._records.devices()

    def acls(self) -> dict[InodeKey, Acls]:
        """Return the ACLs that the kernel did not take, and those of the beginning."""
        return self._records.acls()

    def forget_removed(self, files: Mapping[bytes, PathFacts]) -> None:
        """Forget what was recorded of a file that is gone, and whose number one of ``files`` has. After serving."""
        for path, facts in files.items():
            if (facts.device, facts.inode) in self._records:
                self._records.find(self._reader.read(path or b".", False))

    def find_group(self, path: bytes) -> int | None:
        """Return the group that the new file at ``path`` got from its directory; None for no group. After serving."""
        inode = self._reader.read(path, False)
        group = self._groups.find_owner(path, False, inode)[1]
        return group if group != inode.gid else None

    def serve(self, stop_fd: int) -> None:
        """Answer until ``stop_fd`` is readable or closed at its other end, or every process is gone."""
        poll = select.poll()
        poll.register(self._listener.descriptor, select.POLLIN)
        poll.register(stop_fd, select.POLLIN)
        waiting: deque[Notification] = deque()
        with self._view.own_root(), self._groups.below_proc(), short_turns():
            while True:
                events = dict(poll.poll(0 if waiting else None))
                if stop_fd in events:
                    return
                if events.get(self._listener.descriptor, 0) & select.POLLIN:
                    # A signal can make a call fail with EINTR only as long as nobody has received it.
                    notification = self._listener.receive()
                    waiting.extend([notification] if notification else [])
                elif waiting:
                    self._answer(waiting.popleft())
                else:
                    return

    def _answer(self, notification: Notification) -> None:
        """Answer ``notification``."""
        handler, architecture, name = self._handlers[notification.architecture, notification.number]
        cookie, pid, arguments = notification.cookie, notification.pid, notification.arguments
        try:
            value = handler(Call(cookie, pid, architecture, name, arguments)) if pid else None
        except OSError:
            value = None  # the process is gone, or its arguments lead nowhere: the kernel knows the error
        if value is None:
            self._listener.let_continue(cookie)
        elif not self._listener.answer(cookie, value) and self._new_device:
            os.unlink(self._new_device.path)  # a signal came between, and the process will try again
        self._new_device = None

    def _expect_other_roots(self, _: Call) -> None:
        """Let the kernel do a call after which processes may have different roots."""
        self._view.expect_other_roots()

    def _answer_acl(self, call: Call) -> int | None:
        """Answer a call about extended attributes."""
        return self._acls.answer(call, lambda: self._listener.is_valid(call.cookie))

    def _show_inode(self, call: Call) -> int | None:
        """Answer a call of the stat family if the inode is recorded."""
        self._shows_numbers = True
        if not self._records:
            return None
        target = self._view.locate(call)
        status = os.stat(target.path, follow_symlinks=target.follow)
        key = (status.st_dev, status.st_ino)
        if key not in self._records and self._groups.is_settled(key):
            return None
        inode = self._reader.read(*target)
        owner, record = self._groups.find_owner(*target, inode), self._records.find(inode)
        if owner == (inode.uid, inode.gid) and (record is None or record.device is None):
            return None
        shown = _shown_of(inode, owner, record.device if record else None)
        if call.name == "statx":
            address, data = call.arguments[4], pack_statx(inode, shown)
        else:
            address = call.arguments[2 if call.name in ("newfstatat", "fstatat64") else 1]
            data = pack_stat(call.architecture.name, call.name.endswith("64"), inode, shown)
        if not self._listener.is_valid(call.cookie):
            return None
        self._view.memory.write(call.pid, address, data)
        return 0

    def _change_owner(self, call: Call) -> int | None:
        """Record an owner.

        The kernel changes the owner to 0, and so does all that comes with a change: it clears bits and capabilities,
        sets the time, and refuses it where the file system is read-only.
        """
        uid, gid = _ids_of(call)
        target = self._view.locate(call)
        if call.name in ("fchown", "fchown32"):
            flags = self._view.read_open_flags(call.pid, to_signed(call.arguments[0]))
            if flags & os.O_PATH:
                return -errno.EBADF
        inode = self._reader.read(*target)
        old_uid, old_gid = self._groups.find_owner(*target, inode)
        if not self._listener.is_valid(call.cookie):
            return None
        try:
            os.chown(
                target.path,
                -1 if uid is None else 0,
                -1 if gid is None else 0,
                follow_symlinks=target.follow,
            )
            record = self._records.open(inode, target.path, follow=target.follow)
        except OSError as error:
            return -(error.errno or errno.EIO)
        except OverflowError:
            return -errno.ENOSPC
        record.owner = (old_uid if uid is None else uid, old_gid if gid is None else gid)
        if gid is not None and hands_on_group(inode):
            self._groups.note_change(target.path, inode, old_gid, gid)
        return 0

    def _note_mapping(self, call: Call) -> int | None:
        """Note a file that becomes memory which can be written to, and let the kernel do it.

        What cannot be looked at is refused, for a change of it would not be seen.
        """
        descriptor = to_signed(call.arguments[4])
        if call.name == "mmap" and call.architecture.name == "i386":  # struct mmap_arg_struct of mm/mmap.c
            descriptor = struct.unpack("<16xi4x", self._view.memory.read(call.pid, call.arguments[0], 24))[0]
        if descriptor < 0:
            return None
        try:
            if self._view.read_open_flags(call.pid, descriptor) & os.O_ACCMODE != os.O_RDONLY:
                self.mapped.add(self._view.find_inode(call.pid, descriptor))
        except (FileNotFoundError, ProcessLookupError):
            return None  # no such descriptor, or the process is gone
        except OSError as error:
            return -(error.errno or errno.EIO)
        return None

    def _note_group_bit(self, call: Call) -> None:
        """Note that a directory gets the set-group-ID bit, and let the kernel set it."""
        target = self._view.locate(call)
        inode = self._reader.read(*target)
        if stat.S_ISDIR(inode.mode) and not hands_on_group(inode):
            self._groups.note_change(target.path, inode, None, self._groups.find_owner(*target, inode)[1])

    def _note_move(self, call: Call) -> None:
        """Find the group of a file before it moves to another directory, and let the kernel move it."""
        directory, address = (AT_FDCWD, call.arguments[0]) if call.name == "rename" else call.arguments[:2]
        target = self._view.locate_new(call.pid, to_signed(directory), address)
        self._groups.find_owner(*target, self._reader.read(*target))

    def _make_device(self, call: Call) -> int | None:
        """Make a place-holder for a device and record the device.

        Any user namespace may make a character device with the numbers 0:0, which is a whiteout of overlayfs and
        nothing that can be opened. Where a file system refuses that, the place-holder is an empty file.
        """
        start = 1 if call.name == "mknodat" else 0
        directory = to_signed(call.arguments[0]) if start else AT_FDCWD
        address, mode, numbers = call.arguments[start : start + 3]
        if not numbers & 0xFFFFFFFF and not self._shows_numbers and self._records.devices():
            return -errno.EPERM  # rather than to make a device without numbers out of the copy of a place-holder
        status = self._view.read_status(call.pid)
        if not status.capabilities >> _CAP_MKNOD & 1:
            return -errno.EPERM
        target = self._view.locate_new(call.pid, directory, address)
        if not self._listener.is_valid(call.cookie):
            return None
        try:
            _make_place_holder(target.path, mode & 0o7777 & ~status.umask)
        except OSError as error:
            return -(error.errno or errno.EIO)
        self._new_device = target
        # new_decode_dev of linux/kdev_t.h
        device = Device(mode & _FILE_TYPE, numbers >> 8 & 0xFFF, numbers & 0xFF | numbers >> 12 & 0xFFF00)
        try:
            self._records.open(self._reader.read(*target), target.path, follow=False).device = device
        except OverflowError:
            os.unlink(target.path)
            return -errno.ENOSPC
        return 0

    def _make_socket(self, call: Call) -> int | None:
        """Make a socket for a program of i386, whose arguments no filter can look at.

        The process gets the socket itself: were the kernel to go on, it would read arguments that may have changed.
        """
        data = self._view.memory.read(call.pid, call.arguments[1], 12)
        family, kind, protocol = struct.unpack("<Iii", data)
        if family not in SOCKET_FAMILIES:
            return -errno.EAFNOSUPPORT
        try:
            with socket.socket(family, kind, protocol) as new_socket:
                self._listener.answer_descriptor(call.cookie, new_socket.fileno(), bool(kind & socket.SOCK_CLOEXEC))
        except OSError as error:
            return -(error.errno or errno.EIO)
        return None


def _ids_of(call: Call) -> tuple[int | None, int | None]:
    """Return the user and the group that ``call`` gives, None for what stays."""
    start = 2 if call.name == "fchownat" else 1
    is_short = call.architecture.name == "i386" and call.name in ("chown", "lchown", "fchown")
    no_id = 0xFFFF if is_short else 0xFFFFFFFF
    uid, gid = (value & no_id for value in call.arguments[start : start + 2])
    return None if uid == no_id else uid, None if gid == no_id else gid


def _shown_of(inode: InodeFacts, owner: Owner, device: Device | None) -> Shown:
    """Return what is shown of ``inode``."""
    if device is None:
        return Shown(*owner, inode.mode, None)
    return Shown(*owner, device.kind | stat.S_IMODE(inode.mode), (device.major, device.minor))


def _make_place_holder(path: bytes, mode: int) -> None:
    """Make the place-holder of a device at ``path`` with the permissions ``mode``."""
    try:
        os.mknod(path, stat.S_IFCHR | mode, 0)
    except PermissionError:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, mode & 0o777))
        os.chmod(path, mode)
