"""What an edit of a squashfs file system leaves behind: bytes that nothing names, and extended attributes that go."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

from cosremaster.errors import Place
from cosremaster.layers.formats import Repacking
from cosremaster.layers.losses import describe_lost_xattrs, name_paths
from cosremaster.layers.squashfs.inodes import FILE, Inode
from cosremaster.layers.squashfs.live import FileBytes
from cosremaster.layers.squashfs.superblock import Flags
from cosremaster.layers.squashfs.tree import SquashfsTree
from cosremaster.tree.nodes import Edits
from cosremaster.units import format_size

MAX_COMPARED = 10_000
"""Inodes of an image, at most, among which those are looked for that share data with a removed file."""


def describe_losses(tree: SquashfsTree, edits: Edits, place: Place, repacking: Repacking) -> Iterator[str]:
    """Yield a sentence about the data of removed and replaced files, and about extended attributes that go.

    Data that another name or another file keeps do not count.
    """
    removed = [(path, entry) for path in sorted(edits.removed_paths) if (entry := tree.entry(path)) is not None]
    inodes: dict[int, tuple[bytes, Inode]] = {}
    counts: dict[int, int] = {}
    for path, entry in removed:
        inodes.setdefault(entry.number, (path, tree.filesystem.inode(entry.reference)))
        counts[entry.number] = counts.get(entry.number, 0) + 1
    dead = [
        (path, inode)
        for number, (path, inode) in inodes.items()
        if inode.type == FILE and counts[number] >= inode.nlink and inode.size
    ]
    if dead and repacking < Repacking.DATA:
        yield from _describe_dead_data(tree, dead, edits.removed_paths, place)
    yield from describe_lost_xattrs(tree, edits, place)


def _describe_dead_data(
    tree: SquashfsTree, dead: Sequence[tuple[bytes, Inode]], removed: Collection[bytes], place: Place
) -> Iterator[str]:
    """Yield a sentence about data of the files ``dead`` that no other file has.

    In an image of many inodes that other file is not looked for; the sentence says so.

    :param removed: the paths of all that goes.
    """
    filesystem = tree.filesystem
    superblock, reserve = filesystem.superblock, ""
    live = FileBytes(superblock.block_size)
    if superblock.inodes <= MAX_COMPARED:
        for path, entry in filesystem.walk():
            if entry.type == FILE and path not in removed:
                live.add(filesystem.inode(entry.reference))
    elif superblock.flags & Flags.DUPLICATES:
        reserve = " unless other files have the same"
    whole, paths = FileBytes(superblock.block_size), []
    for path, inode in dead:
        own = FileBytes(superblock.block_size)
        own.add(inode)
        if own.count_outside(live):
            paths.append(path)
            whole.add(inode)
    if paths:
        yield (
            f"{place}: the old data of {name_paths(paths)}, at most {format_size(whole.count_outside(live))}, stay in"
            f" the squashfs file, where they can still be read, though nothing names them any more{reserve};"
            " --repack takes them out"
        )
