"""All trees of an image, UDF's too, under one set of names: those of the primary tree, and what it does not show.

A Windows disc shows a README in ISO 9660 and everything else in UDF alone.
"""

from __future__ import annotations

from collections.abc import Iterator

from cosremaster.io.source import ByteSource
from cosremaster.iso.ecma119.records import DirectoryRecord
from cosremaster.iso.model import IsoFile, IsoImage
from cosremaster.iso.tree_edit.directories import DirectoryEntry, EditableTree
from cosremaster.iso.tree_edit.match_trees import match_entries, read_matched_trees
from cosremaster.iso.udf.read import SYMLINK_TYPE
from cosremaster.iso.udf.tree import UdfTree, read_udf_tree
from cosremaster.records import Struct
from cosremaster.units import Lba


class MergedTrees(Struct, frozen=True):
    """The trees of an image, all entries with the names of the primary tree as far as it shows them.

    ``trees``: those of directory records, the primary one first. ``udf``: that of UDF, None without UDF.
    """

    trees: list[EditableTree]
    udf: UdfTree | None

    @property
    def all_trees(self) -> list[EditableTree]:
        """The trees, UDF's last."""
        return [*self.trees, *([self.udf.tree] if self.udf else ())]

    def named_entries(self) -> Iterator[tuple[EditableTree, bytes, DirectoryEntry]]:
        """Yield each entry of each tree with its path in the merged names, each directory before what is in it."""
        for tree in self.all_trees:
            for path, entry in tree.named_entries():
                yield tree, path, entry


def read_merged_trees(image: IsoImage, source: ByteSource) -> MergedTrees:
    """Return the trees of ``image``, which is in ``source``.

    :raises ImageError: when a record is malformed.
    :raises UnsupportedError: when a directory has an extended attribute record.
    """
    trees = read_matched_trees(source, image.trees)
    udf = read_udf_tree(image.udf) if image.udf else None
    if udf is not None:
        match_entries(trees[0], udf.tree)
    return MergedTrees(trees, udf)


def list_hidden_files(image: IsoImage, merged: MergedTrees) -> Iterator[IsoFile]:
    """Yield the files that the primary tree of ``image`` does not show, by their paths in the merged names.

    Those of UDF have a record of each extent; data inside file entries are left out.
    """
    seen = {file.path for file in image.files}
    for tree, path, entry in merged.named_entries():
        if entry.directory is not None or path in seen:
            continue
        records = entry.records
        if merged.udf is not None and tree is merged.udf.tree:
            file = merged.udf.find_file(entry)
            if file.is_inline or file.file_type == SYMLINK_TYPE:
                continue
            extents = file.extents or ((Lba(0), 0),)
            records = tuple(DirectoryRecord(0, lba, length, 0, (), b"") for lba, length in extents)
        seen.add(path)
        yield IsoFile(path, records, is_hidden=True)
