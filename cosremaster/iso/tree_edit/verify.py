"""Prove the directories of an image whose trees were edited."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from itertools import count
from typing import TypeAlias

from cosremaster.errors import ProofError
from cosremaster.io.source import ByteSource
from cosremaster.iso.ecma119.identifiers import IdentifierRules
from cosremaster.iso.ecma119.records import (
    DIRECTORY,
    PATH_TABLE_SIZE,
    ROOT_RECORD,
    VolumeDescriptor,
    pack_both_endian,
    read_all_records,
)
from cosremaster.iso.model import IsoDirectory, IsoImage, IsoTree
from cosremaster.iso.read_trees import JOLIET
from cosremaster.iso.tree_edit.directories import EditableTree
from cosremaster.iso.tree_edit.patches import (
    DescribedTree,
    count_stale_dots,
    encode_extent,
    find_path_tables,
    read_dots,
    read_extent,
)
from cosremaster.iso.tree_edit.path_tables import ByteOrder, make_path_tables
from cosremaster.iso.tree_edit.read_editable import group_by_root, read_editable_tree
from cosremaster.iso.tree_edit.serialize import TreePlacement, TreeSerializer
from cosremaster.records import Struct
from cosremaster.units import Lba, lba_offset

_MakeTables: TypeAlias = Callable[[Collection[ByteOrder]], Mapping[ByteOrder, bytes]]
"""Makes path tables in some byte orders."""


def has_stale_tables(source: ByteSource, tree: EditableTree) -> bool:
    """Return whether a path table of ``tree``, or its size, disagrees with the directories (8.4.13, 9.4)."""
    serializer = TreeSerializer(tree, source, source.read, TreePlacement.of_image(tree), {}, count(1))
    return _are_stale(source, tree, serializer.serialize_path_tables)


def _are_stale(source: ByteSource, tree: DescribedTree, make_tables: _MakeTables) -> bool:
    """Return whether a path table of ``tree``, or its size, is not what ``make_tables`` makes of the directories."""
    tables = find_path_tables(tree)
    expected = make_tables({table.order for table in tables})
    sizes = {pack_both_endian(len(data)) for data in expected.values()}
    if any({descriptor.raw[PATH_TABLE_SIZE : PATH_TABLE_SIZE + 8]} != sizes for descriptor in tree.descriptors):
        return bool(sizes)
    return any(
        source.read(lba_offset(table.lba), len(expected[table.order])) != expected[table.order] for table in tables
    )


class _RecordedTree(Struct, frozen=True):
    """A tree in which each directory is recorded where its name is, as the image was read."""

    tree: IsoTree
    base: Lba
    descriptors: Sequence[VolumeDescriptor]

    def has_stale_tables(self, source: ByteSource) -> bool:
        """Return whether a path table, or its size, disagrees with the directories."""
        rules, base = IdentifierRules(is_joliet=self.tree.kind == JOLIET), self.base

        def make_tables(orders: Collection[ByteOrder]) -> Mapping[ByteOrder, bytes]:
            """Make the path tables of the directories."""
            root = self.tree.index[0]
            return make_path_tables(root, _list_children, lambda each: each.extent.lba - base, rules.sort_keys, orders)

        return _are_stale(source, self, make_tables)

    def has_stale_dots(self, source: ByteSource) -> bool:
        """Return whether a ``.``, ``..`` or root record leads elsewhere than it has to, as ``mend_dots`` says."""
        root = self.tree.index[0]
        own = encode_extent(root.extent, self)
        if any(read_extent(source, lba_offset(each.lba) + ROOT_RECORD) != own for each in self.descriptors):
            return True
        above = {id(root): own}
        for directory in self.tree.index:
            own = encode_extent(directory.extent, self)
            above.update((id(child), own) for child in directory.children)
            dots = directory.dot_extents if directory.is_plain else read_dots(source, directory.extent)
            if dots[:16] != own or dots[16:] not in (own, above[id(directory)]):
                return True
        return False


def _list_children(directory: IsoDirectory) -> Sequence[tuple[bytes, IsoDirectory]]:
    """Return the directories in ``directory``, with their identifiers."""
    return [(child.identifiers[-1], child) for child in directory.children] if directory.children else ()


def _are_all_recorded(source: ByteSource, tree: IsoTree) -> bool:
    """Return whether each directory of ``tree`` is recorded where its name is, and begins with ``.`` and ``..``."""
    for directory in tree.index:
        if directory.is_plain:
            if not directory.begins_with_dots:
                return False
            continue
        records = [record for record, _ in read_all_records(source, directory.extent, (), tree.base)]
        recorded = {record.offset for record in records[2:] if record.flags & DIRECTORY}
        has_dots = [record.identifier for record in records[:2]] == [b"\0", b"\1"]
        if not has_dots or recorded != {child.record.offset for child in directory.children if child.record}:
            return False
    return bool(tree.index)


def prove_directories(source: ByteSource, image: IsoImage) -> None:
    """Compare the path tables of every tree with its directories, and ``.`` and ``..`` with the directories' extents.

    :raises ProofError: when they differ.
    """
    for group in group_by_root(source, image.trees):
        read = group[0][0]
        if _are_all_recorded(source, read):
            recorded = _RecordedTree(read, read.base, [descriptor for _, descriptor in group])
            stale_tables, stale_dots = recorded.has_stale_tables(source), recorded.has_stale_dots(source)
        else:
            tree = read_editable_tree(source, group)
            stale_tables, stale_dots = has_stale_tables(source, tree), bool(count_stale_dots(source, tree))
        if stale_tables:
            raise ProofError(f"a path table of the {read.kind} tree tells of other directories", source.place)
        if stale_dots:
            raise ProofError(f"a . or .. of the {read.kind} tree leads to another directory", source.place)
