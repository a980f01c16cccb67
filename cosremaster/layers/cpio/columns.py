"""The rules of unpackers (:mod:`cosremaster.layers.cpio.rules`) for archives as nearly all are, column by column.

In such an archive each entry has a name of its own, the path of its directory is that of an entry before it, and no
name leads through a symlink. Then the archive unpacks to its paths, and a look at each column shows that no rule is
broken, which takes a third of the time. Any other archive is left to the look at each entry.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from itertools import chain, islice

from cosremaster.layers.cpio import newc as cpio
from cosremaster.layers.cpio.members import Members
from cosremaster.layers.cpio.rules import (
    MAX_PART,
    MAX_TARGET,
    InodeNumbers,
    UnpackedTree,
    is_late_target,
    without_target,
)
from cosremaster.tree.nodes import NodeKind

# Of the 13 fields of a header: the inode number; mode and link count.
_unpack_inos = struct.Struct(">I48x").iter_unpack
_unpack_modes = struct.Struct(">4xI8xI32x").iter_unpack
_FILE = int(NodeKind.FILE)
_AT_ONCE = 4096  # inode numbers


def unpack_columns(members: Members, paths: Sequence[bytes]) -> UnpackedTree | None:
    """Return what the archive of ``members`` unpacks to; None for an archive that needs a look at each entry.

    ``paths``: the normal path of each member.
    """
    kinds = members.file_types()
    numbers = {path: number for number, path in enumerate(paths) if kinds[number] == NodeKind.DIRECTORY}
    if not (_has_possible_names(members, paths) and _has_possible_targets(members, kinds)):
        return None
    if not _follows_directories(paths, numbers):
        return None
    tree = UnpackedTree(made=dict(zip(paths, map(without_target, kinds), strict=True)))
    if len(tree.made) < len(paths):
        return None
    for number, target in members.targets.items():
        if is_late_target(target):
            tree.late_links.add(paths[number])
        else:
            tree.made[paths[number]] = kinds[number], target
    _add_links(tree, members, paths)
    for path in tree.late_links:
        del tree.made[path]
    return tree


def _has_possible_names(members: Members, paths: Sequence[bytes]) -> bool:
    """Return whether each name and each part of it has a length that Linux takes, and none ends the archive."""
    if max(map(len, members.names), default=0) + 1 > cpio.MAX_NAME or cpio.TRAILER in paths:
        return False
    return all(len(part) <= MAX_PART for path in paths if len(path) > MAX_PART for part in path.split(b"/"))


def _has_possible_targets(members: Members, kinds: Sequence[int]) -> bool:
    """Return whether each symlink, and nothing else, has a text that a symlink can have."""
    targets = members.targets
    if kinds.count(NodeKind.SYMLINK) != len(targets) or max(map(len, targets.values()), default=0) > MAX_TARGET:
        return False
    return all(kinds[number] == NodeKind.SYMLINK for number in targets)


def _follows_directories(paths: Sequence[bytes], numbers: dict[bytes, int]) -> bool:
    """Return whether the directory of each of ``paths`` is the root or stands before it.

    ``numbers``: place among ``paths`` by the path of each directory.
    """
    before = b""
    for number, path in enumerate(paths):
        parent = path.rpartition(b"/")[0]
        if parent != before:  # entries of one directory stand together
            if parent and numbers.get(parent, number) >= number:
                return False
            before = parent
    return True


def _add_links(tree: UnpackedTree, members: Members, paths: Sequence[bytes]) -> None:
    """Add to ``tree`` the inode numbers and the hard links of ``members``, whose normal ``paths`` are its."""
    tree.inodes = InodeNumbers()
    inos = chain.from_iterable(_unpack_inos(members.fields))
    while some := list(islice(inos, _AT_ONCE)):
        tree.inodes.add(some)
    for number, (mode, nlink) in enumerate(_unpack_modes(members.fields)):
        if nlink > 1 and mode & 0o170000 == _FILE:
            header = members[number].entry.header
            tree.groups.setdefault((header.ino, header.dev), []).append((members.names[number], header.size))
            if not header.size:
                tree.late_links.add(paths[number])
