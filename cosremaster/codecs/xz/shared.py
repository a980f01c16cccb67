"""What two .xz streams have in common from their beginning, found without decoding the second.

A stream that additions were spliced into begins with the old one's blocks, the last of them cut at a chunk border,
under headers that may tell other sizes. Equal packed bytes are equal plain bytes, so all before that border is known.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right

from msgspec import Struct

from cosremaster.codecs.checks import SIZES
from cosremaster.codecs.xz.blocks import ChunkBorders, XzBlock
from cosremaster.codecs.xz.container import STREAM_HEADER_SIZE, BlockHeader, IndexRecord
from cosremaster.codecs.xz.read_block import read_header
from cosremaster.codecs.xz.repack import XzParameters
from cosremaster.errors import CosremasterError, Place
from cosremaster.io.pieces import PieceTable
from cosremaster.io.streams import ByteReader, common_prefix_length, same_bytes


class XzFront(Struct, frozen=True):
    """Whole blocks that a stream with check ``check`` begins with, known without decoding it."""

    check: int
    blocks: tuple[XzBlock, ...]

    @property
    def end(self) -> int:
        """Where the next block, or the index, begins."""
        return self.blocks[-1].end

    @property
    def plain(self) -> int:
        """How many plain bytes the blocks hold."""
        return self.blocks[-1].plain_end


def find_shared_front(form: XzParameters, old: PieceTable, other: PieceTable) -> XzFront | None:
    """The blocks of the stream ``other`` that are known from ``old``, a stream of ``form``; None if there are none."""
    if form.streams != 1 or not _same(old, other, 0, STREAM_HEADER_SIZE):
        return None
    blocks: list[XzBlock] = []
    at = STREAM_HEADER_SIZE
    for block in form.blocks:
        known = _known(block, old, other, at)
        if known is None:
            break
        blocks.append(known)
        at = known.end
        if known.record.plain != block.record.plain:
            break
    return XzFront(form.check, tuple(blocks)) if blocks else None


def _same(old: PieceTable, other: PieceTable, start: int, end: int) -> bool:
    return end <= other.length and same_bytes(old.cut(start, end).chunks(), other.cut(start, end).chunks())


def _known(block: XzBlock, old: PieceTable, other: PieceTable, start: int) -> XzBlock | None:
    """``block`` as it stands at byte ``start`` of ``other``, whole or cut at a chunk border; None if it does not."""
    header = _header(other, start)
    if header is None or header.filters != block.header.filters:
        return None
    moved = start + len(header.raw) - block.data
    stop = min(block.end, other.length - moved)
    same = common_prefix_length(
        old.cut(block.data, stop).chunks(), other.cut(block.data + moved, stop + moved).chunks()
    )
    whole = block.data + same == block.end
    cut = len(block.borders.packed) - 1 if whole else _cut(block, same, other, moved)
    if cut is None:
        return None
    size, plain = block.borders.packed[cut] + 1 - block.data, block.borders.plain[cut] - block.plain
    if header.plain not in (None, plain) or header.packed not in (None, size):
        return None
    cuts = ChunkBorders(
        array("Q", (at + moved for at in block.borders.packed[: cut + 1])), block.borders.plain[: cut + 1],
        block.borders.checks[: cut + 1],
    )  # fmt: skip
    record = IndexRecord(len(header.raw) + size + SIZES[block.check], plain)
    return XzBlock(header, block.check, start, block.data + moved, block.plain, start + record.padded, record, cuts)


def _header(other: PieceTable, start: int) -> BlockHeader | None:
    """The block header at byte ``start``; None where the blocks end, or something is wrong with it."""
    reader = ByteReader(other.cut(min(start, other.length), other.length).chunks(), Place())
    if reader.peek(1) in (b"", b"\0"):
        return None
    try:
        return read_header(reader)
    except CosremasterError:
        return None


def _cut(block: XzBlock, same: int, other: PieceTable, moved: int) -> int | None:
    """The border of ``block`` at which it ends in ``other``, ``moved`` bytes further on: the last one in the first
    ``same`` bytes of its data. None if it does not end there, or not with the check of what is before."""
    cut = bisect_right(block.borders.packed, block.data + same) - 1
    number = block.check_before(cut)
    if cut < 1 or not block.can_be_cut or (number is None and SIZES[block.check]):
        return None
    border = block.borders.packed[cut]
    closing = bytes(1 + -(border + 1 - block.data) % 4) + (number or 0).to_bytes(SIZES[block.check], "little")
    end = border + moved + len(closing)
    fits = end <= other.length and other.read(border + moved, len(closing)) == closing
    return cut if fits else None
