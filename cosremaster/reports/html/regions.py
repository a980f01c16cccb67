"""An image as a sequence of regions, each block in exactly one. Pure: an image in, regions out."""

from __future__ import annotations

import heapq
from collections.abc import Collection, Iterator, Sequence
from itertools import pairwise

from cosremaster.boot.eltorito import PLATFORMS
from cosremaster.errors import printable
from cosremaster.iso.model import IsoImage, Partition, SourceImage
from cosremaster.iso.spans import SYSTEM_AREA, Span
from cosremaster.records import Struct, replace
from cosremaster.units import SECTORS_PER_BLOCK, Lba, blocks_for

MOST = 40
"""Regions that a bar shows; smaller neighbours are drawn as one beyond that."""

KINDS = {
    "system": "system area", "volume": "descriptors and directories", "boot": "boot images",
    "layer": "files with layers",
    "file": "other files", "partition": "appended partitions", "gpt": "backup GPT", "gap": "nothing that is named",
}  # fmt: skip
"""What a region can be, with words for people; where several claim a block, see :func:`regions`."""
_RANKS = ("gpt", "boot", "layer", "file", "system", "volume", "partition", "gap")
_PLAIN = ("volume", "file", "gap")


class Region(Struct, frozen=True):
    """A run of blocks of 2,048 bytes.

    ``end`` is the block after the last; ``count`` is how many regions were joined in it.
    """

    start: int
    end: int
    kind: str
    label: str
    count: int = 1

    @property
    def blocks(self) -> int:
        """Length in blocks."""
        return self.end - self.start


def regions(image: SourceImage, layered: Collection[bytes] = ()) -> tuple[Region, ...]:
    """Divide ``image`` from block 0 to its last into regions. ``layered`` are the paths of files that hold layers.

    A block that several things claim belongs to the backup GPT, else to a boot image, else to a file, and to a
    partition only where nothing else claims it.
    """
    end = blocks_for(image.size)
    claims = sorted(
        (max(0, span.start), min(end, span.end), _RANKS.index(kind), span.label)
        for kind, span in _claims(image, layered)
        if span.start < end and span.blocks > 0
    )
    edges = sorted({0, end, *(at for claim in claims for at in claim[:2])})
    waiting: list[tuple[int, int, int, str]] = []
    merged: list[Region] = []
    upcoming = iter(claims)
    claim = next(upcoming, None)
    for first, last in pairwise(edges):
        while claim is not None and claim[0] <= first:
            heapq.heappush(waiting, (claim[2], claim[0], claim[1], claim[3]))
            claim = next(upcoming, None)
        while waiting and waiting[0][2] <= first:
            heapq.heappop(waiting)
        kind, label = (_RANKS[waiting[0][0]], waiting[0][3]) if waiting else ("gap", "padding, or unreferenced")
        if merged and merged[-1].kind == kind and merged[-1].label == label:
            merged[-1] = replace(merged[-1], end=last)
        else:
            merged.append(Region(first, last, kind, label))
    return tuple(merged)


def _claims(image: SourceImage, layered: Collection[bytes]) -> Iterator[tuple[str, Span]]:
    """Yield the kind and span of everything that stands in the image."""
    volume = image.volume
    if volume is not None:
        yield from _volume_claims(volume, layered)
        return
    for file in image.files:
        yield _kind_of(file.path, layered), Span(file.start, blocks_for(file.size), printable(file.path))


def _kind_of(path: bytes, layered: Collection[bytes]) -> str:
    """Return the kind of region of the file ``path``."""
    return "layer" if path in layered else "file"


def _volume_claims(image: IsoImage, layered: Collection[bytes]) -> Iterator[tuple[str, Span]]:
    """Yield the kind and span of everything that stands in an ISO 9660 image."""
    for file in image.files:
        yield from ((_kind_of(file.path, layered), span) for span in file.spans)
    tables = [name for name, table in (("MBR", image.mbr), ("GPT", image.gpt), ("Apple map", image.apm)) if table]
    names = [*tables, *(partition.name for partition in image.firmware)]
    yield "system", replace(SYSTEM_AREA, label=f"system area{': ' if names else ''}{', '.join(names)}")
    for number, boot in enumerate(image.boot_images, 1):
        platform = PLATFORMS.get(boot.entry.platform, "")
        what = f"{platform} boot image {number}{'' if boot.path is None else f': {printable(boot.path)}'}".lstrip()
        yield "boot", Span(boot.entry.lba, blocks_for(boot.length), what)
    behind = {partition.span for partition in appended(image)}
    inside = {partition.span.start for partition in image.partitions}
    for span in image.fixed_spans:
        if span != SYSTEM_AREA and span not in behind and span.start not in inside:
            yield "volume", span
    for tree in image.trees[1:]:
        yield from (("file", span) for file in tree.files for span in file.spans)
    for partition in appended(image):
        yield "partition", replace(partition.span, label=f"{partition.name} ({partition.label})")
    for copy in image.backup_gpts:
        first = copy.header.entries_lba // SECTORS_PER_BLOCK
        yield "gpt", Span(Lba(first), copy.sector // SECTORS_PER_BLOCK + 1 - first, "backup GPT")


def appended(image: IsoImage) -> Iterator[Partition]:
    """Yield the partitions that stand behind the volume's data."""
    for partition in image.partitions:
        if partition.start >= image.tail * SECTORS_PER_BLOCK and not partition.covers_volume(image.trees):
            yield partition


def drawn(whole: Sequence[Region], most: int = MOST) -> tuple[Region, ...]:
    """Join small neighbours of ``whole`` until at most ``most`` regions remain."""
    end = whole[-1].end if whole else 0
    merged, limit = list(whole), max(1, end // 1000)
    while len(merged) > most and limit < 2 * end:
        merged = _joined(merged, limit, _PLAIN)
        limit *= 2
    if len(merged) > most:
        merged = _joined(merged, end + 1, tuple(KINDS))
    return tuple(merged)


def _joined(row: Sequence[Region], limit: int, kinds: Collection[str]) -> list[Region]:
    """Join neighbours of ``kinds`` that are at most ``limit`` blocks long."""
    merged: list[Region] = []
    for region in row:
        small = region.blocks <= limit and region.kind in kinds
        if small and merged and merged[-1].kind in kinds and merged[-1].blocks <= limit:
            last = merged[-1]
            count = last.count + region.count
            kind = last.kind if last.blocks >= region.blocks else region.kind
            merged[-1] = Region(last.start, region.end, kind, f"{count:,} small parts", count)
        else:
            merged.append(region)
    return merged


class Scale(Struct, frozen=True):
    """Where blocks stand on a bar, in percent of its width. Each region gets a minimum width beside its share."""

    row: tuple[Region, ...]
    edges: tuple[float, ...]

    @classmethod
    def of(cls, row: Sequence[Region], total: float) -> Scale:
        """Return the scale of a bar of regions ``row``, ``total`` percent wide."""
        least = min(0.7, total / 2 / max(1, len(row)))
        rest, blocks = total - least * len(row), sum(region.blocks for region in row)
        edges = [0.0]
        for region in row:
            edges.append(edges[-1] + least + rest * region.blocks / max(1, blocks))
        return cls(tuple(row), tuple(edges))

    def at(self, block: float) -> float:
        """Return the place of a block, in percent."""
        for region, (from_percent, to_percent) in zip(self.row, pairwise(self.edges), strict=True):
            if block < region.end:
                return from_percent + (to_percent - from_percent) * max(0.0, block - region.start) / region.blocks
        return self.edges[-1]
