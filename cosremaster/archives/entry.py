"""An entry of an archive, whoever reads it."""

from __future__ import annotations

from cosremaster.records import Struct


class ArchiveEntry(Struct, frozen=True, kw_only=True):
    """The header of an entry: names as bytes, ``mode`` as st_mode, ``mtime`` in seconds since 1970, ``size`` in bytes.

    ``hardlink``: the name of an earlier entry for the same file, None without one. The ``nlink`` names of one file have
    the same ``inode`` (device and number). ``xattrs``: names and values of its extended attributes, ACLs in Linux' form
    among them.
    ``warning``: a message of libarchive about something it could not interpret.
    """

    name: bytes
    mode: int
    uid: int
    gid: int
    mtime: int
    size: int
    symlink: bytes = b""
    hardlink: bytes | None = None
    device: tuple[int, int] = (0, 0)
    inode: tuple[int, int] = (0, 0)
    nlink: int = 1
    xattrs: tuple[tuple[str, bytes], ...] = ()
    warning: str = ""
