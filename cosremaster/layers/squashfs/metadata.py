"""Metadata blocks: up to 8,192 plain bytes each, behind two bytes that tell the packed size.

A reference is 48 bits: the block's offset from the start of its table, and the byte in the plain block.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from itertools import accumulate
from threading import Lock

from cosremaster.errors import CorruptError, Place
from cosremaster.io.pieces import PieceTable
from cosremaster.layers.squashfs.blocks import BlockCodec, BlockError

METADATA_SIZE = 8192
"""Plain bytes of every metadata block but a table's last."""

_STORED = 0x8000
_HEADER = struct.Struct("<H")
_CACHED_BLOCKS = 1024
_MAX_PACKED = METADATA_SIZE + 2
_WINDOW = 1 << 16


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
        self.blocks: dict[int, tuple[bytes, int]] = {}
        """What :meth:`block` returned for each position lately."""
        self._lock = Lock()

    def block(self, position: int) -> tuple[bytes, int]:
        """Return the plain bytes of the block at byte ``position`` of the image, and the position behind it.

        :raises CorruptError: it is damaged.
        """
        cached = self.blocks.get(position)
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
        with self._lock:
            if len(self.blocks) >= _CACHED_BLOCKS:
                self.blocks.pop(next(iter(self.blocks)))
            self.blocks[position] = plain, position + 2 + size
        return plain, position + 2 + size

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

    def find_last(self, start: int, end: int) -> tuple[int, int]:
        """Return where the last block of the table from byte ``start`` to ``end`` begins, and where it ends.

        Only the blocks' sizes are read. Both are ``start`` for an empty table.
        """
        last = at = window = start
        data = b""
        while at < end:
            if at + 2 > window + len(data):
                window, data = at, self._table.read(at, _WINDOW)
            word = int.from_bytes(data[at - window : at - window + 2], "little")
            last, at = at, at + 2 + (word & ~_STORED or _STORED)
        return last, at

    def read_places(self, index: int, length: int) -> tuple[int, ...]:
        """Return where the blocks of a table of ``length`` plain bytes are, which the index at byte ``index`` lists.

        :raises CorruptError: the index is cut off.
        """
        count = -(-length // METADATA_SIZE)
        places = self._table.read(index, 8 * count) if index + 8 * count <= self._table.length else b""
        if len(places) < 8 * count:
            raise CorruptError("the index of a squashfs table is cut off", self._place.at(index))
        return struct.unpack(f"<{count}Q", places)

    def read_packed(self, index: int, length: int) -> list[bytes]:
        """Return the blocks of such a table as they are in the image. :raises CorruptError: they are not before it."""
        places = self.read_places(index, length)
        first = places[0] if places else index
        data = self._table.read(first, index - first) if 0 <= index - first <= _MAX_PACKED * len(places) else b""
        blocks = []
        for position in places:
            (word,) = _HEADER.unpack(data[position - first : position - first + 2].ljust(2, b"\0"))
            end = position - first + 2 + (word & ~_STORED or _STORED)
            if position < first or end > len(data):
                raise CorruptError("a block of a squashfs table is not where its index tells", self._place.at(index))
            blocks.append(data[position - first : end])
        return blocks

    def read_indexed(self, index: int, length: int) -> bytes:
        """Return the ``length`` plain bytes of a table whose blocks the index at byte ``index`` of the image lists.

        :raises CorruptError: the index is cut off, or a block is damaged or too short.
        """
        blocks = [self.block(position)[0] for position in self.read_places(index, length)]
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
    reader: MetadataReader, span: tuple[int, int], pack: Callable[[bytes], bytes | None]
) -> tuple[int, MetadataWriter]:
    """Return how many bytes of a table of metadata blocks stay, and a writer behind them.

    The last block is written again unless it is full: readers count on full blocks before the last.

    :param span: start and end of the table's blocks in the image.
    """
    start, end = span
    last, at = reader.find_last(start, end)
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


class GrowingTable:
    """A table of equal entries with an index behind its blocks, some of which change. Other blocks stay as they are.

    ``size``: bytes of an entry, a divisor of 8,192.
    """

    def __init__(self, metadata: MetadataReader, index: int, size: int, count: int) -> None:
        """Take the ``count`` entries of the table whose index is at byte ``index`` of the image; it may have none."""
        self._metadata, self._size, self.count = metadata, size, count
        self._packed: list[bytes] = metadata.read_packed(index, size * count) if count else []
        self._places = metadata.read_places(index, size * count) if count else ()
        self._plain: dict[int, bytearray] = {}
        self.kept: list[int] = []
        """Where blocks that stayed as they were begin in the image, once they are packed."""

    def put(self, number: int, entry: bytes) -> None:
        """Set entry ``number``; one of at least :attr:`count` is new, and the table must have all before it."""
        block, at = divmod(number * self._size, METADATA_SIZE)
        if block not in self._plain:
            is_old = block < len(self._packed)
            self._plain[block] = bytearray(self._metadata.block(self._places[block])[0] if is_old else b"")
        self._plain[block][at : at + self._size] = entry
        self.count = max(self.count, number + 1)

    def pack(self, pack: Callable[[bytes], bytes | None], position: int) -> tuple[bytes, int]:
        """Return the blocks with their index behind them, and the place of the index in the image.

        :param position: where the blocks begin in the image.
        """
        blocks = [
            pack_metadata(bytes(self._plain[number]), pack) if number in self._plain else self._packed[number]
            for number in range(-(-self.count * self._size // METADATA_SIZE))
        ]
        places = list(accumulate(map(len, blocks), initial=position))
        self.kept = [place for number, place in enumerate(places[:-1]) if number not in self._plain]
        return b"".join(blocks) + struct.pack(f"<{len(blocks)}Q", *places[:-1]), places[-1]
