"""The checksum of an EROFS superblock: CRC-32C, not inverted at its end."""

from __future__ import annotations

from cosremaster.crc import crc32c

_ALL = 0xFFFFFFFF


def superblock_checksum(data: bytes) -> int:
    """Return the checksum of ``data``, which begin with the superblock; its own checksum counts as zero."""
    return crc32c(data[:4] + bytes(4) + data[8:]) ^ _ALL
