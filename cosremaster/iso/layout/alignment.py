"""Find the alignment that an image's partitions keep, so that a new image keeps it too."""

from __future__ import annotations

from math import lcm

from cosremaster.boot.mbr import GPT_PROTECTIVE
from cosremaster.iso.model import IsoImage
from cosremaster.units import SECTOR, SECTORS_PER_BLOCK

_SECTORS_4_KIB = 8
"""Sectors of 512 bytes in a physical sector of 4 KiB."""


def find_alignment(image: IsoImage) -> int:
    """Return the number of blocks by multiples of which the image may grow, so that partitions stay aligned."""
    return lcm(_find_cylinder(image), _find_sector(image)) // SECTORS_PER_BLOCK


def _find_cylinder(image: IsoImage) -> int:
    """Return the number of 512-byte sectors that are both whole cylinders and whole blocks; else those of a block.

    Cylinders count where the image, and all partitions of the MBR that cover the volume or are after it, end with a
    cylinder (isohybrid(1)).
    """
    geometry = image.mbr.find_geometry() if image.mbr else None
    if image.mbr is None or geometry is None:
        return SECTORS_PER_BLOCK
    cylinder = geometry[0] * geometry[1]
    first, tail = image.trees[0].directories[0].lba * SECTORS_PER_BLOCK, image.tail * SECTORS_PER_BLOCK
    used = [partition for _, partition in image.mbr.used_partitions if partition.type != GPT_PROTECTIVE]
    ends = [partition.end for partition in used if partition.start <= first or partition.start >= tail]
    if image.size not in [end * SECTOR for end in ends] or any(end % cylinder for end in ends):
        return SECTORS_PER_BLOCK
    return lcm(cylinder, SECTORS_PER_BLOCK)


def _find_sector(image: IsoImage) -> int:
    """Return the number of 512-byte sectors in 4 KiB if all partitions of the GPT begin and end at such a multiple.

    So xorriso makes them. Else the result is the number of sectors in a block.
    """
    edges = [edge for p in image.partitions if p.table == "GPT" for edge in (p.start, p.end)]
    is_aligned = edges and not any(edge % _SECTORS_4_KIB for edge in edges)
    return _SECTORS_4_KIB if is_aligned else SECTORS_PER_BLOCK
