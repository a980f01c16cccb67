"""Packing an .xz stream again, by what decoding it recorded: kept blocks and new ones in one stream."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

from cosremaster.codecs.base import Count, PackedParameters, RepackJob, RepackResult
from cosremaster.codecs.checks import NAMES, SIZES, RunningCheck, crc32_joined, crc32_without
from cosremaster.codecs.cuts import Cutting, move_borders, plan_cuts
from cosremaster.codecs.xz.blocks import StoredXzBlock, XzBlock
from cosremaster.codecs.xz.container import (
    BlockHeader,
    IndexRecord,
    pack_index,
    pack_stream_footer,
    pack_stream_header,
)
from cosremaster.codecs.xz.encode import (
    DIRECT_FROM,
    MIN_DICT,
    PRESET,
    PRESET_DICTS,
    SEGMENT,
    EncodedBlock,
    EncoderOptions,
    encode_blocks,
)
from cosremaster.codecs.xz.read_block import read_block
from cosremaster.codecs.xz.splice import KeptBlock, plan_splice
from cosremaster.errors import Place
from cosremaster.io.framed import ConcatSource
from cosremaster.io.parallel import StopFlag, ordered_map
from cosremaster.io.pieces import Literal, Piece, PieceTable, Range, is_direct
from cosremaster.io.spool import Spool
from cosremaster.io.streams import ByteReader
from cosremaster.progress import ThreadedAdvance, skip_bytes
from cosremaster.records import Struct, replace
from cosremaster.records.json import convert
from cosremaster.units import format_size

SMALL_PART = 12
"""A part of new data that is smaller than the stream by this factor is split into :data:`SPLIT` blocks."""

SPLIT = 4

QUICK, QUICK_SHARE = 1 << 18, 64
"""Data that begin with at most so many bytes, and at most such a part of the stream, are compressed quickly there."""

LEAST_FRONT = 1 << 14
"""Old bytes in front of new ones that are a block of their own, which a later remaster of an opened image takes."""

MOST_DECODED = 4 << 20
"""The most decoded bytes of a block in memory beside pieces that are read from files again; if more, all are."""


class _StoredParameters(Struct, frozen=True, forbid_unknown_fields=True):
    """The parameters as JSON values."""

    check: Count
    streams: Count
    blocks: tuple[StoredXzBlock, ...]


class XzParameters(PackedParameters, frozen=True):
    """The parameters of .xz streams.

    :ivar check: the check id of the first stream, which packing again keeps.
    :ivar blocks: the blocks of all streams.
    :ivar streams: their number.
    """

    check: int
    blocks: tuple[XzBlock, ...]
    streams: int

    name = "xz"

    @property
    def dictionary_size(self) -> int:
        """The largest dictionary of all blocks, in bytes; 0 when there is none."""
        return max((block.header.dictionary_size for block in self.blocks), default=0)

    @property
    def parts(self) -> Sequence[tuple[int, int]]:
        """The blocks that hold plain bytes."""
        return [(block.plain, block.plain_end) for block in self.blocks if block.record.plain]

    @property
    def keeps_packed(self) -> bool:
        """True: a single stream is cut inside."""
        return True

    def cut_refusal(self, *, by_kernel: bool) -> str | None:
        """Return None: every decoder reads blocks, kernels (lib/xz) and busybox among them."""
        return None

    def describe(self) -> str:
        """Return check, dictionary, number of blocks, and number of streams when it is not one."""
        text = f"{NAMES[self.check]}, dictionary {format_size(self.dictionary_size)}, "
        text += "1 block" if len(self.blocks) == 1 else f"{len(self.blocks)} blocks"
        return text + (f", {self.streams} streams" if self.streams != 1 else "")

    def dump(self) -> dict[str, Any]:
        """Return check, number of streams and blocks as JSON values."""
        return {"check": self.check, "streams": self.streams, "blocks": [block.dump() for block in self.blocks]}

    @classmethod
    def load(cls, values: dict[str, Any]) -> XzParameters:
        """Return the parameters that :meth:`dump` made ``values`` of.

        :raises ValueError, MismatchError, CosremasterError: it did not.
        """
        stored = convert(values, _StoredParameters)
        if stored.check not in NAMES:
            raise ValueError("no such check")
        return cls(stored.check, tuple(XzBlock.load(block) for block in stored.blocks), stored.streams)

    def check_sizes(self, packed: int, plain: int | None) -> None:
        """Check the blocks. :raises ValueError: they do not follow one another, or are those of another stream."""
        end = plain_end = 0
        for block in self.blocks:
            block.check_borders()
            if block.start < end or block.plain != plain_end:
                raise ValueError("blocks do not follow one another")
            end, plain_end = block.end, block.plain_end
        if end > packed or plain not in (None, plain_end) or self.check != next(iter(self.blocks), self).check:
            raise ValueError("blocks of another stream")

    def repack(self, job: RepackJob) -> RepackResult:
        """Pack one stream: unchanged blocks and fronts of blocks are kept, everything else is encoded.

        The dictionary is the old one, or the preset's where that is smaller. The result does not depend on the number
        of threads.
        """
        preset = PRESET if job.preset is None else job.preset
        dictionary_size = max(MIN_DICT, min(self.dictionary_size or PRESET_DICTS[preset], PRESET_DICTS[preset]))
        quick = 0 if job.preset is not None or job.cutting is not None else QUICK
        quick = min(quick, job.plain.length // QUICK_SHARE)
        options = EncoderOptions(self.check, dictionary_size, preset, job.always_compress, quick)
        pieces: list[Piece] = [Literal(pack_stream_header(self.check))]
        records: list[IndexRecord] = []
        reused = encoded = stored = 0
        new_blocks, fed = _NewBlocks(job.spool), ThreadedAdvance(job.advance)

        def encode(item: KeptBlock | _EncodeTask, stop: StopFlag) -> KeptBlock | tuple[EncodedBlock, ...]:
            """Return a kept block, or the new blocks of a task."""
            if isinstance(item, KeptBlock):
                return item
            if item.blocks:
                fed.skip(sum(block.record.plain for block in item.blocks))
            blocks = item.blocks or encode_blocks(item.table, item.marks, options, stop, fed, job.memory)
            if item.key is not None and all(block.table is None for block in blocks):
                job.cache.put(item.key, blocks, sum(len(part) for block in blocks for part in block.parts))
            return blocks

        for result in ordered_map(encode, self._items(job, options), job.threads, report=fed.report):
            if isinstance(result, KeptBlock):
                pieces += new_blocks.take()
                count, record = self._add_kept(result, job, pieces)
                records.append(record)
                reused += count
                continue
            for block in result:
                new_blocks.add(block)
                records.append(block.record)
                encoded += 0 if block.stored else block.record.plain
                stored += block.record.plain if block.stored else 0
        fed.report()
        index = pack_index(records)
        pieces += new_blocks.take()
        pieces.append(Literal(index + pack_stream_footer(self.check, len(index))))
        largest = max((record.plain for record in records), default=0)
        return RepackResult(PieceTable(pieces), reused, encoded, stored, len(records), largest)

    def decode_from(self, packed: PieceTable, offset: int, place: Place) -> tuple[int, Iterator[bytes]]:
        """Begin to decode at the beginning of a block."""
        starts = [block.plain for block in self.blocks]
        blocks = self.blocks[max(bisect_right(starts, offset) - 1, 0) :]
        return (blocks[0].plain if blocks else 0), _decode_blocks(packed, blocks, place)

    def _items(self, job: RepackJob, options: EncoderOptions) -> Iterator[KeptBlock | _EncodeTask]:
        """Yield the kept blocks and the tasks for the threads, in order."""
        if job.cutting is not None:
            yield from self._cut_items(job, job.cutting)
            return
        parts = plan_splice(job.plain, job.decoded, self.blocks, self.check)
        skip_bytes(job.advance, sum(part.plain for part in parts if isinstance(part, KeptBlock)))
        for part in parts:
            if isinstance(part, KeptBlock):
                yield part
                continue
            front, table = _split_old_front(part.table, job, options)
            if front is not None:
                yield front
            marks = list(_file_borders(table))
            for start, end in _plan_blocks(table, job, options):
                yield _make_task(table, marks, start, end)

    def _cut_items(self, job: RepackJob, cutting: Cutting) -> Iterator[KeptBlock | _EncodeTask]:
        """Yield what :meth:`_items` does, cut by ``cutting``: old blocks are kept whole, or not at all."""
        blocks = [block for block in self.blocks if block.record.plain and block.check == self.check]
        parts = [(block.plain, block.plain_end) for block in blocks]
        marks = list(_file_borders(job.plain))
        cuts = plan_cuts(job.plain, job.decoded, parts, cutting)
        skip_bytes(job.advance, sum(end - start for start, end, number in cuts if number is not None))
        for start, end, number in cuts:
            if number is None:
                yield _make_task(job.plain, marks, start, end)
            else:
                yield KeptBlock(blocks[number], None)

    def _add_kept(self, kept_block: KeptBlock, job: RepackJob, pieces: list[Piece]) -> tuple[int, IndexRecord]:
        """Append a kept block to ``pieces``; return the number of old bytes in it, and its index record."""
        block = kept_block.block
        if kept_block.border is None:
            pieces += job.packed.cut(block.start, block.end).marked_packed().pieces
            return block.end - block.start, block.record
        chunks = job.packed.cut(block.data, block.borders.packed[kept_block.border]).marked_packed()
        size = chunks.length + 1
        header = BlockHeader.make(size, kept_block.plain, block.header.dictionary_size)
        check = self._check_of_front(kept_block, job)
        pieces += [Literal(header.raw), *chunks.pieces, Literal(b"\0" + bytes(-size % 4) + check)]
        return chunks.length, IndexRecord(len(header.raw) + size + len(check), kept_block.plain)

    def _check_of_front(self, kept_block: KeptBlock, job: RepackJob) -> bytes:
        """Return the check of a block's kept kept_block: recorded while decoding, or by decoding it again (SHA-256)."""
        check = kept_block.block.check_before(kept_block.border or 0)
        if check is not None:
            return check.to_bytes(SIZES[self.check], "little")
        running = RunningCheck(self.check)
        for chunk in job.decoded.chunks(kept_block.block.plain, kept_block.plain):
            running.update(chunk)
        return running.value()


