"""Reading one .xz block: its LZMA2 chunks decoded, their borders noted, its sizes and check compared."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeAlias

from msgspec import Struct

from cosremaster.codecs.checks import SIZES, RunningCheck
from cosremaster.codecs.lzma_module import lzma
from cosremaster.codecs.xz.blocks import XzBlock
from cosremaster.codecs.xz.container import BlockHeader, IndexRecord, Lzma2ChunkHeader
from cosremaster.errors import CorruptError, CosremasterError, Place, UnsupportedError
from cosremaster.io.parallel import StopFlag, prefetch_batches
from cosremaster.io.streams import ByteReader


def read_header(reader: ByteReader) -> BlockHeader:
    """The block header (section 3.1) at ``reader``. :raises CorruptError: damage."""
    where = reader.next_place
    size = reader.read_exactly(1)
    return BlockHeader.parse(size + reader.read_exactly(size[0] * 4 + 3), where)


def read_block(
    reader: ByteReader, check: int, plain: int, ended: Callable[[XzBlock], None],
    reached: Callable[[int], None] = lambda _: None, *, aside: bool = False,
) -> Iterator[bytes]:  # fmt: skip
    """The plain bytes of the block at ``reader``, whose first has offset ``plain``; at its end ``ended`` gets it.

    ``reached`` is told the packed offset of each chunk before its plain bytes are yielded. ``aside``: decode on a
    thread that does nothing else, for that takes longest; one before it reads.
    :raises CorruptError: damage. :raises UnsupportedError: a filter that is not handled.
    """
    where, start = reader.next_place, reader.position
    header = read_header(reader)
    try:
        decoder = lzma.LZMADecompressor(format=lzma.FORMAT_RAW, filters=header.decoder_filters(where))
    except lzma.LZMAError as error:
        raise UnsupportedError(f"xz filter chain is not supported ({error})", where) from error
    block = XzBlock(header, check, start, reader.position, plain)
    packed = _chunks(reader)
    decoded = _decoded(decoder, prefetch_batches(packed, _packed_size) if aside else packed)
    running = RunningCheck(check)
    at = plain
    for offset, chunk in prefetch_batches(decoded, _plain_size) if aside else decoded:
        block.borders.note(offset, at, running)
        reached(offset)
        if chunk:
            running.update(chunk)
            at += len(chunk)
            if header.plain is not None and at - plain > header.plain:
                raise _lies(where)
            yield chunk
    size, length = reader.position - block.data, at - plain
    _end_block(reader, header, where, size, length, running.value())
    ended(block.ended(reader.position, IndexRecord(len(header.raw) + size + SIZES[check], length)))


def _lies(where: Place) -> CorruptError:
    return CorruptError("xz block header tells other sizes than the block has", where)


_Chunk: TypeAlias = "tuple[Place, int, bytes]"  # place, packed offset, header and data
_END = b"\0"


def _chunks(reader: ByteReader) -> Iterator[_Chunk]:
    """The LZMA2 chunks at ``reader``, the end marker last."""
    while True:
        at, offset = reader.next_place, reader.position
        data = control = reader.read_exactly(1)
        if control != _END:
            head = control + reader.read_exactly(Lzma2ChunkHeader.header_size(control[0], at) - 1)
            data = head + reader.read_exactly(Lzma2ChunkHeader.parse(head).size)
        yield at, offset, data
        if control == _END:
            return


def _packed_size(chunk: _Chunk) -> int:
    return len(chunk[2])


def _decoded(decoder: lzma.LZMADecompressor, chunks: Iterable[_Chunk]) -> Iterator[tuple[int, bytes]]:
    """The packed offset of each chunk, and its plain bytes."""
    for at, offset, data in chunks:
        try:
            plain = decoder.decompress(data)
        except lzma.LZMAError as error:
            raise CorruptError(f"corrupt xz data in the LZMA2 chunk here ({error})", at) from error
        if data == _END and not decoder.eof:
            raise CorruptError("xz block ends inside its data", at)
        yield offset, plain


def _plain_size(chunk: tuple[int, bytes]) -> int:
    return len(chunk[1])


def _end_block(reader: ByteReader, header: BlockHeader, where: Place, packed: int, plain: int, value: bytes) -> None:
    """Block padding and check (sections 3.3, 3.4), and the sizes the header promised."""
    if header.packed not in (None, packed) or header.plain not in (None, plain):
        raise _lies(where)
    if any(reader.read_exactly(-packed % 4)):
        raise CorruptError("xz block is not padded with zeros", reader.next_place)
    at = reader.next_place
    if reader.read_exactly(len(value)) != value:
        raise CorruptError("xz block check does not fit the data", at)


class WholeBlock(Struct, frozen=True):
    """The bytes of a block whose header tells its sizes, to be decoded on any thread."""

    data: bytes
    place: Place
    origin: int
    start: int
    check: int
    plain: int

    def decoded(self, stop: StopFlag) -> tuple[XzBlock, list[bytes]]:
        """The block and its plain bytes. Raises as :func:`read_block`."""
        reader = ByteReader((self.data,), self.place)
        reader.origin, reader.position = self.origin, self.start
        blocks: list[XzBlock] = []
        chunks = []
        for chunk in read_block(reader, self.check, self.plain, blocks.append):
            stop.check()
            chunks.append(chunk)
        return blocks[0], chunks


class FailedBlock(Struct, frozen=True):
    """What came instead of a block; told in its turn, behind the damage of those before."""

    error: CosremasterError

    def decoded(self, stop: StopFlag) -> tuple[XzBlock, list[bytes]]:
        """Raises the error."""
        raise self.error


def in_turn(blocks: Iterator[WholeBlock]) -> Iterator[WholeBlock | FailedBlock]:
    """``blocks``, and what reading the next one raises as one more."""
    try:
        yield from blocks
    except CosremasterError as error:
        yield FailedBlock(error)


def whole_blocks(reader: ByteReader, check: int, plain: int, largest: int) -> Iterator[WholeBlock]:
    """The blocks at ``reader``, as long as their headers tell sizes of at most ``largest`` bytes in all.

    Ends before one that does not, is damaged, or is no block.
    """
    while (size := reader.peek(1)) and size[0]:
        start = reader.position
        raw = reader.peek(size[0] * 4 + 4)
        try:
            header = BlockHeader.parse(raw, reader.next_place)
        except (CorruptError, UnsupportedError):
            return
        if header.packed is None or header.plain is None or header.packed + header.plain > largest:
            return
        end = len(raw) + header.packed + -header.packed % 4 + SIZES[check]
        yield WholeBlock(reader.read_upto(end), reader.place, reader.origin, start, check, plain)
        plain += header.plain
