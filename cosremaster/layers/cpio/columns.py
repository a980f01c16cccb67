"""The rules of unpackers (:mod:`cosremaster.layers.cpio.rules`) for archives as nearly all are, column by column.

In such an archive each entry has a name of its own, the path of its directory is that of an entry before it, and no
name leads through a symlink. Then the archive unpacks to its paths, and a look at each column shows that no rule is
broken, which takes a third of the time. Any other archive is left to the look at each entry.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, islice

from cosremaster.layers.cpio import newc as cpio
from cosremaster.layers.cpio.members import Members
from cosremaster.layers.cpio.rules import (
    MAX_PART,
    MAX_TARGET,
    ChangedTable,
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
_DIRECTORY, _SYMLINK = b"4A"  # digits of types
_KINDS = {digit: kind << 12 for kind, digit in enumerate(b"0123456789ABCDEF")}
"""The file type, as in st_mode, by its digit."""
_AT_ONCE = 4096  # inode numbers


class UnpackedMembers(Mapping[bytes, tuple[int, bytes]]):
    """Type and symlink text by path, read from the columns of an archive: a table of its own takes 40 bytes an entry.

    ``numbers``: by path; ``digits``: of the types (:meth:`Members.type_digits`); ``targets``: of symlinks, by number.
    """

    __slots__ = ("_digits", "_numbers", "_targets")

    def __init__(self, numbers: Mapping[bytes, int], digits: bytes, targets: Mapping[int, bytes]) -> None:
        """Begin with what an archive has."""
        self._numbers, self._digits, self._targets = numbers, digits, targets

    def __getitem__(self, path: bytes) -> tuple[int, bytes]:
        """Return type and text of the entry at ``path``. :raises KeyError: there is none."""
        number = self._numbers[path]
        kind, target = _KINDS[self._digits[number]], self._targets.get(number)
        return (kind, target) if target else without_target(kind)

    def __contains__(self, path: object) -> bool:
        """Return whether there is an entry at ``path``."""
        return path in self._numbers

    def __iter__(self) -> Iterator[bytes]:
        """Yield every path."""
        return iter(self._numbers)

    def __len__(self) -> int:
        """Return how many paths there are."""
        return len(self._numbers)


def unpack_columns(
    members: Members, paths: Sequence[bytes], numbers: Mapping[bytes, int] | None = None
) -> UnpackedTree | None:
    """Return what the archive of ``members`` unpacks to; None for an archive that needs a look at each entry.

    ``paths``: the normal path of each member; ``numbers``: the number of a member at each, made here where None.
    """
    digits = members.type_digits()
    if numbers is None:
        numbers = dict(zip(paths, range(len(paths)), strict=True))
    if len(numbers) < len(paths):
        return None
    if not (_has_possible_names(members, paths) and _has_possible_targets(members, digits)):
        return None
    if not _follows_directories(paths, numbers, digits):
        return None
    tree = UnpackedTree()
    tree.late_links.update(paths[number] for number, target in members.targets.items() if is_late_target(target))
    _add_links(tree, members, paths)
    tree.made = ChangedTable(UnpackedMembers(numbers, digits, members.targets), tree.late_links)
    return tree


def _has_possible_names(members: Members, paths: Sequence[bytes]) -> bool:
    """Return whether each name and each part of it has a length that Linux takes, and none ends the archive."""
    if max(map(len, members.names), default=0) + 1 > cpio.MAX_NAME or cpio.TRAILER in paths:
        return False
    return all(len(part) <= MAX_PART for path in paths if len(path) > MAX_PART for part in path.split(b"/"))


def _has_possible_targets(members: Members, digits: bytes) -> bool:
    """Return whether each symlink, and nothing else, has a text that a symlink can have."""
    targets = members.targets
    if digits.count(_SYMLINK) != len(targets) or max(map(len, targets.values()), default=0) > MAX_TARGET:
        return False
    return all(digits[number] == _SYMLINK for number in targets)


def _follows_directories(paths: Sequence[bytes], numbers: Mapping[bytes, int], digits: bytes) -> bool:
    """Return whether the directory of each of ``paths`` is the root or stands before it.

    ``numbers``: place among ``paths`` by path; ``digits``: of the type of each.
    """
    before = b""
    for number, path in enumerate(paths):
        parent = path.rpartition(b"/")[0]
        if parent != before:  # entries of one directory stand together
            place = numbers.get(parent, number) if parent else -1
            if place >= number or (parent and digits[place] != _DIRECTORY):
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