def _decode_blocks(packed: PieceTable, blocks: Sequence[XzBlock], place: Place) -> Iterator[bytes]:
    """Yield the plain bytes of consecutive ``blocks``."""
    if not blocks:
        return
    reader = ByteReader(packed.cut(blocks[0].start, blocks[-1].end).chunks(), place)
    reader.position = blocks[0].start
    for block in blocks:
        reader.skip(block.start - reader.position)
        yield from read_block(reader, block.check, block.plain, lambda _: None)


class _EncodeTask(Struct, frozen=True):
    """Plain bytes for a thread.

    ``marks``: the offsets from their beginning at which other data begin, the last one before them included.
    ``blocks``: what they become, where that is known; ``key``: under which that is kept.
    """

    table: PieceTable
    marks: list[int]
    blocks: tuple[EncodedBlock, ...] = ()
    key: object = None


def _make_direct(table: PieceTable) -> PieceTable:
    """Return ``table`` with its decoded pieces read into memory; all pieces, where these are many bytes."""
    decoded = sum(piece.length for piece in table.pieces if not is_direct(piece))
    if decoded > MOST_DECODED or len(table.pieces) * DIRECT_FROM > table.length:
        return PieceTable([Literal(table.read())])
    return PieceTable(piece if is_direct(piece) else Literal(b"".join(piece.chunks())) for piece in table.pieces)


