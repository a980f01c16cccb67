"""What a file system says of an inode, by statx(2), and the structures in which stat(2) hands that on."""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from collections.abc import Callable
from typing import TypeAlias

from cosremaster.records.tuples import NamedTuple
from cosremaster.sandbox.calls import find_architectures

InodeKey: TypeAlias = tuple[int, int]
"""``st_dev`` and ``st_ino``, which hard links share."""

_STATX = struct.Struct("<IIQIIIHHQQQQqIiqIiqIiqIiIIII")
_STATX_HEAD = struct.Struct("<I16xIIH2xQ40xqI44xII")
"""Of it, what is wanted at once: mask, owner, mode, number, birth, device."""
_STATX_SIZE = 256
_BASIC_AND_BIRTH = 0x0FFF
_HAS_BIRTH = 0x0800
_OWNER_AT, _MODE_AT, _DEVICE_AT = 20, 28, 128
_AT_FDCWD = -100
_NO_FOLLOW = 0x100


class InodeFacts(NamedTuple):
    """An inode.

    :ivar key: its numbers.
    :ivar birth: when it was made, in nanoseconds since 1970; 0 where the file system does not say.
    :ivar statx: the kernel's ``struct statx``.
    """

    key: InodeKey
    birth: int
    uid: int
    gid: int
    mode: int
    statx: bytes


class Shown(NamedTuple):
    """What a process is shown of an inode in place of what the file system says."""

    uid: int
    gid: int
    mode: int
    device: tuple[int, int] | None


class InodeReader:
    """Reads inodes by path."""

    def __init__(self) -> None:
        """Look the system call up.

        A library's own function may be missing, or make the answer of something else.
        """
        self._call = ctypes.PyDLL(None)["syscall"]
        self._call.restype = ctypes.c_long
        self._call.argtypes = (ctypes.c_long,) * 2 + (ctypes.c_char_p, ctypes.c_long, ctypes.c_long, ctypes.c_void_p)
        self._number = find_architectures()[0].number_of("statx")
        self._buffer = ctypes.create_string_buffer(_STATX_SIZE)
        self._address = ctypes.addressof(self._buffer)

    def read(self, path: bytes, follow: bool) -> InodeFacts:
        """Return the inode at ``path``; ``follow`` a symlink at its end.

        :raises OSError: as stat(2).
        """
        flags = 0 if follow else _NO_FOLLOW
        if self._call(self._number, _AT_FDCWD, path, flags, _BASIC_AND_BIRTH, self._address) < 0:
            os.stat(path, follow_symlinks=follow)  # which raises the same error, if it lasts
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        statx = self._buffer.raw
        mask, uid, gid, mode, number, seconds, fraction, major, minor = _STATX_HEAD.unpack_from(statx)
        birth = seconds * 1_000_000_000 + fraction if mask & _HAS_BIRTH else 0
        return InodeFacts((os.makedev(major, minor), number), birth, uid, gid, mode, statx)


def pack_statx(inode: InodeFacts, shown: Shown) -> bytes:
    """Return the kernel's ``struct statx`` of ``inode`` with what is ``shown``."""
    data = bytearray(inode.statx)
    struct.pack_into("<II", data, _OWNER_AT, shown.uid, shown.gid)
    struct.pack_into("<H", data, _MODE_AT, shown.mode)
    if shown.device:
        struct.pack_into("<II", data, _DEVICE_AT, *shown.device)
    return bytes(data)


class _Fields(NamedTuple):
    """The fields of ``struct stat`` as numbers."""

    device: int
    inode: int
    links: int
    mode: int
    uid: int
    gid: int
    special: int
    size: int
    block_size: int
    blocks: int
    times: tuple[int, int, int, int, int, int]


def _fields_of(inode: InodeFacts, shown: Shown) -> _Fields:
    """Return the fields of ``inode`` with what is ``shown``."""
    values = _STATX.unpack_from(inode.statx)
    (_, block_size, _, links, _, _, _, _, number, size, blocks, _) = values[:12]
    access, _, change, modification = (values[start : start + 2] for start in (12, 15, 18, 21))
    rdev_major, rdev_minor, major, minor = values[24:]
    if shown.device:
        rdev_major, rdev_minor = shown.device
    return _Fields(
        os.makedev(major, minor),
        number,
        links,
        shown.mode,
        shown.uid,
        shown.gid,
        os.makedev(rdev_major, rdev_minor),
        size,
        block_size,
        blocks,
        (*access, *modification, *change),
    )


def _pack_x86_64(f: _Fields) -> bytes:
    """Return ``struct stat`` of x86-64 (arch/x86/include/uapi/asm/stat.h)."""
    head = (f.device, f.inode, f.links, f.mode, f.uid, f.gid, 0, f.special, f.size, f.block_size, f.blocks)
    return struct.pack("<QQQIIIIQqqqqQqQqQ24x", *head, *f.times)


def _pack_generic(f: _Fields) -> bytes:
    """Return ``struct stat`` of arm64 (include/uapi/asm-generic/stat.h)."""
    head = (f.device, f.inode, f.mode, f.links, f.uid, f.gid, f.special, 0, f.size, f.block_size, 0, f.blocks)
    return struct.pack("<QQIIIIQQqiiqqQqQqQ8x", *head, *f.times)


def _pack_i386_64(f: _Fields) -> bytes:
    """Return ``struct stat64`` of i386."""
    low = f.inode & 0xFFFFFFFF
    times = [value & 0xFFFFFFFF for value in f.times]
    head = (f.device, low, f.mode, f.links, f.uid, f.gid, f.special, f.size, f.block_size, f.blocks)
    return struct.pack("<Q4xIIIIIQ4xqIQ6IQ", *head, *times, f.inode)


def _pack_i386(f: _Fields) -> bytes:
    """Return ``struct stat`` of i386, whose ids have 16 bits; greater ones are 65534 there, as in the kernel."""
    uid, gid = (number if number <= 0xFFFF else 0xFFFE for number in (f.uid, f.gid))
    words = [value & 0xFFFFFFFF for value in (f.special, f.size, f.block_size, f.blocks, *f.times)]
    return struct.pack("<IIHHHH10I8x", f.device, f.inode & 0xFFFFFFFF, f.mode, f.links, uid, gid, *words)


_LAYOUTS: dict[tuple[str, bool], Callable[[_Fields], bytes]] = {
    ("x86_64", False): _pack_x86_64,
    ("aarch64", False): _pack_generic,
    ("i386", False): _pack_i386,
    ("i386", True): _pack_i386_64,
}


def pack_stat(architecture: str, is_large: bool, inode: InodeFacts, shown: Shown) -> bytes:
    """Return ``struct stat`` (or ``struct stat64``: ``is_large``) of ``architecture`` with what is ``shown``."""
    return _LAYOUTS[architecture, is_large](_fields_of(inode, shown))
