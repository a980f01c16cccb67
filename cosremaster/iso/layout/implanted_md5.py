"""Compute anew the MD5 that isomd5sum implanted in an image, in front of the bytes that it covers."""

from __future__ import annotations

from cosremaster.boot.implanted import APPLICATION_USE, compute_md5_sums
from cosremaster.io.pieces import PieceTable
from cosremaster.iso.layout.place import Layout
from cosremaster.iso.model import IsoImage
from cosremaster.units import BLOCK, lba_offset


def update_implanted_md5(image: IsoImage, table: PieceTable, layout: Layout) -> PieceTable:
    """Return the new image ``table`` with a right implanted MD5, for which all of it is read.

    Returns ``table`` itself where the old ``image`` has no implanted MD5.
    """
    implanted = image.implanted
    if implanted is None:
        return table
    area = lba_offset(image.trees[0].descriptor_lba) + APPLICATION_USE
    blocks = layout.map_volume_end(image.trees[0].end)
    total = (blocks - implanted.skip) * BLOCK
    new = implanted.with_sums(compute_md5_sums(table.chunks(), area, total, implanted.count))
    return table.patched([(area, new.pack())])
