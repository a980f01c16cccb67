"""What callers learn about files that were taken out of an image."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

from cosremaster.records.lazy_dataclass import dataclass

if TYPE_CHECKING:
    from cosremaster.browse.export import RootArchive


class ExportKeywords(TypedDict, total=False):
    """The options of an export, which ``Image.export`` explains."""

    archive: RootArchive | None
    entry: str
    threads: int | None
    force: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Extraction:
    """What was taken out of an image: the number of all entries, and of each kind, and the ``size`` in bytes.

    ``mtree``: the file with the owners and devices that could not be made without root, where there is one.
    ``without_xattrs``: the paths whose extended attributes could not all be set, such as capabilities without root.
    """

    entries: int
    files: int
    directories: int
    others: int
    size: int
    mtree: Path | None = None
    without_xattrs: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Export:
    """What was exported: the ``files`` that were written.

    Of an archive: the address of the ``layer``, ``size`` in bytes and ``sha256`` of the archive, and the ``command``
    that hands it over. For a network boot: the ``entry`` of the image's boot menu that it starts; empty where no menu
    names the kernel, so that its arguments are to be added to the script.
    """

    files: tuple[str, ...]
    size: int = 0
    sha256: str | None = None
    command: str | None = None
    layer: str | None = None
    entry: str | None = None