def _split_old_front(
    table: PieceTable, job: RepackJob, options: EncoderOptions
) -> tuple[_EncodeTask | None, PieceTable]:
    """Return the task for the old bytes in front of ``table``, where they are few and new ones follow, and the rest.

    They are what stays of an old LZMA2 chunk, and the same for each change at one place.
    """
    first = table.pieces[0]
    is_old = isinstance(first, Range) and first.source is job.decoded
    if not (is_old and LEAST_FRONT <= first.length <= options.quick and len(table.pieces) > 1):
        return None, table
    assert isinstance(first, Range)
    key = ("old front", first.offset, first.length, options.check, options.dictionary_size, options.always)
    known: tuple[EncodedBlock, ...] | None = job.cache.get(key)
    rest = table.cut(first.length, table.length)
    if known is not None:
        return _EncodeTask(PieceTable([]), [], known), rest
    return replace(_make_task(table, [], 0, first.length), key=key), rest


def _make_task(table: PieceTable, marks: Sequence[int], start: int, end: int) -> _EncodeTask:
    """Return the task for bytes ``start`` to ``end`` of ``table``, which has other data at each of ``marks``."""
    first = bisect_right(marks, start) - 1
    direct = _make_direct(table.cut(start, end))
    return _EncodeTask(direct, [mark - start for mark in marks[max(first, 0) :] if mark < end])


