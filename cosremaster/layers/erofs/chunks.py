"""Where the data of an EROFS file stand that is cut into chunks of one size: a list of the first block of each.

Chunks without data have none. Equal ones share their blocks: mkfs.erofs stores zeros of a sparse file so, and a large
file may have a million of them.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator

from cosremaster.layers.erofs.inodes import ErofsInode
from cosremaster.layers.erofs.superblock import ErofsSuperblock
from cosremaster.records.tuples import NamedTuple

_BITS, _INDEXES, _IS_48 = 0x1F, 0x20, 0x40
_AT_ONCE = 8192
"""Chunks whose places are read at once."""
NO_PLACE = -1
"""The place of bytes that are zeros and stand nowhere."""

ReadBytes = Callable[[int, int], bytes]


class ChunkRun(NamedTuple):
    """``length`` bytes of a file that stand from byte ``position`` of the image on, or :data:`NO_PLACE`."""

    position: int
    length: int


class ChunkMap:
    """The list of chunks of ``inode``."""

    def __init__(self, inode: ErofsInode, superblock: ErofsSuperblock, read: ReadBytes, image_size: int) -> None:
        """Remember the inode. ``read``: bytes of its metadata; ``image_size``: bytes of the image.

        :raises ValueError: chunks of such a form are not known, or the list is not all there.
        """
        form = inode.start
        if form & ~(_BITS | _INDEXES | _IS_48):
            raise ValueError(f"the form 0x{form:x} of its chunks is not known")
        self.size = inode.size
        self._bits = superblock.block_bits + (form & _BITS)
        self._width = 8 if form & _INDEXES else 4
        self._mask = (1 << 48) - 1 if form & _IS_48 else (1 << 32) - 1
        self._at = -(-inode.body // self._width) * self._width
        self._read, self._image_size = read, image_size
        self._block_bits = superblock.block_bits
        if self.size:
            read(self._at + self._width * (-(-self.size >> self._bits)) - 1, 1)

    def runs(self, start: int, end: int) -> Iterator[ChunkRun]:
        """Yield where bytes ``start`` to ``end`` of the file stand; neighbours in the image are one run.

        :raises ValueError: a chunk is not in the image.
        """
        position, length = NO_PLACE, 0
        for first in range(start >> self._bits, -(-end >> self._bits), _AT_ONCE):
            for number, chunk in enumerate(self._list_places(first, -(-end >> self._bits)), first):
                begin, stop = max(number << self._bits, start), min(number + 1 << self._bits, end)
                place = chunk if chunk == NO_PLACE else chunk + begin - (number << self._bits)
                if place + stop - begin > self._image_size and place != NO_PLACE:
                    raise ValueError(f"a chunk at byte {place:,} is not in the image")
                if length and place != (NO_PLACE if position == NO_PLACE else position + length):
                    yield ChunkRun(position, length)
                    length = 0
                position = position if length else place
                length += stop - begin
        if length:
            yield ChunkRun(position, length)

    def _list_places(self, first: int, end: int) -> Iterator[int]:
        """Yield the places of the chunks from ``first`` on, some of them, without a look at ``end`` and behind it.

        :raises ValueError: one is on a device that there is not.
        """
        raw = self._read(self._at + self._width * first, self._width * min(_AT_ONCE, end - first))
        mask, bits = self._mask, self._block_bits
        if self._width == 4:
            for (block,) in struct.iter_unpack("<I", raw):
                yield NO_PLACE if block == 0xFFFFFFFF else block << bits
            return
        for high, device, low in struct.iter_unpack("<HHI", raw):
            block = (low | high << 32) & mask
            if device and block != mask:
                raise ValueError(f"a chunk is on device {device}, which is not there")
            yield NO_PLACE if block == mask else block << bits
