"""What an edit of an EROFS file system leaves behind: bytes that nothing names, and extended attributes that go."""

from __future__ import annotations

from collections.abc import Iterator

from cosremaster.errors import Place
from cosremaster.layers.erofs.directories import DIRECTORY_TYPE
from cosremaster.layers.erofs.inodes import ErofsInode
from cosremaster.layers.erofs.superblock import ErofsFeature
from cosremaster.layers.erofs.tree import ErofsTree
from cosremaster.layers.losses import describe_lost_xattrs, name_paths
from cosremaster.tree.nodes import Edits, NodeKind
from cosremaster.units import format_size

_SHARES_DATA = ErofsFeature.FRAGMENTS | ErofsFeature.CHUNKED_FILE
"""Features by which files may have data in common."""


def describe_losses(tree: ErofsTree, edits: Edits, place: Place) -> Iterator[str]:
    """Yield a sentence about the data of removed and replaced files, and about extended attributes that go.

    Data that another name keeps do not count.
    """
    removed = [(path, entry) for path in sorted(edits.removed_paths) if (entry := tree.entry(path)) is not None]
    inodes: dict[int, tuple[bytes, ErofsInode]] = {}
    counts: dict[int, int] = {}
    for path, entry in removed:
        if entry.type != DIRECTORY_TYPE:
            inodes.setdefault(entry.nid, (path, tree.filesystem.inode(entry.nid)))
            counts[entry.nid] = counts.get(entry.nid, 0) + 1
    dead = [
        (path, inode)
        for nid, (path, inode) in inodes.items()
        if inode.mode & 0o170000 == NodeKind.FILE and counts[nid] >= inode.nlink and inode.size
    ]
    if dead:
        reserve = " unless other files have the same" if tree.filesystem.superblock.features & _SHARES_DATA else ""
        size = format_size(sum(inode.size for _, inode in dead))
        yield (
            f"{place}: the old data of {name_paths([path for path, _ in dead])}, {size}, stay in the EROFS file, where"
            f" they can still be read, though nothing names them any more{reserve}; an output called NAME.tar.gz is"
            " without them"
        )
    yield from describe_lost_xattrs(tree, edits, place)
