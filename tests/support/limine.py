"""What ``limine bios-install`` does to an image, after Limine's limine.c: stage 2 is put behind partition entries."""

from __future__ import annotations

import random
import struct
import zlib

SECTOR = 512
_HEADER = struct.Struct("<8sIIIIQQQQ16sQIII")


def install_limine(raw: bytes, *, gpt: bool) -> bytes:
    """Return the image ``raw`` with a stage 1 and a stage 2 of 49 sectors; their code is random bytes."""
    image = bytearray(raw)
    stage2 = random.Random(2).randbytes(49 * SECTOR)
    halves = stage2[: 25 * SECTOR], stage2[25 * SECTOR :]
    starts = [SECTOR, SECTOR + len(halves[0])]
    if gpt:
        primary = _HEADER.unpack_from(image, SECTOR)
        headers = [SECTOR, primary[6] * SECTOR]
        for number, header in enumerate(headers):
            entries = _HEADER.unpack_from(image, header)[10]
            starts[number] = (entries + 32) * SECTOR - len(halves[number])
            _shrink_array(image, header, starts[0] // SECTOR - primary[10])
    code = random.Random(1).randbytes(0x1A4) + struct.pack("<HHQQ", *map(len, halves), *starts)
    image[: len(code)] = code
    image[510:512] = b"\x55\xaa"
    for start, half in zip(starts, halves, strict=True):
        image[start : start + len(half)] = half
    return bytes(image)


def _shrink_array(image: bytearray, at: int, sectors: int) -> None:
    """Let the GPT header at byte ``at`` count only the entries of so many sectors."""
    fields = list(_HEADER.unpack_from(image, at))
    fields[11] = sectors * SECTOR // fields[12]
    start = fields[10] * SECTOR
    fields[13] = zlib.crc32(image[start : start + fields[11] * fields[12]])
    fields[3] = 0
    fields[3] = zlib.crc32(_HEADER.pack(*fields))
    _HEADER.pack_into(image, at, *fields)


def read_stage2(raw: bytes) -> bytes:
    """Return what stage 1 loads."""
    sizes_and_starts = struct.unpack_from("<HHQQ", raw, 0x1A4)
    return b"".join(
        raw[start : start + size] for size, start in zip(sizes_and_starts[:2], sizes_and_starts[2:], strict=True)
    )
