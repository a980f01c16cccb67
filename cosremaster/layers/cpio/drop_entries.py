"""Entries of an archive that can go without a look at every other: plain files, on which no other entry depends."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from cosremaster.io.pieces import Piece, Range
from cosremaster.layers.cpio.read import index_of
from cosremaster.layers.cpio.tree import CpioTree
from cosremaster.layers.model import Layer
from cosremaster.records import Struct
from cosremaster.tree.nodes import NodeKind
from cosremaster.tree.paths import parent_of
from cosremaster.tree.superseding import Superseding


class DroppedEntries(Struct, frozen=True):
    """The ``numbers`` of entries that go, in order, and the ``paths`` that no other entry has."""

    numbers: tuple[int, ...]
    paths: frozenset[bytes]


def find_dropped(
    layer: Layer, tree: CpioTree, gone: Collection[bytes], superseding: Superseding
) -> DroppedEntries | None:
    """Return which entries of ``layer`` go when the paths ``gone`` do: of a superseded path all but the first.

    None where others depend on one of them, so that each entry needs a look.
    """
    if superseding.drops_dead or not tree.unpacks_as_named:
        return None
    numbers: list[int] = []
    paths: list[bytes] = []
    for path in gone:
        listed = tree.own_numbers_at(path)
        if not listed:
            continue
        if not (_makes_parent(tree, path) and all(_is_plain(layer, number) for number in listed)):
            return None
        if path in superseding.paths:
            numbers += listed[1:]
        else:
            numbers += listed
            paths.append(path)
    return DroppedEntries(tuple(sorted(numbers)), frozenset(paths))


def _makes_parent(tree: CpioTree, path: bytes) -> bool:
    """Return whether the directory of ``path`` is one of the archive itself, and no symlink leads there."""
    parent = parent_of(path)
    return not parent or tree.checked_entries.makes_directory(parent)


def _is_plain(layer: Layer, number: int) -> bool:
    """Return whether no other entry can depend on entry ``number``: no directory, no symlink and no hard link."""
    header = index_of(layer).members[number].entry.header
    return header.nlink <= 1 and header.mode & 0o170000 == NodeKind.FILE


def select_remaining(layer: Layer, dropped: DroppedEntries) -> Iterator[Piece]:
    """Yield the bytes of the entries of ``layer`` that are not ``dropped``."""
    index = index_of(layer)
    start = index.members.offsets[0] if len(index.members) else index.trailer.offset
    for number in dropped.numbers:
        entry = index.members[number].entry
        yield Range(layer.decoded, start, entry.offset - start)
        start = entry.end
    yield Range(layer.decoded, start, index.trailer.offset - start)
