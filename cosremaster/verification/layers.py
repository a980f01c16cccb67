"""Decode every layer, with the checks of its codec and of its archive's entries."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import PurePath

from cosremaster.errors import CorruptError, CosremasterError, Place
from cosremaster.io.pieces import PieceTable, Range
from cosremaster.io.source import ByteSource
from cosremaster.iso.read import read_image
from cosremaster.layers.address import format_address
from cosremaster.layers.find import find_layers, identify_files
from cosremaster.layers.model import Layer, build_layers, index_file
from cosremaster.layers.scan import ScanOptions
from cosremaster.progress import Progress
from cosremaster.verification.finding import Finding, fails, holds, note


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
            yield from _check_decoded(layers, place, with_data=True)


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
        yield from _check_decoded(layers, source.place, with_data=with_data)


def _describe_error(error: CosremasterError, place: Place) -> Finding:
    """Return the finding that a layer at ``place`` cannot be read."""
    if isinstance(error, CorruptError):
        return fails("layer.corrupt", error.message, error.place or place)
    return note("layer.unsupported", error.message, error.place or place)


def _check_decoded(layers: Sequence[Layer], place: Place, *, with_data: bool) -> Iterator[Finding]:
    """Yield findings about ``layers``, which could be indexed; they are all those of the file at ``place``."""
    try:
        breaches = [breach for layer in layers for breach in layer.find_breaches(with_data=with_data)]
        for layer in layers if with_data else ():
            layer.check_data()
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
