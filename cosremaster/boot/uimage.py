"""The header that U-Boot wants before an initramfs: 64 bytes with checksums of itself and of the data (uImage).

Specification: include/image.h of U-Boot, ``struct legacy_img_hdr``; fields are big-endian.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable

from cosremaster.records.tuples import NamedTuple

MAGIC = b"\x27\x05\x19\x56"
HEADER_SIZE = 64

_RAMDISK = 3  # IH_TYPE_RAMDISK
_FIELDS = struct.Struct(">4sIIIIIIBBBB32s")
_HEADER_CHECK = slice(4, 8)


class UImageHeader(NamedTuple):
    """The header ``raw``. ``size``: bytes of data behind it; ``check``: their CRC-32."""

    raw: bytes
    size: int
    check: int

    def with_data(self, size: int, chunks: Iterable[bytes]) -> UImageHeader:
        """Return this header for ``size`` bytes of data, which ``chunks`` yield."""
        check = sum_data(chunks)
        raw = self.raw[:12] + struct.pack(">I", size) + self.raw[16:24] + struct.pack(">I", check) + self.raw[28:]
        return UImageHeader(_with_header_check(raw), size, check)


def parse_uimage(head: bytes) -> UImageHeader | None:
    """Return the header of a ramdisk that ``head`` begins with; None for anything else, and for a wrong checksum."""
    raw = head[:HEADER_SIZE]
    if not raw.startswith(MAGIC) or len(raw) < HEADER_SIZE or _with_header_check(raw) != raw:
        return None
    _, _, _, size, _, _, check, _, _, kind, _, _ = _FIELDS.unpack(raw)
    return UImageHeader(raw, size, check) if kind == _RAMDISK else None


def sum_data(chunks: Iterable[bytes]) -> int:
    """Return the CRC-32 of the data ``chunks``."""
    check = 0
    for chunk in chunks:
        check = zlib.crc32(chunk, check)
    return check


def _with_header_check(raw: bytes) -> bytes:
    """Return the header ``raw`` with its own CRC-32, which counts as zeros in it."""
    check = zlib.crc32(raw[: _HEADER_CHECK.start] + bytes(4) + raw[_HEADER_CHECK.stop :])
    return raw[: _HEADER_CHECK.start] + struct.pack(">I", check) + raw[_HEADER_CHECK.stop :]
