"""What a machine needs of an image to boot it: a kernel, and the trees that may hold its modules."""

from __future__ import annotations

import re
from collections.abc import Mapping

from msgspec import Struct

from cosremaster.io.pieces import PieceTable
from cosremaster.tree.nodes import Node, NodeKind

_KERNEL = re.compile(
    rb"(boot/)?(vmlinu[xz]|bzImage|Image)([-.][^/]*)?|(usr/)?lib/modules/[^/]+/(vmlinu[xz]|bzImage|Image)"
)


class BootFiles(Struct, frozen=True):
    """What the image itself boots: the ``kernel``, None where none is known, and what its initramfs unpack to."""

    kernel: PieceTable | None = None
    trees: tuple[Mapping[bytes, Node], ...] = ()


def find_kernel(tree: Mapping[bytes, Node]) -> PieceTable | None:
    """Return the kernel in the root file system ``tree``, of several that with the last name; None without any."""
    paths = sorted(path for path in tree if _KERNEL.fullmatch(path))
    nodes = (tree[path] for path in reversed(paths))
    kernel = next((node for node in nodes if node.kind is NodeKind.FILE and node.content is not None), None)
    return None if kernel is None or kernel.content is None else kernel.content.table()
