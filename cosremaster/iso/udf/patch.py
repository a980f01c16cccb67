"""Patch a UDF file system (ECMA-167) when files move or change size, or the volume's end moves."""

from __future__ import annotations

import struct
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice

from cosremaster.crc import crc16_xmodem
from cosremaster.errors import UnsupportedError, printable
from cosremaster.io.source import ByteSource
from cosremaster.iso.udf.read import TAG_SIZE, Udf, UdfFile, compute_tag_checksum
from cosremaster.records import Struct
from cosremaster.units import BLOCK, Lba, blocks_for, lba_offset

MAX_EXTENT_SIZE = (1 << 30) - BLOCK
"""The most bytes in whole blocks that an allocation descriptor can describe (4/14.14.1.1)."""
_TAG_LOCATION, _CRC_LENGTH = slice(12, 16), slice(10, 12)  # 3/7.2.8, 3/7.2.7
_PARTITION_LENGTH, _SIZE_TABLE = 192, 84
"""Offsets in a partition descriptor (3/10.5.9) and in an integrity descriptor of one partition (3/10.10.8)."""


class BlockMove(Struct, frozen=True):
    """A move of ``blocks`` blocks from block ``old`` to block ``new``."""

    old: Lba
    blocks: int
    new: Lba


def move_tail_anchors(udf: Udf, source: ByteSource, end: Lba) -> bytes:
    """Return the anchors that end the volume, rewritten to end before block ``end``; each names its own block."""
    if udf.tail_anchors is None:
        return b""
    start = end - udf.tail_anchors.blocks
    anchors = []
    for index in range(udf.tail_anchors.blocks):
        raw = bytearray(source.read(lba_offset(Lba(udf.tail_anchors.start + index)), BLOCK))
        raw[_TAG_LOCATION] = (start + index).to_bytes(4, "little")
        raw[4] = compute_tag_checksum(bytes(raw))
        anchors.append(bytes(raw))
    return b"".join(anchors)


def patch_udf(
    udf: Udf, source: ByteSource, moves: Iterable[BlockMove], replaced: Mapping[Lba, tuple[Lba, int]], growth: int
) -> Iterator[tuple[int, bytes]]:
    """Yield byte offsets in the old image and the bytes that replace the bytes there, without the tail anchors.

    ``moves``: disjoint moves of data. ``replaced``: the first block of a replaced file's old data, and block and bytes
    of its new data. ``growth``: the blocks by which the volume grows, negative where it shrinks.

    :raises UnsupportedError: when a file has more extents than its file entry can hold.
    """
    sorted_moves = sorted(moves, key=lambda move: move.old)
    for file in udf.files:
        if not file.extents:
            continue
        new = replaced.get(file.extents[0][0])
        extents = [new] if new else _join_extents(_move_extents(file, sorted_moves))
        if new or extents != _join_extents(file.extents):
            yield patch_file_entry(udf, source, file, extents, new[1] if new else file.size)
    if growth:
        for offset in udf.partition_descriptors:
            yield _add_to_field(source, offset, _PARTITION_LENGTH, growth)
        for offset in udf.integrity_descriptors:
            yield _add_to_field(source, offset, _SIZE_TABLE, growth)


def _move_extents(file: UdfFile, moves: list[BlockMove]) -> Iterator[tuple[Lba, int]]:
    """Yield the new places of the file's extents, cut where moves begin and end."""
    for lba, length in file.extents:
        at, end = int(lba), lba + blocks_for(length)
        remaining = length
        first = bisect_right(moves, at, key=lambda move: move.old + move.blocks)
        for move in islice(moves, first, None):
            if move.old >= end:
                break
            if move.old > at:
                yield Lba(at), (move.old - at) * BLOCK
                remaining -= (move.old - at) * BLOCK
                at = move.old
            moved_blocks = min(end, move.old + move.blocks) - at
            count = min(remaining, moved_blocks * BLOCK)
            yield Lba(move.new + at - move.old), count
            remaining -= count
            at += moved_blocks
        if remaining > 0:
            yield Lba(at), remaining


