"""Read a FAT12, FAT16 or FAT32 file system: its files, and where their bytes are.

Section names are those of "FAT: General Overview of On-Disk Format" (Microsoft, 1.03). This module only reads.
"""

from __future__ import annotations

import struct
import sys
from array import array
from collections.abc import Callable, Iterator
from functools import cached_property
from itertools import groupby

from cosremaster.boot.fat_names import (
    ATTRIBUTES,
    DIRECTORY,
    ENTRY_SIZE,
    LAST_LONG,
    LONG_NAME,
    decode_short_name,
    join_long_name,
    parse_time,
)
from cosremaster.errors import ImageError, Place, UnsupportedError
from cosremaster.records import Struct

Read = Callable[[int, int], bytes]
"""Returns bytes of the file system, by offset and length; fewer at the end of what holds it."""

VOLUME = 0x08
DELETED, END = 0xE5, 0x00
"""The first byte of an entry that is free, and of the first one of those that were never used."""
MAX_TABLE = 1 << 24
"""The most bytes of a FAT that is read: that of a volume of 4 million clusters."""
MAX_ENTRIES = 1 << 16
_MAX_DEPTH = 64


class BiosParameterBlock(Struct, frozen=True, kw_only=True):
    """The BIOS parameter block ("Boot Sector and BPB"). Offsets and sizes count bytes of the file system.

    ``bits``: 12, 16 or 32, the bits of a FAT entry. ``fat_offset``: the first FAT's; ``fat_count`` of them follow each
    other. ``root_offset`` and ``root_size``: the root directory's; 0 on FAT32, which has ``root_cluster`` instead.
    ``data_offset``: that of cluster 2. ``cluster_count``: the number of clusters. ``fsinfo_offset``: 0 where there is
    no FSInfo sector. ``is_mirrored``: all FATs are kept equal.
    """

    bits: int
    cluster_size: int
    fat_offset: int
    fat_size: int
    fat_count: int
    root_offset: int
    root_size: int
    root_cluster: int
    data_offset: int
    cluster_count: int
    total_size: int
    fsinfo_offset: int
    is_mirrored: bool


