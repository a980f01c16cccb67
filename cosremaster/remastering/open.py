"""Step 1 of a remaster: the structures of an image are read."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias, cast

from cosremaster.errors import UnsupportedError
from cosremaster.io.source import ByteSource
from cosremaster.iso.model import IsoImage
from cosremaster.iso.read import has_volume, read_image
from cosremaster.layers.identify import is_archive_file
from cosremaster.remastering.initramfs_file import InitramfsFile, check_openable, read_initramfs_file

if TYPE_CHECKING:
    from cosremaster.disk.image import DiskImage

RemasterImage: TypeAlias = IsoImage | InitramfsFile
"""The kinds of images that can be remastered; ``image.volume`` tells them apart."""


def open_image(source: ByteSource) -> RemasterImage:
    """Read the structures of the image in ``source``. Step 1, instead of a loop mount. Raises as ``read_image``.

    :raises UnsupportedError: it is something else that is recognized.
    """
    if is_archive_file(source):
        return read_initramfs_file(source)
    check_openable(source)
    return read_image(source)


def open_any_image(source: ByteSource) -> RemasterImage | DiskImage:
    """Read the structures of the image in ``source``, which may be one that is only read. Raises as ``open_image``."""
    if not has_volume(source) and not is_archive_file(source):
        from cosremaster.disk.image import read_disk_image  # noqa: PLC0415 - few images are disks

        disk = read_disk_image(source)
        if disk is not None:
            return disk
    return open_image(source)


def check_changeable(image: RemasterImage | DiskImage) -> RemasterImage:
    """Return ``image`` if it can be remastered. :raises UnsupportedError: it is a disk image."""
    if image.volume is None and not image.is_single_file:
        from cosremaster.disk.image import NOT_CHANGED  # noqa: PLC0415 - few images are disks

        raise UnsupportedError(NOT_CHANGED, image.place)
    return cast("RemasterImage", image)
