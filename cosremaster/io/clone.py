"""Sharing blocks with another file, where the file system can (ioctl_ficlonerange(2)): XFS, btrfs and others.

Only whole blocks can be shared, and only where they begin at a block in both files.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator

from cosremaster.lazy_log import LazyLogger

_LOG = LazyLogger(__name__)

_FICLONERANGE = 0x4020940D
"""_IOW(0x94, 13, struct file_clone_range) of linux/fs.h, where Python does not know it."""

_MAX_BLOCK = 1 << 17
"""Bytes of the largest block that file systems share; more is what a network file system likes to transfer."""

_DEFAULT_BLOCK = 1 << 12

MIN_SHARED = 1 << 14
"""Bytes that are worth sharing; fewer are copied."""


def block_size_of(fd: int) -> int:
    """Return the bytes of a block that the file system of ``fd`` can share, as far as it tells."""
    try:
        size = os.fstatvfs(fd).f_bsize
    except OSError:
        return _DEFAULT_BLOCK
    return size if 512 <= size <= _MAX_BLOCK and not size & (size - 1) else _DEFAULT_BLOCK


def cut_at_blocks(offset: int, length: int, position: int, block: int) -> Iterator[tuple[int, int, bool]]:
    """Yield ``length`` bytes from ``offset`` on in parts: each its offset, its length, and whether it can be shared.

    These are an edge, as many whole blocks of ``block`` bytes as there are, and an edge. All is one part where
    ``position``, at which the bytes are to be written, is at another distance from a block than ``offset``.
    """
    front = min(-offset % block, length)
    middle = (length - front) // block * block
    if (offset - position) % block or middle < MIN_SHARED:
        front, middle = length, 0
    last = length - front - middle
    parts = ((offset, front, False), (offset + front, middle, True), (offset + front + middle, last, False))
    yield from (part for part in parts if part[1])


def share_range(source_fd: int, fd: int, offset: int, length: int, position: int) -> bool:
    """Let ``fd`` share ``length`` bytes of ``source_fd`` from ``offset`` on, at its byte ``position``.

    Return whether it does. Whatever the reason is where it does not, the caller copies, and meets an error that counts
    again: a file system that shares nothing, another one than that of the source, no room.
    """
    try:
        import fcntl  # noqa: PLC0415 - not every system has it
    except ImportError:
        return False
    try:
        request = getattr(fcntl, "FICLONERANGE", _FICLONERANGE)
        fcntl.ioctl(fd, request, struct.pack("=qQQQ", source_fd, offset, length, position))
    except OSError as error:
        _LOG.debug("blocks are not shared, but copied: %s", error.strerror)
        return False
    return True
