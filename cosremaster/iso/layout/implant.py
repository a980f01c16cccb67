"""An implanted MD5 that stands before the bytes it sums: made anew in the plan."""

from __future__ import annotations

from cosremaster.boot.implanted import APPLICATION_USE, compute_md5_sums
from cosremaster.io.pieces import PieceTable
from cosremaster.iso.layout.place import Layout
from cosremaster.iso.model import IsoImage
from cosremaster.units import BLOCK, SECTORS_PER_BLOCK, Sector, lba_offset


def update_implanted_md5(image: IsoImage, table: PieceTable, layout: Layout) -> PieceTable:
    """``table``, the new image, with the MD5 that isomd5sum implanted in the old one made true; reads all of it.

    An image without one is given back as it is.
    """
    old = image.implanted
    if old is None:
        return table
    area = lba_offset(image.trees[0].descriptor_lba) + APPLICATION_USE
    blocks = layout.map_end(Sector(image.trees[0].end * SECTORS_PER_BLOCK)) // SECTORS_PER_BLOCK
    total = (blocks - old.skip) * BLOCK
    new = old.with_sums(compute_md5_sums(table.chunks(), area, total, old.count))
    return table.patched([(area, new.pack())])
