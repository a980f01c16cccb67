"""Layers inside a file system, each opened when an address names it: nothing is looked for there otherwise."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from cosremaster.errors import LayerError, UnsupportedError, printable
from cosremaster.layers.address import Address, archive_number, format_address, without_numbers
from cosremaster.layers.formats import ContainerEntry, format_names
from cosremaster.layers.identify import identify_partition
from cosremaster.layers.model import Layer, build_layers, index_file
from cosremaster.layers.scan import ScanOptions
from cosremaster.tree.nodes import resolve_links
from cosremaster.tree.paths import SymlinkLoopError


def match_address(layers: Sequence[Layer], address: Address) -> Layer | None:
    """Return the layer of ``layers`` at ``address``, of several archives in a file the last; None for no layer."""
    for layer in reversed(layers):
        if address in (layer.address, without_numbers(layer.address)):
            return layer
    return None


def resolve_address(layers: Sequence[Layer], address: Address) -> Address:
    """Return ``address`` with the symlinks followed that it leads through in those of ``layers`` that it enters.

    These are file systems; in an archive the path of an entry is meant as it is.

    :raises LayerError: the symlinks form a loop.
    """
    for end in range(1, len(address)):
        outer = match_address(layers, address[:end])
        if outer is not None and outer.format.random_access and archive_number(address[end]) is None:
            address = (*address[:end], _resolve_path(outer, address[end]), *address[end + 1 :])
    return address


def open_inner_layers(layers: Sequence[Layer], addresses: Iterable[Address], options: ScanOptions) -> tuple[Layer, ...]:
    """Return ``layers`` and those inside their file systems that ``addresses`` name or lead through.

    :raises LayerError: an address names no file of a file system, or one that is no archive.
    :raises UnsupportedError: it is of a kind that is not handled. :raises CorruptError: it is damaged.
    """
    known = list(layers)
    for address in addresses:
        for end in range(1, len(address)):
            path = resolve_address(known, address)[: end + 1]
            outer = match_address(known, path[:end])
            if outer is None or not outer.format.random_access or match_address(known, path) is not None:
                continue
            known += _open_file(outer, path[end], options)
    return tuple(known)


def _resolve_path(layer: Layer, path: bytes) -> bytes:
    """Return ``path`` in the file system ``layer`` with symlinks followed. :raises LayerError: they form a loop."""
    try:
        return resolve_links(path, layer.tree().get)
    except SymlinkLoopError as error:
        raise LayerError("symlinks lead in a loop", layer.place.inside(path)) from error


def _open_file(layer: Layer, path: bytes, options: ScanOptions) -> tuple[Layer, ...]:
    """Return the layers in the file ``path`` of the file system ``layer``; raises as :func:`open_inner_layers`."""
    place = layer.place.inside(path)
    node = layer.tree().get(path)
    if node is None:
        from cosremaster.tree.similar import suggest_path  # noqa: PLC0415 - only where a path is not there

        meant = suggest_path(path, layer.tree(), lambda other: format_address((*layer.address, other)))
        raise LayerError(f"has no {printable(path)}{meant}", layer.place)
    if node.content is None or not node.content.size:
        raise LayerError(
            f"is no archive but {'an empty ' if node.content is not None else 'a '}{node.kind.noun}", place
        )
    table = node.content.table()
    identification = identify_partition(table)
    if identification.format is None and identification.foreign is not None:
        raise UnsupportedError(f"is {identification.foreign}, which is not supported yet", place)
    if identification.format is None:
        raise LayerError(f"is no {format_names()} archive", place)
    entry = ContainerEntry(0, path, 0, table.length)
    indexed = index_file(path, table, place, options, identification)
    return build_layers(indexed, table, place, layer, entry)
