"""Step 1 of a remaster: the structures of an image are read."""

from __future__ import annotations

from typing import TypeAlias

from cosremaster.io.source import ByteSource
from cosremaster.iso.model import IsoImage
from cosremaster.iso.read import read_image
from cosremaster.layers.identify import is_archive_file
from cosremaster.remastering.initramfs_file import InitramfsFile, check_openable, read_initramfs_file

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
