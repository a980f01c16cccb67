"""Deltas joined: what was planned on an image that a delta makes is told by ranges of that delta's own base."""

from __future__ import annotations

import os
from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, cast

from cosremaster.deltas.decode import decode_window, read_heads
from cosremaster.deltas.encode import DeltaTable
from cosremaster.deltas.note import DeltaNote, note_path, read_note
from cosremaster.errors import ImageError, Place
from cosremaster.io.frozen import BaseRange, FrozenTable, Origin, OriginRun
from cosremaster.io.pieces import Range
from cosremaster.io.source import open_file

if TYPE_CHECKING:
    from cosremaster.io.source import ByteSource


class CopiedRanges:
    """The ranges that an image has of the base from which a delta makes it. ``note``: which files these are."""

    def __init__(self, note: DeltaNote, ranges: Iterator[tuple[int, int, int]]) -> None:
        """:param ranges: of each its offset in the image, that in the base, and its length, in order."""
        self.note = note
        self._starts, self._origins, self._lengths = array("Q"), array("Q"), array("Q")
        for start, origin, length in ranges:
            self._starts.append(start)
            self._origins.append(origin)
            self._lengths.append(length)

    def map_range(self, offset: int, length: int) -> Iterator[tuple[int | None, int]]:
        """Yield what ``length`` bytes of the image from ``offset`` on are: an offset in the base or None, and a length.

        None stands for bytes that the base has not.
        """
        end, index = offset + length, max(0, bisect_right(self._starts, offset) - 1)
        while offset < end:
            start = self._starts[index] if index < len(self._starts) else end
            stop = start + self._lengths[index] if index < len(self._starts) else end
            if offset < start:
                count = min(end, start) - offset
                yield None, count
            elif offset < stop:
                count = min(end, stop) - offset
                yield self._origins[index] + offset - start, count
            else:
                index, count = index + 1, 0
            offset += count

    def find(self, origin: int, length: int) -> int | None:
        """Return where the image has ``length`` bytes of the base from ``origin`` on; None if it has them not."""
        for start, first, count in zip(self._starts, self._origins, self._lengths, strict=True):
            if first <= origin and origin + length <= first + count:
                return start + origin - first
        return None


class OriginalBase:
    """The base of the first delta, of which the image that it makes has all that is read here."""

    def __init__(self, image: ByteSource, copied: CopiedRanges) -> None:
        """Keep the arguments."""
        self.size, self.place = copied.note.base.size, image.place
        self._image, self._copied = image, copied

    def read_into(self, offset: int, views: Sequence[memoryview]) -> None:
        """Fill ``views``, one after another, from byte ``offset`` on. :raises ImageError: the image has them not."""
        start = self._copied.find(offset, sum(map(len, views)))
        if start is None:
            raise ImageError("has not these bytes of its base", self.place.at(offset))
        self._image.read_into(start, views)


class ComposedTable:
    """``table``, which was planned on an image, as ranges of the base that a delta makes this image from."""

    def __init__(self, table: FrozenTable, copied: CopiedRanges) -> None:
        """Keep the arguments."""
        self.size, self.chunks = table.size, table.chunks
        self.base = cast("ByteSource", OriginalBase(table.base, copied))
        self._table, self._copied = table, copied

    def runs(self) -> Iterator[OriginRun]:
        """Yield all bytes in order as runs of one origin."""
        length = 0
        for run in self._runs():
            if run.origin is Origin.BYTES:
                length += run.length
                continue
            if length:
                yield OriginRun(Origin.BYTES, 0, length)
                length = 0
            yield run
        if length:
            yield OriginRun(Origin.BYTES, 0, length)

    def _runs(self) -> Iterator[OriginRun]:
        """Yield the runs of the table, those of the image as what the base has of them."""
        for run in self._table.runs():
            if run.origin is not Origin.BASE:
                yield run
                continue
            for origin, length in self._copied.map_range(run.offset, run.length):
                yield OriginRun(Origin.BYTES if origin is None else Origin.BASE, origin or 0, length)

    def segments(self, offset: int, length: int) -> Iterator[bytes | BaseRange]:
        """Yield what is in ``length`` bytes from ``offset`` on, in order: ranges of the base, and bytes."""
        for part in self._table.segments(offset, length):
            if not isinstance(part, BaseRange):
                yield part
                continue
            start = part.offset
            for origin, count in self._copied.map_range(part.offset, part.length):
                yield self._table.base.read(start, count) if origin is None else BaseRange(origin, count)
                start += count


def for_original_base(
    table: FrozenTable, base_delta: str | os.PathLike[str] | None, sum_base: Callable[[], str]
) -> tuple[DeltaTable, Callable[[], str]]:
    """Return ``table`` for the base of the delta ``base_delta``, which made what it was planned on, and its digest.

    Without such a delta these are ``table`` and ``sum_base``, which gives the digest of what it was planned on. To ask
    for it raises ImageError where the delta makes another image. Raises as :func:`read_copied`.
    """
    if base_delta is None:
        return table, sum_base
    copied = read_copied(Path(base_delta))
    other = ImageError(f"makes another image than {table.base.place}", Place((str(base_delta),)))
    if copied.note.result.size != table.base.size:
        raise other

    def sum_original() -> str:
        """Return the digest of the delta's base. :raises ImageError: the delta makes another image."""
        if sum_base() != copied.note.result.sha256:
            raise other
        return copied.note.base.sha256

    return ComposedTable(table, copied), sum_original


def read_copied(path: Path) -> CopiedRanges:
    """Return the ranges that the delta at ``path`` copies, from memory while the file and its note stay as they are.

    :raises ImageError: it cannot be read, or no note beside it says for which base it is. :raises CorruptError: it is
        damaged.
    """
    return _read_copied(path, (_stamp_of(path), _stamp_of(note_path(path))))


def _stamp_of(path: Path) -> tuple[int, ...] | None:
    """Return what changes with the file ``path``; None where it is not there."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


@lru_cache(maxsize=2)
def _read_copied(path: Path, _: object) -> CopiedRanges:
    """Return what :func:`read_copied` does, read anew for another state of the files."""
    note = read_note(note_path(path))
    if note is None:
        raise ImageError("has no note beside it that says for which base it is", Place((str(path),)))
    with open_file(path) as delta:
        return CopiedRanges(note, _list_ranges(delta, note.base.size))


def _list_ranges(delta: ByteSource, base_size: int) -> Iterator[tuple[int, int, int]]:
    """Yield the long ranges that ``delta`` copies: the offset in what it makes, that in the base, and the length."""
    position, unread = 0, cast("ByteSource", _UnreadBase(base_size, delta.place))
    for head in read_heads(delta, base_size):
        for piece in decode_window(delta, head, unread, is_checked=False):
            if isinstance(piece, Range):
                yield position, piece.offset, piece.length
            position += piece.length


class _UnreadBase:
    """Stands for the base where nothing but the ranges of it counts; short ones are taken for new bytes."""

    def __init__(self, size: int, place: Place) -> None:
        """Keep the arguments."""
        self.size, self.place = size, place

    def read_into(self, offset: int, views: Sequence[memoryview]) -> None:
        """Leave ``views`` as they are."""
