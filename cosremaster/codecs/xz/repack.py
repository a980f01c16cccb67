"""What decoding an .xz stream taught, and packing it again: kept parts and fresh blocks in one stream."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from typing import Any

from msgspec import Struct

from cosremaster.codecs.base import PackedParameters, RepackJob, RepackResult
from cosremaster.codecs.checks import NAMES, SIZES, RunningCheck, crc32_joined, crc32_without
from cosremaster.codecs.xz.blocks import XzBlock
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
from cosremaster.units import format_size

SMALL_PART = 12
"""A fresh part below this part of the stream is split into :data:`SPLIT` blocks."""

SPLIT = 4

MOST_DECODED = 4 << 20
"""So many decoded bytes of a block are held apart from those that are read from files again."""


class XzParameters(PackedParameters, frozen=True):
    """``check``: an id of :mod:`checks`, that of the first stream, which packing anew keeps; ``blocks``: all."""

    check: int
    blocks: tuple[XzBlock, ...]
    streams: int

    name = "xz"

    @property
    def dictionary_size(self) -> int:
        """The largest dictionary of all blocks, in bytes; 0 when there is none."""
        return max((block.header.dictionary_size for block in self.blocks), default=0)

    def describe(self) -> str:
        """Check, dictionary, blocks and streams."""
        text = f"{NAMES[self.check]}, dictionary {format_size(self.dictionary_size)}, "
        text += "1 block" if len(self.blocks) == 1 else f"{len(self.blocks)} blocks"
        return text + (f", {self.streams} streams" if self.streams != 1 else "")

    def dump(self) -> dict[str, Any]:
        """Check, number of streams, blocks."""
        return {"check": self.check, "streams": self.streams, "blocks": [block.dump() for block in self.blocks]}

    @classmethod
    def load(cls, values: dict[str, Any]) -> XzParameters:
        """What :meth:`dump` wrote. :raises ValueError, KeyError, TypeError: it did not write that."""
        if values["check"] not in NAMES:
            raise ValueError("no such check")
        return cls(values["check"], tuple(XzBlock.load(one) for one in values["blocks"]), int(values["streams"]))

    def repack(self, job: RepackJob) -> RepackResult:
        """One stream: blocks and fronts of blocks that stay are kept as they are, the rest is encoded anew.

        The dictionary is the old one, or the preset's where that is less. The same bytes for any number of
        threads.
        """
        preset = PRESET if job.preset is None else job.preset
        dictionary_size = max(MIN_DICT, min(self.dictionary_size or PRESET_DICTS[preset], PRESET_DICTS[preset]))
        how = EncoderOptions(self.check, dictionary_size, preset, job.always_compress)
        pieces: list[Piece] = [Literal(pack_stream_header(self.check))]
        records: list[IndexRecord] = []
        kept = encoded = stored = 0
        fresh = _Fresh(job.spool)

        def work(item: KeptBlock | _Task, stop: StopFlag) -> KeptBlock | tuple[EncodedBlock, ...]:
            return item if isinstance(item, KeptBlock) else encode_blocks(item.table, item.marks, how, stop)

        for done in ordered_map(work, self._items(job, how), job.threads):
            if isinstance(done, KeptBlock):
                pieces += fresh.taken()
                old, record = self._kept(done, job, pieces)
                records.append(record)
                kept += old
                job.advance(record.plain)
                continue
            for block in done:
                fresh.add(block)
                records.append(block.record)
                encoded += 0 if block.stored else block.record.plain
                stored += block.record.plain if block.stored else 0
                job.advance(block.record.plain)
        index = pack_index(records)
        pieces += fresh.taken()
        pieces.append(Literal(index + pack_stream_footer(self.check, len(index))))
        return RepackResult(PieceTable(pieces), kept, encoded, stored)

    def decode_from(self, packed: PieceTable, offset: int, place: Place) -> tuple[int, Iterator[bytes]]:
        """See :class:`~cosremaster.codecs.base.StreamParameters`: from the beginning of a block."""
        starts = [block.plain for block in self.blocks]
        blocks = self.blocks[max(bisect_right(starts, offset) - 1, 0) :]
        return (blocks[0].plain if blocks else 0), _decoded(packed, blocks, place)

    def _items(self, job: RepackJob, how: EncoderOptions) -> Iterator[KeptBlock | _Task]:
        """What is kept, and what has to be encoded, in order."""
        for part in plan_splice(job.plain, job.decoded, self.blocks, self.check):
            if isinstance(part, KeptBlock):
                yield part
                continue
            marks = list(_marks(part.table))
            size = _block_size(part.table.length, job.plain.length, how)
            for start in range(0, part.table.length, size):
                end = min(start + size, part.table.length)
                table = _readable_again(part.table.cut(start, end))
                first = bisect_right(marks, start) - 1
                yield _Task(table, [mark - start for mark in marks[max(first, 0) :] if mark < end])

    def _kept(self, kept: KeptBlock, job: RepackJob, pieces: list[Piece]) -> tuple[int, IndexRecord]:
        """Appends a kept block to ``pieces``; returns how many of its bytes are old ones, and its index record."""
        block = kept.block
        if kept.cut is None:
            pieces += job.packed.cut(block.start, block.end).marked_packed().pieces
            return block.end - block.start, block.record
        chunks = job.packed.cut(block.data, block.borders.packed[kept.cut]).marked_packed()
        size = chunks.length + 1
        header = BlockHeader.make(size, kept.plain, block.header.dictionary_size)
        check = self._check(kept, job)
        pieces += [Literal(header.raw), *chunks.pieces, Literal(b"\0" + bytes(-size % 4) + check)]
        return chunks.length, IndexRecord(len(header.raw) + size + len(check), kept.plain)

    def _check(self, kept: KeptBlock, job: RepackJob) -> bytes:
        """The check of a kept front: noted while decoding, or taken by decoding it again (SHA-256)."""
        noted = kept.block.check_before(kept.cut or 0)
        if noted is not None:
            return noted.to_bytes(SIZES[self.check], "little")
        running = RunningCheck(self.check)
        for chunk in job.decoded.chunks(kept.block.plain, kept.plain):
            running.update(chunk)
        return running.value()


def _decoded(packed: PieceTable, blocks: Sequence[XzBlock], place: Place) -> Iterator[bytes]:
    """The plain bytes of ``blocks``, which follow each other."""
    if not blocks:
        return
    reader = ByteReader(packed.cut(blocks[0].start, blocks[-1].end).chunks(), place)
    reader.position = blocks[0].start
    for block in blocks:
        reader.skip(block.start - reader.position)
        yield from read_block(reader, block.check, block.plain, lambda _: None)


class _Task(Struct, frozen=True):
    """Plain bytes for one thread, and the offsets from their beginning where data begin, the last before it first."""

    table: PieceTable
    marks: list[int]


def _readable_again(table: PieceTable) -> PieceTable:
    """``table`` with what has to be decoded read into memory; all of it, where that is much."""
    decoded = sum(piece.length for piece in table.pieces if not is_direct(piece))
    if decoded > MOST_DECODED or len(table.pieces) * DIRECT_FROM > table.length:
        return PieceTable([Literal(table.read())])
    return PieceTable(piece if is_direct(piece) else Literal(b"".join(piece.chunks())) for piece in table.pieces)


class _Fresh:
    """Fresh blocks in a row: in the spool, or where their bytes come from."""

    def __init__(self, spool: Spool) -> None:
        self._spool = spool
        self._pieces: list[Piece] = []
        self._crc = 0

    def add(self, block: EncodedBlock) -> None:
        """One more. :raises SizeError: they are too many for the spool, or would be."""
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

    def taken(self) -> tuple[Piece, ...]:
        """Those that came since the last call, as one piece."""
        table, crc = PieceTable(self._pieces), self._crc
        self._pieces, self._crc = [], 0
        if len(table.pieces) < 2:
            return table.pieces
        return (Range(ConcatSource(table, crc), 0, table.length, True),)


def _block_size(length: int, whole: int, how: EncoderOptions) -> int:
    """Plain bytes of each block of a fresh part of ``length`` bytes in a stream of ``whole``.

    A small part becomes several blocks, for several threads; being small, it may lose a few parts in a hundred
    by that, which are no half per cent of the whole. The blocks of a larger one are of one size, and there is an even
    number of them, so that threads end together.
    """
    if length <= how.block_size:
        return max(-(-length // SPLIT), SEGMENT) if length * SMALL_PART <= whole else how.block_size
    count = -(-length // how.block_size)
    return -(-length // (count + count % 2))


def _marks(table: PieceTable) -> Iterator[int]:
    """Where large pieces, which are mostly files, begin and end."""
    at = 0
    for piece in table.pieces:
        if piece.length >= SEGMENT:
            yield at
            yield at + piece.length
        at += piece.length
