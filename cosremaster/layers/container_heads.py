"""Which files are containers, by their first bytes."""

from __future__ import annotations

from collections.abc import Callable

from cosremaster.layers.identify import HEAD_SIZE, Identification, identify
from cosremaster.units import SECTOR

FAT_JUMPS = (b"\xeb", b"\xe9")
"""The first byte of a FAT file system: a jump ("Boot Sector and BPB")."""


def identify_container(head: Callable[[int], bytes], size: int) -> Identification | None:
    """Return what a file of ``size`` bytes is where it holds an archive or a FAT file system; else None.

    ``head(count)`` returns its first bytes.
    """
    first = head(HEAD_SIZE)  # once: many files are looked at, and most are no containers
    identification = identify(lambda count: first if count == HEAD_SIZE else head(count))
    return identification if identification.format is not None or _is_fat(first, size) else None


def _is_fat(head: bytes, size: int) -> bool:
    """Tell whether a file of ``size`` bytes that begins with ``head`` holds a FAT file system, by its first sector."""
    if not head.startswith(FAT_JUMPS):
        return False
    from cosremaster.boot.fat import parse_bpb  # noqa: PLC0415 - few files begin so

    bpb = parse_bpb(head[:SECTOR])
    return bpb is not None and bpb.total_size <= size
