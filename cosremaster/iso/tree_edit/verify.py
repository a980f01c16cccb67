"""Prove the directories of an image whose trees were edited."""

from __future__ import annotations

from itertools import count

from cosremaster.errors import ProofError
from cosremaster.io.source import ByteSource
from cosremaster.iso.ecma119.records import PATH_TABLE_SIZE, pack_both_endian
from cosremaster.iso.model import IsoImage
from cosremaster.iso.tree_edit.directories import EditableTree
from cosremaster.iso.tree_edit.patches import count_stale_dots, find_path_tables
from cosremaster.iso.tree_edit.read_editable import read_editable_trees
from cosremaster.iso.tree_edit.serialize import TreePlacement, TreeSerializer
from cosremaster.units import lba_offset


def has_stale_tables(source: ByteSource, tree: EditableTree) -> bool:
    """Return whether a path table of ``tree``, or its size, disagrees with the directories (8.4.13, 9.4)."""
    serializer = TreeSerializer(tree, source, source.read, TreePlacement.of_image(tree), {}, count(1))
    expected = serializer.serialize_path_tables({table.order for table in find_path_tables(tree)})
    sizes = {pack_both_endian(len(data)) for data in expected.values()}
    if any({descriptor.raw[PATH_TABLE_SIZE : PATH_TABLE_SIZE + 8]} != sizes for descriptor in tree.descriptors):
        return bool(sizes)
    return any(
        source.read(lba_offset(table.lba), len(expected[table.order])) != expected[table.order]
        for table in find_path_tables(tree)
    )


def prove_directories(source: ByteSource, image: IsoImage) -> None:
    """Compare the path tables of every tree with its directories, and ``.`` and ``..`` with the directories' extents.

    :raises ProofError: when they differ.
    """
    for tree in read_editable_trees(source, image.trees):
        if has_stale_tables(source, tree):
            raise ProofError(f"a path table of the {tree.kind} tree tells of other directories", source.place)
        if count_stale_dots(source, tree):
            raise ProofError(f"a . or .. of the {tree.kind} tree leads to another directory", source.place)
