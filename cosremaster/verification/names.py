"""The names in every tree of an image beside those of its original: which were meant to come, go or change."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence

from msgspec import Struct

from cosremaster.errors import Place
from cosremaster.io.source import ByteSource
from cosremaster.iso.model import IsoImage, IsoTree
from cosremaster.iso.read_trees import JOLIET, walk_records
from cosremaster.iso.rockridge.read import find_susp_skip
from cosremaster.tree.paths import ancestors
from cosremaster.units import Lba, lba_offset
from cosremaster.verification.finding import Finding, fails

_KEPT, _KEPT_PLAIN = 16, 5
"""Characters that every tree keeps of a name; and where the primary one is without Rock Ridge, a number in place of the
last three of eight."""
_OTHER = re.compile("[^a-z0-9_]")


class TreeNames(Struct, frozen=True):
    """One tree of an image. ``files``: the first block of each file's data, None without any; ``ridge``: the names are
    Rock Ridge's."""

    kind: str
    files: Mapping[bytes, Lba | None]
    folders: Collection[bytes]
    ridge: bool


def read_tree_names(image: IsoImage, source: ByteSource) -> Sequence[TreeNames]:
    """The trees of ``image``, the primary first, without those that share another's root; UDF's last.

    :raises ImageError: one cannot be read.
    """
    found = [_walked(tree, source) for tree in image.trees if tree.directories]
    if image.udf is not None:
        files = {_path(one.path): one.extents[0][0] if one.extents else None for one in image.udf.files}
        found.append(
            TreeNames("UDF", files, {_path(one.file_entry.path) for one in image.udf.directories} - {b""}, ridge=False)
        )
    return found


def _walked(tree: IsoTree, source: ByteSource) -> TreeNames:
    root = tree.directories[0]
    skip = find_susp_skip(source.read(lba_offset(root.lba), 255)) if tree.has_rock_ridge else None
    folders = {one.path for one in walk_records(source, root, tree.base, skip, tree.kind == JOLIET) if one.directory}
    files = {one.path: one.records[0].lba if one.size else None for one in tree.files}
    return TreeNames(tree.kind, files, folders, tree.has_rock_ridge)


def _path(parts: Sequence[str]) -> bytes:
    return b"/".join(part.encode("utf-8", "surrogateescape") for part in parts)


class IntendedChanges:
    """Which names ``asked`` covers: those of files and directories, and what is below a directory that only one of the
    images has. Without Rock Ridge things are known by Joliet's names too, and in any case of letters."""

    def __init__(self, before: Sequence[TreeNames], after: Sequence[TreeNames], asked: Collection[bytes]) -> None:
        self._trees = (before, after)
        self.paths = set(asked) | self._covered(before[0], after[0], asked)
        if not before[0].ridge:
            for one, other in zip(before[1:], after[1:], strict=False):
                known = self._covered(one, other, asked)
                for names, primary in ((one, before[0]), (other, after[0])):
                    blocks = {names.files[path] for path in known & names.files.keys()} - {None}
                    self.paths |= {path for path, block in primary.files.items() if block in blocks}
        self._kept = _KEPT if before[0].ridge else _KEPT_PLAIN
        self._alike = {_cut(path, self._kept) for path in self.paths}
        self._blocks = [{names[0].files.get(path) for path in self.paths} for names in self._trees]

    def _covered(self, one: TreeNames, other: TreeNames, asked: Collection[bytes]) -> set[bytes]:
        known = set(asked) if one.ridge else {path.lower() for path in asked}
        every = {*one.files, *other.files, *one.folders, *other.folders}
        spelled = {path: path if one.ridge else path.lower() for path in every}
        whole = {path for path in every if spelled[path] in known and (path in one.folders) != (path in other.folders)}
        return {path for path in every if spelled[path] in known or any(above in whole for above in ancestors(path))}

    def findings(self, place: Place) -> Iterator[Finding]:
        """Directories of the primary tree, and names of other trees, that came or left and were not meant to."""
        before, after = self._trees
        for number, (one, other) in enumerate(zip(before, after, strict=False)):
            mine = self._covered(one, other, self.paths) | self.paths
            files = one.files.keys() ^ other.files.keys() if number else set[bytes]()
            odd = {
                path
                for path in files - mine
                if not self._is_of(path, *((one, before[0]) if path in one.files else (other, after[0])))
            }
            mine |= files - odd
            leading = {above for path in mine for above in ancestors(path)}
            folders = set(one.folders) ^ set(other.folders)
            odd |= {
                path for path in folders - mine - leading if not number or _cut(path, self._kept) not in self._alike
            }
            where = f"'s {one.kind} tree" if number else ""
            for path in sorted(odd):
                if path in one.files or path in one.folders:
                    yield fails("against.missing", f"is in the original{where}, and not here", place.inside(path))
                else:
                    yield fails("against.extra", f"is not in the original{where}", place.inside(path))

    def _is_of(self, path: bytes, names: TreeNames, primary: TreeNames) -> bool:
        """The name of another tree is that of a file that was meant to come or go."""
        block = names.files[path]
        if block is None:
            return _cut(path, self._kept) in self._alike
        return block in self._blocks[primary is self._trees[1][0]]


def _cut(path: bytes, most: int) -> str:
    """``path`` as far as all trees have it: ``most`` characters of each name."""
    return "/".join(_OTHER.sub("_", part[:most]) for part in path.decode("utf-8", "replace").lower().split("/"))
