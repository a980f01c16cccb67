"""An entry of an archive, whoever reads it."""

from __future__ import annotations

from collections.abc import Callable

from cosremaster.archives.owner_numbers import OwnerNumbers
from cosremaster.records import Struct


class NamedAcl(Struct, frozen=True):
    """The ACL of an entry, as the attribute ``name``, that names users or groups.

    ``resolve`` returns it in Linux' form, by the numbers of a system; None where that lacks one of them.
    """

    name: str
    resolve: Callable[[OwnerNumbers], bytes | None]


class ArchiveEntry(Struct, frozen=True, kw_only=True):
    """The header of an entry: names as bytes, ``mode`` as st_mode, ``mtime`` in seconds since 1970, ``size`` in bytes.

    ``hardlink``: the name of an earlier entry for the same file, None without one. The ``nlink`` names of one file have
    the same ``inode`` (device and number). ``xattrs``: names and values of its extended attributes, ACLs in Linux' form
    among them; ``named_acls``: ACLs that have none yet.
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
    named_acls: tuple[NamedAcl, ...] = ()
    warning: str = ""
