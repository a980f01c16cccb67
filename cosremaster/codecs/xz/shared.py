"""Finding the front that two .xz streams have in common, without decoding the second one.

A stream with new data spliced in begins with the blocks of the old stream. The last of these may be cut at a chunk
border, and headers may have other sizes. Equal packed bytes have equal plain bytes.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right

from cosremaster.codecs.checks import SIZES
from cosremaster.codecs.xz.blocks import ChunkBorders, XzBlock
from cosremaster.codecs.xz.container import STREAM_HEADER_SIZE, BlockHeader, IndexRecord
from cosremaster.codecs.xz.read_block import read_header
from cosremaster.codecs.xz.repack import XzParameters
from cosremaster.errors import CosremasterError, Place
from cosremaster.io.pieces import PieceTable
from cosremaster.io.streams import ByteReader, common_prefix_length, same_bytes
from cosremaster.records import Struct


class XzFront(Struct, frozen=True):
    """The first blocks of a stream with check id ``check``, known without decoding it."""

    check: int
    blocks: tuple[XzBlock, ...]

    @property
    def end(self) -> int:
        """The packed offset of the next block, or of the index."""
        return self.blocks[-1].end

    @property
    def plain(self) -> int:
        """The number of plain bytes in the blocks."""
        return self.blocks[-1].plain_end


def find_shared_front(parameters: XzParameters, old: PieceTable, other: PieceTable) -> XzFront | None:
    """Return the first blocks of ``other`` that ``old``, a stream of ``parameters``, has too; None if it has none."""
    if parameters.streams != 1 or not _equal_bytes(old, other, 0, STREAM_HEADER_SIZE):
        return None
    blocks: list[XzBlock] = []
    offset = STREAM_HEADER_SIZE
    for old_block in parameters.blocks:
        block = _find_block(old_block, old, other, offset)
        if block is None:
            break
        blocks.append(block)
        offset = block.end
        if block.record.plain != old_block.record.plain:
            break
    return XzFront(parameters.check, tuple(blocks)) if blocks else None


def _equal_bytes(old: PieceTable, other: PieceTable, start: int, end: int) -> bool:
    """Return whether both streams have the same bytes from ``start`` to ``end``."""
    return end <= other.length and same_bytes(old.cut(start, end).chunks(), other.cut(start, end).chunks())


def _find_block(block: XzBlock, old: PieceTable, other: PieceTable, start: int) -> XzBlock | None:
    """Return ``block`` as it is at byte ``start`` of ``other``, whole or cut at a border; None if it is not there."""
    header = _read_header(other, start)
    if header is None or header.filters != block.header.filters:
        return None
    shift = start + len(header.raw) - block.data
    end = min(block.end, other.length - shift)
    equal = common_prefix_length(old.cut(block.data, end).chunks(), other.cut(block.data + shift, end + shift).chunks())
    is_whole = block.data + equal == block.end
    border = len(block.borders.packed) - 1 if is_whole else _find_border(block, equal, other, shift)
    if border is None:
        return None
    size, plain = block.borders.packed[border] + 1 - block.data, block.borders.plain[border] - block.plain
    if header.plain not in (None, plain) or header.packed not in (None, size):
        return None
    borders = ChunkBorders(
        array("Q", (offset + shift for offset in block.borders.packed[: border + 1])),
        block.borders.plain[: border + 1],
        block.borders.checks[: border + 1],
    )
    record = IndexRecord(len(header.raw) + size + SIZES[block.check], plain)
    end = start + record.padded
    return XzBlock(header, block.check, start, block.data + shift, block.plain, end, record, borders)


def _read_header(other: PieceTable, start: int) -> BlockHeader | None:
    """Return the block header at byte ``start``; None behind the last block, or where it is damaged."""
    reader = ByteReader(other.cut(min(start, other.length), other.length).chunks(), Place())
    if reader.peek(1) in (b"", b"\0"):
        return None
    try:
        return read_header(reader)
    except CosremasterError:
        return None


def _find_border(block: XzBlock, equal: int, other: PieceTable, shift: int) -> int | None:
    """Return the number of the border at which ``block`` ends in ``other``, where it is ``shift`` bytes further on.

    That is the last border in the first ``equal`` bytes of its data. None if the block does not end there with the
    check of its bytes before.
    """
    border = bisect_right(block.borders.packed, block.data + equal) - 1
    check = block.check_before(border)
    if border < 1 or not block.can_be_cut or (check is None and SIZES[block.check]):
        return None
    offset = block.borders.packed[border]
    block_end = bytes(1 + -(offset + 1 - block.data) % 4) + (check or 0).to_bytes(SIZES[block.check], "little")
    return border if other.read(offset + shift, len(block_end)) == block_end else None
