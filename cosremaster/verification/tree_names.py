"""Compare the names in every tree of an image with the original's, and find changes that were not intended."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

from cosremaster.errors import Place
from cosremaster.io.source import ByteSource
from cosremaster.iso.model import IsoImage, IsoTree
from cosremaster.iso.read_trees import JOLIET
from cosremaster.iso.rockridge.read import find_susp_skip
from cosremaster.iso.walk import walk_records
from cosremaster.lazy_regex import lazy_regex
from cosremaster.records import Struct
from cosremaster.tree.paths import ancestors
from cosremaster.units import Lba, lba_offset
from cosremaster.verification.finding import Finding, fails

_KEPT, _KEPT_PLAIN = 16, 5
"""Characters of a name that every tree keeps. The second is for a primary tree without Rock Ridge, which may replace
the last three of eight characters by a number."""
_OTHER = lazy_regex("[^a-z0-9_]")


class TreeNames(Struct, frozen=True):
    """The names in one tree of an image.

    :param kind: the tree's kind for people.
    :param files: path -> first block of the file's data; None for an empty file.
    :param directories: paths of directories.
    :param has_rock_ridge: the names are those of Rock Ridge.
    """

    kind: str
    files: Mapping[bytes, Lba | None]
    directories: Collection[bytes]
    has_rock_ridge: bool


def read_tree_names(image: IsoImage, source: ByteSource) -> Sequence[TreeNames]:
    """Return the names in the trees of ``image``: the primary first, UDF last, no tree that shares another's root.

    :raises ImageError: when a tree cannot be read.
    """
    trees = [_read_iso_names(tree, source) for tree in image.trees if tree.directories]
    if image.udf is not None:
        files = {_join(file.path): file.extents[0][0] if file.extents else None for file in image.udf.files}
        directories = {_join(directory.file_entry.path) for directory in image.udf.directories} - {b""}
        trees.append(TreeNames("UDF", files, directories, has_rock_ridge=False))
    return trees


def _read_iso_names(tree: IsoTree, source: ByteSource) -> TreeNames:
    """Return the names in a tree of directory records."""
    root = tree.directories[0]
    skip = find_susp_skip(source.read(lba_offset(root.lba), 255)) if tree.has_rock_ridge else None
    records = walk_records(source, root, tree.base, skip, tree.kind == JOLIET)
    directories = {record.path for record in records if record.directory}
    files = {file.path: file.records[0].lba if file.size else None for file in tree.files}
    return TreeNames(tree.kind, files, directories, tree.has_rock_ridge)


def _join(parts: Sequence[str]) -> bytes:
    """Return the path with these parts."""
    return b"/".join(part.encode("utf-8", "surrogateescape") for part in parts)


class IntendedChanges:
    """The names that were meant to change.

    They are the given paths, and everything below a directory that only one of the images has. Without Rock Ridge the
    given paths may be Joliet's, and in any case of letters.
    """

    def __init__(
        self, old_trees: Sequence[TreeNames], new_trees: Sequence[TreeNames], changed: Collection[bytes]
    ) -> None:
        """Find all paths of the primary trees ``old_trees[0]`` and ``new_trees[0]`` that the paths ``changed`` mean."""
        self._trees = (old_trees, new_trees)
        self.paths = set(changed) | self._covered_paths(old_trees[0], new_trees[0], changed)
        if not old_trees[0].has_rock_ridge:
            for old, new in zip(old_trees[1:], new_trees[1:], strict=False):
                covered = self._covered_paths(old, new, changed)
                for names, primary in ((old, old_trees[0]), (new, new_trees[0])):
                    blocks = {names.files[path] for path in covered & names.files.keys()} - {None}
                    self.paths |= {path for path, block in primary.files.items() if block in blocks}
        self._length = _KEPT if old_trees[0].has_rock_ridge else _KEPT_PLAIN
        self._shortened = {_shorten(path, self._length) for path in self.paths}
        self._blocks = [{names[0].files.get(path) for path in self.paths} for names in self._trees]

    def _covered_paths(self, old: TreeNames, new: TreeNames, changed: Collection[bytes]) -> set[bytes]:
        """Return the paths of either tree that are in ``changed``, or below a directory of it that one tree lacks."""
        changed = set(changed) if old.has_rock_ridge else {path.lower() for path in changed}
        folded = {
            path: path if old.has_rock_ridge else path.lower()
            for path in {*old.files, *new.files, *old.directories, *new.directories}
        }
        named = {path for path, spelling in folded.items() if spelling in changed}
        whole = {path for path in named if (path in old.directories) != (path in new.directories)}
        return named | {path for path in folded if any(parent in whole for parent in ancestors(path))}

    def list_unintended(self, place: Place) -> Iterator[Finding]:
        """Yield a failure for each name that was added or removed, and was not meant to.

        These are directories of the primary tree, and files and directories of other trees.
        """
        old_trees, new_trees = self._trees
        for number, (old, new) in enumerate(zip(old_trees, new_trees, strict=False)):
            intended = self._covered_paths(old, new, self.paths) | self.paths
            files = old.files.keys() ^ new.files.keys() if number else set[bytes]()
            unintended = {
                path
                for path in files - intended
                if not self._is_intended(path, *((old, old_trees[0]) if path in old.files else (new, new_trees[0])))
            }
            intended |= files - unintended
            parents = {parent for path in intended for parent in ancestors(path)}
            directories = (set(old.directories) ^ set(new.directories)) - intended - parents
            unintended |= {
                path for path in directories if not number or _shorten(path, self._length) not in self._shortened
            }
            tree = f"'s {old.kind} tree" if number else ""
            for path in sorted(unintended):
                if path in old.files or path in old.directories:
                    yield fails("against.missing", f"is in the original{tree}, and not here", place.inside(path))
                else:
                    yield fails("against.extra", f"is not in the original{tree}", place.inside(path))

    def _is_intended(self, path: bytes, names: TreeNames, primary: TreeNames) -> bool:
        """Return True if a file of another tree is a file that was meant to be added or removed.

        :param names: the tree that has ``path``.
        :param primary: the primary tree of the same image.
        """
        block = names.files[path]
        if block is None:
            return _shorten(path, self._length) in self._shortened
        return block in self._blocks[primary is self._trees[1][0]]


def _shorten(path: bytes, length: int) -> str:
    """Return ``path`` as all trees have it: the first ``length`` characters of each name, in small letters."""
    return "/".join(_OTHER.sub("_", part[:length]) for part in path.decode("utf-8", "replace").lower().split("/"))
