"""Which nodes of a root file system an export has: not the excluded ones, nor what belongs to one machine alone."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence

from cosremaster.overlay.patterns import Pattern, join_patterns, parse_inner_pattern
from cosremaster.records import replace
from cosremaster.tree.content import BytesContent
from cosremaster.tree.nodes import Node, NodeKind

EMPTIED = (b"etc/machine-id",)
"""Files that become empty: systemd makes a new number at the first boot (machine-id(5))."""

CLEANED = (
    b"var/lib/dbus/machine-id",
    b"var/lib/cloud/*",
    b"etc/ssh/ssh_host_*_key", b"etc/ssh/ssh_host_*_key.pub",
    b"**/*.dpkg-old",
    b"var/cache/apt/*.bin", b"var/cache/apt/archives/*.deb", b"var/cache/apt/archives/partial/*",
    b"var/lib/apt/lists/*",
)  # fmt: skip
"""Patterns of what is left out: the state of cloud-init, keys of the machine, replaced settings and apt's caches."""


def select_root_nodes(nodes: Iterable[Node], exclude: Sequence[str], *, clean: bool) -> tuple[list[Node], list[str]]:
    """Return ``nodes`` without those that ``exclude`` names, and those of ``exclude`` that name nothing.

    A directory leaves with all that is below it, and symlinks in the names are followed. ``clean``: also
    without :data:`CLEANED`, and with :data:`EMPTIED`.

    :raises UsageError: one of ``exclude`` is no pattern.
    """
    nodes = sorted(nodes, key=lambda node: node.path.split(b"/"))
    links = {node.path: node.target for node in nodes if node.kind is NodeKind.SYMLINK}
    patterns = [join_patterns([parse_inner_pattern(os.fsencode(text))], links.get) for text in exclude]
    is_cleaned = join_patterns([Pattern(text) for text in CLEANED], links.get)
    used, gone, selected = set[int](), set[bytes](), list[Node]()
    for node in nodes:
        matches = [number for number, matches_path in enumerate(patterns) if matches_path(node.path)]
        used.update(matches)
        if matches or node.path.rpartition(b"/")[0] in gone or (clean and is_cleaned(node.path)):
            gone.add(node.path)
        elif clean and node.path in EMPTIED and node.kind is NodeKind.FILE:
            selected.append(replace(node, content=BytesContent(b""), link=None))
        else:
            selected.append(node)
    return selected, [text for number, text in enumerate(exclude) if number not in used]
