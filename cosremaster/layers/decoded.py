"""The plain bytes of a compressed stream as a source of pieces."""

from __future__ import annotations

from collections.abc import Iterator

from cosremaster.codecs.base import Codec
from cosremaster.errors import Place
from cosremaster.pieces import PieceTable
from cosremaster.streams import ByteReader

CURSORS = 2
"""Decoders kept open: one for what stays in order, one for data that moves behind its neighbours."""


class DecodedSource:
    """Ranges of what ``packed`` decodes to. Nothing is kept but decoders and ``tail``, so going back decodes again.

    ``tail``: the last plain bytes, of ``size``. For one thread at a time.
    """

    def __init__(self, packed: PieceTable, codec: Codec, place: Place, tail: bytes, size: int) -> None:
        self._tail = tail
        self._tail_start = size - len(tail)
        self._packed = packed
        self._codec = codec
        self._place = place
        self._cursors: list[ByteReader] = []

    @property
    def name(self) -> str:
        """The place of the stream."""
        return str(self._place)

    def __repr__(self) -> str:
        return f"DecodedSource({self.name!r})"

    def chunks(self, offset: int, length: int) -> Iterator[bytes]:
        """``length`` plain bytes from plain offset ``offset``. :raises CorruptError: damage on the way."""
        if offset >= self._tail_start:
            start = offset - self._tail_start
            yield self._tail[start : start + length]
            return
        cursor = self._cursor(offset)
        cursor.skip(offset - cursor.position)
        yield from cursor.pieces(length)

    def _cursor(self, offset: int) -> ByteReader:
        """The open decoder nearest before ``offset``, or a new one in place of the one longest unused."""
        fit = max(
            (cursor for cursor in self._cursors if cursor.position <= offset),
            key=lambda cursor: cursor.position,
            default=None,
        )
        if fit is None:
            packed = ByteReader(self._packed.chunks(), self._place)
            fit = ByteReader(self._codec.decode(packed).chunks(), self._place)
        else:
            self._cursors.remove(fit)
        self._cursors = [*self._cursors, fit][-CURSORS:]
        return fit

    def close(self) -> None:
        """Lets the decoders go."""
        self._cursors = []
