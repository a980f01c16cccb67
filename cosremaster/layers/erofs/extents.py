"""Where the compressed data of an EROFS file stand: its extents, from each of the forms that mkfs.erofs has for them.

A file is cut into logical clusters. Each has a record: of the compressed blocks that begin in it, or of the way back to
the cluster in which those that hold its bytes begin. Records have eight bytes ("full"), or are packed to four or two
("compact"). Newer images list the extents themselves (fs/erofs/zmap.c).
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Callable, Iterator

from cosremaster.layers.erofs.inodes import DataLayout, ErofsInode
from cosremaster.layers.erofs.superblock import ErofsSuperblock
from cosremaster.records.tuples import NamedTuple

LZ4, LZMA, DEFLATE, ZSTD, SHIFTED, INTERLACED, FRAGMENT, HOLE = range(8)
"""How the bytes of an extent are stored: under an algorithm, as they are from the start or turned so that blocks of the
file are blocks of the image, among the tails that files share, or not at all."""
FORM_MASK, IS_PARTIAL, IS_INLINE = 0xF, 0x10, 0x20
"""Parts of the kind of an extent: its form; whether more bytes than the extent's are in the stored ones; whether those
stand behind the inode."""
MAX_STORED, MAX_PLAIN = 1 << 20, 12 << 20
"""Bytes of an extent that Linux takes at most, as they are stored and plain."""

_HEADER = struct.Struct("<IHBB")
_COMPACT_2B, _EXTENT_LIST, _BIG_1, _BIG_2 = 0x1, 0x1, 0x2, 0x4
_INLINE, _INTERLACED, _FRAGMENT = 0x8, 0x10, 0x20
_WHOLE_IS_FRAGMENT = 0x80
_PLAIN, _HEAD, _NONHEAD, _HEAD_2 = range(4)
_HAS_COUNT = 1 << 11
_PARTIAL_REFERENCE = 1 << 15
_PLEN_MASK, _PLEN_PARTIAL, _PLEN_FORM = (2 << 20) - 1, 1 << 27, 28
_TWO_BYTE_PACK, _FOUR_BYTE_PACK = (32, 16), (8, 2)
"""Bytes of a pack of records, and how many are in it."""

ReadBytes = Callable[[int, int], bytes]


class ErofsExtent(NamedTuple):
    """Bytes ``start`` to ``end`` of a file, stored in ``length`` bytes from byte ``position`` of the image on.

    Of a fragment ``position`` is a byte of the file that holds the tails of others.
    """

    start: int
    end: int
    position: int
    length: int
    kind: int

    @property
    def form(self) -> int:
        """How its bytes are stored."""
        return self.kind & FORM_MASK


class ExtentMap:
    """The extents of a file, in columns: a large file has a hundred thousand."""

    def __init__(self, size: int) -> None:
        """Begin without extents of a file of ``size`` bytes."""
        self.size = size
        self.starts, self._positions = array("Q"), array("Q")
        self._lengths, self._kinds = array("I"), array("B")

    def add(self, start: int, position: int, length: int, kind: int) -> None:
        """Add an extent. :raises ValueError: it does not follow the last one, or cannot be stored so."""
        if (self.starts and start <= self.starts[-1]) or (not self.starts and start):
            raise ValueError("its extents do not follow each other")
        if length > MAX_STORED << 1 or position >= 1 << 63:
            raise ValueError(f"an extent of {length:,} stored bytes at {position:,} is impossible")
        self.starts.append(start)
        self._positions.append(position)
        self._lengths.append(length)
        self._kinds.append(kind)

    def change_last(self, position: int, length: int, kind: int) -> None:
        """Give the last extent another place. :raises ValueError: there is none."""
        if not self.starts:
            raise ValueError("it has no extent")
        self._positions[-1], self._lengths[-1], self._kinds[-1] = position, length, kind

    def last(self) -> ErofsExtent:
        """Return the last extent. :raises ValueError: there is none."""
        if not self.starts:
            raise ValueError("it has no extent")
        return self.extent(len(self.starts) - 1)

    def __iter__(self) -> Iterator[ErofsExtent]:
        """Yield the extents in order."""
        return map(self.extent, range(len(self.starts)))

    def extent(self, number: int) -> ErofsExtent:
        """Return extent ``number``."""
        end = self.starts[number + 1] if number + 1 < len(self.starts) else self.size
        return ErofsExtent(
            self.starts[number], end, self._positions[number], self._lengths[number], self._kinds[number]
        )  # fmt: skip


class _Record(NamedTuple):
    """What is known of a logical cluster.

    ``offset``: where in it the compressed blocks' bytes begin; ``block``: the first of these. Of a cluster without such
    a beginning ``blocks`` is how many blocks those that it belongs to take, 0 where it does not tell.
    """

    type: int
    offset: int
    block: int
    blocks: int
    is_partial: bool = False


def list_extents(inode: ErofsInode, superblock: ErofsSuperblock, read: ReadBytes) -> ExtentMap:
    """Return the extents of ``inode``, whose data are compressed; ``read``: bytes of its metadata.

    :raises ValueError, struct.error: they are damaged.
    """
    at = -(-inode.body // 8) * 8
    extents = ExtentMap(inode.size)
    if not inode.size:
        return extents
    low, advise, algorithms, bits = _HEADER.unpack(read(at, _HEADER.size))
    if bits & _WHOLE_IS_FRAGMENT:
        position = low | advise << 32 | algorithms << 48 | (bits & ~_WHOLE_IS_FRAGMENT) << 56
        extents.add(0, position, 0, FRAGMENT)
        return extents
    cluster_bits = superblock.block_bits + (bits & 0xF)
    if inode.layout is DataLayout.COMPRESSED_FULL and advise & _EXTENT_LIST:
        count = low | algorithms << 32 | bits << 40
        _read_list(extents, read, at + _HEADER.size, advise, cluster_bits, count, superblock.block_size - 1)
        return extents
    clusters = _Clusters(inode, superblock, read, at, cluster_bits, advise)
    _collect_extents(extents, clusters, algorithms)
    tail = extents.last()
    if advise & _INLINE:
        extents.change_last(clusters.end_of_pack, low >> 16, tail.kind & ~IS_PARTIAL | IS_INLINE)
    elif advise & _FRAGMENT:
        high = tail.position >> superblock.block_bits if inode.layout is DataLayout.COMPRESSED_FULL else 0
        extents.change_last(low | high << 32, 0, FRAGMENT)
    return extents


class _Clusters:
    """The records of the logical clusters of ``inode``, in order."""

    def __init__(
        self, inode: ErofsInode, superblock: ErofsSuperblock, read: ReadBytes, header: int, bits: int, advise: int
    ) -> None:
        """Remember the inode, ``header``, the place of what says how they are packed, and the ``bits`` of a cluster."""
        self._inode, self._superblock, self._read = inode, superblock, read
        self._at, self.bits, self.advise = header + _HEADER.size, bits, advise
        self.block_bits = superblock.block_bits
        self.is_big = bool(advise & (_BIG_1 | _BIG_2))
        self.count = -(-inode.size >> bits)
        self.end_of_pack = 0
        """The byte behind the record of the last cluster, and those that are packed with it."""

    def __iter__(self) -> Iterator[_Record]:
        """Yield the records. :raises ValueError: they cannot be so packed."""
        return self._read_full() if self._inode.layout is DataLayout.COMPRESSED_FULL else self._read_compact()

    def _read_full(self) -> Iterator[_Record]:
        """Yield records of eight bytes."""
        start = self._at + 8
        self.end_of_pack = start + 8 * self.count
        self._read(self.end_of_pack - 1, 1)  # a size that lies is found before the first record is read
        for first in range(0, self.count, 512):
            count = min(512, self.count - first)
            for advise, offset, block in struct.iter_unpack("<HHI", self._read(start + 8 * first, 8 * count)):
                kind = advise & 3
                if kind == _NONHEAD:
                    yield _Record(kind, 0, 0, block & (_HAS_COUNT - 1) if self.is_big and block & _HAS_COUNT else 0)
                else:
                    yield _Record(kind, offset, block, 0, bool(advise & _PARTIAL_REFERENCE))

    def _read_compact(self) -> Iterator[_Record]:
        """Yield records that are packed: some of four bytes, those of two aligned to 32, and the rest of four."""
        if self.bits > 14:
            raise ValueError("its clusters are too large for packed records")
        total = -(-self._inode.size >> self.block_bits)
        first = (32 - self._at % 32) // 4 % 8
        two_bytes = 0
        if self.advise & _COMPACT_2B and first < total:
            two_bytes = (total - first) // 16 * 16
            if self.bits > 12:
                raise ValueError("its clusters are too large for records of two bytes")
        runs = ((first, _FOUR_BYTE_PACK), (two_bytes, _TWO_BYTE_PACK), (total, _FOUR_BYTE_PACK))
        at, missing = self._at, self.count
        self._read(at + 2 * self.count - 1, 1)  # a size that lies is found before the first record is read
        for length, pack in runs:
            count = min(length, missing)
            yield from self._read_packs(at, count, pack)
            at += length * pack[0] // pack[1]
            missing -= count

    def _read_packs(self, at: int, count: int, pack: tuple[int, int]) -> Iterator[_Record]:
        """Yield ``count`` records of packs of the form ``pack``."""
        size, records = pack
        for first in range(0, count, records):
            self.end_of_pack = at + size
            yield from self._unpack(self._read(at, size), records)[: count - first]
            at += size

    def _unpack(self, raw: bytes, count: int) -> list[_Record]:
        """Return the ``count`` records of the pack ``raw``."""
        width = (len(raw) - 4) * 8 // count
        low_bits = max(self.bits, 12)
        word = int.from_bytes(raw[:-4], "little")
        values = [word >> width * number & (1 << width) - 1 for number in range(count)]
        low_mask, (block,) = (1 << low_bits) - 1, struct.unpack("<I", raw[-4:])
        if not self.is_big:
            block += 1
        packed: list[_Record] = []
        for number, value in enumerate(values):
            kind, low = value >> low_bits & 3, value & low_mask
            if kind == _NONHEAD:
                blocks = low & ~_HAS_COUNT if self.is_big and low & _HAS_COUNT else 0
                block += blocks
                packed.append(_Record(kind, 0, 0, blocks))
                continue
            packed.append(_Record(kind, low, block, 0))
            following = values[number + 1] if self.is_big and number + 1 < count else 0
            if not (following >> low_bits & 3 == _NONHEAD and following & _HAS_COUNT):
                block += 1
        return packed


def _collect_extents(extents: ExtentMap, clusters: _Clusters, algorithms: int) -> None:
    """Add to ``extents`` what the records of ``clusters`` say. :raises ValueError: they contradict each other."""
    waiting: tuple[int, _Record] | None = None
    forms = {_HEAD: algorithms & 15, _HEAD_2: algorithms >> 4}
    forms[_PLAIN] = INTERLACED if clusters.advise & _INTERLACED else SHIFTED
    one_cluster = 1 << clusters.bits
    for number, record in enumerate(clusters):
        if waiting is not None:
            is_count = record.type == _NONHEAD and record.blocks
            _add_extent(
                extents, waiting, record.blocks << clusters.block_bits if is_count else one_cluster, forms, clusters
            )
            waiting = None
        if record.type == _NONHEAD:
            continue
        start = (number << clusters.bits) + record.offset
        if record.offset >= one_cluster:
            raise ValueError("an extent begins outside of its cluster")
        if start < extents.size:
            waiting = start, record
    if waiting is not None:
        _add_extent(extents, waiting, one_cluster, forms, clusters)


def _add_extent(
    extents: ExtentMap, head: tuple[int, _Record], length: int, forms: dict[int, int], clusters: _Clusters
) -> None:
    """Add the extent that begins at ``head``, a byte of the file with a record, and is stored in ``length`` bytes."""
    start, record = head
    form = forms[record.type]
    if form > INTERLACED or (record.type != _PLAIN and form > ZSTD):
        raise ValueError(f"compression {form} is not known")
    kind = form | (IS_PARTIAL if record.is_partial else 0)
    extents.add(start, record.block << clusters.block_bits, length, kind)


def _read_list(
    extents: ExtentMap, read: ReadBytes, at: int, advise: int, cluster_bits: int, count: int, block_mask: int
) -> None:
    """Add the extents that are listed from byte ``at`` on. :raises ValueError: they are damaged."""
    size = 4 << (advise >> 1 & 3)
    at = -(-at // size) * size
    position: int | None = None
    if size <= 8:
        count = -(-extents.size >> cluster_bits)
        if size == 4:
            position = int.from_bytes(read(at, 8), "little")
            at += 8
    read(at + max(count, 1) * size - 1, 1)  # a count that lies is found before the first extent is read
    start = 0
    for number in range(count):
        fields = struct.unpack(f"<{size // 4}I", read(at + number * size, size))
        stored = fields[0]
        place = position if position is not None else fields[1]
        if size > 8:
            place |= fields[2] << 32
            start = fields[3] | (fields[4] << 32 if size > 16 else 0)
        else:
            start = number << cluster_bits
        if position is not None:
            position += stored & _PLEN_MASK
        if start >= extents.size:
            raise ValueError("an extent begins behind its end")
        is_last = number == count - 1
        if is_last and advise & _FRAGMENT:
            extents.add(start, stored | (place << 32 if size > 4 else 0), 0, FRAGMENT)
        else:
            form = _listed_form(stored, place, advise, block_mask)
            extents.add(start, place, stored & _PLEN_MASK, form)


def _listed_form(stored: int, place: int, advise: int, block_mask: int) -> int:
    """Return the kind of an extent in a list, whose stored length and flags are ``stored``."""
    if not stored & _PLEN_MASK:
        return HOLE
    form = stored >> _PLEN_FORM
    if form > ZSTD + 1:
        raise ValueError(f"compression {form - 1} is not known")
    if form:
        kind = form - 1
    elif advise & _INTERLACED and not (place | stored & _PLEN_MASK) & block_mask:
        kind = INTERLACED
    else:
        kind = SHIFTED
    return kind | (IS_PARTIAL if stored & _PLEN_PARTIAL else 0)
