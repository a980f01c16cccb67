"""A piece table that outlives the sources which it was planned with: all but ranges of the base, and of large files of
the user, is kept as bytes.
"""

from __future__ import annotations

import enum
import hashlib
from array import array
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, cast

from cosremaster.io.blobs import LARGE, BlobStore, MemoryBlob, StoredBlob
from cosremaster.io.descriptors import STEP
from cosremaster.io.framed import ConcatSource, FramedSource
from cosremaster.io.pieces import Buffers, DirectSource, Literal, Piece, PieceTable, Range, Zeros
from cosremaster.io.streams import CHUNK
from cosremaster.records.tuples import NamedTuple

if TYPE_CHECKING:
    from cosremaster.io.source import ByteSource

SHARED = 4096
"""Bytes from which on a content is looked for among those of other tables."""

_ZEROS = bytes(CHUNK)


class DatedFile(DirectSource, Protocol):
    """A file of the user, each reading of which raises an error once the file has changed."""

    def stamp(self) -> str:
        """Return its name and state, which change with its bytes."""
        ...

    def check_unchanged(self) -> None:
        """Compare its state with that when it was planned. :raises CosremasterError: it changed, or is not there."""
        ...

    def exact(self) -> DatedFile:
        """Return the file for who has no checksum of its bytes: no time that was set back hides a change of it."""
        ...


@dataclass(frozen=True, slots=True)
class BaseRange:
    """``length`` bytes of the base from byte ``offset`` on."""

    offset: int
    length: int


@dataclass(frozen=True, slots=True, kw_only=True)
class OriginSizes:
    """How many ``pieces`` a frozen table has, and how many of its bytes come from where.

    ``base``: ranges of the base; ``zeros``; ``own``: bytes of this table alone in memory; ``shared``: bytes in memory
    that equal ones of other tables share; ``stored``: bytes in a temporary file, shared likewise; ``files``: ranges of
    files of the user, with headers of the frames around them.
    """

    pieces: int
    base: int = 0
    zeros: int = 0
    own: int = 0
    shared: int = 0
    stored: int = 0
    files: int = 0


class Origin(enum.Enum):
    """Where the bytes of a run come from."""

    BASE = enum.auto()
    ZEROS = enum.auto()
    BYTES = enum.auto()


class OriginRun(NamedTuple):
    """``length`` bytes of one ``origin``, from byte ``offset`` of the base on where that is the origin."""

    origin: Origin
    offset: int
    length: int

    def split(self, length: int) -> tuple[OriginRun, OriginRun]:
        """Return the first ``length`` bytes, all if they are fewer, and the rest."""
        count = min(length, self.length)
        offset = self.offset + count if self.origin is Origin.BASE else 0
        return OriginRun(self.origin, self.offset, count), OriginRun(self.origin, offset, self.length - count)


_ORIGINS = ("zeros", "base", "own")
_FIXED = len(_ORIGINS)  # the numbers below are for zeros, the base, and bytes of this table alone


