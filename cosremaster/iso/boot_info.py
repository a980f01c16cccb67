"""Compare the boot information table in a boot image with the image around it."""

from __future__ import annotations

from cosremaster.boot.pointers import BootInfoTable, compute_boot_image_checksum
from cosremaster.io.pieces import PieceTable
from cosremaster.iso.model import BootImage, IsoImage
from cosremaster.units import lba_offset


def is_boot_info_true(image: IsoImage, boot: BootImage, info: BootInfoTable) -> bool:
    """Return True if the length and the checksum in a boot information table are those of the boot image around it."""
    start = lba_offset(boot.entry.lba)
    if start + info.length > image.size:
        return False
    data = PieceTable([image.source.cut(start, start + info.length)])
    return compute_boot_image_checksum(data.chunks()) == info.checksum
