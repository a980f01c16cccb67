"""Prove the directories of an image whose trees were edited."""

from __future__ import annotations

from itertools import count

from cosremaster.errors import ProofError
from cosremaster.io.source import ByteSource
from cosremaster.iso.model import IsoImage
from cosremaster.iso.tree_edit.directories import read_editable_trees
from cosremaster.iso.tree_edit.patches import encode_extent, find_parent_record, find_path_tables
from cosremaster.iso.tree_edit.serialize import RECORD_LBA, TreePlacement, TreeSerializer
from cosremaster.units import lba_offset


def prove_directories(source: ByteSource, image: IsoImage) -> None:
    """Compare the path tables of every tree with its directories, and ``.`` and ``..`` with the directories' extents.

    :raises ProofError: when they differ.
    """
    for tree in read_editable_trees(source, image.trees):
        serializer = TreeSerializer(tree, source, source.read, TreePlacement.of_image(tree), {}, count(1))
        for path_table in find_path_tables(tree):
            expected = serializer.serialize_path_table(path_table.order)
            if source.read(lba_offset(path_table.lba), len(expected)) != expected:
                raise ProofError(f"a path table of the {tree.kind} tree tells of other directories", source.place)
        for directory in tree.directories():
            parent = directory.parent
            assert directory.extent is not None and parent is not None and parent.extent is not None
            start = lba_offset(directory.extent.lba)
            own_extent, parent_extent = (encode_extent(extent, tree) for extent in (directory.extent, parent.extent))
            if source.read(start + RECORD_LBA, 16) != own_extent:
                raise ProofError("a directory's . leads elsewhere", source.place.at(start))
            # In a Joliet tree of libisofs every .. leads to its own directory; where nothing moved it still does.
            dot_dot = source.read(find_parent_record(source, directory.extent) + RECORD_LBA, 16)
            if dot_dot not in (parent_extent, own_extent):
                raise ProofError("a directory's .. leads elsewhere", source.place.at(start))
