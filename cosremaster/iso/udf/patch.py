"""What of a UDF file system has to change when files move or change size and the volume's end moves."""

from __future__ import annotations

import struct
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice

from fastcrc import crc16
from msgspec import Struct

from cosremaster.errors import UnsupportedError, printable
from cosremaster.io.source import ByteSource
from cosremaster.iso.udf.read import TAG_SIZE, Udf, UdfFile, compute_tag_checksum
from cosremaster.units import BLOCK, Lba, blocks_for, lba_offset

MAX_EXTENT_SIZE = (1 << 30) - BLOCK
"""Bytes of the longest extent that an allocation descriptor tells in whole blocks (4/14.14.1.1)."""


class BlockMove(Struct, frozen=True):
    """``blocks`` blocks from ``old`` on stand at ``new`` now."""

    old: Lba
    blocks: int
    new: Lba


def move_tail_anchors(udf: Udf, source: ByteSource, end: Lba) -> bytes:
    """The anchors that end the volume, made to end before block ``end``: each names its own block."""
    if udf.tail_anchors is None:
        return b""
    start = end - udf.tail_anchors.blocks
    blocks = []
    for index in range(udf.tail_anchors.blocks):
        raw = bytearray(source.read(lba_offset(Lba(udf.tail_anchors.start + index)), BLOCK))
        raw[12:16] = (start + index).to_bytes(4, "little")
        raw[4] = compute_tag_checksum(bytes(raw))
        blocks.append(bytes(raw))
    return b"".join(blocks)


def patch_udf(
    udf: Udf, source: ByteSource, moves: Iterable[BlockMove], exchanged: Mapping[Lba, tuple[Lba, int]], growth: int
) -> Iterator[tuple[int, bytes]]:
    """Byte offsets in the old image, and what has to stand there. The anchors at the end are ``tail_blocks``.

    ``moves``: data that moved, disjoint; ``exchanged``: first block of a file whose data are others now -> where
    they begin and how many bytes they are; ``growth``: blocks by which the volume grew, negative where it shrank.
    :raises UnsupportedError: a file's extents no longer fit its entry.
    """
    placed = sorted(moves, key=lambda move: move.old)
    for file in udf.files:
        if not file.extents:
            continue
        new = exchanged.get(file.extents[0][0])
        runs = [new] if new else _joined(_moved(file, placed))
        size = new[1] if new else file.size
        if new or runs != _joined(file.extents):
            yield patch_file_entry(udf, source, file, runs, size)
    if growth:
        for offset in udf.partition_descriptors:
            yield _resized(source, offset, 192, growth)
        for offset in udf.integrity_descriptors:
            yield _resized(source, offset, 84, growth)


def _moved(file: UdfFile, moves: list[BlockMove]) -> Iterator[tuple[Lba, int]]:
    """The file's extents where they are now, cut where moves begin and end."""
    for lba, length in file.extents:
        at, end = int(lba), lba + blocks_for(length)
        left = length
        first = bisect_right(moves, at, key=lambda move: move.old + move.blocks)
        for move in islice(moves, first, None):
            if move.old >= end:
                break
            if move.old > at:
                yield Lba(at), (move.old - at) * BLOCK
                left -= (move.old - at) * BLOCK
                at = move.old
            taken = min(end, move.old + move.blocks) - at
            count = min(left, taken * BLOCK)
            yield Lba(move.new + at - move.old), count
            left -= count
            at += taken
        if left > 0:
            yield Lba(at), left


def _joined(extents: Iterable[tuple[Lba, int]]) -> list[tuple[Lba, int]]:
    """Extents that follow each other as one."""
    found: list[tuple[Lba, int]] = []
    for lba, length in extents:
        if found and found[-1][1] % BLOCK == 0 and found[-1][0] + found[-1][1] // BLOCK == lba:
            found[-1] = (found[-1][0], found[-1][1] + length)
        else:
            found.append((lba, length))
    return found


def patch_file_entry(
    udf: Udf, source: ByteSource, file: UdfFile, runs: Sequence[tuple[Lba, int]], size: int, links: int | None = None
) -> tuple[int, bytes]:
    """The whole file entry for other extents and another size (4/14.9; 4/14.17), and link count where that is given."""
    raw = bytearray(source.read(file.entry_offset, BLOCK))
    if links is not None:
        raw[48:50] = links.to_bytes(2, "little")
    raw[34] = raw[34] & ~7 | (1 if file.allocation_type == 1 else 0)  # where data stood in the entry, they no longer do
    listed = pack_allocation_descriptors(udf, runs, long=file.allocation_type == 1)
    if file.allocation_offset + len(listed) > BLOCK:
        where = source.place.inside(printable("/".join(file.path)))
        raise UnsupportedError("has more extents now than its UDF file entry can hold", where)
    blocks = sum(blocks_for(length) for _, length in runs)
    raw[56:64] = size.to_bytes(8, "little")
    if file.is_extended:
        raw[64:72] = size.to_bytes(8, "little")
    at = 72 if file.is_extended else 64
    if file.recorded_blocks:
        raw[at : at + 8] = blocks.to_bytes(8, "little")
    raw[file.allocation_offset :] = listed.ljust(BLOCK - file.allocation_offset, b"\0")
    length_at = 212 if file.is_extended else 172
    raw[length_at : length_at + 4] = len(listed).to_bytes(4, "little")
    return file.entry_offset, seal_descriptor(raw, file.allocation_offset - TAG_SIZE + len(listed))


def pack_allocation_descriptors(udf: Udf, runs: Iterable[tuple[Lba, int]], *, long: bool) -> bytes:
    """Allocation descriptors for ``runs``, the short ones (4/14.14.1) or the ``long`` (4/14.14.2)."""
    listed = b""
    for lba, length in runs:
        for start in range(0, length, MAX_EXTENT_SIZE):
            count = min(MAX_EXTENT_SIZE, length - start)
            block = lba - udf.partition.start + start // BLOCK
            listed += struct.pack("<IIH6x", count, block, 0) if long else struct.pack("<II", count, block)
    return listed


def _resized(source: ByteSource, offset: int, at: int, growth: int) -> tuple[int, bytes]:
    """The descriptor at byte ``offset`` with ``growth`` added to its 32-bit number at ``at``."""
    raw = bytearray(source.read(offset, BLOCK))
    raw[at : at + 4] = (int.from_bytes(raw[at : at + 4], "little") + growth).to_bytes(4, "little")
    return offset, seal_descriptor(raw, int.from_bytes(raw[10:12], "little"))


def seal_descriptor(raw: bytearray, length: int) -> bytes:
    """``raw`` with a CRC over ``length`` bytes behind its tag, and the tag's checksum."""
    raw[10:12] = length.to_bytes(2, "little")
    raw[8:10] = crc16.xmodem(bytes(raw[TAG_SIZE : TAG_SIZE + length])).to_bytes(2, "little")
    raw[4] = compute_tag_checksum(bytes(raw))
    return bytes(raw)
