"""What an image boots: its kernel, and the trees that may hold the modules of it."""

from __future__ import annotations

from collections.abc import Mapping

from cosremaster.io.pieces import PieceTable
from cosremaster.records import Struct
from cosremaster.tree.nodes import Node


class BootFiles(Struct, frozen=True):
    """What the image itself boots: the ``kernel``, None where none is known, and what its initramfs unpack to."""

    kernel: PieceTable | None = None
    trees: tuple[Mapping[bytes, Node], ...] = ()
