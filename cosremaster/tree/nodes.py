"""A file-system node and a change to one: the words that overlays and layers share."""

from __future__ import annotations

import enum
from typing import Protocol

from msgspec import Struct

from cosremaster.io.pieces import PieceTable


class NodeKind(enum.IntEnum):
    """What a node is; the values are the file-type bits of ``st_mode`` (POSIX ``<sys/stat.h>``)."""

    FIFO = 0o010000
    CHAR = 0o020000
    DIRECTORY = 0o040000
    BLOCK = 0o060000
    FILE = 0o100000
    SYMLINK = 0o120000
    SOCKET = 0o140000

    @property
    def noun(self) -> str:
        """For people."""
        return _NOUNS[self]


_NOUNS = {
    NodeKind.FIFO: "FIFO",
    NodeKind.CHAR: "character device",
    NodeKind.DIRECTORY: "directory",
    NodeKind.BLOCK: "block device",
    NodeKind.FILE: "file",
    NodeKind.SYMLINK: "symlink",
    NodeKind.SOCKET: "socket",
}


class Content(Protocol):
    """The bytes of a regular file, wherever they are kept."""

    @property
    def size(self) -> int:
        """Bytes."""
        ...

    def digest(self) -> bytes:
        """SHA-256 of the bytes; may read them."""
        ...

    def table(self) -> PieceTable:
        """The bytes as pieces."""
        ...

    def head(self, count: int) -> bytes:
        """The first ``count`` bytes, or all when there are fewer."""
        ...


class Node(Struct, frozen=True, kw_only=True):
    """One name in a file system.

    ``path`` has no leading slash and no ``.`` or ``..``; the root is empty. ``mode`` is the twelve
    permission bits; ``mtime`` seconds since 1970; ``target`` a symlink's text; ``link`` is equal for
    names of one hard-linked file and None for a file with one name.
    """

    path: bytes
    kind: NodeKind
    mode: int
    uid: int = 0
    gid: int = 0
    mtime: int = 0
    target: bytes = b""
    rdev: tuple[int, int] = (0, 0)
    content: Content | None = None
    link: object = None


class Action(enum.Enum):
    """What happens to a path."""

    ADDED = "added"
    REPLACED = "replaced"
    PARENT = "made as a parent"
    REMOVED = "removed"
    UNCHANGED = "unchanged"


class Edits(Struct, frozen=True):
    """What a layer has to become.

    ``gone``: paths whose entries leave (removed or replaced). ``new``: nodes that come, sorted by path,
    parents before children, each with why. ``removed``: what leaves, without what is below it. ``unchanged``:
    overlay paths that were there already.
    """

    removed_paths: frozenset[bytes]
    additions: tuple[tuple[Node, Action], ...]
    removed: tuple[bytes, ...]
    unchanged: tuple[bytes, ...]
    warnings: tuple[str, ...]

    @property
    def is_empty(self) -> bool:
        """True when the layer stays as it is."""
        return not self.removed_paths and not self.additions

    def paths(self, action: Action) -> tuple[bytes, ...]:
        """The paths of the new nodes that came by ``action``."""
        return tuple(node.path for node, why in self.additions if why is action)
