"""Which compressed parts of an old .xz stream a new one can keep. Pure: a piece table and blocks in, parts out."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from typing import TypeAlias

from msgspec import Struct

from cosremaster.codecs.xz.blocks import XzBlock
from cosremaster.io.pieces import Piece, PieceTable, Range, Source


class KeptBlock(Struct, frozen=True):
    """An old block: whole, or (``cut``) up to that border of its chunks."""

    block: XzBlock
    cut: int | None

    @property
    def plain(self) -> int:
        """Plain bytes that are kept."""
        block = self.block
        return block.record.plain if self.cut is None else block.borders.plain[self.cut] - block.plain


class NewData(Struct, frozen=True):
    """Plain bytes that have to be encoded."""

    table: PieceTable


Part: TypeAlias = KeptBlock | NewData


def plan_splice(plain: PieceTable, decoded: Source, blocks: Sequence[XzBlock], check: int) -> tuple[Part, ...]:
    """``plain`` in order as parts of the old stream that hold the same bytes, and what is between them.

    Ranges of ``decoded`` are plain bytes of the old stream. A block is kept where all of it stands in such a
    range, wherever that is now; its front, up to a chunk's border, where only the front does. ``check`` is the
    new stream's; blocks under another cannot be kept.
    """
    parts: list[Part] = []
    fresh: list[Piece] = []
    for part in _parts(plain, decoded, [block for block in blocks if block.record.plain], check):
        if isinstance(part, KeptBlock):
            if fresh:
                parts.append(NewData(PieceTable(fresh)))
                fresh = []
            parts.append(part)
        else:
            fresh.append(part)
    if fresh:
        parts.append(NewData(PieceTable(fresh)))
    return tuple(parts)


def _parts(plain: PieceTable, decoded: Source, blocks: Sequence[XzBlock], check: int) -> Iterator[KeptBlock | Piece]:
    starts = [block.plain for block in blocks]
    for piece in plain.pieces:
        if not isinstance(piece, Range) or piece.source is not decoded:
            yield piece
            continue
        offset, end = piece.offset, piece.offset + piece.length
        while offset < end:
            block = blocks[bisect_right(starts, offset) - 1]
            kept = _kept(block, offset, end, check)
            if kept is not None:
                yield kept
                offset += kept.plain
            stop = min(end, block.plain_end)
            if offset < stop:
                yield Range(decoded, offset, stop - offset, piece.packed)
            offset = stop


def _kept(block: XzBlock, offset: int, end: int, check: int) -> KeptBlock | None:
    """What of ``block`` can be kept where its plain bytes from ``offset`` to ``end`` stand in the new stream."""
    if offset != block.plain or block.check != check:
        return None
    if end >= block.plain_end:
        return KeptBlock(block, None)
    cut = block.borders.before(end) if block.can_be_cut else 0
    return KeptBlock(block, cut) if cut > 0 else None
