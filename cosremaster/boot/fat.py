"""A FAT12, FAT16 or FAT32 file system, read: the files in it and where their bytes stand.

FAT: General Overview of On-Disk Format (Microsoft, 1.03); section names are its. Everything here reads.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from functools import cached_property
from itertools import groupby

from msgspec import Struct

from cosremaster.errors import ImageError, Place, UnsupportedError

Read = Callable[[int, int], bytes]
"""``length`` bytes from byte ``offset`` of the file system, fewer where what holds it ends."""

ENTRY_SIZE = 32
DIRECTORY, VOLUME, LONG_NAME = 0x10, 0x08, 0x0F
_DELETED, _END = 0xE5, 0x00
_LOWER_BASE, _LOWER_EXTENSION = 0x08, 0x10
_LAST_LONG = 0x40
MAX_TABLE = 1 << 24
"""Bytes of the largest FAT that is read: that of a volume of 4 million clusters."""
_MAX_ENTRIES = 1 << 16
_MAX_DEPTH = 64


class BiosParameterBlock(Struct, frozen=True, kw_only=True):
    """The BIOS parameter block ("Boot Sector and BPB"), in bytes from the file system's start.

    ``bits``: 12, 16 or 32; ``table`` and ``table_size``: the first FAT, of which ``copies`` follow each other;
    ``root``: the root directory's place of ``root_size`` bytes, or, on FAT32, 0 and its first cluster ``root_cluster``;
    ``data``: where cluster 2 begins; ``clusters``: how many there are; ``info``: the FSInfo sector, 0 where none is.
    ``mirrored``: all copies count.
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
    """What the first 512 bytes say; None where they are no FAT boot sector."""
    if len(raw) < 512 or raw[510:512] != b"\x55\xaa" or raw[0] not in (0xEB, 0xE9):
        return None
    sector, per, reserved, copies, entries, short = struct.unpack_from("<HBHBHH", raw, 11)
    size16, total32 = struct.unpack_from("<H", raw, 22)[0], struct.unpack_from("<I", raw, 32)[0]
    wide = not size16
    size = struct.unpack_from("<I", raw, 36)[0] if wide else size16
    flags, root_cluster, info = struct.unpack_from("<H2xIH", raw, 40) if wide else (0, 0, 0)
    total = short or total32
    if sector not in (512, 1024, 2048, 4096) or per not in (1, 2, 4, 8, 16, 32, 64, 128):
        return None
    if not (reserved and 1 <= copies <= 4 and size and total) or bool(entries) == wide:
        return None
    root = (reserved + copies * size) * sector
    root_size = -(-entries * ENTRY_SIZE // sector) * sector
    data = root + root_size
    clusters = (total * sector - data) // (per * sector)
    if clusters < 1:
        return None
    bits = 32 if wide else 12 if clusters < 4085 else 16
    clusters = min(clusters, size * sector * 8 // bits - 2)
    return BiosParameterBlock(
        bits=bits,
        cluster_size=per * sector,
        fat_offset=reserved * sector,
        fat_size=size * sector,
        fat_count=copies,
        root_offset=0 if wide else root,
        root_size=root_size,
        root_cluster=root_cluster,
        data_offset=data,
        cluster_count=clusters,
        total_size=total * sector,
        fsinfo_offset=info * sector if wide and 0 < info < reserved else 0,
        is_mirrored=not (wide and flags & 0x80),
    )


class FatFile(Struct, frozen=True):
    """A file or directory. ``entry``: the byte at which its entry stands; ``first``: its first cluster, 0 without."""

    path: bytes
    entry_offset: int
    first_cluster: int
    size: int
    is_directory: bool = False


class Fat(Struct, frozen=True, dict=True):
    """A FAT file system. ``size``: bytes of what holds it, which may be less than it claims."""

    bpb: BiosParameterBlock
    read: Read
    size: int
    place: Place

    @classmethod
    def open(cls, read: Read, size: int, place: Place) -> Fat | None:
        """The file system at the start of what ``read`` reads; None where none begins there."""
        geometry = parse_bpb(read(0, 512))
        return None if geometry is None else cls(geometry, read, size, place)

    @cached_property
    def first_fat(self) -> bytes:
        """The first FAT. :raises UnsupportedError: it is too large. :raises ImageError: it is cut off."""
        geometry = self.bpb
        if geometry.fat_size > MAX_TABLE:
            raise UnsupportedError("its FAT is too large to be read", self.place)
        raw = self.read(geometry.fat_offset, geometry.fat_size)
        if len(raw) < geometry.fat_size:
            raise ImageError("FAT file system is cut off", self.place.at(geometry.fat_offset))
        return raw

    def cluster_offset(self, cluster: int) -> int:
        """The byte at which a cluster begins."""
        return self.bpb.data_offset + (cluster - 2) * self.bpb.cluster_size

    def read_chain(self, first: int, place: Place) -> tuple[int, ...]:
        """The clusters of a chain. :raises ImageError: it leads outside, into itself, or to a free cluster."""
        found, seen, cluster = list[int](), set[int](), first
        end = {12: 0xFF8, 16: 0xFFF8, 32: 0x0FFFFFF8}[self.bpb.bits]
        while cluster < end:
            if not 2 <= cluster < self.bpb.cluster_count + 2 or cluster in seen:
                raise ImageError(f"its chain of clusters is broken at cluster {cluster}", place)
            seen.add(cluster)
            found.append(cluster)
            cluster = get_fat_entry(self.first_fat, cluster, self.bpb.bits)
        return tuple(found)

    def read_file(self, file: FatFile) -> bytes:
        """A file's bytes. :raises ImageError: its chain is broken, or is too short."""
        place = self.place.inside(file.path)
        left, parts = file.size, list[bytes]()
        for start, length in self._runs(self.read_chain(file.first_cluster, place) if file.size else ()):
            parts.append(self.read(start, min(left, length)))
            left -= len(parts[-1])
        if left:
            raise ImageError(f"lacks {left:,} of its {file.size:,} bytes", place)
        return b"".join(parts)

    def _runs(self, chain: tuple[int, ...]) -> Iterator[tuple[int, int]]:
        """First byte and bytes of each run of clusters that follow each other."""
        for _, group in groupby(enumerate(chain), lambda one: one[1] - one[0]):
            run = [cluster for _, cluster in group]
            yield self.cluster_offset(run[0]), len(run) * self.bpb.cluster_size

    def _directory(self, first: int, place: Place) -> tuple[tuple[int, int], ...]:
        """Where a directory's entries stand. :raises ImageError: it is damaged, or larger than one may be."""
        chain = self.read_chain(first, place)
        if len(chain) * self.bpb.cluster_size > max(_MAX_ENTRIES * ENTRY_SIZE, self.bpb.cluster_size):
            raise ImageError("directory is too large", place)
        return tuple(self._runs(chain))

    def walk(self) -> Iterator[FatFile]:
        """Every file and directory but the root. :raises ImageError: a directory is damaged or leads into itself."""
        root = self.bpb.root_cluster
        spans = self._directory(root, self.place) if root else ((self.bpb.root_offset, self.bpb.root_size),)
        waiting, seen, count = [(b"", spans)], {root}, 0
        while waiting:
            path, spans = waiting.pop()
            for name, entry, raw in self._entries(spans):
                count += 1
                if count > _MAX_ENTRIES or path.count(b"/") > _MAX_DEPTH:
                    raise ImageError("FAT file system has too many files", self.place)
                below = path + b"/" + name if path else name
                first = int.from_bytes(raw[26:28], "little")
                if self.bpb.bits == 32:
                    first |= int.from_bytes(raw[20:22], "little") << 16
                if not raw[11] & DIRECTORY:
                    yield FatFile(below, entry, first, int.from_bytes(raw[28:32], "little"))
                    continue
                if first in seen:
                    raise ImageError("directory leads into another", self.place.inside(below))
                seen.add(first)
                yield FatFile(below, entry, first, 0, is_directory=True)
                waiting.append((below, self._directory(first, self.place.inside(below))))

    def _entries(self, spans: tuple[tuple[int, int], ...]) -> Iterator[tuple[bytes, int, bytes]]:
        """Name, place and bytes of each entry of a directory, without ``.`` and ``..`` and the volume's label."""
        long = dict[int, bytes]()
        for start, size in spans:
            raw = self.read(start, size)
            for at in range(0, len(raw) - ENTRY_SIZE + 1, ENTRY_SIZE):
                one = raw[at : at + ENTRY_SIZE]
                if one[0] == _END:
                    return
                if one[0] == _DELETED:
                    long.clear()
                elif one[11] & 0x3F == LONG_NAME:
                    if one[0] & _LAST_LONG:
                        long.clear()
                    long[one[0] & 0x1F] = one[1:11] + one[14:26] + one[28:32] + one[13:14]
                else:
                    name = _long_name(long, one[:11]) or _short_name(one)
                    long.clear()
                    if not one[11] & VOLUME and one[:2] not in (b". ", b".."):
                        yield name, start + at, one


def _long_name(parts: dict[int, bytes], short: bytes) -> bytes:
    """The name that long entries tell ("Long File Name Implementation"); empty where they are not this entry's."""
    if not parts or sorted(parts) != list(range(1, len(parts) + 1)):
        return b""
    total = 0
    for byte in short:
        total = ((total >> 1) | (total << 7 & 0x80)) + byte & 0xFF
    if any(part[26] != total for part in parts.values()):
        return b""
    text = b"".join(parts[number][:26] for number in sorted(parts)).decode("utf-16-le", "replace")
    return text.partition("\0")[0].encode("utf-8")


def _short_name(raw: bytes) -> bytes:
    """The 8.3 name, in small letters where the entry says so (as Windows NT, Linux and mtools have it)."""
    base, extension = raw[:8].rstrip(b" "), raw[8:11].rstrip(b" ")
    if base[:1] == b"\x05":
        base = b"\xe5" + base[1:]
    base = base.lower() if raw[12] & _LOWER_BASE else base
    extension = extension.lower() if raw[12] & _LOWER_EXTENSION else extension
    return base + b"." + extension if extension else base


def get_fat_entry(table: bytes | bytearray, cluster: int, bits: int) -> int:
    """A cluster's entry in a FAT ("FAT Data Structure")."""
    if bits == 12:
        pair = int.from_bytes(table[cluster + cluster // 2 : cluster + cluster // 2 + 2], "little")
        return pair >> 4 if cluster & 1 else pair & 0xFFF
    if bits == 16:
        return int.from_bytes(table[cluster * 2 : cluster * 2 + 2], "little")
    return int.from_bytes(table[cluster * 4 : cluster * 4 + 4], "little") & 0x0FFFFFFF
