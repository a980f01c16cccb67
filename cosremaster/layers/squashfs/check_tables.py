"""The rules of the tables of a squashfs file system: order, contiguity, counts, full blocks.

Linux works backwards from ``bytes_used`` (fs/squashfs/super.c): each table's blocks, then its index, end where those of
the next begin.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from itertools import pairwise

from cosremaster.layers.squashfs.filesystem import SquashfsFilesystem
from cosremaster.layers.squashfs.metadata import METADATA_SIZE
from cosremaster.layers.squashfs.superblock import ABSENT, PADDING
from cosremaster.records import Struct
from cosremaster.records.tuples import NamedTuple

_XATTR_HEADER = 16
_MAX_BLOCK = METADATA_SIZE + 2


class Breach(NamedTuple):
    """A rule that an image breaks: the name of the ``rule``, a sentence, and the byte of the image, if it has one."""

    rule: str
    message: str
    position: int | None = None


class MetadataRegion(NamedTuple):
    """The metadata blocks of a table: where each begins, and where the last ends; ``name``: for people."""

    name: str
    blocks: list[int]
    end: int


class IndexedTable(Struct, frozen=True):
    """A table with an index at byte ``place`` of the image: ``entries`` of ``size`` bytes.

    ``head``: bytes before the places of its blocks.
    """

    name: str
    place: int
    entries: int
    size: int
    head: int = 0

    @property
    def block_count(self) -> int:
        """How many metadata blocks it has."""
        return -(-self.entries * self.size // METADATA_SIZE)

    @property
    def end(self) -> int:
        """The byte behind its index."""
        return self.place + self.head + 8 * self.block_count


def find_count_breaches(filesystem: SquashfsFilesystem) -> Iterator[Breach]:
    """Yield what is wrong with the numbers in the superblock and the image's length."""
    superblock = filesystem.superblock
    if not superblock.inodes:
        yield Breach("inode-count", "has no inodes", 4)
    if superblock.fragments > superblock.inodes:
        message = f"has {superblock.fragments:,} fragments and {superblock.inodes:,} inodes; fewer than fragments"
        yield Breach("fragment-count", f"{message} unsquashfs refuses", 16)
    if superblock.ids > 2 * superblock.inodes:
        message = f"has {superblock.ids:,} owners and groups for {superblock.inodes:,} inodes"
        yield Breach("id-count", f"{message}; more than twice as many unsquashfs refuses", 26)
    if not superblock.ids:
        yield Breach("id-count", "has no table of owners", 26)
    length = filesystem.table.length
    if length < superblock.bytes_used + -superblock.bytes_used % PADDING:
        message = f"is not padded to a multiple of {PADDING:,} bytes, which a kernel's loop device reads"
        yield Breach("padding", message, length)


def find_regions(
    filesystem: SquashfsFilesystem, inodes: int = 0, listings: int = 0
) -> tuple[list[MetadataRegion], list[Breach]]:
    """Return the metadata blocks of all tables, in their order in the image, and what is wrong with their places.

    Blocks in the first ``inodes`` bytes of the table of inodes, and ``listings`` of that of directories, are left out.
    """
    superblock = filesystem.superblock
    regions: list[MetadataRegion] = []
    breaches: list[Breach] = []
    tables = _list_tables(filesystem)
    starts: list[int] = []
    for table in tables:
        places = _read_index(filesystem, table)
        start = places[0] if places else table.place
        if table.name == "extended attributes":
            start = int.from_bytes(filesystem.table.read(table.place, 8), "little")
            regions += _walk_region(filesystem, "extended attributes", start, places[0] if places else start, breaches)
        starts.append(start)
        blocks = _walk_region(filesystem, table.name, places[0] if places else table.place, table.place, breaches)
        if places != [place for region in blocks for place in region.blocks]:
            message = f"its index of {table.name} names other bytes than their blocks"
            breaches.append(Breach("index", message, table.place))
        breaches += _check_gaps(places, table)
        regions += blocks
    ends = [*starts[1:], superblock.bytes_used]
    names = [*(f"its {table.name}" for table in tables[1:]), "its end"]
    for table, start, following, name in zip(tables, starts, ends, names, strict=True):
        if start > table.place or table.end > following:
            breaches.append(Breach("order", f"has its {table.name} behind {name}", table.place))
        elif table.end < following:
            breaches.append(Breach("gap", f"has bytes between its {table.name} and {name}", table.end))
    first = starts[0] if starts else superblock.bytes_used
    regions = [
        *_walk_region(filesystem, "inodes", superblock.inode_table + inodes, superblock.directory_table, breaches),
        *_walk_region(filesystem, "directories", superblock.directory_table + listings, first, breaches),
        *regions,
    ]
    return regions, breaches


def _list_tables(filesystem: SquashfsFilesystem) -> list[IndexedTable]:
    """Return the tables that have an index, in the order that readers demand."""
    superblock = filesystem.superblock
    tables = []
    if superblock.has_fragments:
        tables.append(IndexedTable("fragments", superblock.fragment_table, superblock.fragments, 16))
    if superblock.lookup_table != ABSENT:
        tables.append(IndexedTable("inode references", superblock.lookup_table, superblock.inodes, 8))
    tables.append(IndexedTable("owners", superblock.id_table, superblock.ids, 4))
    if superblock.has_xattrs:
        count = int.from_bytes(filesystem.table.read(superblock.xattr_table + 8, 4), "little")
        tables.append(IndexedTable("extended attributes", superblock.xattr_table, count, 16, _XATTR_HEADER))
    return tables


def _read_index(filesystem: SquashfsFilesystem, table: IndexedTable) -> list[int]:
    """Return the places of the blocks of ``table``, as far as its index is in the image."""
    count = min(table.block_count, max(filesystem.superblock.bytes_used - table.place, 0) // 8)
    data = filesystem.table.read(table.place + table.head, 8 * count)
    return [place for (place,) in struct.iter_unpack("<Q", data[: len(data) // 8 * 8])]


def _check_gaps(places: list[int], table: IndexedTable) -> Iterator[Breach]:
    """Yield what is wrong with the distances of the blocks of ``table``."""
    for place, following in pairwise(places):
        if not 0 < following - place <= _MAX_BLOCK:
            yield Breach("index", f"has blocks of its {table.name} that do not follow one another", place)
            return


def _walk_region(
    filesystem: SquashfsFilesystem, name: str, start: int, end: int, breaches: list[Breach]
) -> list[MetadataRegion]:  # fmt: skip
    """Return the metadata blocks between ``start`` and ``end``, none where there are none; gaps go to ``breaches``."""
    blocks: list[int] = []
    at = start
    while at < end:
        word = int.from_bytes(filesystem.table.read(at, 2), "little")
        size = word & 0x7FFF
        if not 0 < size <= METADATA_SIZE:
            breaches.append(Breach("gap", f"has bytes behind its {name} that are no metadata block", at))
            break
        blocks.append(at)
        at += 2 + size
    if at > end:
        breaches.append(Breach("order", f"has its {name} over what follows them", end))
    return [MetadataRegion(name, blocks, at)] if blocks else []
