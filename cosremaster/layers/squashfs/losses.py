"""What an edit of a squashfs file system leaves behind: bytes that nothing names, and extended attributes that go."""

from __future__ import annotations

from collections.abc import Iterator

from cosremaster.errors import Place, printable
from cosremaster.layers.formats import Repacking
from cosremaster.layers.squashfs.inodes import DIRECTORY, STORED_BLOCK, Inode
from cosremaster.layers.squashfs.tree import SquashfsTree
from cosremaster.tree.nodes import Action, Edits, Node
from cosremaster.tree.xattrs import loses_xattrs
from cosremaster.units import format_size


def describe_losses(tree: SquashfsTree, edits: Edits, place: Place, repacking: Repacking) -> Iterator[str]:
    """Yield a sentence about the data of removed and replaced files, and about extended attributes that go.

    Data that another name keeps do not count.
    """
    removed = [(path, entry) for path in sorted(edits.removed_paths) if (entry := tree.entry(path)) is not None]
    inodes = {entry.number: (path, tree.filesystem.inode(entry.reference)) for path, entry in removed}
    counts: dict[int, int] = {}
    for _, entry in removed:
        counts[entry.number] = counts.get(entry.number, 0) + 1
    dead = [
        (path, inode)
        for number, (path, inode) in inodes.items()
        if inode.type != DIRECTORY and counts[number] >= inode.nlink and inode.size and not inode.target
    ]
    if dead and repacking < Repacking.DATA:
        size = sum(_packed_size(inode, tree.filesystem.superblock.block_size) for _, inode in dead)
        yield (
            f"{place}: the old data of {_list_paths([path for path, _ in dead])}, at most {format_size(size)}, stay in"
            " the squashfs file, where they can still be read, though nothing names them any more;"
            " --repack takes them out"
        )
    replaced = {node.path: node for node, action in edits.additions if action is not Action.REMOVED}
    bare = [
        path for path, inode in inodes.values()
        if path in replaced and inode.type != DIRECTORY and _loses_xattrs(tree, inode, replaced[path])
    ]  # fmt: skip
    if bare:
        yield f"{place}: {_list_paths(bare)} had extended attributes (such as file capabilities) that the new has not"


def _loses_xattrs(tree: SquashfsTree, old: Inode, new: Node) -> bool:
    """Return whether ``old`` has an extended attribute that ``new``, which replaces it, has not."""
    return loses_xattrs(tree.filesystem.xattrs(old.xattr), dict(new.xattrs))


def _packed_size(inode: Inode, block_size: int) -> int:
    """Return the bytes that the data of a file take, its tail as if it were not packed."""
    return sum(word & ~STORED_BLOCK for word in inode.blocks) + max(inode.size - len(inode.blocks) * block_size, 0)


def _list_paths(paths: list[bytes]) -> str:
    """Return the first of ``paths``, and how many others there are, for people."""
    return printable(paths[0]) + (f" and {len(paths) - 1:,} more" if len(paths) > 1 else "")
