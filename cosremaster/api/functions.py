"""Functions for one-off use: each opens the image that it is given, and closes it."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from cosremaster.api.image import Image, StrPath
from cosremaster.io.urls import ImagePath, split_image_path
from cosremaster.layers.scan import MAX_EXPAND
from cosremaster.progress import Progress

if TYPE_CHECKING:
    from typing import TypedDict

    from typing_extensions import Unpack

    from cosremaster.api.info import ImageInfo
    from cosremaster.api.views import Export, ExportKeywords, Extraction
    from cosremaster.browse.compare import Difference
    from cosremaster.browse.entry import FileEntry
    from cosremaster.verification.finding import VerificationReport


def inspect(
    source: ImagePath, *, deep: bool = False, layer: str | None = None, max_expand: int = MAX_EXPAND,
    progress: Progress | None = None,
) -> ImageInfo:  # fmt: skip
    """Return the facts about the image ``source``; see :meth:`Image.info`.

    >>> import cosremaster
    >>> print(cosremaster.inspect("vendor.iso").volume_id)
    DEBIRF_DEMO
    """
    with Image(source, max_expand=max_expand) as image:
        return image.info(deep=deep, layer=layer, progress=progress)


if TYPE_CHECKING:

    class VerifyKeywords(TypedDict, total=False):
        """The keywords of :meth:`Image.verify`."""

        against: ImagePath | None
        changed: Collection[str | bytes]
        changed_volume: bool
        deep: bool
        digest: bool


def verify(
    source: ImagePath, *, max_expand: int = MAX_EXPAND, progress: Progress | None = None,
    **options: Unpack[VerifyKeywords],
) -> VerificationReport:  # fmt: skip
    """Check every pointer of the image ``source``; see :meth:`Image.verify`.

    >>> import cosremaster
    >>> report = cosremaster.verify("vendor.iso", deep=True)
    >>> print(report.ok, [finding.message for finding in report.findings if finding.is_counted])
    True []
    """
    with Image(source, max_expand=max_expand) as image:
        return image.verify(progress=progress, **options)


def diff(
    old: StrPath, new: StrPath, *, text: bool = False, max_expand: int = MAX_EXPAND, progress: Progress | None = None
) -> Iterator[Difference]:  # fmt: skip
    """Yield how ``new`` differs from ``old``: two images, or addresses in them; see :meth:`Image.diff`.

    >>> import cosremaster
    >>> result = cosremaster.remaster("vendor.iso", "site.iso", add=["site/"])
    >>> for difference in cosremaster.diff("vendor.iso", "site.iso"):
    ...     print(difference.what, difference.where, difference.details)
    added debirf-live-demo.cgz::rootfs.cxz::etc/motd ('file, 8 bytes',)
    """
    with (
        image_at(old, max_expand=max_expand, progress=progress) as (image, address),
        image_at(new, max_expand=max_expand, progress=progress) as (other, new_address),
    ):
        yield from image.diff(other, address, new_address, text=text)


def extract(
    address: StrPath, target: StrPath, *, as_tar: bool = False, force: bool = False, max_expand: int = MAX_EXPAND,
    progress: Progress | None = None,
) -> Extraction:  # fmt: skip
    """Write what is at ``address``, as in ``"in.iso::live.cgz::etc"``, to ``target``; see :meth:`Image.extract`."""
    with image_at(address, max_expand=max_expand, progress=progress) as (image, inner):
        return image.extract(inner, target, as_tar=as_tar, force=force, progress=progress)


def export(
    address: StrPath, target: StrPath, *, max_expand: int = MAX_EXPAND, progress: Progress | None = None,
    **options: Unpack[ExportKeywords],
) -> Export:  # fmt: skip
    """Write what a network boot, or MAAS, takes of what is at ``address``.

    Options and the rest are those of :meth:`Image.export`: ``archive``, ``entry``, ``threads``, ``force``.
    """
    with image_at(address, max_expand=max_expand, progress=progress) as (image, inner):
        return image.export(target, address=inner, progress=progress, **options)


def ls(address: StrPath, *, recursive: bool = False, max_expand: int = MAX_EXPAND) -> tuple[FileEntry, ...]:
    """Return the entries of the directory or archive at ``address``; see :meth:`Image.ls`.

    >>> import cosremaster
    >>> print([entry.path for entry in cosremaster.ls("vendor.iso")])
    [b'EFI', b'boot', b'debirf-live-demo.cgz', b'vmlinuz']
    """
    with image_at(address, max_expand=max_expand) as (image, inner):
        return image.ls(inner, recursive=recursive)


def read(address: StrPath, *, max_expand: int = MAX_EXPAND) -> bytes:
    """Return the bytes of the file at ``address``, as in ``"in.iso::live.cgz::etc/hostname"``.

    See :meth:`Image.read`.
    """
    with image_at(address, max_expand=max_expand) as (image, inner):
        return image.read(inner)


@contextmanager
def image_at(
    address: StrPath, *, max_expand: int = MAX_EXPAND, progress: Progress | None = None
) -> Iterator[tuple[Image, str]]:
    """Open the image that ``address`` begins with, and give it with the rest of the address; options as in
    :class:`Image`.

    :raises UsageError: ``address`` cannot be parsed.
    """
    from cosremaster.browse.container import split_address  # noqa: PLC0415 - a remaster needs none of it

    text = os.fspath(address)
    path, _ = split_address(text)
    with Image(path, max_expand=max_expand, progress=progress) as image:
        yield image, split_image_path(text)[2]
