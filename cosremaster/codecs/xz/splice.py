"""Planning which blocks of an old .xz stream a new one can keep. Pure: a piece table and blocks in, parts out."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from typing import TypeAlias

from cosremaster.codecs.xz.blocks import XzBlock
from cosremaster.io.pieces import Piece, PieceTable, Range, Source
from cosremaster.records import Struct


class KeptBlock(Struct, frozen=True):
    """A block of the old stream that is kept: whole, or up to the chunk border with number ``border``."""

    block: XzBlock
    border: int | None

    @property
    def plain(self) -> int:
        """The number of plain bytes that are kept."""
        block = self.block
        return block.record.plain if self.border is None else block.borders.plain[self.border] - block.plain


class NewData(Struct, frozen=True):
    """Plain bytes that have to be encoded."""

    table: PieceTable


Part: TypeAlias = KeptBlock | NewData


def plan_splice(plain: PieceTable, decoded: Source, blocks: Sequence[XzBlock], check: int) -> tuple[Part, ...]:
    """Return ``plain`` in order, as blocks of the old stream that hold the same bytes and the bytes between them.

    A block is kept where all of its plain bytes are in one range, wherever that is now; its front, up to a chunk
    border, where only the front is.

    :param decoded: the plain bytes of the old stream, as the source of ranges in ``plain``.
    :param blocks: the blocks of the old stream.
    :param check: the check id of the new stream; blocks with another cannot be kept.
    """
    parts: list[Part] = []
    pieces: list[Piece] = []
    for part in _kept_blocks_and_pieces(plain, decoded, [block for block in blocks if block.record.plain], check):
        if isinstance(part, KeptBlock):
            if pieces:
                parts.append(NewData(PieceTable(pieces)))
                pieces = []
            parts.append(part)
        else:
            pieces.append(part)
    if pieces:
        parts.append(NewData(PieceTable(pieces)))
    return tuple(parts)


def _kept_blocks_and_pieces(
    plain: PieceTable, decoded: Source, blocks: Sequence[XzBlock], check: int
) -> Iterator[KeptBlock | Piece]:
    """Yield ``plain`` in order, as kept blocks and the pieces between them."""
    starts = [block.plain for block in blocks]
    for piece in plain.pieces:
        if not isinstance(piece, Range) or piece.source is not decoded:
            yield piece
            continue
        offset, end = piece.offset, piece.offset + piece.length
        while offset < end:
            block = blocks[bisect_right(starts, offset) - 1]
            kept_block = _keep(block, offset, end, check)
            if kept_block is not None:
                yield kept_block
                offset += kept_block.plain
            stop = min(end, block.plain_end)
            if offset < stop:
                yield Range(decoded, offset, stop - offset, piece.packed)
            offset = stop


def _keep(block: XzBlock, offset: int, end: int, check: int) -> KeptBlock | None:
    """Return the part of ``block`` that can be kept, where the new stream has plain bytes ``offset`` to ``end``."""
    if offset != block.plain or block.check != check:
        return None
    if end >= block.plain_end:
        return KeptBlock(block, None)
    border = block.borders.last_before(end) if block.can_be_cut else 0
    return KeptBlock(block, border) if border > 0 else None
