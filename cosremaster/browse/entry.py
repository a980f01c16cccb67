"""An entry of a file system inside an image, as callers get it."""

from __future__ import annotations

import stat
from dataclasses import dataclass

from cosremaster.browse.container import ROOT, NodeRef
from cosremaster.browse.extents import DataExtent, list_extents
from cosremaster.tree.nodes import NodeKind, Xattrs

_TYPES = {
    NodeKind.FIFO: "fifo", NodeKind.CHAR: "char", NodeKind.DIRECTORY: "directory", NodeKind.BLOCK: "block",
    NodeKind.FILE: "file", NodeKind.SYMLINK: "symlink", NodeKind.SOCKET: "socket",
}  # fmt: skip
_KINDS = {name: kind for kind, name in _TYPES.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class FileEntry:
    """A file, directory or other entry inside an image.

    ``address`` leads to it, the image's file first; ``path``: in its file system, the last part of the address.
    ``type``: ``file``, ``directory``, ``symlink``, ``fifo``, ``char``, ``block`` or ``socket``; ``mode``: permission
    bits; ``mtime``: seconds since 1970; ``size``: bytes of a file's data or a symlink's target; ``device``: major and
    minor number. ``depth``: below the entry where a walk began, through all layers. ``sha256``: of the data, and
    ``contains``: the kind of the archive that the file is; both are None unless they were asked for, and there is no
    digest of a file with more than 1 GiB of holes. ``extents``: where the data lie, None but for
    :meth:`~cosremaster.Image.stat`. ``xattrs``: the extended attributes, by their full names, sorted. ``is_implied``:
    a directory has no entry of its own, only paths below it name it; mode, owners and time are then the usual ones.
    """

    address: str
    path: bytes
    type: str
    mode: int
    uid: int
    gid: int
    mtime: int
    size: int
    target: bytes | None
    device: tuple[int, int] | None
    depth: int = 0
    sha256: str | None = None
    contains: str | None = None
    extents: tuple[DataExtent, ...] | None = None
    xattrs: Xattrs = ()
    is_implied: bool = False

    @property
    def name(self) -> bytes:
        """The last part of the path."""
        return self.path.rpartition(b"/")[2]

    @property
    def noun(self) -> str:
        """The type in words."""
        return _KINDS[self.type].noun

    @property
    def mode_text(self) -> str:
        """Type and mode as ``ls -l`` shows them."""
        return stat.filemode(_KINDS[self.type] | self.mode)


def entry_of(reference: NodeRef, depth: int = 0, *, extents: bool = False) -> FileEntry:
    """Return the entry that ``reference`` leads to; ``extents``: with where its data lie."""
    node = reference.node
    may_be_implied = node.kind is NodeKind.DIRECTORY and node.mtime == ROOT.mtime and node.mode == ROOT.mode
    return FileEntry(
        address=reference.address, path=node.path, type=_TYPES[node.kind], mode=node.mode, uid=node.uid, gid=node.gid,
        mtime=node.mtime, size=len(node.target) if node.content is None else node.content.size,
        target=node.target if node.kind is NodeKind.SYMLINK else None,
        device=node.rdev if node.kind in (NodeKind.CHAR, NodeKind.BLOCK) else None, depth=depth,
        xattrs=node.xattrs, extents=list_extents(node) if extents else None,
        is_implied=may_be_implied and reference.container.own_node(node.path) is None,
    )  # fmt: skip
