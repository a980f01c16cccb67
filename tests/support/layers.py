"""The root file system of an image, by our reader."""

from pathlib import Path

import cosremaster
from cosremaster.layers.cpio.tree import LayerTree
from cosremaster.layers.find import choose_layer
from cosremaster.tree.nodes import Node


def plain_root(iso: Path) -> bytes:
    """The root filesystem's archive, by our reader."""
    with cosremaster.open(iso, remember=False) as image:
        layer = image.layers().layers[-1]
        return b"".join(layer.decoded.chunks(0, layer.size))


def with_layer_of(iso: Path) -> dict[bytes, Node]:
    """The nodes of the image's root filesystem, which is so small that its bytes are at hand."""
    with cosremaster.open(iso, remember=False) as image:
        return dict(LayerTree(choose_layer(image.image, image.layers(), None)))
