"""The file systems that a script finds beside the image's own, mounted in a private namespace.

Each mount point is opened without following a symlink, so that nothing in an image leads elsewhere.
"""

from __future__ import annotations

import contextlib
import os

from cosremaster.sandbox.syscalls import (
    MNT_DETACH,
    MS_BIND,
    MS_NODEV,
    MS_NOEXEC,
    MS_NOSUID,
    MS_RDONLY,
    MS_REC,
    MS_REMOUNT,
    mount,
    pivot_root,
    unmount,
)

_DEVICES = (b"null", b"zero", b"full", b"random", b"urandom", b"tty")
_LINKS = (
    (b"ptmx", b"pts/ptmx"), (b"fd", b"/proc/self/fd"), (b"stdin", b"/proc/self/fd/0"),
    (b"stdout", b"/proc/self/fd/1"), (b"stderr", b"/proc/self/fd/2"),
)  # fmt: skip
_SMALL = b"size=64m,nr_inodes=16384"
_LARGE = b"size=%d,nr_inodes=%d"


def enter_root(root: bytes, files: bytes, *, has_groups: bool, size: int, inodes: int) -> None:
    """Make the directory ``root`` the root of this process's mount namespace, with all that a script finds in it.

    ``files``: the directory that appears at /run/cosremaster. ``has_groups``: group 5 (tty) exists. /tmp and /run hold
    ``size`` bytes in ``inodes`` files each. Paths are relative to the working directory.

    :raises OSError: the kernel refuses a mount.
    """
    mount(root, root, b"", MS_BIND | MS_REC)
    outside = os.open(b".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    os.chdir(root)
    inside = os.open(b".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    _mount_on(inside, b"proc", b"proc", b"proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)
    with contextlib.suppress(OSError):  # a container may hide parts of it; few scripts look there
        _mount_on(inside, b"sys", b"sysfs", b"sysfs", MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC)
    _mount_devices(inside, has_groups=has_groups)
    limits = _LARGE % (size, inodes)
    _mount_on(inside, b"tmp", b"tmpfs", b"tmpfs", MS_NOSUID | MS_NODEV, b"mode=1777," + limits)
    _mount_on(inside, b"run", b"tmpfs", b"tmpfs", MS_NOSUID | MS_NODEV, b"mode=755," + limits)
    os.fchdir(inside)
    for name, mode in ((b"run/cosremaster", 0o755), (b"run/lock", 0o1777), (b"run/cosremaster.script", 0o755)):
        os.mkdir(name)
        os.chmod(name, mode)
    target = os.open(b"run/cosremaster", os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    os.fchdir(outside)
    mount(files, b"/proc/self/fd/%d" % target, b"", MS_BIND)
    mount(b"", b"/proc/self/fd/%d" % _reopen(inside, b"run/cosremaster"), b"", MS_BIND | MS_REMOUNT | MS_RDONLY)
    os.fchdir(inside)
    pivot_root(b".", b".")
    unmount(b".", MNT_DETACH)
    os.chdir(b"/")


def _reopen(directory: int, name: bytes) -> int:
    """Open ``name`` in ``directory`` once more: as it is since something was mounted there."""
    return os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)


def _mount_on(directory: int, name: bytes, source: bytes, kind: bytes, flags: int, options: bytes = b"") -> None:
    """Mount on the directory ``name`` of the open ``directory``. :raises OSError: refused, or it is a symlink."""
    fd = _reopen(directory, name)
    try:
        os.fchdir(fd)
        mount(source, b".", kind, flags, options)
    finally:
        os.close(fd)


def _mount_devices(inside: int, *, has_groups: bool) -> None:
    """Mount /dev with the devices that programs need, with terminals and shared memory."""
    _mount_on(inside, b"dev", b"tmpfs", b"tmpfs", MS_NOSUID, b"mode=755," + _SMALL)
    os.fchdir(_reopen(inside, b"dev"))
    for name in _DEVICES:
        os.close(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o666))
        with contextlib.suppress(FileNotFoundError):
            mount(b"/dev/" + name, name, b"", MS_BIND)
    for name, target in _LINKS:
        os.symlink(target, name)
    os.mkdir(b"pts")
    os.mkdir(b"shm")
    options = b"newinstance,ptmxmode=0666,mode=620" + (b",gid=5" if has_groups else b"")
    mount(b"devpts", b"pts", b"devpts", MS_NOSUID | MS_NOEXEC, options)
    mount(b"tmpfs", b"shm", b"tmpfs", MS_NOSUID | MS_NODEV, b"mode=1777," + _SMALL)
