"""Decode every layer, with the checks of its codec and of its archive's entries."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import PurePath

from cosremaster.errors import CorruptError, CosremasterError, Place
from cosremaster.io.pieces import PieceTable, Range
from cosremaster.io.source import ByteSource
from cosremaster.iso.read import read_image
from cosremaster.layers.address import format_address
from cosremaster.layers.find import find_layers, identify_files
from cosremaster.layers.identify import identify
from cosremaster.layers.inner import open_inner_layers
from cosremaster.layers.model import Layer, build_layers, index_file
from cosremaster.layers.scan import ScanOptions
from cosremaster.progress import Progress
from cosremaster.tree.nodes import Node
from cosremaster.verification.finding import Finding, Level, fails, holds, note

UNSUPPORTED = "layer.unsupported"
"""The check whose findings are archives that cannot be read."""


def check_layers(source: ByteSource, progress: Progress, options: ScanOptions) -> Iterator[Finding]:
    """Decode every file of the tree that holds an archive, from its first byte to its last."""
    try:
        image = read_image(source)
    except CosremasterError as error:
        yield fails("layer.unreadable", f"layers cannot be looked for: {error.message}", error.place or source.place)
        return
    for file in identify_files(image):
        if file.is_alias or file.identification.format is None:
            continue
        place = source.place.inside(file.path)
        try:
            layers = find_layers(image, (file.path,), progress, options).layers
        except CosremasterError as error:
            finding = _describe_error(error, place)
            # A package in an archive of its own is no layer of the running system.
            is_package = not file.identification.format.is_initramfs
            yield note(finding.check, finding.message, finding.place) if is_package else finding
        else:
            yield from _check_decoded(layers, place, options, with_data=True)


def check_archive_file(source: ByteSource, options: ScanOptions, *, with_data: bool) -> Iterator[Finding]:
    """Check ``source``, which is an archive or a file system without an ISO around it.

    :param with_data: decode the data of a file system too; an archive is decoded whole.
    """
    name, table = os.fsencode(PurePath(source.name).name), PieceTable([Range(source, 0, source.size)])
    try:
        layers = build_layers(index_file(name, table, source.place, options), table, source.place)
    except CosremasterError as error:
        yield _describe_error(error, source.place)
    else:
        yield from _check_decoded(layers, source.place, options, with_data=with_data)


def _describe_error(error: CosremasterError, place: Place) -> Finding:
    """Return the finding that a layer at ``place`` cannot be read."""
    if isinstance(error, CorruptError):
        return fails("layer.corrupt", error.message, error.place or place)
    return note(UNSUPPORTED, error.message, error.place or place)


def _check_decoded(
    layers: Sequence[Layer], place: Place, options: ScanOptions, *, with_data: bool, depth: int = 1
) -> Iterator[Finding]:
    """Yield findings about ``layers``, which could be indexed; they are all those of the file at ``place``.

    :param with_data: decode data of file systems too, and the layers that are files of theirs.
    :param depth: 1 for layers that are in no file system.
    """
    inner: list[tuple[Layer, Node]] = []
    try:
        breaches = [breach for layer in layers for breach in layer.find_breaches(with_data=with_data)]
        for layer in layers if with_data else ():
            layer.check_data(partial(_note_layer, inner, layer))
    except CosremasterError as error:
        yield _describe_error(error, place)
        return
    yield from (fails("layer.rule", message, where) for message, where in breaches)
    for layer in layers:
        for damaged in layer.unreadable:
            # What makes up most of an archive is what that is for.
            kind = fails if 2 * damaged.size > layer.size else note
            yield kind("layer.corrupt", damaged.error.message, damaged.error.place or layer.place)
        for oddity in layer.oddities():
            yield note("layer.odd", f"{format_address(layer.address)} {oddity}", layer.place)
        what = "decode" if with_data or not layer.format.random_access else "are there, and their tables are sound"
        if not breaches:
            message = f"{format_address(layer.address)}: {layer.entry_count:,} entries, {layer.size:,} bytes {what}"
            yield holds("layer.decodes", message, layer.place)
    for layer, node in inner if depth < options.nesting else ():
        yield from _check_inner(layer, node, options, depth + 1)


def _note_layer(inner: list[tuple[Layer, Node]], layer: Layer, node: Node) -> None:
    """Add the file ``node`` of ``layer`` to ``inner``, if it begins like a file system or an initramfs.

    Of several names of a file the first counts.
    """
    assert node.content is not None
    if node.link is not None and any(other is layer and known.link == node.link for other, known in inner):
        return
    layer_format = identify(node.content.head).format
    if layer_format is not None and (layer_format.random_access or layer_format.is_initramfs):
        inner.append((layer, node))


def _check_inner(layer: Layer, node: Node, options: ScanOptions, depth: int) -> Iterator[Finding]:
    """Yield findings about the layers in the file ``node`` of the file system ``layer``.

    A fault is a note where the file is a small part of the file system, as a package or an example may be.
    """
    assert node.content is not None
    place = layer.place.inside(node.path)
    try:
        layers = open_inner_layers([layer], [(*layer.address, node.path)], options)[1:]
        findings = list(_check_decoded(layers, place, options, with_data=True, depth=depth))
    except CosremasterError as error:
        findings = [_describe_error(error, place)]
    is_main = 2 * node.content.table().length > layer.size
    for finding in findings:
        is_fault = finding.level is Level.FAILS and not is_main
        yield note(finding.check, finding.message, finding.place) if is_fault else finding
