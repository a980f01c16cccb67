"""The plain bytes of a compressed stream as a source of pieces."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING

from cosremaster.errors import Place
from cosremaster.io.pieces import PieceTable
from cosremaster.io.streams import ByteReader

if TYPE_CHECKING:
    from cosremaster.codecs.base import StreamParameters
    from cosremaster.codecs.gzip.deflate import DeflatedAhead
    from cosremaster.layers.formats import Converter
    from cosremaster.layers.kept_plain import KeptPlain

CURSORS = 2
"""Decoders kept open: one for what stays in order, one for data that moves behind its neighbours."""


class DecodedSource:
    """Ranges of the plain bytes of the compressed stream ``packed``.

    Only open decoders and ``tail`` are in memory, so going back decodes again, unless the bytes were kept in a file.
    Each thread has decoders of its own.
    """

    def __init__(
        self, packed: PieceTable, parameters: StreamParameters, place: Place, tail: bytes, size: int,
        convert: Converter | None = None, kept: KeptPlain | None = None,
    ) -> None:  # fmt: skip
        """:param tail: the last of the ``size`` plain bytes.
        :param convert: turns the decoded bytes into those that this source has.
        :param kept: the bytes that this source has, from an earlier reading.
        """
        self._tail = tail
        self._tail_start = size - len(tail)
        self._packed = packed
        self._parameters = parameters
        self._place = place
        self._convert = convert
        self._kept = kept
        self._thread = threading.local()

    @property
    def name(self) -> str:
        """The place of the stream."""
        return str(self._place)

    @property
    def is_sequential(self) -> bool:
        """Whether going back decodes again."""
        if self._parameters.is_identity and self._convert is None:
            return False
        return self._kept is None or not self._kept.is_complete

    @property
    def tail(self) -> bytes:
        """The last plain bytes, as they were given."""
        return self._tail

    @property
    def ahead(self) -> DeflatedAhead | None:
        """The deflate blocks that were made of these bytes while they were read; None where none were."""
        return None if self._kept is None else self._kept.ahead

    def __repr__(self) -> str:
        """Return the place of the stream, for debugging."""
        return f"DecodedSource({self.name!r})"

    def find_stored(self, offset: int, length: int) -> PieceTable | None:
        """Return the bytes that hold ``length`` plain bytes from ``offset`` on as they are; None if they are packed."""
        if self._parameters.is_identity and self._convert is None:
            return self._packed.cut(offset, offset + length)
        return None

    def chunks(self, offset: int, length: int) -> Iterator[bytes]:
        """Yield ``length`` plain bytes from plain byte ``offset`` on. :raises CorruptError: damage on the way."""
        if self._parameters.is_identity and self._convert is None:
            yield from self._packed.cut(offset, offset + length).chunks()
            return
        if offset >= self._tail_start:
            start = offset - self._tail_start
            yield self._tail[start : start + length]
            return
        if self._kept is not None and self._kept.is_complete:
            yield from self._kept.chunks(offset, length)
            return
        cursor = self._cursor(offset)
        cursor.skip(offset - cursor.position)
        yield from cursor.read_parts(length)

    def _cursor(self, offset: int) -> ByteReader:
        """Return the open decoder nearest before ``offset``, or a new one where that can begin nearer.

        A new one takes the place of the one longest unused.
        """
        cursors: list[ByteReader] = getattr(self._thread, "cursors", [])
        cursor = max(
            (cursor for cursor in cursors if cursor.position <= offset),
            key=lambda cursor: cursor.position,
            default=None,
        )
        start, chunks = self._parameters.decode_from(self._packed, 0 if self._convert else offset, self._place)
        if cursor is None or cursor.position < start:
            if self._convert is not None:
                chunks = self._convert(chunks, self._place)
            cursor = ByteReader(chunks, self._place)
            cursor.position = start
        else:
            cursors.remove(cursor)
        self._thread.cursors = [*cursors, cursor][-CURSORS:]
        return cursor

    def close(self) -> None:
        """Drop this thread's decoders."""
        self._thread.cursors = []
