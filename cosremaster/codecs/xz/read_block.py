"""Reading an .xz block: decoding its LZMA2 chunks, recording their borders, comparing its sizes and its check."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import TypeAlias

from cosremaster.codecs.checks import SIZES, RunningCheck
from cosremaster.codecs.lzma_module import lzma
from cosremaster.codecs.xz.blocks import XzBlock
from cosremaster.codecs.xz.container import BlockHeader, IndexRecord, Lzma2ChunkHeader
from cosremaster.errors import CorruptError, Place, UnsupportedError
from cosremaster.io.parallel import BATCH, in_batches, prefetch_batches
from cosremaster.io.streams import CHUNK, ByteReader
from cosremaster.records import Struct, field
from cosremaster.records.tuples import NamedTuple


def read_header(reader: ByteReader) -> BlockHeader:
    """Return the block header (section 3.1) at ``reader``. :raises CorruptError: it is damaged."""
    place = reader.next_place
    size = reader.read_exactly(1)
    return BlockHeader.parse(size + reader.read_exactly(size[0] * 4 + 3), place)


def read_block(
    reader: ByteReader, check: int, plain: int, on_end: Callable[[XzBlock], None],
    on_chunk: Callable[[int], None] = lambda _: None, *, on_threads: bool = False,
) -> Iterator[bytes]:  # fmt: skip
    """Yield the plain bytes of the block at ``reader``.

    :param check: the id of the stream's check.
    :param plain: the plain offset of the block's first byte.
    :param on_end: called with the block at its end.
    :param on_chunk: called with the packed offset of each chunk before its plain bytes are yielded.
    :param on_threads: decode on a thread that does nothing else, as that takes longest, and read on another.
    :raises CorruptError: the block is damaged.
    :raises UnsupportedError: it has a filter that is not supported.
    """
    place, start = reader.next_place, reader.position
    header = read_header(reader)
    try:
        decoder = lzma.LZMADecompressor(format=lzma.FORMAT_RAW, filters=header.decoder_filters(place))
    except lzma.LZMAError as error:
        raise UnsupportedError(f"xz filter chain is not supported ({error})", place) from error
    block = XzBlock(header, check, start, reader.position, plain)
    packed = _read_chunks(reader)
    decoded = _decode_chunks(
        decoder, prefetch_batches(packed, _packed_size) if on_threads and not header.is_copied else packed
    )
    running = RunningCheck(check)
    position = plain
    for offset, chunk in prefetch_batches(decoded, _plain_size) if on_threads and not header.is_copied else decoded:
        block.borders.add(offset, position, running)
        on_chunk(offset)
        if chunk:
            running.update(chunk)
            position += len(chunk)
            if header.plain is not None and position - plain > header.plain:
                raise _wrong_sizes(place)
            yield chunk
    size, length = reader.position - block.data, position - plain
    _check_end(reader, header, place, size, length, running.value())
    on_end(block.with_end(reader.position, IndexRecord(len(header.raw) + size + SIZES[check], length)))


def _wrong_sizes(place: Place) -> CorruptError:
    """Return the error for a block header with wrong sizes."""
    return CorruptError("xz block header tells other sizes than the block has", place)


_Chunk: TypeAlias = "tuple[Place, int, bytes, int]"  # place, packed offset, header with data, bytes of decoded data
_END = b"\0"

_HELD_BACK = 64
"""More bytes than a filter holds back from one chunk to the next."""


def _read_chunks(reader: ByteReader) -> Iterator[_Chunk]:
    """Yield the LZMA2 chunks at ``reader``, the end marker last."""
    while True:
        place, offset = reader.next_place, reader.position
        data, plain = reader.read_exactly(1), 0
        control = data
        if control != _END:
            head = control + reader.read_exactly(Lzma2ChunkHeader.header_size(control[0], place) - 1)
            header = Lzma2ChunkHeader.parse(head)
            data, plain = head + reader.read_exactly(header.size), header.plain
        yield place, offset, data, plain
        if control == _END:
            return


def _packed_size(chunk: _Chunk) -> int:
    """Return the packed bytes of ``chunk``."""
    return len(chunk[2])


def _decode_chunks(decoder: lzma.LZMADecompressor, chunks: Iterable[_Chunk]) -> Iterator[tuple[int, bytes]]:
    """Yield the packed offset of each chunk and its plain bytes."""
    for place, offset, data, size in chunks:
        try:
            plain = decoder.decompress(data, size + _HELD_BACK)  # else Python allocates several times as much
        except lzma.LZMAError as error:
            raise CorruptError(f"corrupt xz data in the LZMA2 chunk here ({error})", place) from error
        if data == _END and not decoder.eof:
            raise CorruptError("xz block ends inside its data", place)
        yield offset, plain


def _plain_size(chunk: tuple[int, bytes]) -> int:
    """Return the plain bytes of ``chunk``."""
    return len(chunk[1])


def _check_end(reader: ByteReader, header: BlockHeader, place: Place, packed: int, plain: int, value: bytes) -> None:
    """Read block padding and check (sections 3.3, 3.4); compare the check, and the sizes with those of the header.

    :raises CorruptError: they do not fit.
    """
    if header.packed not in (None, packed) or header.plain not in (None, plain):
        raise _wrong_sizes(place)
    if any(reader.read_exactly(-packed % 4)):
        raise CorruptError("xz block is not padded with zeros", reader.next_place)
    check_place = reader.next_place
    if reader.read_exactly(len(value)) != value:
        raise CorruptError("xz block check does not fit the data", check_place)


class BlockPart(NamedTuple):
    """A part of a block that was decoded on a thread: plain bytes, each with the packed offset of their chunk.

    ``block``: at its end, behind all plain bytes.
    """

    chunks: list[tuple[int, bytes]]
    block: XzBlock | None = None


class WholeBlock(Struct, frozen=True):
    """A block whose header has its sizes, to be decoded on any thread.

    ``reader`` stands before it when it is loaded; ``size``: its packed bytes, which leave memory while it is decoded.
    """

    reader: ByteReader
    size: int
    place: Place
    origin: int
    start: int
    check: int
    plain: int
    packed: deque[bytes] = field(default_factory=deque)

    def load(self) -> None:
        """Read its packed bytes, fewer where the stream ends."""
        end = self.start + self.size
        while self.reader.position < end:
            part = self.reader.read_some(min(CHUNK, end - self.reader.position))
            if not part:
                return
            self.packed.append(part)

    def parts(self, release: Callable[[int], None]) -> Iterator[tuple[int, BlockPart]]:
        """Yield its plain bytes, once, and at last the block. Raises as :func:`read_block`."""
        reader = ByteReader(self._pop_packed(release), self.place)
        reader.origin, reader.position = self.origin, self.start
        blocks: list[XzBlock] = []
        offsets: list[int] = []
        plain = read_block(reader, self.check, self.plain, blocks.append, offsets.append)
        chunks = ((offsets.pop(), chunk) for chunk in plain)
        for batch in in_batches(chunks, _plain_size):
            yield sum(map(_plain_size, batch)), BlockPart(batch)
        yield 0, BlockPart([], blocks[0])

    def _pop_packed(self, release: Callable[[int], None]) -> Iterator[bytes]:
        """Yield its packed bytes; ``release`` is told of those that leave memory, of a MiB at once."""
        count = 0
        while self.packed:
            part = self.packed.popleft()
            count += len(part)
            if count >= BATCH:
                release(count)
                count = 0
            yield part
        release(count)


def whole_blocks(reader: ByteReader, check: int, plain: int, largest: int) -> Iterator[WholeBlock]:
    """Yield the blocks at ``reader``, while their headers have sizes of at most ``largest`` bytes each.

    Each has to be loaded before the next. Ends before a block that is larger or damaged, or whose header has no sizes,
    before one that did not shrink, which is copied as quickly as it is handed to a thread, and before the index.
    """
    while (size := reader.peek(1)) and size[0]:
        raw = reader.peek(size[0] * 4 + 4)
        try:
            header = BlockHeader.parse(raw, reader.next_place)
        except (CorruptError, UnsupportedError):
            return
        if (
            header.packed is None
            or header.plain is None
            or header.is_copied
            or max(header.packed, header.plain) > largest
        ):
            return
        end = len(raw) + header.packed + -header.packed % 4 + SIZES[check]
        yield WholeBlock(reader, end, reader.place, reader.origin, reader.position, check, plain)
        plain += header.plain
