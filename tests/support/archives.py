"""Archives read as an overlay's nodes."""

import os
from pathlib import Path

from cosremaster.io.files import Spool
from cosremaster.overlay.archive import read_archive
from cosremaster.tree.nodes import Node


def read(path: Path, newest: int | None = None) -> dict[bytes, Node]:
    nodes, warnings = warned(path, newest)
    assert not warnings
    return nodes


def warned(path: Path, newest: int | None = None) -> tuple[dict[bytes, Node], list[str]]:
    spool = Spool(path.parent)
    nodes, warnings = read_archive(os.fsencode(path), newest, None, spool, lambda _: None)
    return {node.path: node for node in nodes}, list(warnings)
