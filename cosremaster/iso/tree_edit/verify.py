"""Proving the directories of an image whose names changed."""

from __future__ import annotations

from itertools import count

from cosremaster.errors import ProofError
from cosremaster.io.files import FileSource
from cosremaster.iso.model import IsoImage
from cosremaster.iso.tree_edit.directories import read_folders
from cosremaster.iso.tree_edit.patches import dot_dot, table_slots, told_place
from cosremaster.iso.tree_edit.serialize import NO_PLACE, RECORD_LBA, Assembler, Places
from cosremaster.units import lba_offset


def prove_folders(source: FileSource, image: IsoImage) -> None:
    """Compares the path tables of every tree with its directories, and ``.`` and ``..`` with where those stand.

    :raises ProofError: they say something else.
    """
    for tree in read_folders(source, image.trees):
        places = {id(one): (one.extent.lba, one.extent.length) for one in tree.folders() if one.extent}
        assembler = Assembler(tree, source, source.read_at, Places(places, lambda _: NO_PLACE, {}, {}), {}, count(1))
        for lba, order, _ in table_slots(tree):
            table = assembler.path_table(order)
            if source.read_at(lba_offset(lba), len(table)) != table:
                raise ProofError(f"a path table of the {tree.kind} tree tells of other directories", source.place)
        for folder in tree.folders():
            assert folder.extent is not None and folder.parent is not None and folder.parent.extent is not None
            start = lba_offset(folder.extent.lba)
            own, above = (told_place(one, tree) for one in (folder.extent, folder.parent.extent))
            if source.read_at(start + RECORD_LBA, 16) != own:
                raise ProofError("a directory's . leads elsewhere", source.place.at(start))
            # In a Joliet tree of libisofs every .. leads to its own directory; where nothing moved it still does.
            if source.read_at(dot_dot(source, folder.extent) + RECORD_LBA, 16) not in (above, own):
                raise ProofError("a directory's .. leads elsewhere", source.place.at(start))
