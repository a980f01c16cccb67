"""List the partitions of an image, whichever partition table describes them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from cosremaster.boot.apm import Apm
from cosremaster.boot.gpt import Gpt
from cosremaster.boot.mbr import GPT_PROTECTIVE, Mbr
from cosremaster.io.source import ByteSource
from cosremaster.iso.model import Partition
from cosremaster.units import SECTOR, Sector

FILLER_TYPE = 0xCD
"""The type of MBR partitions that xorriso puts around a PReP partition (libisofs, boot_sectors.txt)."""
PROTECTIVE_LABEL = f"type 0x{GPT_PROTECTIVE:02X}"
"""The label of an MBR partition that stands for a GPT."""

_APM_FILLERS = ("ISO9660_data", "Apple_Free", "Apple_partition_map", "Apple_Void")
_HFS_SIGNATURES = (b"H+", b"HX", b"BD")
_HFS_HEADER = 1024
"""Bytes from the start of an HFS or HFS+ file system to its volume header."""


def list_partitions(mbr: Mbr | None, gpt: Gpt | None, apm: Apm | None) -> tuple[Partition, ...]:
    """Return the partitions of all three partition tables."""
    return (*_list_mbr(mbr), *_list_gpt(gpt), *_list_apm(apm))


def _list_mbr(mbr: Mbr | None) -> Iterator[Partition]:
    """Yield the partitions of the master boot record."""
    for number, entry in mbr.used_partitions if mbr else ():
        is_filler = entry.type == FILLER_TYPE
        yield Partition("MBR", number, entry.start, entry.end, is_filler, f"type 0x{entry.type:02X}")


def _list_gpt(gpt: Gpt | None) -> Iterator[Partition]:
    """Yield the partitions of the GUID partition table."""
    for number, entry in gpt.used_entries if gpt else ():
        yield Partition("GPT", number, entry.first, entry.end, entry.label.startswith("Gap"), repr(entry.label))


def _list_apm(apm: Apm | None) -> Iterator[Partition]:
    """Yield the partitions of the Apple partition map."""
    if apm is None:
        return
    scale = apm.block_size // SECTOR
    for number, entry in enumerate(apm.entries, 1):
        start, end = Sector(entry.start * scale), Sector(entry.end * scale)
        is_filler = entry.kind in _APM_FILLERS
        yield Partition("APM", number, start, end, is_filler, f"{entry.kind} {entry.label!r}")


def find_hfs_partitions(source: ByteSource, partitions: Sequence[Partition]) -> tuple[Partition, ...]:
    """Return the partitions that begin with an HFS or HFS+ file system."""
    return tuple(p for p in partitions if p.start and has_hfs_header(source, p.start * SECTOR))


def has_hfs_header(source: ByteSource, start: int) -> bool:
    """Return True if the file system that begins at byte ``start`` has a volume header of HFS or HFS+.

    Apple technical note 1150, "Volume Header".
    """
    return source.read(start + _HFS_HEADER, 2) in _HFS_SIGNATURES
