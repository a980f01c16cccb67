"""List directories. Nothing here loads click: listing an initramfs should take no longer than reading it."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TYPE_CHECKING

from cosremaster.browse.names import list_names, walk_names
from cosremaster.cli.colors import paint_long_line, paint_name, uses_color
from cosremaster.cli.patient import PatientProgress
from cosremaster.cli.standard_streams import write_json, write_text
from cosremaster.errors import printable, printable_lines
from cosremaster.io.source import open_source
from cosremaster.io.urls import is_url
from cosremaster.layers.scan import MAX_EXPAND

if TYPE_CHECKING:
    from cosremaster.api.image import Image
    from cosremaster.browse.entry import FileEntry


def list_directory(address: str, **flags: bool) -> None:
    """Print the entries at ``address`` with the usual limits; ``flags`` are those of ``list_address`` that are set.

    Names in an archive alone need least.
    """
    names_alone = "long" not in flags and "as_json" not in flags
    if not (names_alone and _list_names(address, recursive="recursive" in flags)):
        list_address(address, max_expand=MAX_EXPAND, **flags)


def _list_names(address: str, *, recursive: bool) -> bool:
    """Print the names in the archive at ``address`` if that is a file of its own; return whether it is."""
    if "::" in address or "%" in address or not address or is_url(address):
        return False
    with open_source(address) as source:
        names = list_names(source, MAX_EXPAND, PatientProgress())
    if names is None:
        return False
    listed = walk_names(names, b"") if recursive else names[b""]
    if uses_color(sys.stdout):
        kinds = ((printable(name), "directory" if name in names else "file") for name in listed)
        write_text("".join(f"{paint_name(name, kind)}\n" for name, kind in kinds))
    else:
        _write_names(listed)
    return True


def print_json(entries: Iterable[FileEntry]) -> None:
    """Print ``entries`` as JSON (docs/json.md)."""
    from cosremaster.browse.report import SCHEMA, describe_entry  # noqa: PLC0415 - a plain listing needs none of it

    write_json({"schema": SCHEMA, "nodes": [describe_entry(entry) for entry in entries]})


def _write_names(names: Iterable[bytes]) -> None:
    """Write names to standard output, one on each line."""
    write_text(printable_lines(names))


def list_address(
    address: str, *, max_expand: int, long: bool = False, recursive: bool = False, as_json: bool = False,
    human: bool = False,
) -> None:  # fmt: skip
    """Print the entries of the directory, image or archive at ``address``."""
    from cosremaster.api.functions import image_at  # noqa: PLC0415 - the same

    with image_at(address, max_expand=max_expand, progress=PatientProgress()) as (image, inner):
        if as_json:
            print_json(image.ls(inner, recursive=recursive, follow=not long))
            return
        if long:
            lines = image.long_lines(inner, recursive=recursive, human=human)
            if uses_color(sys.stdout):
                lines = map(paint_long_line, lines)
            text = "".join("\n".join([*part, ""]) for part in _cut(lines))
        elif uses_color(sys.stdout):
            text = "".join(_painted_names(image, inner, recursive=recursive))
        else:
            names = image.names(inner, recursive=recursive)
            text = printable_lines(names or [entry.path for entry in image.ls(inner)])
    write_text(text)


def _painted_names(image: Image, inner: str, *, recursive: bool) -> Iterator[str]:
    """Yield the lines of a listing with names in the colours of their types."""
    names = image.names(inner, recursive=recursive)
    entries = image.ls(inner, recursive=recursive)
    for name, entry in zip(names or [entry.path for entry in entries], entries, strict=False):
        yield f"{paint_name(printable(name), entry.type)}\n"


def _cut(lines: Iterable[str]) -> Iterator[list[str]]:
    """Yield ``lines`` in lists of some thousand, so that not all are in memory at once."""
    iterator = iter(lines)
    while part := list(islice(iterator, 4096)):
        yield part
