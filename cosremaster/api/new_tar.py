"""A root file system of any image as a new tar archive, which is remastered then like one that was there."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from cosremaster.browse.extract import find_root, select_nodes
from cosremaster.browse.tar import build_tar, sockets_warnings
from cosremaster.codecs.defaults import split_codec
from cosremaster.errors import LayerError, UsageError
from cosremaster.io.table_source import TableSource
from cosremaster.remastering.image import OpenedImage
from cosremaster.remastering.select_layers import LayerSelector

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cosremaster.browse.container import NodeRef
    from cosremaster.io.source import ByteSource
    from cosremaster.io.urls import ImagePath
    from cosremaster.iso.model import SourceImage
    from cosremaster.remastering.request import Request


def makes_tar(image: SourceImage, target: str) -> bool:
    """Return whether the name ``target`` says that ``image`` becomes a tar archive, which it is not yet.

    A file whose own name says the same stays what it is, whatever that is.
    """
    if not split_codec(target.lower())[0].endswith(".tar"):
        return False
    if not image.is_single_file:
        return True
    name = os.fsdecode(image.files[0].path).lower()
    return image.kind != "tar" and not split_codec(name)[0].endswith(".tar")


def layer_to_take(request: Request) -> str:
    """Return the address of the layer that ``request`` names; empty for the root file system.

    :raises UsageError: it names several, or something that is no part of a tar archive is to change.
    """
    beside = {
        "--add-iso, --remove-iso and --rename-iso": (request.add_iso, request.remove_iso, request.rename_iso),
        "--as-layer": (request.as_layer,),
        "--repack and --repack-metadata": (request.repack, request.repack_metadata),
    }
    for options, values in beside.items():
        if any(values):
            raise UsageError(f"a new tar archive holds the root file system alone: {options} cannot go with it")
    layers = [request.layer] if isinstance(request.layer, str) else [*(request.layer or ())]
    if not layers:
        return ""
    if len(layers) > 1 or LayerSelector.parse(layers[0]).address is None:
        raise UsageError("a new tar archive holds one layer: --layer takes the address of that")
    return layers[0]


def open_as_tar(
    reference: NodeRef, source: ByteSource, path: ImagePath, warnings: Sequence[str], *, keeps_parts: bool
) -> OpenedImage:
    """Return the tree at ``reference``, in the image ``source`` at ``path``, as a tar archive that is open.

    ``warnings``: for each remaster. ``keeps_parts``: plans keep what they packed.

    :raises LayerError: there is nothing in it.
    """
    nodes = select_nodes(reference)
    if not nodes:
        raise LayerError("is empty, and no root file system", reference.place)
    table = build_tar([*find_root(reference), *nodes]).table()
    file = TableSource(table, source, reference.place)
    return OpenedImage(
        path,
        file=file,
        origin=source,
        remember=False,
        keeps_parts=keeps_parts,
        warnings=(*warnings, *sockets_warnings(nodes)),
    )
