"""What edits of any layer lose: sentences for warnings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from cosremaster.errors import Place, printable
from cosremaster.tree.nodes import Edits, Node
from cosremaster.tree.xattrs import loses_xattrs


def describe_lost_xattrs(tree: Mapping[bytes, Node], edits: Edits, place: Place) -> Iterator[str]:
    """Yield a sentence about extended attributes of replaced nodes of ``tree`` that the new ones have not."""
    bare = [
        node.path
        for node, _ in edits.additions
        if node.path in edits.removed_paths
        and (old := tree.get(node.path)) is not None
        and loses_xattrs(dict(old.xattrs), dict(node.xattrs))
    ]
    if bare:
        yield f"{place}: {name_paths(bare)} had extended attributes (such as file capabilities) that the new has not"


def name_paths(paths: Sequence[bytes]) -> str:
    """Return the first of ``paths``, and how many others there are, for people."""
    return printable(paths[0]) + (f" and {len(paths) - 1:,} more" if len(paths) > 1 else "")
