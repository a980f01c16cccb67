"""Tell images whose trees do not all show the same: Windows discs show a README in ISO 9660, and the rest in UDF."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

from cosremaster.io.source import ByteSource
from cosremaster.iso.model import IsoFile, IsoImage, IsoTree
from cosremaster.iso.tree_files import FileColumns
from cosremaster.iso.udf.read import Udf, encode_path
from cosremaster.records import replace
from cosremaster.units import Lba

Data: TypeAlias = tuple[Lba, int] | None
"""First block and bytes of a file's data, None for an empty file."""
_HIDES = "a tree may hide names"
_NO_FILE = Lba(-1), 0
"""Stands for the data of a file that a tree does not have."""


def may_hide_names(image: IsoImage) -> bool:
    """Return whether a tree of ``image`` may show what its primary tree does not: other paths, or other data there."""
    if len(image.trees) == 1 and image.udf is None:
        return False
    if _HIDES not in image.memo:
        image.memo[_HIDES] = _compare_trees(image)
    return image.memo[_HIDES]


def _compare_trees(image: IsoImage) -> bool:
    """Return what :func:`may_hide_names` does."""
    primary = image.trees[0]
    directories = set(primary.directory_paths)
    if not all(directories.issuperset(tree.directory_paths) for tree in image.trees[1:]):
        return True
    if image.udf is None and all(_has_files_of(primary, tree) for tree in image.trees[1:]):
        return False
    data = _data_by_path(primary)
    if any(data != _data_by_path(tree) and _has_other_data(tree, data) for tree in image.trees[1:]):
        return True
    return image.udf is not None and _may_udf_hide(image.udf, data, directories)


def _has_files_of(primary: IsoTree, tree: IsoTree) -> bool:
    """Return True if the columns of both trees tell that each file of ``tree`` is in ``primary`` with the same data."""
    own = {directory.path: primary.files[directory.files] for directory in primary.index}
    if len(own) < len(primary.index):
        return False
    for directory in tree.index:
        files, others = own.get(directory.path, ()), tree.files[directory.files]
        if not others:
            continue
        if not (isinstance(files, FileColumns) and isinstance(others, FileColumns)):
            return False
        if files.names == others.names and files.has_extents_of(others):  # in one order, as mostly
            continue
        extents = dict(zip(files.names, files.extents, strict=True))
        if len(extents) < len(files) or not extents.items() >= set(zip(others.names, others.extents, strict=True)):
            return False
    return True


def _has_other_data(tree: IsoTree, data: Mapping[bytes, Data]) -> bool:
    """Return whether a file of ``tree`` is not in ``data``, or has other data there."""
    return any(data.get(file.path, _NO_FILE) != _data_of(file) for file in tree.files)


def _data_by_path(tree: IsoTree) -> dict[bytes, Data]:
    """Return the data of the files of ``tree``, which may be very many."""
    return {
        file.path: (file.records[0].lba, file.records[0].length)
        if len(file.records) == 1 and file.records[0].length
        else _data_of(file)
        for file in tree.files
    }


def _data_of(file: IsoFile) -> Data:
    """Return first block and bytes of the data of ``file``."""
    size = file.size
    return (file.records[0].lba, size) if size else None


def with_hidden_files(image: IsoImage, source: ByteSource) -> IsoImage:
    """Return ``image`` with the files that only other trees show among those of its primary tree, to look them up.

    Data inside file entries of UDF are left out.

    :raises ImageError: when a tree cannot be read.
    """
    if not may_hide_names(image):
        return image
    from cosremaster.iso.merged import list_hidden_files, read_merged_trees  # noqa: PLC0415 - only such images need it

    hidden = tuple(list_hidden_files(image, read_merged_trees(image, source)))
    primary, *others = image.trees
    return replace(image, trees=(replace(primary, files=(*primary.files, *hidden)), *others), memo={})


def _may_udf_hide(udf: Udf, data: Mapping[bytes, Data], directories: set[bytes]) -> bool:
    """Return whether ``udf`` may show what a tree with these files and directories does not."""
    paths = (encode_path(directory.file_entry.path) for directory in udf.directories)
    return not directories.issuperset(paths) or any(
        data.get(encode_path(path), _NO_FILE) != ((file.extents[0][0], file.size) if file.extents else None)
        for path, file in udf.named_files()
    )
