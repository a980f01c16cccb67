"""Proving the directories of an image whose names changed."""

from __future__ import annotations

from itertools import count

from cosremaster.errors import ProofError
from cosremaster.io.source import ByteSource
from cosremaster.iso.model import IsoImage
from cosremaster.iso.tree_edit.directories import read_editable_trees
from cosremaster.iso.tree_edit.patches import encode_extent, find_parent_record, find_path_tables
from cosremaster.iso.tree_edit.serialize import NO_BLOCK, RECORD_LBA, TreePlacement, TreeSerializer
from cosremaster.units import lba_offset


def prove_directories(source: ByteSource, image: IsoImage) -> None:
    """Compares the path tables of every tree with its directories, and ``.`` and ``..`` with where those stand.

    :raises ProofError: they say something else.
    """
    for tree in read_editable_trees(source, image.trees):
        places = {id(one): (one.extent.lba, one.extent.length) for one in tree.directories() if one.extent}
        assembler = TreeSerializer(
            tree, source, source.read, TreePlacement(places, lambda _: NO_BLOCK, {}, {}), {}, count(1)
        )
        for lba, order, _ in find_path_tables(tree):
            table = assembler.serialize_path_table(order)
            if source.read(lba_offset(lba), len(table)) != table:
                raise ProofError(f"a path table of the {tree.kind} tree tells of other directories", source.place)
        for folder in tree.directories():
            assert folder.extent is not None and folder.parent is not None and folder.parent.extent is not None
            start = lba_offset(folder.extent.lba)
            own, above = (encode_extent(one, tree) for one in (folder.extent, folder.parent.extent))
            if source.read(start + RECORD_LBA, 16) != own:
                raise ProofError("a directory's . leads elsewhere", source.place.at(start))
            # In a Joliet tree of libisofs every .. leads to its own directory; where nothing moved it still does.
            if source.read(find_parent_record(source, folder.extent) + RECORD_LBA, 16) not in (above, own):
                raise ProofError("a directory's .. leads elsewhere", source.place.at(start))
