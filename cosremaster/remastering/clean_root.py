"""What leaves a root file system that becomes an image for many machines: what belongs to one of them alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain

from cosremaster.browse.root_selection import CLEANED, EMPTIED
from cosremaster.overlay.addition import Addition, PreparedItem
from cosremaster.overlay.patterns import Pattern, join_patterns
from cosremaster.records import replace
from cosremaster.tree.content import BytesContent
from cosremaster.tree.nodes import ArchiveTree, Node, NodeKind


def with_cleaning(
    tree: Mapping[bytes, Node], removals: Sequence[Pattern], items: Sequence[PreparedItem]
) -> tuple[list[Pattern], list[PreparedItem]]:
    """Return ``removals`` and ``items`` with those before them that clean ``tree`` for MAAS (docs/usage.md).

    What the items add is not cleaned.
    """
    patterns = {text: Pattern(text) for text in CLEANED}

    def link_target(path: bytes) -> bytes | None:
        """Return the text of the symlink at ``path``."""
        node = tree.get(path)
        return node.target if node is not None and node.kind is NodeKind.SYMLINK else None

    matches = join_patterns(tuple(patterns.values()), link_target)
    each = {text: join_patterns((pattern,), link_target) for text, pattern in patterns.items()}
    used = set[bytes]()
    for path in chain(tree, tree.implied_directories if isinstance(tree, ArchiveTree) else ()):
        if matches(path):
            used.update(text for text, matches_path in each.items() if matches_path(path))
    emptied = [
        Addition((replace(node, content=BytesContent(b""), link=None),), b"", True, True, "maas-clean")
        for node in map(tree.get, EMPTIED)
        if node is not None and node.kind is NodeKind.FILE
    ]
    return [*(patterns[text] for text in CLEANED if text in used), *removals], [*emptied, *items]