def parse_bpb(raw: bytes) -> BiosParameterBlock | None:
    """Parse the first 512 bytes of a file system; return None where they are no FAT boot sector."""
    if len(raw) < 512 or raw[510:512] != b"\x55\xaa" or raw[0] not in (0xEB, 0xE9):
        return None
    sector, cluster_sectors, reserved, fat_count, root_entries, total16 = struct.unpack_from("<HBHBHH", raw, 11)
    fat_sectors16, total32 = struct.unpack_from("<H", raw, 22)[0], struct.unpack_from("<I", raw, 32)[0]
    is_fat32 = not fat_sectors16
    fat_sectors = struct.unpack_from("<I", raw, 36)[0] if is_fat32 else fat_sectors16
    flags, root_cluster, fsinfo = struct.unpack_from("<H2xIH", raw, 40) if is_fat32 else (0, 0, 0)
    total = total16 or total32
    if sector not in (512, 1024, 2048, 4096) or cluster_sectors not in (1, 2, 4, 8, 16, 32, 64, 128):
        return None
    if not (reserved and 1 <= fat_count <= 4 and fat_sectors and total) or bool(root_entries) == is_fat32:
        return None
    root = (reserved + fat_count * fat_sectors) * sector
    root_size = -(-root_entries * ENTRY_SIZE // sector) * sector
    cluster_count = (total * sector - root - root_size) // (cluster_sectors * sector)
    if cluster_count < 1:
        return None
    bits = 32 if is_fat32 else 12 if cluster_count < 4085 else 16
    return BiosParameterBlock(
        bits=bits, cluster_size=cluster_sectors * sector, fat_offset=reserved * sector, fat_size=fat_sectors * sector,
        fat_count=fat_count, root_offset=0 if is_fat32 else root, root_size=root_size, root_cluster=root_cluster,
        data_offset=root + root_size, cluster_count=min(cluster_count, fat_sectors * sector * 8 // bits - 2),
        total_size=total * sector, fsinfo_offset=fsinfo * sector if is_fat32 and 0 < fsinfo < reserved else 0,
        is_mirrored=not (is_fat32 and flags & 0x80),
    )  # fmt: skip


class FatFile(Struct, frozen=True):
    """A file or directory. ``entry_offset``: its directory entry's; ``first_cluster``: 0 if it has no clusters.

    ``long_offsets``: the offsets of the entries that hold its long name. ``mtime``: seconds since 1970, as if its time
    were UTC.
    """

    path: bytes
    entry_offset: int
    first_cluster: int
    size: int
    is_directory: bool = False
    long_offsets: tuple[int, ...] = ()
    mtime: int = 0


class Fat(Struct, frozen=True, dict=True):
    """A FAT file system. ``size``: the bytes of the image or partition that holds it, maybe fewer than it claims."""

    bpb: BiosParameterBlock
    read: Read
    size: int
    place: Place

    @classmethod
    def open(cls, read: Read, size: int, place: Place) -> Fat | None:
        """Open the file system that begins at byte 0 of ``read``; return None where there is none."""
        bpb = parse_bpb(read(0, 512))
        return None if bpb is None else cls(bpb, read, size, place)

    @cached_property
    def first_fat(self) -> bytes:
        """The bytes of the first FAT.

        :raises UnsupportedError: when it is too large.
        :raises ImageError: when it is cut off.
        """
        bpb = self.bpb
        if bpb.fat_size > MAX_TABLE:
            raise UnsupportedError("its FAT is too large to be read", self.place)
        raw = self.read(bpb.fat_offset, bpb.fat_size)
        if len(raw) < bpb.fat_size:
            raise ImageError("FAT file system is cut off", self.place.at(bpb.fat_offset))
        return raw

    def cluster_offset(self, cluster: int) -> int:
        """Return the byte offset of a cluster."""
        return self.bpb.data_offset + (cluster - 2) * self.bpb.cluster_size

    def read_chain(self, first: int, place: Place) -> tuple[int, ...]:
        """Return the clusters of the chain that begins with cluster ``first``.

        :raises ImageError: when the chain leads outside, into itself, or to a free cluster.
        """
        clusters, cluster = dict[int, None](), first
        end = {12: 0xFF8, 16: 0xFFF8, 32: 0x0FFFFFF8}[self.bpb.bits]
        while cluster < end or not clusters:
            if not 2 <= cluster < self.bpb.cluster_count + 2 or cluster in clusters:
                raise ImageError(f"its chain of clusters is broken at cluster {cluster}", place)
            clusters[cluster] = None
            cluster = get_fat_entry(self.first_fat, cluster, self.bpb.bits)
        return tuple(clusters)

    def read_file(self, file: FatFile) -> bytes:
        """Return a file's bytes. Raises as :meth:`locate_file`."""
        return b"".join(self.read(start, length) for start, length in self.locate_file(file))

    def locate_file(self, file: FatFile) -> tuple[tuple[int, int], ...]:
        """Return offset and length in bytes of each run of a file's bytes.

        :raises ImageError: when its chain is broken or too short, or leads behind the end of what holds it.
        """
        place = self.place.inside(file.path)
        remaining, runs = file.size, list[tuple[int, int]]()
        for start, length in self.cluster_runs(self.read_chain(file.first_cluster, place) if file.size else ()):
            part = min(remaining, length, max(0, self.size - start))
            runs.append((start, part))
            remaining -= part
        if remaining:
            raise ImageError(f"lacks {remaining:,} of its {file.size:,} bytes", place)
        return tuple(run for run in runs if run[1])

    def cluster_runs(self, chain: tuple[int, ...]) -> Iterator[tuple[int, int]]:
        """Yield offset and length in bytes of each run of consecutive clusters."""
        for _, group in groupby(enumerate(chain), lambda item: item[1] - item[0]):
            run = [cluster for _, cluster in group]
            yield self.cluster_offset(run[0]), len(run) * self.bpb.cluster_size

    def locate_directory(self, first: int, place: Place) -> tuple[tuple[int, int], ...]:
        """Return offset and length in bytes of each run of the directory that begins with cluster ``first``.

        Cluster 0 means the root directory of FAT12 and FAT16, which is outside the clusters.

        :raises ImageError: when it is damaged, or larger than a directory may be.
        """
        if not first and self.bpb.root_size:
            return ((self.bpb.root_offset, self.bpb.root_size),)
        chain = self.read_chain(first, place)
        if len(chain) * self.bpb.cluster_size > max(MAX_ENTRIES * ENTRY_SIZE, self.bpb.cluster_size):
            raise ImageError("directory is too large", place)
        return tuple(self.cluster_runs(chain))

    def walk(self) -> Iterator[FatFile]:
        """Yield every file and directory but the root.

        :raises ImageError: when a directory is damaged or leads into itself.
        """
        root = self.bpb.root_cluster
        waiting, seen, count = [(b"", self.locate_directory(root, self.place))], {root}, 0
        while waiting:
            path, spans = waiting.pop()
            for name, entries, raw in self._entries(spans):
                count += 1
                if count > MAX_ENTRIES or path.count(b"/") > _MAX_DEPTH:
                    raise ImageError("FAT file system has too many files", self.place)
                below = path + b"/" + name if path else name
                first = int.from_bytes(raw[26:28], "little")
                if self.bpb.bits == 32:
                    first |= int.from_bytes(raw[20:22], "little") << 16
                is_directory = bool(raw[ATTRIBUTES] & DIRECTORY)
                size = 0 if is_directory else int.from_bytes(raw[28:32], "little")
                yield FatFile(below, entries[-1], first, size, is_directory, entries[:-1], parse_time(raw[22:26]))
                if not is_directory:
                    continue
                if first in seen:
                    raise ImageError("directory leads into another", self.place.inside(below))
                seen.add(first)
                waiting.append((below, self.locate_directory(first, self.place.inside(below))))

    def _entries(self, spans: tuple[tuple[int, int], ...]) -> Iterator[tuple[bytes, tuple[int, ...], bytes]]:
        """Yield name, byte offsets and bytes of each entry in a directory but ``.``, ``..`` and the volume label.

        The last offset is the entry's own; those before it are of the entries that hold its long name.
        """
        long_parts, long_offsets = dict[int, bytes](), list[int]()
        for start, size in spans:
            data = self.read(start, size)
            for at in range(0, len(data) - ENTRY_SIZE + 1, ENTRY_SIZE):
                raw = data[at : at + ENTRY_SIZE]
                if raw[0] == END:
                    return
                if raw[0] == DELETED:
                    long_parts.clear()
                    long_offsets.clear()
                elif raw[ATTRIBUTES] & 0x3F == LONG_NAME:
                    if raw[0] & LAST_LONG:
                        long_parts.clear()
                        long_offsets.clear()
                    long_parts[raw[0] & 0x1F] = raw[1:11] + raw[14:26] + raw[28:32] + raw[13:14]
                    long_offsets.append(start + at)
                else:
                    long_name = join_long_name(long_parts, raw[:11])
                    offsets = (*(long_offsets if long_name else ()), start + at)
                    long_parts.clear()
                    long_offsets.clear()
                    if not raw[ATTRIBUTES] & VOLUME and raw[:2] not in (b". ", b".."):
                        yield long_name or decode_short_name(raw), offsets, raw


def get_fat_entry(table: bytes | bytearray, cluster: int, bits: int) -> int:
    """Return the entry of ``cluster`` in a FAT with entries of ``bits`` bits ("FAT Data Structure")."""
    if bits == 12:
        pair = int.from_bytes(table[cluster + cluster // 2 : cluster + cluster // 2 + 2], "little")
        return pair >> 4 if cluster & 1 else pair & 0xFFF
    if bits == 16:
        return int.from_bytes(table[cluster * 2 : cluster * 2 + 2], "little")
    return int.from_bytes(table[cluster * 4 : cluster * 4 + 4], "little") & 0x0FFFFFFF


def count_free_bytes(fat: Fat) -> int:
    """Return the bytes of the clusters that are free. Raises as :attr:`Fat.first_fat`."""
    return count_free_clusters(fat.first_fat, fat.bpb.cluster_count, fat.bpb.bits) * fat.bpb.cluster_size


def count_free_clusters(table: bytes, cluster_count: int, bits: int) -> int:
    """Return how many of the ``cluster_count`` clusters have a free entry, 0, in a FAT with entries of ``bits`` bits.

    The first cluster is 2. Whole columns are counted: a system partition has 100,000 clusters.
    """
    end = cluster_count + 2
    if bits == 12:  # two entries in three bytes: the middle one holds the high bits of the first, the low of the second
        used = table[3 : end // 2 * 3]
        pairs = zip(used[0::3], used[1::3], used[2::3], strict=True)
        free = sum((not (low or middle & 15)) + (not (high or middle >> 4)) for low, middle, high in pairs)
        return free + (end & 1 and not get_fat_entry(table, end - 1, bits))
    entries = array("H" if bits == 16 else "I", table[2 * bits // 8 : end * bits // 8])
    if sys.byteorder == "big":
        entries.byteswap()
    if bits == 16:
        return entries.count(0)
    return sum(entries.count(reserved << 28) for reserved in range(16))  # the upper four bits mean nothing
