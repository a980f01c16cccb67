"""Move the places in files that the headers of a CoreOS image name."""

from __future__ import annotations

from collections.abc import Iterable

from cosremaster.boot.coreos import EmbedArea
from cosremaster.errors import UnsupportedError
from cosremaster.iso.layout.place import Layout
from cosremaster.iso.layout.replace import FileReplacement
from cosremaster.iso.model import IsoImage
from cosremaster.units import BLOCK, Lba, lba_offset


def map_embed_area(image: IsoImage, layout: Layout, replacements: Iterable[FileReplacement], area: EmbedArea) -> int:
    """Return the first byte of ``area`` in the new image: it stays at its place in its file.

    :raises UnsupportedError: when the file gets new bytes, and ends before the area does.
    """
    block, rest = divmod(area.start, BLOCK)
    for new in replacements:
        for _, file in new.files:
            if not any(span.start <= block < span.end for span in file.spans):
                continue
            place = area.start - lba_offset(file.start)
            if place + area.length > new.table.length:
                raise UnsupportedError(
                    f"is too short now: the area for the {area.name}, which the CoreOS header names, is in it",
                    image.place.inside(new.path),
                )
            return lba_offset(new.start) + place
    return lba_offset(layout.map_block(Lba(block))) + rest
