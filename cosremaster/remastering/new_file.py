"""What ``pack`` starts from: an archive or file system of the kind that the output's name says, with a root alone."""

from __future__ import annotations

from collections.abc import Iterable

from cosremaster.codecs.defaults import split_codec
from cosremaster.errors import UsageError
from cosremaster.layers.formats import NewStyle, load_format
from cosremaster.overlay.request import OverlayItem, default_mtime
from cosremaster.overlay.root_directory import make_root
from cosremaster.records import Struct
from cosremaster.remastering.request import parse_size

_FORMATS = {"cpio": "cpio", "tar": "tar", "squashfs": "squashfs", "sfs": "squashfs", "sqfs": "squashfs"}


class EmptyFile(Struct, frozen=True):
    """An archive or file system without files, whose plain name is ``name``."""

    name: str
    data: bytes


def make_empty_file(
    target: str, items: Iterable[OverlayItem], max_mtime: int | None, *, compression: str | None,
    block_size: int | str | None,
) -> EmptyFile:  # fmt: skip
    """Return the file without files from which ``items`` make the one called ``target``.

    :param max_mtime: seconds since 1970; no time is later. :param compression: of a squashfs, with its ``block_size``.
    :raises UsageError: ``target`` does not say what it is, or a choice makes no sense for it.
    """
    name, codec = split_codec(target)
    kind = _FORMATS.get(name.rpartition(".")[2].lower())
    if kind is None or (kind == "squashfs" and codec != "none"):
        raise UsageError(
            f"{target}: the name has to say what to make: .cpio or .tar, alone or with .gz, .xz, .zst, .bz2, .lz4"
            " or .lzo behind (or as in .tgz), or .squashfs"
        )
    if kind != "squashfs" and (compression is not None or block_size is not None):
        option = "--compression" if compression is not None else "--block-size"
        raise UsageError(f"{option} is for a squashfs; the end of the name says the compression of a {kind} archive")
    style = NewStyle(default_mtime(max_mtime), compression, None if block_size is None else parse_size(block_size))
    return EmptyFile(name, load_format(kind).make_empty(make_root(items, max_mtime), style))
