"""Decode every layer, with the checks of its codec and of its archive's entries."""

from __future__ import annotations

from collections.abc import Iterator

from cosremaster.errors import CorruptError, CosremasterError
from cosremaster.io.source import ByteSource
from cosremaster.iso.read import read_image
from cosremaster.layers.address import format_address
from cosremaster.layers.find import find_layers, identify_files
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
            image_layers = find_layers(image, (file.path,), progress, options)
            for layer in image_layers.layers:
                layer.check_data()
        except CorruptError as error:
            yield fails("layer.corrupt", error.message, error.place or place)
        except CosremasterError as error:
            yield note("layer.unsupported", error.message, error.place or place)
        else:
            for layer in image_layers.layers:
                for damaged in layer.unreadable:
                    # What makes up most of an archive is what that is for.
                    kind = fails if 2 * damaged.size > layer.size else note
                    yield kind("layer.corrupt", damaged.error.message, damaged.error.place or layer.place)
                for oddity in layer.oddities():
                    yield note("layer.odd", f"{format_address(layer.address)} {oddity}", layer.place)
                message = f"{format_address(layer.address)}: {layer.entry_count:,} entries, {layer.size:,} bytes decode"
                yield holds("layer.decodes", message, layer.place)
