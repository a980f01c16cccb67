"""Compute anew the digests that tagmedia wrote into an image, in front of the bytes that they cover."""

from __future__ import annotations

from collections.abc import Iterator

from cosremaster.boot.implanted import APPLICATION_USE
from cosremaster.boot.mbr import Mbr
from cosremaster.boot.media_tags import MediaTags, TaggedPartition, compute_media_digests, is_signed
from cosremaster.errors import UnsupportedError
from cosremaster.io.pieces import PieceTable
from cosremaster.iso.layout.place import Layout
from cosremaster.iso.model import IsoImage
from cosremaster.units import SECTOR, Sector, lba_offset


def update_media_tags(image: IsoImage, table: PieceTable, layout: Layout) -> PieceTable:
    """Return the new image ``table`` with right digests in its tags, for which all of it is read.

    Returns ``table`` itself where the old ``image`` has no tags.

    :raises UnsupportedError: when the tags have no room for their new values.
    """
    tags = image.media_tags
    if tags is None:
        return table
    area = lba_offset(image.trees[0].descriptor_lba) + APPLICATION_USE
    blocks = layout.map_volume_end(image.trees[0].end)
    partition = _move_partition(image, tags, table)
    signature = layout.map_start(Sector(tags.signature)) if tags.signature else 0
    digests = compute_media_digests(table.chunks(), tags, area, blocks, partition, signature)
    new = tags.with_values(digests, partition, signature)
    if new is None:
        raise UnsupportedError("its tags of tagmedia have no room for new digests", image.place.at(area))
    return table.patched([(area, new.pack())])


def _move_partition(image: IsoImage, tags: MediaTags, table: PieceTable) -> TaggedPartition | None:
    """Return the place in the new image of the partition that has a digest: that of the same entry of the MBR.

    A range that is no partition keeps its place, as far as the image reaches.
    """
    tagged = tags.partition
    if tagged is None:
        return None
    new = Mbr.parse(table.read(0, SECTOR))
    for number, partition in image.mbr.used_partitions if image.mbr and new else ():
        if (partition.start, partition.count) == (tagged.start, tagged.blocks):
            moved = new.partitions[number - 1]  # type: ignore[union-attr]
            return TaggedPartition(moved.start, moved.count, "")
    return TaggedPartition(tagged.start, max(1, min(tagged.blocks, table.length // SECTOR - tagged.start)), "")


def warn_of_signature(image: IsoImage) -> Iterator[str]:
    """Yield a warning if the tags of ``image``, which change, are signed."""
    tags = image.media_tags
    if tags is not None and is_signed(image.source.read(tags.signature * SECTOR, SECTOR) if tags.signature else b""):
        yield (
            f"the tags of tagmedia are signed at sector {tags.signature:,}, and change: the signature will not hold"
            " (checkmedia says that it is bad)"
        )
