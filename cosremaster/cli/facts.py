"""Print the facts about an image, and the bytes of a file in it. Nothing here loads click."""

from __future__ import annotations

import sys

from cosremaster.api.functions import image_at, inspect
from cosremaster.cli.looking import LookingProgress
from cosremaster.cli.patient import PatientProgress
from cosremaster.cli.standard_streams import write_bytes, write_json, write_text
from cosremaster.io.urls import ImagePath
from cosremaster.layers.scan import MAX_EXPAND


def print_facts(
    source: ImagePath, *, as_json: bool = False, deep: bool = False, layer: str | None = None,
    max_expand: int = MAX_EXPAND,
) -> None:  # fmt: skip
    """Print the facts about the image ``source``. Raises as :func:`cosremaster.inspect`."""
    info = inspect(source, deep=deep, layer=layer, max_expand=max_expand, progress=LookingProgress())
    if as_json:
        write_json(info.values)
    elif sys.stdout.isatty():
        from cosremaster.cli.tables import print_sections  # noqa: PLC0415 - only for somebody who looks

        print_sections(info.sections)
    else:
        write_text("".join(f"{line}\n" for line in info.lines))


def write_file(address: str, max_expand: int = MAX_EXPAND) -> None:
    """Write the bytes of the file at ``address`` to standard output. Raises as :meth:`cosremaster.Image.read`."""
    with image_at(address, max_expand=max_expand, progress=PatientProgress()) as (image, inner):
        write_bytes(image.chunks(inner))