class FrozenTable:
    """An immutable table of pieces, flat, that any thread reads at any offset; a direct source.

    Its bytes are those of zeros, of ``base``, of ``own`` and of ``holders``.
    """

    def __init__(
        self, base: ByteSource, starts: array[int], numbers: array[int], offsets: array[int], own: bytes,
        holders: tuple[DirectSource, ...], digest: bytes,
    ) -> None:  # fmt: skip
        """:param starts: the offset of each piece, and at last the length of all.
        :param numbers: for each piece 0 for zeros, 1 for ``base``, 2 for ``own``, and from 3 on one of ``holders``.
        :param offsets: where each piece begins in that.
        :param digest: the SHA-256 of all pieces and of what they refer to, but for the bytes of ``base``.
        """
        self.name, self.base, self.digest = base.name, base, digest
        self._starts, self._numbers, self._offsets = starts, numbers, offsets
        self._own, self._holders = own, holders
        self.size = starts[-1]

    @property
    def files(self) -> tuple[DatedFile, ...]:
        """The files of the user that are read."""
        files: dict[DatedFile, None] = {}
        for holder in self._holders:
            if isinstance(holder, FramedSource):
                files.update(dict.fromkeys(_files_in(holder.table)))
            elif hasattr(holder, "stamp"):
                files[cast("DatedFile", holder)] = None
        return tuple(files)

    def sizes(self) -> OriginSizes:
        """Return how many bytes come from where."""
        counts = Counter[str]()
        for index, number in enumerate(self._numbers):
            counts[self._origin_of(number)] += self._starts[index + 1] - self._starts[index]
        return OriginSizes(pieces=len(self._numbers), **counts)

    def _origin_of(self, number: int) -> str:
        """Return the field of :class:`OriginSizes` for a piece with this number."""
        if number < _FIXED:
            return _ORIGINS[number]
        match self._holders[number - _FIXED]:
            case MemoryBlob():
                return "shared"
            case StoredBlob():
                return "stored"
            case _:
                return "files"

    def _parts(self, offset: int, length: int) -> Iterator[tuple[int, int, int]]:
        """Yield the pieces in ``length`` bytes from ``offset`` on.

        Each is its number, the offset in what this stands for, and its length.
        """
        end = min(offset + length, self.size)
        index = bisect_right(self._starts, offset) - 1
        while offset < end:
            stop = min(end, self._starts[index + 1])
            yield self._numbers[index], self._offsets[index] + offset - self._starts[index], stop - offset
            offset, index = stop, index + 1

    def fill(self, offset: int, views: Sequence[memoryview]) -> None:
        """Fill ``views``, one after another, with the bytes from ``offset`` on, which must not pass the end."""
        buffers = Buffers(views)
        for number, start, count in self._parts(offset, buffers.length):
            targets = buffers.take(count)
            if number == 1:
                self.base.read_into(start, targets)
            elif number >= _FIXED:
                self._holders[number - _FIXED].fill(start, targets)
            else:
                self._put_bytes(number, start, targets)

    def _put_bytes(self, number: int, start: int, targets: Sequence[memoryview]) -> None:
        """Fill ``targets`` with zeros, or with bytes of this table alone from ``start`` on."""
        for target in targets:
            if number:
                target[:] = self._own[start : start + len(target)]
                start += len(target)
                continue
            for position in range(0, len(target), CHUNK):
                part = target[position : position + CHUNK]
                part[:] = _ZEROS[: len(part)]

    def read(self, offset: int, length: int) -> bytes:
        """Return ``length`` bytes from ``offset`` on, fewer where the table ends."""
        length = max(0, min(length, self.size - offset))
        index = bisect_right(self._starts, offset) - 1
        number = self._numbers[index] if length else 0
        if 0 < number < _FIXED and offset + length <= self._starts[index + 1]:  # the usual case: from a single place
            start = self._offsets[index] + offset - self._starts[index]
            data = self.base.read(start, length) if number == 1 else self._own[start : start + length]
            if len(data) == length:
                return data
        buffer = bytearray(length)
        self.fill(offset, [memoryview(buffer)])
        return bytes(buffer)

    def chunks(self, offset: int, length: int) -> Iterator[bytes]:
        """Yield ``length`` bytes from ``offset`` on."""
        for start in range(offset, offset + length, STEP):
            yield self.read(start, min(STEP, offset + length - start))

    def runs(self) -> Iterator[OriginRun]:
        """Yield all bytes in order as runs of one origin; neighbours from the base may continue each other."""
        length = 0
        for number, start, count in self._parts(0, self.size):
            if number > 1:
                length += count
                continue
            if length:
                yield OriginRun(Origin.BYTES, 0, length)
                length = 0
            yield OriginRun(Origin.BASE, start, count) if number else OriginRun(Origin.ZEROS, 0, count)
        if length:
            yield OriginRun(Origin.BYTES, 0, length)

    def segments(self, offset: int, length: int) -> Iterator[bytes | BaseRange]:
        """Yield what is in ``length`` bytes from ``offset`` on: ranges of the base, and bytes of at most a MiB."""
        for number, origin, count in self._parts(offset, length):
            if number == 1:
                yield BaseRange(origin, count)
                offset += count
                continue
            for start in range(offset, offset + count, STEP):
                yield self.read(start, min(STEP, offset + count - start))
            offset += count


