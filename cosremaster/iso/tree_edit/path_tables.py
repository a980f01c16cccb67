"""Make the path tables of a tree (ECMA-119, 9.4), of whatever its directories are read as."""

from __future__ import annotations

import struct
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Literal, TypeAlias, TypeVar

ByteOrder = Literal["little", "big"]

Directory = TypeVar("Directory")
SortKeys: TypeAlias = Callable[[Sequence[bytes]], Iterable[tuple[bytes, bytes]]]
"""Returns keys that sort identifiers of directories."""

_ROOT = b"\0"
"""The identifier that the root has in a path table."""
_PACK_HEAD = {"little": struct.Struct("<BxLH").pack, "big": struct.Struct(">BxLH").pack}
"""Pack what a record has before the identifier: its length, the directory's block, and its parent's number."""


def make_path_tables(
    root: Directory, list_below: Callable[[Directory], Sequence[tuple[bytes, Directory]]],
    find_block: Callable[[Directory], int], sort_keys: SortKeys, orders: Collection[ByteOrder],
) -> dict[ByteOrder, bytes]:  # fmt: skip
    """Return the path table of the directories below ``root`` in each of the byte ``orders``.

    Its records are sorted by level, parent's number and identifier (6.9.1).

    :param list_below: returns the directories in a directory with their identifiers.
    :param find_block: returns the first block of a directory, as the tree counts.
    """
    numbers, rows = {id(root): 1}, list[tuple[bytes, int, int]]()
    level = [(1, _ROOT, root)]
    while level:
        below = list[tuple[int, bytes, Directory]]()
        for parent, identifier, directory in level:
            number = numbers.setdefault(id(directory), len(numbers) + 1)
            rows.append((identifier, find_block(directory), parent))
            below += [(number, name, child) for name, child in list_below(directory)]
        keys = sort_keys([identifier for _, identifier, _ in below])
        order = sorted([(row[0], key, at) for at, (row, key) in enumerate(zip(below, keys, strict=True))])
        level = [below[at] for _, _, at in order]
    return {order: _pack_rows(rows, order) for order in orders}


def _pack_rows(rows: Iterable[tuple[bytes, int, int]], order: ByteOrder) -> bytes:
    """Return the records of directories with these identifiers, blocks and numbers of parents (9.4)."""
    pack = _PACK_HEAD[order]
    return b"".join(
        [
            pack(len(identifier), lba, parent) + identifier + bytes(len(identifier) % 2)
            for identifier, lba, parent in rows
        ]
    )
