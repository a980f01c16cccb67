"""System calls of Linux that Python's standard library lacks (3.10 has no ``os.unshare``)."""

from __future__ import annotations

import ctypes
import os
import platform

CLONE_NEWNS = 0x00020000
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC = 1, 2, 4, 8
MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = 1 << 5, 1 << 12, 1 << 14, 1 << 18
MNT_DETACH = 2

PR_SET_PDEATHSIG, PR_SET_DUMPABLE = 1, 4

_KEYCTL = {"x86_64": 250, "aarch64": 219, "riscv64": 219, "loongarch64": 219, "ppc64le": 271, "s390x": 280}
_KEYCTL_JOIN_SESSION_KEYRING = 1

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


def _check(result: int) -> None:
    """Check the ``result`` of a call. :raises OSError: it failed."""
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def hide_arguments(title: bytes) -> None:
    """Let /proc/PID/cmdline show ``title`` in place of this process's arguments, which are paths of the user.

    Everybody may read that file. The kernel reads it out of the process's memory (arg_start and arg_end in proc(5)).
    """
    with open("/proc/self/stat", "rb") as file:
        fields = file.read().rpartition(b")")[2].split()
    start, end = int(fields[45]), int(fields[46])
    if 0 < start < end:
        ctypes.memset(start, 0, end - start)
        ctypes.memmove(start, title, min(len(title), end - start - 1))


def unshare(flags: int) -> None:
    """Leave the namespaces of ``flags`` for new ones (unshare(2))."""
    _check(_libc.unshare(flags))


def mount(source: bytes, target: bytes, kind: bytes, flags: int, options: bytes = b"") -> None:
    """Mount a file system (mount(2))."""
    _check(_libc.mount(source, target, kind or None, ctypes.c_ulong(flags), options or None))


def unmount(target: bytes, flags: int) -> None:
    """Unmount a file system (umount2(2))."""
    _check(_libc.umount2(target, flags))


def pivot_root(new_root: bytes, old_root: bytes) -> None:
    """Make ``new_root`` the root of the mount namespace (pivot_root(2))."""
    _check(_libc.pivot_root(new_root, old_root))


def set_process_option(option: int, value: int) -> None:
    """Set an attribute of this process (prctl(2))."""
    _check(_libc.prctl(option, ctypes.c_ulong(value), ctypes.c_ulong(0), ctypes.c_ulong(0), ctypes.c_ulong(0)))


def join_new_session_keyring() -> None:
    """Leave the session's keyring for a new, empty one (keyctl(2)); a kernel without keys has none to leave."""
    number = _KEYCTL.get(platform.machine())
    if number is not None:
        _libc.syscall(ctypes.c_long(number), ctypes.c_long(_KEYCTL_JOIN_SESSION_KEYRING), ctypes.c_long(0))
