"""What the ISO's own tree has to become, as a value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from cosremaster.nodes import Node
from cosremaster.pieces import PieceTable


@dataclass(frozen=True, slots=True, kw_only=True)
class IsoEdits:
    """Changes of the ISO's own tree; paths are those of the primary tree.

    In this order: ``removed``: old paths that leave, directories with what is below them; ``renamed``: old paths and
    the new ones of what stays, directories with what is below them; ``added``: what comes, at its new path, parents
    first, replacing nothing. ``exchanged``: old paths of files that hold other bytes now. ``unchanged``: what was asked
    for and is there already; ``warnings``: what the user should know.
    """

    exchanged: Mapping[bytes, PieceTable] = field(default_factory=dict)
    removed: tuple[bytes, ...] = ()
    renamed: Mapping[bytes, bytes] = field(default_factory=dict)
    added: tuple[Node, ...] = ()
    unchanged: tuple[bytes, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def restructures(self) -> bool:
        """Names come, go or change."""
        return bool(self.removed or self.renamed or self.added)

    @property
    def empty(self) -> bool:
        """Nothing changes."""
        return not (self.exchanged or self.restructures)

    def new_path(self, old: bytes) -> bytes | None:
        """Where what is at the path ``old`` will be; None where it leaves."""
        for gone in self.removed:
            if old == gone or old.startswith(gone + b"/"):
                return None
        for before, after in self.renamed.items():
            if old == before or old.startswith(before + b"/"):
                old = after + old[len(before) :]
        return old
