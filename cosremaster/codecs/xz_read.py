"""Reading one .xz block: its LZMA2 chunks decoded, their borders noted, its sizes and check compared."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from msgspec import Struct

from cosremaster.codecs.checks import SIZES, RunningCheck
from cosremaster.codecs.lzma_module import lzma
from cosremaster.codecs.xz_blocks import OldBlock
from cosremaster.codecs.xz_container import BlockHeader, BlockRecord, Chunk
from cosremaster.errors import CorruptError, Place, UnsupportedError
from cosremaster.parallel import Stop
from cosremaster.streams import ByteReader


def read_header(reader: ByteReader) -> BlockHeader:
    """The block header (section 3.1) at ``reader``. :raises CorruptError: damage."""
    where = reader.here
    size = reader.exactly(1)
    return BlockHeader.parse(size + reader.exactly(size[0] * 4 + 3), where)


def read_block(reader: ByteReader, check: int, plain: int, ended: Callable[[OldBlock], None]) -> Iterator[bytes]:
    """The plain bytes of the block at ``reader``, whose first has offset ``plain``; at its end ``ended`` gets it.

    :raises CorruptError: damage. :raises UnsupportedError: a filter that is not handled.
    """
    where, start = reader.here, reader.position
    header = read_header(reader)
    block = OldBlock(header, check, start, reader.position, plain)
    running = RunningCheck(check)
    at = plain
    for chunk in _chunks(reader, block, where, running):
        running.update(chunk)
        at += len(chunk)
        if header.plain is not None and at - plain > header.plain:
            raise _lies(where)
        yield chunk
    size, length = reader.position - block.data, at - plain
    _end_block(reader, header, where, size, length, running.value())
    ended(block.ended(reader.position, BlockRecord(len(header.raw) + size + SIZES[check], length)))


def _lies(where: Place) -> CorruptError:
    return CorruptError("xz block header tells other sizes than the block has", where)


def _chunks(reader: ByteReader, block: OldBlock, where: Place, running: RunningCheck) -> Iterator[bytes]:
    """The plain bytes, LZMA2 chunk by chunk; each chunk's place is noted in ``block``."""
    filters = block.header.decoder_filters(where)
    try:
        decoder = lzma.LZMADecompressor(format=lzma.FORMAT_RAW, filters=filters)
    except lzma.LZMAError as error:
        raise UnsupportedError(f"xz filter chain is not supported ({error})", where) from error
    plain_at = block.plain
    while True:
        at = reader.here
        block.cuts.note(reader.position, plain_at, running)
        control = reader.exactly(1)
        data = control
        if control[0]:
            head = control + reader.exactly(Chunk.header_size(control[0], at) - 1)
            data = head + reader.exactly(Chunk.parse(head).size)
        try:
            plain = decoder.decompress(data)
        except lzma.LZMAError as error:
            raise CorruptError(f"corrupt xz data in the LZMA2 chunk here ({error})", at) from error
        if plain:
            plain_at += len(plain)
            yield plain
        if not control[0]:
            if not decoder.eof:
                raise CorruptError("xz block ends inside its data", at)
            return


def _end_block(reader: ByteReader, header: BlockHeader, where: Place, packed: int, plain: int, value: bytes) -> None:
    """Block padding and check (sections 3.3, 3.4), and the sizes the header promised."""
    if header.packed not in (None, packed) or header.plain not in (None, plain):
        raise _lies(where)
    if any(reader.exactly(-packed % 4)):
        raise CorruptError("xz block is not padded with zeros", reader.here)
    at = reader.here
    if reader.exactly(len(value)) != value:
        raise CorruptError("xz block check does not fit the data", at)


class WholeBlock(Struct, frozen=True):
    """The bytes of a block whose header tells its sizes, to be decoded on any thread."""

    data: bytes
    place: Place
    origin: int
    start: int
    check: int
    plain: int

    def decoded(self, stop: Stop) -> tuple[OldBlock, list[bytes]]:
        """The block and its plain bytes. Raises as :func:`read_block`."""
        reader = ByteReader((self.data,), self.place)
        reader.origin, reader.position = self.origin, self.start
        blocks: list[OldBlock] = []
        chunks = []
        for chunk in read_block(reader, self.check, self.plain, blocks.append):
            stop.check()
            chunks.append(chunk)
        return blocks[0], chunks


def whole_blocks(reader: ByteReader, check: int, plain: int, largest: int) -> Iterator[WholeBlock]:
    """The blocks at ``reader``, as long as their headers tell sizes of at most ``largest`` bytes in all.

    Ends before one that does not, is damaged, or is no block.
    """
    while (size := reader.peek(1)) and size[0]:
        start = reader.position
        raw = reader.peek(size[0] * 4 + 4)
        try:
            header = BlockHeader.parse(raw, reader.here)
        except (CorruptError, UnsupportedError):
            return
        if header.packed is None or header.plain is None or header.packed + header.plain > largest:
            return
        end = len(raw) + header.packed + -header.packed % 4 + SIZES[check]
        yield WholeBlock(reader.upto(end), reader.place, reader.origin, start, check, plain)
        plain += header.plain
