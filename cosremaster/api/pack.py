"""Make a new archive or file system from files of this machine."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

from cosremaster.api.image import Image, StrPath
from cosremaster.codecs.defaults import split_codec
from cosremaster.errors import UsageError
from cosremaster.io.nameless import keeping_bytes
from cosremaster.overlay.request import AddPath, OverlayItem, is_archive_name
from cosremaster.progress import Progress
from cosremaster.remastering.request import Request, parse_item, read_epoch

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from cosremaster.api.results import Result


class PackKeywords(TypedDict, total=False):
    """The options of :func:`pack`."""

    compression: str | None
    block_size: int | str | None
    force_type: bool
    threads: int | None
    xz_preset: int | None
    always_compress: bool
    gzip: str
    source_date_epoch: int | None
    force: bool
    digest: str | None
    report: StrPath | None
    sync: bool
    read_back: bool


_OUTPUT = frozenset(("force", "digest", "report", "sync", "read_back"))
"""Options about how the file is written."""


def pack(
    sources: StrPath | OverlayItem | Iterable[StrPath | OverlayItem], target: StrPath, *,
    progress: Progress | None = None, **options: Unpack[PackKeywords],
) -> Result:  # fmt: skip
    """Make the archive or file system ``target`` from ``sources``: folders, archives or files, in order.

    A source is what :class:`Request` takes to ``add``: a path, text like ``"site/:/opt"``, an :class:`AddPath` with
    owners and modes, or an item made from nothing; docs/overlay.md has the rules, and root owns what is not an
    archive's. The end of the name ``target`` says what to make: ``.cpio`` or ``.tar``, alone or with ``.gz``, ``.xz``,
    ``.zst``, ``.bz2``, ``.lz4`` or ``.lzo`` behind (``.tgz`` and the like too), or ``.squashfs`` (``.sfs``, ``.sqfs``).

    ``compression`` (``zstd`` by default, ``xz``, ``gzip``, ``lz4`` or ``lzo``) and ``block_size`` (bytes, or text such
    as ``"1M"``; 128 KiB by default) are for a squashfs. The other options are those of :class:`RemasterOptions`;
    ``xz_preset`` and ``always_compress`` are for an archive under xz, ``gzip`` for one under gzip.

    >>> import cosremaster
    >>> result = cosremaster.pack("site", "site.squashfs")
    >>> print(result.added)
    (b'etc', b'etc/motd')

    :raises CosremasterError: one of its kinds (docs/exit-codes.md); there is no target then.
    """
    from cosremaster.remastering.new_file import make_empty_file  # noqa: PLC0415 - other functions need none of it

    listed = (sources,) if isinstance(sources, (str, os.PathLike, OverlayItem)) else sources
    items = tuple(parse_item(item, "pack") for item in listed)
    if not items:
        raise UsageError("pack wants a folder, an archive or a file with its place, as in site/:/opt")
    for item in items:
        _check_place(item)
    _check_codec_options(os.fspath(target), options)
    epoch = options.get("source_date_epoch")
    empty = make_empty_file(
        Path(target).name or os.fspath(target), items, read_epoch() if epoch is None else epoch,
        compression=options.pop("compression", None), block_size=options.pop("block_size", None),
    )  # fmt: skip
    writing = {name: value for name, value in options.items() if name in _OUTPUT}
    request = Request(add=items, **{name: value for name, value in options.items() if name not in _OUTPUT})  # type: ignore[arg-type]
    with keeping_bytes(empty.data, empty.name) as path, Image(path, remember=False) as image:
        return image.remaster(target, request, progress=progress, **writing)  # type: ignore[arg-type]


def _check_codec_options(target: str, options: PackKeywords) -> None:
    """Check that ``options`` say nothing of another codec than the end of ``target``. :raises UsageError: one does."""
    codec = split_codec(target)[1]
    idle = {
        "--xz-preset": codec != "xz" and options.get("xz_preset") is not None,
        "--always-compress": codec != "xz" and options.get("always_compress", False),
        "--gzip": codec != "gzip" and options.get("gzip", "zlib") != "zlib",
    }
    option = next((option for option, is_idle in idle.items() if is_idle), None)
    if option is not None:
        needed = "gzip" if option == "--gzip" else "xz"
        raise UsageError(f"{option} is for an archive under {needed}, and the end of {target} says another file")


def _check_place(item: OverlayItem) -> None:
    """Check that ``item`` says where it goes, if it is a single file. :raises UsageError: it does not."""
    if not isinstance(item, AddPath) or item.dest is not None or not os.path.isfile(item.source):
        return
    is_archive = is_archive_name(os.fsencode(item.source)) if item.unpack is None else item.unpack
    if not is_archive:
        name = os.fsdecode(item.source)
        raise UsageError(f"pack {name}: say where the file goes, as in {name}:/etc/")
