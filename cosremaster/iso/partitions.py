"""The partitions that an image's tables tell of, as one kind of value, and where each goes in a new layout."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from cosremaster.boot.apm import Apm
from cosremaster.boot.gpt import Gpt
from cosremaster.boot.mbr import Mbr
from cosremaster.io.source import ByteSource
from cosremaster.iso.model import Partition
from cosremaster.units import SECTOR, Sector

FILLER_TYPE = 0xCD
"""The MBR type by which xorriso fills what a PReP partition leaves (libisofs, boot_sectors.txt)."""
_FILLERS = ("ISO9660_data", "Apple_Free", "Apple_partition_map", "Apple_Void")
_HFS = (b"H+", b"HX", b"BD")
_HFS_HEADER = 1024


def list_partitions(mbr: Mbr | None, gpt: Gpt | None, apm: Apm | None) -> tuple[Partition, ...]:
    """Every partition of the three tables."""
    return (*_of_mbr(mbr), *_of_gpt(gpt), *_of_apm(apm))


def _of_mbr(mbr: Mbr | None) -> Iterator[Partition]:
    for number, one in mbr.used_partitions if mbr else ():
        yield Partition("MBR", number, one.start, one.end, one.type == FILLER_TYPE, f"type 0x{one.type:02X}")


def _of_gpt(gpt: Gpt | None) -> Iterator[Partition]:
    for number, one in gpt.used_entries if gpt else ():
        yield Partition("GPT", number, one.first, one.end, one.label.startswith("Gap"), repr(one.label))


def _of_apm(apm: Apm | None) -> Iterator[Partition]:
    for number, one in enumerate(apm.entries if apm else (), 1):
        scale = apm.block_size // SECTOR if apm else 0
        start, end = Sector(one.start * scale), Sector(one.end * scale)
        yield Partition("APM", number, start, end, one.kind in _FILLERS, f"{one.kind} {one.label!r}")


def find_hfs_partitions(source: ByteSource, partitions: Sequence[Partition]) -> tuple[Partition, ...]:
    """Those that begin with an HFS or HFS+ volume header (Apple technical note 1150, "Volume Header")."""
    return tuple(one for one in partitions if one.start and has_hfs_header(source, one.start * SECTOR))


def has_hfs_header(source: ByteSource, start: int) -> bool:
    """True when a volume header of HFS or HFS+ belongs to a file system that begins at byte ``start``."""
    return source.read(start + _HFS_HEADER, 2) in _HFS
