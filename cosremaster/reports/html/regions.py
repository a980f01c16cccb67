"""An image as a row of regions, each block in exactly one. Pure: an image in, regions out."""

from __future__ import annotations

import heapq
from collections.abc import Collection, Iterator, Sequence
from itertools import pairwise

from msgspec import Struct
from msgspec.structs import replace

from cosremaster.boot.eltorito import PLATFORMS
from cosremaster.errors import printable
from cosremaster.iso.layout.extents import SYSTEM_AREA, covers_volume, list_file_spans
from cosremaster.iso.layout.spans import Span
from cosremaster.iso.model import IsoImage, Partition, SourceImage
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
    """A run of blocks; ``end`` is the block behind the last. ``count``: how many regions it stands for."""

    start: int
    end: int
    kind: str
    label: str
    count: int = 1

    @property
    def blocks(self) -> int:
        """How long it is."""
        return self.end - self.start


def regions(image: SourceImage, layered: Collection[bytes] = ()) -> tuple[Region, ...]:
    """The whole of ``image``, from block 0 to its last. ``layered``: paths of the files that hold layers.

    A block that several things claim belongs to the backup GPT, else to a boot image, else to a file, and to a
    partition only where nothing else does.
    """
    end = blocks_for(image.size)
    claims = sorted(
        (max(0, span.start), min(end, span.end), _RANKS.index(kind), span.label)
        for kind, span in _claims(image, layered)
        if span.start < end and span.blocks > 0
    )
    edges = sorted({0, end, *(at for claim in claims for at in claim[:2])})
    waiting: list[tuple[int, int, int, str]] = []
    found: list[Region] = []
    upcoming = iter(claims)
    claim = next(upcoming, None)
    for left, right in pairwise(edges):
        while claim is not None and claim[0] <= left:
            heapq.heappush(waiting, (claim[2], claim[0], claim[1], claim[3]))
            claim = next(upcoming, None)
        while waiting and waiting[0][2] <= left:
            heapq.heappop(waiting)
        kind, label = (_RANKS[waiting[0][0]], waiting[0][3]) if waiting else ("gap", "padding, or unreferenced")
        if found and found[-1].kind == kind and found[-1].label == label:
            found[-1] = replace(found[-1], end=right)
        else:
            found.append(Region(left, right, kind, label))
    return tuple(found)


def _claims(image: SourceImage, layered: Collection[bytes]) -> Iterator[tuple[str, Span]]:
    volume = image.volume
    if volume is not None:
        yield from _volume_claims(volume, layered)
        return
    for file in image.files:
        yield _kind_of(file.path, layered), Span(file.start, blocks_for(file.size), printable(file.path))


def _kind_of(path: bytes, layered: Collection[bytes]) -> str:
    return "layer" if path in layered else "file"


def _volume_claims(image: IsoImage, layered: Collection[bytes]) -> Iterator[tuple[str, Span]]:
    for file in image.files:
        yield from ((_kind_of(file.path, layered), span) for span in list_file_spans(file))
    known = [name for name, here in (("MBR", image.mbr), ("GPT", image.gpt), ("Apple map", image.apm)) if here]
    names = [*known, *(one.name for one in image.firmware)]
    yield "system", replace(SYSTEM_AREA, label=f"system area{': ' if names else ''}{', '.join(names)}")
    for number, boot in enumerate(image.boot_images, 1):
        platform = PLATFORMS.get(boot.entry.platform, "")
        what = f"{platform} boot image {number}{'' if boot.path is None else f': {printable(boot.path)}'}".lstrip()
        yield "boot", Span(boot.entry.lba, blocks_for(boot.length), what)
    behind = {one.span for one in appended(image)}
    inside = {one.span.start for one in image.partitions}
    for span in image.fixed_spans:
        if span != SYSTEM_AREA and span not in behind and span.start not in inside:
            yield "volume", span
    for tree in image.trees[1:]:
        yield from (("file", span) for file in tree.files for span in list_file_spans(file))
    for one in appended(image):
        yield "partition", replace(one.span, label=f"{one.name} ({one.label})")
    for copy in image.gpt[1:]:
        first = copy.header.entries_lba // SECTORS_PER_BLOCK
        yield "gpt", Span(Lba(first), copy.header.my_lba // SECTORS_PER_BLOCK + 1 - first, "backup GPT")


def appended(image: IsoImage) -> Iterator[Partition]:
    """The partitions that stand behind the volume's data."""
    for one in image.partitions:
        if one.start >= image.tail * SECTORS_PER_BLOCK and not covers_volume(one, image.trees):
            yield one


def drawn(whole: Sequence[Region], most: int = MOST) -> tuple[Region, ...]:
    """``whole`` with small neighbours joined until there are at most ``most``."""
    end = whole[-1].end if whole else 0
    found, limit = list(whole), max(1, end // 1000)
    while len(found) > most and limit < 2 * end:
        found = _joined(found, limit, _PLAIN)
        limit *= 2
    if len(found) > most:
        found = _joined(found, end + 1, tuple(KINDS))
    return tuple(found)


def _joined(row: Sequence[Region], limit: int, kinds: Collection[str]) -> list[Region]:
    """``row`` with neighbours of ``kinds`` joined that are at most ``limit`` blocks long."""
    found: list[Region] = []
    for one in row:
        small = one.blocks <= limit and one.kind in kinds
        if small and found and found[-1].kind in kinds and found[-1].blocks <= limit:
            last = found[-1]
            count = last.count + one.count
            kind = last.kind if last.blocks >= one.blocks else one.kind
            found[-1] = Region(last.start, one.end, kind, f"{count:,} small parts", count)
        else:
            found.append(one)
    return found


class Scale(Struct, frozen=True):
    """Where blocks stand on a bar, in percent of its width: each region gets ``least`` beside what its length asks.

    ``total``: percent that the whole bar takes.
    """

    row: tuple[Region, ...]
    edges: tuple[float, ...]

    @classmethod
    def of(cls, row: Sequence[Region], total: float) -> Scale:
        """The scale of a bar of regions ``row``, ``total`` percent wide."""
        least = min(0.7, total / 2 / max(1, len(row)))
        rest, blocks = total - least * len(row), sum(one.blocks for one in row)
        edges = [0.0]
        for one in row:
            edges.append(edges[-1] + least + rest * one.blocks / max(1, blocks))
        return cls(tuple(row), tuple(edges))

    def at(self, block: float) -> float:
        """The place of a block, in percent."""
        for one, (left, right) in zip(self.row, pairwise(self.edges), strict=True):
            if block < one.end:
                return left + (right - left) * max(0.0, block - one.start) / one.blocks
        return self.edges[-1]
