"""The plain bytes of a compressed stream as a source of pieces."""

from __future__ import annotations

import threading
from collections.abc import Iterator

from cosremaster.codecs.base import StreamParameters
from cosremaster.errors import Place
from cosremaster.io.pieces import PieceTable
from cosremaster.io.streams import ByteReader

CURSORS = 2
"""Decoders kept open: one for what stays in order, one for data that moves behind its neighbours."""


class DecodedSource:
    """Ranges of what ``packed``, of ``form``, decodes to. Nothing is kept but decoders and ``tail``, so going back
    decodes again.

    ``tail``: the last plain bytes, of ``size``. Each thread has decoders of its own.
    """

    def __init__(self, packed: PieceTable, form: StreamParameters, place: Place, tail: bytes, size: int) -> None:
        self._tail = tail
        self._tail_start = size - len(tail)
        self._packed = packed
        self._form = form
        self._place = place
        self._own = threading.local()

    @property
    def name(self) -> str:
        """The place of the stream."""
        return str(self._place)

    @property
    def tail(self) -> bytes:
        """The last plain bytes, as they were given."""
        return self._tail

    def __repr__(self) -> str:
        return f"DecodedSource({self.name!r})"

    def chunks(self, offset: int, length: int) -> Iterator[bytes]:
        """``length`` plain bytes from plain offset ``offset``. :raises CorruptError: damage on the way."""
        if self._form.name == "none":
            yield from self._packed.cut(offset, offset + length).chunks()
            return
        if offset >= self._tail_start:
            start = offset - self._tail_start
            yield self._tail[start : start + length]
            return
        cursor = self._cursor(offset)
        cursor.skip(offset - cursor.position)
        yield from cursor.read_parts(length)

    def _cursor(self, offset: int) -> ByteReader:
        """The open decoder nearest before ``offset``, or a new one, if that can begin nearer, in place of the one
        longest unused."""
        cursors: list[ByteReader] = getattr(self._own, "cursors", [])
        fit = max(
            (cursor for cursor in cursors if cursor.position <= offset),
            key=lambda cursor: cursor.position,
            default=None,
        )
        start, chunks = self._form.decode_from(self._packed, offset, self._place)
        if fit is None or fit.position < start:
            fit = ByteReader(chunks, self._place)
            fit.position = start
        else:
            cursors.remove(fit)
        self._own.cursors = [*cursors, fit][-CURSORS:]
        return fit

    def close(self) -> None:
        """Lets this thread's decoders go."""
        self._own.cursors = []
