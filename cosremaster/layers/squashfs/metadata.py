"""Metadata blocks: up to 8,192 plain bytes each, behind two bytes that tell the packed size.

A reference is 48 bits: the block's offset from the start of its table, and the byte in the plain block.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

from cosremaster.errors import CorruptError, Place
from cosremaster.io.pieces import PieceTable
from cosremaster.layers.squashfs.blocks import BlockCodec, BlockError

METADATA_SIZE = 8192
"""Plain bytes of every metadata block but a table's last."""

_STORED = 0x8000
_HEADER = struct.Struct("<H")
_CACHED_BLOCKS = 1024


def make_reference(block: int, offset: int) -> int:
    """Return the reference to byte ``offset`` of the block at ``block``, counted from the table's start."""
    return block << 16 | offset


def split_reference(reference: int) -> tuple[int, int]:
    """Return block and byte of ``reference``."""
    return reference >> 16, reference & 0xFFFF


class MetadataReader:
    """Reads metadata blocks of the image ``table``; the last ones read stay in memory."""

    def __init__(self, table: PieceTable, codec: BlockCodec, place: Place) -> None:
        """Begin without blocks."""
        self._table, self._codec, self._place = table, codec, place
        self._blocks: dict[int, tuple[bytes, int]] = {}

    def block(self, position: int) -> tuple[bytes, int]:
        """Return the plain bytes of the block at byte ``position`` of the image, and the position behind it.

        :raises CorruptError: it is damaged.
        """
        cached = self._blocks.get(position)
        if cached is not None:
            return cached
        head = self._table.read(position, 2 + METADATA_SIZE) if 0 <= position < self._table.length else b""
        if len(head) < 2:
            raise CorruptError("a squashfs metadata block is outside of the image", self._place.at(position))
        (word,) = _HEADER.unpack_from(head)
        size = word & ~_STORED or _STORED  # fs/squashfs/squashfs_fs.h: a size of 0 means 32,768
        data = head[2 : 2 + size]
        if size > METADATA_SIZE or len(data) < size:
            raise CorruptError("a squashfs metadata block has an impossible size", self._place.at(position))
        try:
            plain = data if word & _STORED else self._codec.unpack(data, METADATA_SIZE)
        except BlockError as error:
            raise CorruptError(
                f"a squashfs metadata block cannot be read: {error}", self._place.at(position)
            ) from error
        if len(self._blocks) >= _CACHED_BLOCKS:
            self._blocks.pop(next(iter(self._blocks)))
        self._blocks[position] = plain, position + 2 + size
        return self._blocks[position]

    def read(self, position: int, offset: int, length: int) -> bytes:
        """Return ``length`` plain bytes from byte ``offset`` of the block at ``position`` on, across blocks.

        :raises CorruptError: a block is damaged, or they go beyond a short block.
        """
        plain, following = self.block(position)
        data = plain[offset : offset + length]
        if len(data) == length:
            return data
        parts, missing = [data], length - len(data)
        while missing:
            position = following
            plain, following = self.block(position)
            if not plain:
                raise CorruptError("squashfs metadata end too early", self._place.at(position))
            parts.append(plain[:missing])
            missing -= len(parts[-1])
        return b"".join(parts)

    def read_indexed(self, index: int, length: int) -> bytes:
        """Return the ``length`` plain bytes of a table whose blocks the index at byte ``index`` of the image lists."""
        count = -(-length // METADATA_SIZE)
        places = self._table.read(index, 8 * count)
        if len(places) < 8 * count:
            raise CorruptError("the index of a squashfs table is cut off", self._place.at(index))
        blocks = [self.block(position)[0] for (position,) in struct.iter_unpack("<Q", places)]
        data = b"".join(blocks)
        if len(data) < length or any(len(block) != METADATA_SIZE for block in blocks[:-1]):
            raise CorruptError("a squashfs table has fewer entries than it claims", self._place.at(index))
        return data[:length]


class MetadataWriter:
    """Packs metadata blocks one after another; the last one stays open until :meth:`finish`.

    ``start``: bytes that stand before the new blocks in the table; ``plain``: the first plain bytes of the open block.
    """

    def __init__(self, pack: Callable[[bytes], bytes | None], *, start: int = 0, plain: bytes = b"") -> None:
        """Begin behind ``start`` bytes of the table, with ``plain`` in the open block."""
        self._pack = pack
        self._open = bytearray(plain)
        self._packed: list[bytes] = []
        self.block_starts = [start]
        """The start of each new block in the table; the last is that of the open block."""

    @property
    def reference(self) -> int:
        """The reference of the next byte that is added."""
        if len(self._open) == METADATA_SIZE:
            self._close()
        return make_reference(self.block_starts[-1], len(self._open))

    @property
    def open_size(self) -> int:
        """Bytes in the open block, fewer than 8,192."""
        return self.reference & 0xFFFF

    def add(self, data: bytes) -> int:
        """Add ``data`` and return its reference."""
        reference = self.reference
        view = memoryview(data)
        while view:
            count = min(METADATA_SIZE - len(self._open), len(view))
            self._open += view[:count]
            view = view[count:]
            if view:
                self._close()
        return reference

    def _close(self) -> None:
        """Pack the open block and open another one."""
        block = pack_metadata(bytes(self._open), self._pack)
        self._packed.append(block)
        self.block_starts.append(self.block_starts[-1] + len(block))
        self._open.clear()

    def finish(self) -> bytes:
        """Return all new blocks, the open one included."""
        if self._open:
            self._close()
        return b"".join(self._packed)


def reopen_table(
    table: PieceTable, reader: MetadataReader, span: tuple[int, int], pack: Callable[[bytes], bytes | None]
) -> tuple[int, MetadataWriter]:
    """Return how many bytes of a table of metadata blocks stay, and a writer behind them.

    The last block is written again unless it is full: readers count on full blocks before the last.

    :param table: the image. :param span: start and end of the blocks in it.
    """
    start, end = span
    last = at = start
    while at < end:
        last, at = at, at + 2 + (int.from_bytes(table.read(at, 2), "little") & ~_STORED)
    plain = reader.block(last)[0] if last < end else b""
    if len(plain) == METADATA_SIZE:
        return at - start, MetadataWriter(pack, start=at - start)
    return last - start, MetadataWriter(pack, start=last - start, plain=plain)


def store_block(plain: bytes) -> None:
    """Return None: the block is stored."""
    return


def pack_metadata(plain: bytes, pack: Callable[[bytes], bytes | None]) -> bytes:
    """Return the block of ``plain``: packed if that is smaller, else stored."""
    packed = pack(plain)
    if packed is None or len(packed) >= len(plain):
        return _HEADER.pack(len(plain) | _STORED) + plain
    return _HEADER.pack(len(packed)) + packed


def pack_table(plain: bytes, pack: Callable[[bytes], bytes | None], position: int) -> tuple[bytes, int]:
    """Return the blocks of ``plain`` with their index behind them, and the place of the index in the image.

    :param position: where the blocks begin in the image.
    """
    blocks: list[bytes] = []
    places: list[int] = []
    for start in range(0, len(plain), METADATA_SIZE):
        places.append(position + sum(map(len, blocks)))
        blocks.append(pack_metadata(plain[start : start + METADATA_SIZE], pack))
    data = b"".join(blocks)
    return data + struct.pack(f"<{len(places)}Q", *places), position + len(data)