def _join_extents(extents: Iterable[tuple[Lba, int]]) -> list[tuple[Lba, int]]:
    """Return ``extents`` with those joined that follow each other on the image."""
    joined: list[tuple[Lba, int]] = []
    for lba, length in extents:
        if joined and joined[-1][1] % BLOCK == 0 and joined[-1][0] + joined[-1][1] // BLOCK == lba:
            joined[-1] = (joined[-1][0], joined[-1][1] + length)
        else:
            joined.append((lba, length))
    return joined


def patch_file_entry(
    udf: Udf, source: ByteSource, file: UdfFile, extents: Sequence[tuple[Lba, int]], size: int, links: int | None = None
) -> tuple[int, bytes]:
    """Return the byte offset of a file entry and its whole block for other extents and another size (4/14.9, 4/14.17).

    ``links``: the new link count, None to keep it. Data inside the entry become data in ``extents``.

    :raises UnsupportedError: when the file entry cannot hold so many extents.
    """
    raw = bytearray(source.read(file.entry_offset, BLOCK))
    if links is not None:
        raw[48:50] = links.to_bytes(2, "little")
    raw[34] = raw[34] & ~7 | (1 if file.allocation_type == 1 else 0)
    descriptors = pack_allocation_descriptors(udf, extents, long=file.allocation_type == 1)
    if file.allocation_offset + len(descriptors) > BLOCK:
        place = source.place.inside(printable("/".join(file.path)))
        raise UnsupportedError("has more extents now than its UDF file entry can hold", place)
    raw[56:64] = size.to_bytes(8, "little")
    if file.is_extended:
        raw[64:72] = size.to_bytes(8, "little")
    if file.recorded_blocks:
        at = 72 if file.is_extended else 64
        raw[at : at + 8] = sum(blocks_for(length) for _, length in extents).to_bytes(8, "little")
    raw[file.allocation_offset :] = descriptors.ljust(BLOCK - file.allocation_offset, b"\0")
    at = 212 if file.is_extended else 172
    raw[at : at + 4] = len(descriptors).to_bytes(4, "little")
    return file.entry_offset, seal_descriptor(raw, file.allocation_offset - TAG_SIZE + len(descriptors))


def pack_allocation_descriptors(udf: Udf, extents: Iterable[tuple[Lba, int]], *, long: bool) -> bytes:
    """Return allocation descriptors for ``extents``, short (4/14.14.1) or ``long`` ones (4/14.14.2)."""
    packed = b""
    for lba, length in extents:
        for start in range(0, length, MAX_EXTENT_SIZE):
            count = min(MAX_EXTENT_SIZE, length - start)
            block = lba - udf.partition.start + start // BLOCK
            packed += struct.pack("<IIH6x", count, block, 0) if long else struct.pack("<II", count, block)
    return packed


def _add_to_field(source: ByteSource, offset: int, at: int, growth: int) -> tuple[int, bytes]:
    """Return ``offset``, and the descriptor there with ``growth`` added to its 32-bit number at byte ``at``."""
    raw = bytearray(source.read(offset, BLOCK))
    raw[at : at + 4] = (int.from_bytes(raw[at : at + 4], "little") + growth).to_bytes(4, "little")
    return offset, seal_descriptor(raw)


def seal_descriptor(raw: bytearray, crc_length: int | None = None) -> bytes:
    """Return the descriptor ``raw`` with a new CRC and tag checksum (3/7.2.3, 3/7.2.6).

    ``crc_length``: the bytes behind the tag that the CRC covers, None for as many as before.
    """
    length = int.from_bytes(raw[_CRC_LENGTH], "little") if crc_length is None else crc_length
    raw[_CRC_LENGTH] = length.to_bytes(2, "little")
    raw[8:10] = crc16_xmodem(bytes(raw[TAG_SIZE : TAG_SIZE + length])).to_bytes(2, "little")
    raw[4] = compute_tag_checksum(bytes(raw))
    return bytes(raw)
