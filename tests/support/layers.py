"""The root file system of an image, by our reader."""

import tempfile
from pathlib import Path

from cosremaster.io.pieces import Literal, PieceTable
from cosremaster.io.spool import Spool
from cosremaster.layers.cpio.newc import NewcEntry
from cosremaster.layers.cpio.read import CpioIndex
from cosremaster.layers.find import choose_layer
from cosremaster.layers.formats import ArchiveIndex, EditResources
from cosremaster.layers.identify import Identification, identify_table
from cosremaster.remastering.image import OpenedImage
from cosremaster.tree.nodes import Node

RESOURCES = EditResources(Spool(Path(tempfile.gettempdir())), 1)
"""For edits of formats that need none."""


def plain_root(iso: Path) -> bytes:
    """The root filesystem's archive, by our reader."""
    with OpenedImage(iso, remember=False) as image:
        layer = image.layers().layers[-1]
        return b"".join(layer.decoded.chunks(0, layer.size))


def with_layer_of(iso: Path) -> dict[bytes, Node]:
    """The nodes of the image's root filesystem, which is so small that its bytes are at hand."""
    with OpenedImage(iso, remember=False) as image:
        return dict(choose_layer(image.image, image.layers(), None).tree())


def identify_bytes(data: bytes) -> Identification:
    """What a file of these bytes is."""
    return identify_table(PieceTable([Literal(data)]))


def cpio_entries(index: ArchiveIndex) -> list[NewcEntry]:
    """The entries of a cpio archive."""
    assert isinstance(index, CpioIndex)
    return [member.entry for member in index.members]
