"""Files as a process of the script sees them, for a supervisor outside its PID namespace.

Paths are looked up from the root of the process, and through /proc from its working directory and its descriptors.
Between that and an act, a hostile script can make a path lead elsewhere in its own tree; it gains nothing by that (see
:mod:`cosremaster.sandbox.notifications`).
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
from collections.abc import Iterator

from cosremaster.records.tuples import NamedTuple
from cosremaster.sandbox.calls import Architecture
from cosremaster.sandbox.inodes import InodeKey
from cosremaster.sandbox.notifications import ProcessMemory

AT_FDCWD = -100
AT_SYMLINK_NOFOLLOW = 0x100
AT_EMPTY_PATH = 0x1000
_CLONE_FS = 0x200

_FLAGS_OF_AT = {"newfstatat": 3, "fstatat64": 3, "statx": 2, "fchownat": 4, "fchmodat": None, "fchmodat2": 3}
"""Calls with a directory before the path, and which argument has their flags; None if there are none."""

_OWN_PROCESS = (
    (b"/proc/self/", b"%d/"),
    (b"/proc/thread-self/", b"%d/"),
    (b"/dev/fd/", b"%d/fd/"),
    (b"/dev/stdin", b"%d/fd/0"),
    (b"/dev/stdout", b"%d/fd/1"),
    (b"/dev/stderr", b"%d/fd/2"),
)
"""Paths that lead every process to itself, and where they lead below /proc for another to follow."""


class Call(NamedTuple):
    """A call of a process, which waits for its answer."""

    cookie: int
    pid: int
    architecture: Architecture
    name: str
    arguments: tuple[int, ...]


class FileTarget(NamedTuple):
    """A file by a path that leads there while this thread has its own root, and whether a symlink is followed."""

    path: bytes
    follow: bool


class ProcessStatus(NamedTuple):
    """What /proc/PID/status says of a process."""

    umask: int
    capabilities: int


def to_signed(argument: int) -> int:
    """Return the int in an argument, of which the kernel takes the lower word."""
    return (argument & 0xFFFFFFFF) - ((argument & 0x80000000) << 1)


def error_of(code: int) -> OSError:
    """Return the error with number ``code``."""
    return OSError(code, os.strerror(code))


class ProcessView:
    """Finds what the arguments of calls name."""

    def __init__(self, proc_fd: int) -> None:
        """Take ``proc_fd``, the /proc of the PID namespace in which the supervisor runs."""
        self._proc = proc_fd
        self._has_root = False
        self._roots_differ = False
        self.memory = ProcessMemory()

    @contextlib.contextmanager
    def own_root(self) -> Iterator[None]:
        """Let this thread, alone, have another root and umask for a while."""
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.unshare(_CLONE_FS):
            raise error_of(ctypes.get_errno())
        root, directory = (os.open(path, os.O_PATH | os.O_DIRECTORY) for path in ("/", "."))
        umask = os.umask(0)
        try:
            os.fchdir(self._proc)  # relative paths begin with a process ID
            yield
        finally:
            os.umask(umask)
            os.fchdir(root)
            os.chroot(".")
            os.fchdir(directory)
            os.close(root)
            os.close(directory)

    def expect_other_roots(self) -> None:
        """Enter each process's own root from now on: they may have different ones."""
        self._roots_differ = True

    def _enter_root(self, pid: int) -> None:
        """Make the root of process ``pid`` that of this thread."""
        root = os.open(b"%d/root" % pid, os.O_PATH | os.O_DIRECTORY)
        try:
            os.fchdir(root)
            os.chroot(".")
        finally:
            os.fchdir(self._proc)
            os.close(root)
        self._has_root = True

    def locate(self, call: Call) -> FileTarget:
        """Return the file that ``call`` is about.

        :raises OSError: the call names none that can be reached.
        """
        if call.name in _FLAGS_OF_AT:
            flags_at = _FLAGS_OF_AT[call.name]
            flags = 0 if flags_at is None else call.arguments[flags_at]
            directory, address = call.arguments[0], call.arguments[1]
            # Linux 6.11 takes no path for an empty one.
            path = self.memory.read_path(call.pid, address) if address else b""
            if not path and flags & AT_EMPTY_PATH:
                return self._locate_descriptor(call.pid, to_signed(directory))
            return self._locate_path(call.pid, directory, path, not flags & AT_SYMLINK_NOFOLLOW)
        if call.name.startswith("f"):
            return self._locate_descriptor(call.pid, to_signed(call.arguments[0]))
        path = self.memory.read_path(call.pid, call.arguments[0])
        return self._locate_path(call.pid, AT_FDCWD, path, not call.name.startswith("l") or call.name == "listxattr")

    def locate_new(self, pid: int, directory: int, address: int) -> FileTarget:
        """Return where a file goes that is to be made at the path at ``address``, seen from ``directory``."""
        return self._locate_path(pid, directory, self.memory.read_path(pid, address), False)

    def _locate_descriptor(self, pid: int, descriptor: int) -> FileTarget:
        """Return the file that ``descriptor`` stands for, or the working directory for AT_FDCWD."""
        path = b"%d/cwd" % pid if descriptor == AT_FDCWD else b"%d/fd/%d" % (pid, descriptor)
        return FileTarget(path, True)

    def _locate_path(self, pid: int, directory: int, path: bytes, follow: bool) -> FileTarget:
        """Return the file at ``path``, seen from ``directory``."""
        if not path:
            raise error_of(errno.ENOENT)
        if self._roots_differ or not self._has_root:
            self._enter_root(pid)
        if not path.startswith(b"/"):
            start = self._locate_descriptor(pid, to_signed(directory))
            return FileTarget(b"%b/%b" % (start.path, path), follow)
        if path.startswith((b"/proc/", b"/dev/")):
            for prefix, place in _OWN_PROCESS:
                if path.startswith(prefix):
                    return FileTarget(place % pid + path[len(prefix) :], follow)
        return FileTarget(path, follow)

    def read_open_flags(self, pid: int, descriptor: int) -> int:
        """Return the flags with which ``descriptor`` was opened: fchown(2) and the like refuse one with O_PATH."""
        with open(b"%d/fdinfo/%d" % (pid, descriptor), "rb") as file:
            fields = dict(line.split(b":", 1) for line in file if b":" in line)
        return int(fields[b"flags"], 8)

    def find_inode(self, pid: int, descriptor: int) -> InodeKey:
        """Return the numbers of the inode that ``descriptor`` stands for."""
        status = os.stat(b"%d/fd/%d" % (pid, descriptor))
        return status.st_dev, status.st_ino

    def read_status(self, pid: int) -> ProcessStatus:
        """Return the umask and the effective capabilities of process ``pid``."""
        with open(b"%d/status" % pid, "rb") as file:
            fields = dict(line.split(b":", 1) for line in file if b":" in line)
        return ProcessStatus(int(fields[b"Umask"], 8), int(fields[b"CapEff"], 16))