def _plan_blocks(table: PieceTable, job: RepackJob, options: EncoderOptions) -> Iterator[tuple[int, int]]:
    """Yield start and end in ``table`` of each new block of ``job``.

    New data of more than a block are also cut where the job wants borders.
    """
    length = table.length
    edges = [0, length]
    if length > options.block_size:
        edges = sorted({*edges, *move_borders(table, job.decoded, job.find_borders())})
    for first, last in pairwise(edges):
        whole = job.plain.length if len(edges) == 2 else last - first  # what lies between borders is small enough
        size = _block_size(last - first, whole, options)
        for start in range(first, last, size):
            yield start, min(start + size, last)


class _NewBlocks:
    """Consecutive new blocks: in the spool, or as pieces of their sources."""

    def __init__(self, spool: Spool) -> None:
        """Begin without blocks."""
        self._spool = spool
        self._pieces: list[Piece] = []
        self._crc = 0

    def add(self, block: EncodedBlock) -> None:
        """Add a block. :raises SizeError: all of them together exceed the limit of the spool."""
        if block.table is None:
            piece = self._spool.append(block.parts, packed=True)
            self._pieces.append(piece)
            before, after = self._spool.crcs_around(piece.offset, piece.length) or (0, 0)
            crc, length = crc32_without(after, before, piece.length), piece.length
        else:
            self._spool.count_outside(block.table.length)
            self._pieces += block.table.pieces
            crc, length = block.crc, block.table.length
        self._crc = crc32_joined(self._crc, crc, length)

    def take(self) -> tuple[Piece, ...]:
        """Return the blocks since the last call, as one piece if there are any."""
        table, crc = PieceTable(self._pieces), self._crc
        self._pieces, self._crc = [], 0
        if len(table.pieces) < 2:
            return table.pieces
        return (Range(ConcatSource(table, crc), 0, table.length, True),)


def _block_size(length: int, whole: int, options: EncoderOptions) -> int:
    """Return the plain bytes of each block of new data of ``length`` bytes in a stream of ``whole`` plain bytes.

    Little data become several blocks, for several threads. They may lose some percent by that, less than half a percent
    of the whole. The blocks of more data are of one size, and their number is even, so that threads end
    together.
    """
    if length <= options.block_size:
        return max(-(-length // SPLIT), SEGMENT) if length * SMALL_PART <= whole else options.block_size
    return _even_size(length, options.block_size)


def _even_size(length: int, most: int) -> int:
    """Return the bytes of each of an even number of blocks that hold ``length`` bytes, each at most ``most``."""
    count = -(-length // most)
    return -(-length // (count + count % 2))


def _file_borders(table: PieceTable) -> Iterator[int]:
    """Yield the offsets at which large pieces begin and end, which are mostly files."""
    offset = 0
    for piece in table.pieces:
        if piece.length >= SEGMENT:
            yield offset
            yield offset + piece.length
        offset += piece.length
