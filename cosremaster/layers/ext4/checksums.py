"""The checksums of ext4's metadata (Documentation/filesystems/ext4/checksums.rst): CRC-32C, not inverted at its end."""

from __future__ import annotations

from cosremaster import crc

INITIAL_SEED = 0xFFFFFFFF
"""The seed of a checksum that is no other's continuation."""
_ALL = 0xFFFFFFFF


def crc32c(seed: int, data: bytes) -> int:
    """Return the checksum of ``data``, as the kernel's ``ext4_chksum`` continues it from ``seed``."""
    return crc.crc32c(data, seed ^ _ALL) ^ _ALL
