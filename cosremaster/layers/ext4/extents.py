"""Where the data of a file stand: extents, and the block numbers of ext2 and ext3.

Documentation/filesystems/ext4/ifork.rst and blockmap.rst.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator

from cosremaster.layers.ext4.checksums import crc32c
from cosremaster.layers.ext4.inodes import BLOCK_FIELD, EXTENTS, Ext4Inode
from cosremaster.records.tuples import NamedTuple

_MAGIC = 0xF30A
_HEADER = struct.Struct("<HHHHI")
_ENTRY_SIZE = 12
_MAX_DEPTH = 5
_BLOCK_BITS = 32
"""Blocks of a file have numbers of so many bits."""

_MAX_INITIALIZED = 1 << 15
"""An extent of more blocks is one that was not written yet, of so many blocks less."""
_DIRECT = 12

ReadBlock = Callable[[int], bytes]
"""Returns the bytes of a block of the file system, by its number; raises ValueError where there is none."""


class DataRun(NamedTuple):
    """``length`` blocks of a file from its block ``logical`` on; they stand from ``block`` on in the file system.

    ``block`` 0: they were allocated and never written, and read as zeros.
    """

    logical: int
    length: int
    block: int


class MapReader(NamedTuple):
    """What reading a map of blocks needs. ``block_count``: of the file system; ``checks``: checksums are compared."""

    read_block: ReadBlock
    block_size: int
    block_count: int
    checks: bool


def list_runs(inode: Ext4Inode, reader: MapReader) -> list[DataRun]:
    """Return the runs of blocks of ``inode``, rising and without an overlap.

    :raises ValueError: the map is damaged.
    """
    if inode.size > reader.block_size << _BLOCK_BITS:
        raise ValueError(f"no file has {inode.size:,} bytes")
    runs = list[DataRun]()
    end = 0
    for run in _extents(inode, reader) if inode.flags & EXTENTS else _mapped_blocks(inode, reader):
        if run.logical < end:
            raise ValueError(f"the extents overlap at block {run.logical} of the file")
        if run.block + run.length > reader.block_count:
            raise ValueError(f"an extent leads to block {run.block}, behind the end of the file system")
        end = run.logical + run.length
        runs.append(run)
    return runs


def _extents(inode: Ext4Inode, reader: MapReader) -> Iterator[DataRun]:
    """Yield the runs of an extent tree. :raises ValueError: it is damaged."""
    field = inode.raw[BLOCK_FIELD]
    _, _, _, depth, _ = _HEADER.unpack_from(field)
    if depth > _MAX_DEPTH:
        raise ValueError(f"the extent tree has {depth} levels")
    yield from _extent_node(field, depth, inode, reader, set())


def _extent_node(node: bytes, depth: int, inode: Ext4Inode, reader: MapReader, seen: set[int]) -> Iterator[DataRun]:
    """Yield the runs below ``node``, which has to stand ``depth`` levels above the leaves; ``seen``: blocks so far."""
    magic, entries, most, own_depth, _ = _HEADER.unpack_from(node)
    if magic != _MAGIC or entries > most or own_depth != depth or _ENTRY_SIZE * (most + 1) > len(node):
        raise ValueError("a node of the extent tree is damaged")
    for at in range(_ENTRY_SIZE, _ENTRY_SIZE * (entries + 1), _ENTRY_SIZE):
        if depth:
            _, low, high = struct.unpack_from("<IIH", node, at)
            number = low | high << 32
            if number in seen:
                raise ValueError(f"block {number} of the extent tree is used twice")
            seen.add(number)
            below = reader.read_block(number)
            _check_node(below, inode, reader)
            yield from _extent_node(below, depth - 1, inode, reader, seen)
        else:
            logical, count, high, low = struct.unpack_from("<IHHI", node, at)
            block = low | high << 32
            if count > _MAX_INITIALIZED:
                count, block = count - _MAX_INITIALIZED, 0
            elif not block:
                raise ValueError("an extent leads to block 0")
            yield DataRun(logical, count, block)


def _check_node(node: bytes, inode: Ext4Inode, reader: MapReader) -> None:
    """Check the checksum behind the entries of a ``node`` that is a block. :raises ValueError: it is wrong."""
    end = _ENTRY_SIZE * (int.from_bytes(node[4:6], "little") + 1)
    if reader.checks and end + 4 <= len(node):
        (checksum,) = struct.unpack_from("<I", node, end)
        if crc32c(inode.seed, node[:end]) != checksum:
            raise ValueError("the checksum of a node of the extent tree is wrong")


def _mapped_blocks(inode: Ext4Inode, reader: MapReader) -> Iterator[DataRun]:
    """Yield the runs of the classic map: twelve blocks, then blocks of block numbers, one to three levels deep."""
    per_block = reader.block_size // 4
    numbers = struct.unpack("<15I", inode.raw[BLOCK_FIELD])
    total = -(-inode.size // reader.block_size)
    seen = set[int]()

    def leaves(number: int, level: int, logical: int) -> Iterator[tuple[int, int]]:
        """Yield pairs of a block of the file, and where it stands."""
        if not number or logical >= total:
            return
        if not level:
            yield logical, number
            return
        if number in seen:
            raise ValueError(f"block {number} of block numbers is used twice")
        seen.add(number)
        step = per_block ** (level - 1)
        for place, below in enumerate(struct.unpack(f"<{per_block}I", reader.read_block(number))):
            yield from leaves(below, level - 1, logical + place * step)

    def every() -> Iterator[tuple[int, int]]:
        """Yield the pairs of the whole map."""
        logical = 0
        for place, number in enumerate(numbers):
            level = max(0, place - _DIRECT + 1)
            yield from leaves(number, level, logical)
            logical += per_block**level

    yield from _joined(every())


def _joined(pairs: Iterator[tuple[int, int]]) -> Iterator[DataRun]:
    """Yield ``pairs`` of a file's block and its place as runs."""
    run: DataRun | None = None
    for logical, block in pairs:
        if run is not None and (logical, block) == (run.logical + run.length, run.block + run.length):
            run = run._replace(length=run.length + 1)
            continue
        if run is not None:
            yield run
        run = DataRun(logical, 1, block)
    if run is not None:
        yield run
