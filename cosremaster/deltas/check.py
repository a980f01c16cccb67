"""A finished delta compared with the pieces that it stands for: applied on paper, without reading the base."""

from __future__ import annotations

from itertools import pairwise

from cosremaster.deltas.decode import decode_window, read_heads
from cosremaster.deltas.encode import DeltaTable
from cosremaster.errors import CorruptError, Place, ProofError
from cosremaster.io.frozen import BaseRange
from cosremaster.io.pieces import Piece, Range
from cosremaster.io.source import ByteSource
from cosremaster.io.streams import same_bytes


def check_delta(delta: ByteSource, table: DeltaTable, place: Place) -> None:
    """Check that ``delta`` makes the bytes of ``table``, range by range; ``place``: its place in messages.

    :raises ProofError: it does not.
    """
    position = 0
    try:
        for head in read_heads(delta, table.base.size):
            for piece in decode_window(delta, head, table.base, is_checked=False):
                if not _is_same(piece, table, position):
                    raise ProofError(f"makes other bytes than planned at {position:,}", place)
                position += piece.length
    except CorruptError as error:
        raise ProofError(f"cannot be read: {error.message}", place) from error
    if position != table.size:
        raise ProofError(f"makes {position:,} bytes, and {table.size:,} were planned", place)


def _is_same(piece: Piece, table: DeltaTable, position: int) -> bool:
    """Return whether ``table`` has ``piece`` at ``position``: the same range of the base, or else the same bytes."""
    if position + piece.length > table.size:
        return False
    if not isinstance(piece, Range):
        return same_bytes(piece.chunks(), table.chunks(position, piece.length))
    parts = list(table.segments(position, piece.length))
    ranges = [part for part in parts if isinstance(part, BaseRange)]
    return (
        len(ranges) == len(parts)
        and ranges[0].offset == piece.offset
        and sum(part.length for part in ranges) == piece.length
        and all(first.offset + first.length == second.offset for first, second in pairwise(ranges))
    )
