"""Changes of the ISO's own tree, as a value."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property

from cosremaster.io.pieces import PieceTable
from cosremaster.records import Struct, field, replace
from cosremaster.tree.content import PieceContent
from cosremaster.tree.nodes import Node

_SLASH = ord("/")


class IsoEdits(Struct, frozen=True, kw_only=True, dict=True):
    """Changes of the ISO's own tree; paths are those of the primary tree.

    ``replaced``: old paths of files, with their new contents. ``removed``: old paths of removed files and directories,
    the latter with everything below them. ``renamed``: old and new paths of renamed files and directories, the latter
    with everything below them. All removals and renames happen at once; where one of these paths is below another, the
    longer path counts. ``added``: new nodes, at new paths that nothing has then. ``areas``: byte offsets in the old
    image of areas that are no files, such as appended partitions, with as many new bytes. ``unchanged``: requested
    changes that the image has already. ``step``: data that have to move do so by a multiple of so many blocks.
    ``warnings``: sentences for the user.
    """

    replaced: Mapping[bytes, PieceTable] = field(default_factory=dict)
    removed: tuple[bytes, ...] = ()
    renamed: Mapping[bytes, bytes] = field(default_factory=dict)
    added: tuple[Node, ...] = ()
    areas: Mapping[int, PieceTable] = field(default_factory=dict)
    unchanged: tuple[bytes, ...] = ()
    step: int = 1
    warnings: tuple[str, ...] = ()

    @property
    def changes_names(self) -> bool:
        """Whether names are added, removed or renamed."""
        return bool(self.removed or self.renamed or self.added)

    @property
    def changes_tree(self) -> bool:
        """Whether names or contents of files change."""
        return bool(self.replaced) or self.changes_names

    @property
    def is_empty(self) -> bool:
        """Whether nothing changes."""
        return not (self.changes_tree or self.areas)

    @cached_property
    def added_by_path(self) -> dict[bytes, Node]:
        """The added nodes by their paths."""
        return {node.path: node for node in self.added}

    def with_contents(self, tables: Mapping[bytes, PieceTable]) -> IsoEdits:
        """Return these edits, but with the contents ``tables`` for the files at their paths.

        A path is that of an added node, else the old path of a file on the image.
        """
        contents = {path: table for path, table in tables.items() if path in self.added_by_path}
        added = tuple(
            replace(node, content=PieceContent(contents[node.path].pieces)) if node.path in contents else node
            for node in self.added
        )
        replaced = {path: table for path, table in tables.items() if path not in contents}
        return replace(self, replaced={**self.replaced, **replaced}, added=added)

    def with_areas(self, areas: Mapping[int, PieceTable]) -> IsoEdits:
        """Return these edits, but with the bytes ``areas`` for the areas at their offsets."""
        return replace(self, areas={**self.areas, **areas})

    def new_path(self, old: bytes) -> bytes | None:
        """Return the new path of the file or directory at the path ``old``; None if it is removed."""
        size = len(old)
        for length in self._path_lengths:  # the longest path counts
            if length == size or (length < size and old[length] == _SLASH):
                path = old[:length]
                if path in self._removed_paths:
                    return None
                if path in self.renamed:
                    return self.renamed[path] + old[length:]
        return old

    def may_change_in(self, prefix: bytes) -> bool:
        """Return whether :meth:`new_path` may be another one for a path that begins with ``prefix`` and goes on.

        ``prefix``: empty, or the path of a directory and a slash.
        """
        directory = prefix[:-1]
        return prefix in self._changed_prefixes or (bool(directory) and self.new_path(directory) != directory)

    @cached_property
    def _changed_prefixes(self) -> frozenset[bytes]:
        """Each beginning of a path of ``removed`` and ``renamed`` that ends in a slash, and the empty one."""
        prefixes = set[bytes]()
        for path in (*self.removed, *self.renamed):
            prefix = path[: path.rfind(b"/") + 1]
            while prefix not in prefixes:
                prefixes.add(prefix)
                prefix = prefix[: prefix.rfind(b"/", 0, -1) + 1]
        return frozenset(prefixes)

    @cached_property
    def _path_lengths(self) -> tuple[int, ...]:
        """The lengths of the paths of ``removed`` and ``renamed``, the longest first: few, of however many paths."""
        return tuple(sorted({len(path) for path in (*self.removed, *self.renamed)}, reverse=True))

    @cached_property
    def _removed_paths(self) -> frozenset[bytes]:
        """The paths of ``removed``, as a set."""
        return frozenset(self.removed)
