"""Where the bytes of a file lie: in the image, or in the plain bytes of a layer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from cosremaster.errors import printable
from cosremaster.io.pieces import Piece, PieceTable, Range, Zeros
from cosremaster.iso.read import has_volume
from cosremaster.records.lazy_dataclass import dataclass
from cosremaster.tree.nodes import Node
from cosremaster.units import BLOCK

LISTED = 16
"""Lines of extents before the rest is only counted."""


@dataclass(frozen=True, slots=True)
class DataExtent:
    """``length`` bytes of a file from its byte ``start`` on, and where they lie.

    ``holder``: the image or the layer that has them; empty for a hole, whose zeros lie nowhere. ``offset``: the byte in
    the holder, of whose plain bytes where it is compressed; None where that is not known. ``lba``: the block of 2,048
    bytes, where they begin with one of an ISO. ``packed``: bytes that they take there, where they are compressed by
    themselves, as in a squashfs.
    """

    start: int
    length: int
    holder: str
    offset: int | None = None
    lba: int | None = None
    packed: int | None = None

    def describe(self) -> str:
        """Return the extent in words."""
        if not self.holder:
            return f"hole of {self.length:,} bytes"
        what = f"{self.length:,} bytes" if self.packed is None else f"{self.length:,} bytes packed in {self.packed:,}"
        if self.offset is None:
            return f"{what}, packed in {self.holder}"
        if self.lba is None:
            count = "plain byte" if " » " in self.holder and self.packed is None else "byte"
            return f"{what} at {count} {self.offset:,} of {self.holder}"
        return f"{what} at LBA {self.lba:,} (byte {self.offset:,}) of {self.holder}"


def list_extents(node: Node) -> tuple[DataExtent, ...]:
    """Return where the bytes of ``node`` lie; empty where it has none. Raises as reading its table does."""
    return () if node.content is None else tuple(_join(_extents_of(node.content.table().pieces)))


def _extents_of(pieces: Iterable[Piece]) -> Iterator[DataExtent]:
    """Yield where each of ``pieces`` lies."""
    start = 0
    for piece in pieces:
        for length, stored in _stored(piece):
            if not stored.pieces:
                holder = printable(piece.source.name) if isinstance(piece, Range) else ""
                yield DataExtent(start, length, holder)
            for part in stored.pieces[:1]:
                yield _extent_at(start, length, stored.length, part)
            start += length


def _extent_at(start: int, length: int, packed: int, piece: Piece) -> DataExtent:
    """Return the extent of ``length`` bytes that take ``packed`` bytes where ``piece`` begins."""
    if not isinstance(piece, Range):
        return DataExtent(start, length, "")
    source: Any = piece.source
    is_iso = hasattr(source, "local_paths") and has_volume(source)
    lba = piece.offset // BLOCK if is_iso and piece.offset % BLOCK == 0 else None
    return DataExtent(start, length, printable(source.name), piece.offset, lba, packed if packed != length else None)


def _stored(piece: Piece) -> Iterator[tuple[int, PieceTable]]:
    """Yield the parts of ``piece``: how long each is, and the bytes that hold it, none where that is not known."""
    source: Any = piece.source if isinstance(piece, Range) else None
    if isinstance(piece, Range) and hasattr(source, "find_packed"):  # a file system that packs each block
        yield from source.find_packed(piece.offset, piece.length)
        return
    stored = None
    if isinstance(piece, Range) and hasattr(source, "find_stored"):
        stored = source.find_stored(piece.offset, piece.length)
    if stored is not None:
        for part in stored.pieces:
            yield from _stored(part)
    elif isinstance(piece, Zeros) or _has_places(source):
        yield piece.length, PieceTable([piece])
    else:
        yield piece.length, PieceTable([])


def _has_places(source: Any) -> bool:
    """Return whether offsets in ``source`` say something: in an image, and in the plain bytes of a layer."""
    return source is None or hasattr(source, "local_paths") or hasattr(source, "find_stored")


def _join(extents: Iterable[DataExtent]) -> Iterator[DataExtent]:
    """Yield ``extents``, neighbours that continue each other as one."""
    last: DataExtent | None = None
    for extent in extents:
        if last is not None and _continues(last, extent):
            length = last.length + extent.length
            last = DataExtent(last.start, length, last.holder, last.offset, last.lba, _sum(last, extent))
            continue
        if last is not None:
            yield last
        last = extent
    if last is not None:
        yield last


def _continues(last: DataExtent, extent: DataExtent) -> bool:
    """Return whether ``extent`` lies behind ``last``, too."""
    if last.holder != extent.holder or (last.packed is None) != (extent.packed is None):
        return False
    if last.offset is None or extent.offset is None:
        return last.offset is extent.offset
    return last.offset + (last.packed or last.length) == extent.offset


def _sum(last: DataExtent, extent: DataExtent) -> int | None:
    """Return the packed bytes of both, if they are packed."""
    return None if last.packed is None or extent.packed is None else last.packed + extent.packed
