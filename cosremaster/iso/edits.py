"""What the ISO's own tree has to become, as a value."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property

from msgspec import Struct, field
from msgspec.structs import replace

from cosremaster.io.pieces import PieceTable
from cosremaster.tree.content import PieceContent
from cosremaster.tree.nodes import Node
from cosremaster.tree.paths import ancestors


class IsoEdits(Struct, frozen=True, kw_only=True, dict=True):
    """Changes of the ISO's own tree; paths are those of the primary tree.

    ``removed``: old paths that leave, directories with what is below them; ``renamed``: old paths and the new ones of
    what stays, directories with what is below them. They change places all at once, and where one of these paths is
    below another, the longer one counts. ``added``: what comes, at its new path, replacing nothing. ``exchanged``: old
    paths of files that hold other bytes now. ``unchanged``: what was asked for and is there already; ``warnings``: what
    the user should know.
    """

    replaced: Mapping[bytes, PieceTable] = field(default_factory=dict)
    removed: tuple[bytes, ...] = ()
    renamed: Mapping[bytes, bytes] = field(default_factory=dict)
    added: tuple[Node, ...] = ()
    unchanged: tuple[bytes, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def changes_names(self) -> bool:
        """Names come, go or change."""
        return bool(self.removed or self.renamed or self.added)

    @property
    def is_empty(self) -> bool:
        """Nothing changes."""
        return not (self.replaced or self.changes_names)

    @cached_property
    def added_by_path(self) -> dict[bytes, Node]:
        """What comes, by its path."""
        return {node.path: node for node in self.added}

    def with_contents(self, tables: Mapping[bytes, PieceTable]) -> IsoEdits:
        """These edits, but the files at ``tables``' paths hold other bytes: files that come, or old ones."""
        new = {path: table for path, table in tables.items() if path in self.added_by_path}
        added = (
            replace(node, content=PieceContent(new[node.path].pieces)) if node.path in new else node
            for node in self.added
        )
        old = {path: table for path, table in tables.items() if path not in new}
        return replace(self, replaced={**self.replaced, **old}, added=tuple(added))

    def new_path(self, old: bytes) -> bytes | None:
        """Where what is at the path ``old`` will be; None where it leaves."""
        for path in (old, *reversed(list(ancestors(old)))):
            if path in self._gone:
                return None
            if path in self.renamed:
                return self.renamed[path] + old[len(path) :]
        return old

    @cached_property
    def _gone(self) -> frozenset[bytes]:
        return frozenset(self.removed)
