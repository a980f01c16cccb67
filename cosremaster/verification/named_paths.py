"""Check that the paths that were meant to change are somewhere.

A mistyped one would excuse nothing, and nobody would say so.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import TYPE_CHECKING, cast

from cosremaster.boot.fat import Fat
from cosremaster.errors import CosremasterError, UsageError, printable
from cosremaster.io.pieces import PieceTable
from cosremaster.iso.fats import list_areas
from cosremaster.iso.model import IsoImage
from cosremaster.tree.similar import suggest_path
from cosremaster.verification.tree_names import TreeNames, read_tree_names

if TYPE_CHECKING:
    from cosremaster.io.source import ByteSource


def check_named_paths(
    changed: Collection[bytes], images: Sequence[IsoImage], names: Sequence[Sequence[TreeNames]]
) -> None:
    """Check that each path in ``changed`` is in a tree of one of ``images``, or in a FAT file system on it.

    ``names``: those in the trees of each image. FAT file systems are looked for only where a path is in no tree.
    :raises UsageError: a path is nowhere.
    """
    absent = {path for path in changed if not any(_has_path(tree, path) for trees in names for tree in trees)}
    known: set[bytes] = set()
    for image in images if absent else ():
        for paths in _list_fat_paths(image):
            if paths is None:
                return  # a damaged file system may have it
            folded = {path.lower() for path in paths}
            absent = {path for path in absent if path.lower() not in folded}
            known |= paths
    if absent:
        path = min(absent)
        for trees in names:
            known.update(trees[0].files, trees[0].directories)
        meant = suggest_path(path, known, printable)
        raise UsageError(f"{printable(path)} was to be changed, and is in neither image{meant}")


def list_tree_paths(image: IsoImage) -> set[bytes]:
    """Return the paths in all trees of ``image``. :raises ImageError: a tree cannot be read."""
    return {
        path
        for names in read_tree_names(image, cast("ByteSource", image.source.source))
        for path in (*names.files, *names.directories)
    }


def _has_path(names: TreeNames, path: bytes) -> bool:
    """Return whether a tree has ``path``, where there is no Rock Ridge in any case of letters."""
    if path in names.files or path in names.directories:
        return True
    folded = path.lower()
    return not names.has_rock_ridge and any(folded == name.lower() for name in (*names.files, *names.directories))


def _list_fat_paths(image: IsoImage) -> Iterator[set[bytes] | None]:
    """Yield the paths in each FAT file system on ``image``, whatever the name of its file; None for a damaged one."""
    for table in _list_tables(image):
        try:
            fat = Fat.open(table.read, table.length, image.place)
            if fat is not None:
                yield {file.path for file in fat.walk()}
        except CosremasterError:
            yield None


def _list_tables(image: IsoImage) -> Iterator[PieceTable]:
    """Yield the bytes of all that may be a FAT file system: areas of the image, then the files of its trees."""
    for area in list_areas(image):
        yield area.cut_from(image)
    for tree in image.trees:
        for file in tree.files:
            yield image.bytes_of(file)