def freeze_table(table: PieceTable, base: ByteSource, store: BlobStore) -> FrozenTable:
    """Return ``table`` so that it needs none of its sources any more, but ``base`` and large files of the user.

    ``store``: keeps bytes that several tables may have. Raises what reading ``table`` raises.
    """
    starts, numbers, offsets = array("Q", [0]), array("I"), array("Q")
    own, holders = bytearray(), dict[DirectSource, int]()
    digest = hashlib.sha256()
    for piece in _freeze_pieces(table, base, store):
        digest.update(_describe(piece, base))
        number, offset = 0, 0
        if isinstance(piece, Literal):
            number, offset = 2, len(own)
            own += piece.data
        elif isinstance(piece, Range) and piece.source is base:
            number, offset = 1, piece.offset
        elif isinstance(piece, Range):
            holder = cast("DirectSource", piece.source)
            number, offset = holders.setdefault(holder, len(holders) + _FIXED), piece.offset
        numbers.append(number)
        offsets.append(offset)
        starts.append(starts[-1] + piece.length)
    return FrozenTable(base, starts, numbers, offsets, bytes(own), tuple(holders), digest.digest())


def _freeze_pieces(table: PieceTable, base: ByteSource, store: BlobStore) -> Iterator[Piece]:
    """Yield the pieces of ``table`` with what does not stay read: as literals if it is short, else as blobs."""
    for piece in table.pieces:
        if isinstance(piece, Zeros) or (isinstance(piece, Range) and piece.source is base):
            yield piece
        elif isinstance(piece, Range) and _is_large_file(piece):
            yield piece._replace(source=cast("DatedFile", piece.source).exact())
        elif isinstance(piece, Range) and isinstance(piece.source, ConcatSource):
            yield from _freeze_pieces(piece.source.table.cut(piece.offset, piece.offset + piece.length), base, store)
        elif (
            isinstance(piece, Range) and isinstance(piece.source, FramedSource) and any(_files_in(PieceTable([piece])))
        ):
            framed = piece.source
            inner = PieceTable(_freeze_pieces(framed.table, base, store))
            yield Range(FramedSource(inner, framed.framing, framed.crc, framed.name), piece.offset, piece.length)
        elif piece.length < SHARED:
            yield Literal(b"".join(piece.chunks()))
        else:
            yield Range(store.put(piece.chunks(), piece.length), 0, piece.length)


def _is_large_file(piece: Range) -> bool:
    """Return whether ``piece`` is so much of a file of the user that it is not kept in memory."""
    return piece.length >= LARGE and hasattr(piece.source, "stamp")


def _files_in(table: PieceTable) -> Iterator[DatedFile]:
    """Yield the files of the user that ``table`` refers to by large pieces."""
    for piece in table.pieces:
        if isinstance(piece, Range) and isinstance(piece.source, (ConcatSource, FramedSource)):
            yield from _files_in(piece.source.table)
        elif isinstance(piece, Range) and _is_large_file(piece):
            yield cast("DatedFile", piece.source)


def _describe(piece: Piece, base: ByteSource) -> bytes:
    """Return what stands for ``piece`` of a frozen table in a digest, other for other bytes."""
    match piece:
        case Zeros():
            return b"zeros %d\n" % piece.length
        case Literal():
            return b"bytes %d %s\n" % (piece.length, hashlib.sha256(piece.data).digest())
        case Range(source=MemoryBlob() | StoredBlob() as blob):
            return b"bytes %d %s\n" % (piece.length, blob.digest)
        case Range(source=FramedSource() as framed):
            inside = b"".join(_describe(part, base) for part in framed.table.pieces)
            frames = f"{type(framed.framing).__name__} {framed.framing.size}".encode()
            return b"frames %d %d %s %s\n" % (piece.offset, piece.length, frames, hashlib.sha256(inside).digest())
        case Range() if piece.source is base:
            return b"base %d %d\n" % (piece.offset, piece.length)
        case _:
            stamp = cast("DatedFile", piece.source).stamp().encode()
            return b"file %d %d %d %s\n" % (piece.offset, piece.length, len(stamp), stamp)
