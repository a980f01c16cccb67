"""The check that an edit of an EROFS image writes over nothing that is kept.

An edit patches inodes and the superblock where they stand. In a sound image nothing else has bytes there; in one that
lies the data of a file may, and would be other data afterwards.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence, Set
from itertools import pairwise

from cosremaster.errors import Place, UnsupportedError
from cosremaster.io.pieces import PieceTable
from cosremaster.layers.erofs.filesystem import ErofsFilesystem
from cosremaster.layers.erofs.inodes import ErofsInode
from cosremaster.layers.erofs.metadata import MetadataBytes


def check_kept_bytes(
    table: PieceTable, patches: Sequence[range], own: Mapping[int, range], replaced: Set[int], place: Place
) -> None:
    """Check that what an edit of the EROFS image ``table`` keeps has no byte in ``patches``, which it writes anew.

    :param own: by the byte of an inode, the patch in it that is made because it changes. :param replaced: numbers of
        directories whose listings are written elsewhere.
    :raises UnsupportedError: something has, or patches overlap. :raises CorruptError: an inode, or what leads to its
        data, is damaged.
    """
    at = b""
    try:
        written = _WrittenBytes(patches)
        filesystem = _WatchedFilesystem(table, place, written)
        for at, inode in _list_inodes(filesystem):  # noqa: B007 - an error tells it
            _check_inode(filesystem, inode, own.get(inode.position), written, has_data=inode.nid not in replaced)
    except _OverlapError as error:
        raise UnsupportedError(
            "is in an EROFS file system that cannot be changed: bytes of this file are those of inodes or of the"
            " superblock too",
            place.inside(at[:255]) if at else place,
        ) from error


def _check_inode(
    filesystem: ErofsFilesystem, inode: ErofsInode, own: range | None, written: _WrittenBytes, *, has_data: bool
) -> None:
    """Check ``inode``, of which the part ``own`` is patched. :raises _OverlapError: it has other bytes that are."""
    if not inode.is_in_metabox:
        end = inode.position + inode.head_size
        written.check(inode.position, end if own is None else own.start)
        if own is not None:
            written.check(own.stop, end)
    filesystem.xattrs_of(inode)
    if has_data:
        for start, end in filesystem.data_ranges(inode):
            written.check(start, end)


def _list_inodes(filesystem: ErofsFilesystem) -> Iterator[tuple[bytes, ErofsInode]]:
    """Yield path and inode of the root, of those that hold tails of files and metadata, and of all below the root."""
    yield b"", filesystem.root
    for nid in (filesystem.superblock.packed, filesystem.superblock.metabox):
        if nid:
            yield b"", filesystem.inode(nid)
    for path, entry in filesystem.walk():
        yield path, filesystem.inode(entry.nid)


class _OverlapError(Exception):
    """Bytes that are kept are among those that are written anew."""


class _WrittenBytes:
    """Ranges of an image that an edit writes anew."""

    def __init__(self, ranges: Sequence[range]) -> None:
        """Remember ``ranges``. :raises _OverlapError: two of them have bytes in common."""
        ordered = sorted(ranges, key=lambda part: part.start)
        if any(first.stop > second.start for first, second in pairwise(ordered)):
            raise _OverlapError
        self._starts = [part.start for part in ordered]
        self._stops = [part.stop for part in ordered]

    def check(self, start: int, end: int) -> None:
        """Check that none of the bytes ``start`` to ``end`` is written anew. :raises _OverlapError: one is."""
        number = bisect_right(self._stops, start)
        if number < len(self._starts) and self._starts[number] < end and start < end:
            raise _OverlapError


class _WatchedBytes(MetadataBytes):
    """Metadata of which each byte that is asked for is looked up among those that are written anew.

    Inodes are not: who reads one may take bytes behind it along (:meth:`MetadataBytes.read_up_to`).
    """

    def __init__(self, table: PieceTable, written: _WrittenBytes) -> None:
        """Remember what is written."""
        super().__init__(table)
        self._written = written

    def read(self, position: int, length: int) -> bytes:
        """Return ``length`` bytes from byte ``position`` on. Raises as :meth:`MetadataBytes.read`.

        :raises _OverlapError: one of them is written anew.
        """
        self._written.check(position, position + length)
        return super().read(position, length)


class _WatchedFilesystem(ErofsFilesystem):
    """An EROFS file system whose metadata in the image are watched when they are read."""

    def __init__(self, table: PieceTable, place: Place, written: _WrittenBytes) -> None:
        """Read the superblock."""
        super().__init__(table, place)
        self._image = _WatchedBytes(table, written)
