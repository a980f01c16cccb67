"""Archives read as an overlay's nodes."""

import os
from pathlib import Path

from cosremaster.io.spool import Spool
from cosremaster.overlay.archive import read_archive
from cosremaster.records import replace
from cosremaster.tree.nodes import Node
from tests.support.additions import context


def read(path: Path, newest: int | None = None) -> dict[bytes, Node]:
    nodes, warnings = warned(path, newest)
    assert not warnings
    return nodes


def warned(path: Path, newest: int | None = None) -> tuple[dict[bytes, Node], list[str]]:
    spool = Spool(path.parent)
    warnings: list[str] = []
    reading = replace(context(newest, spool=spool), warn=warnings.append)
    scan = read_archive(os.fsencode(path), reading, lambda _: None)
    return {node.path: node for node in scan.nodes}, warnings
