"""Indexing a file beside one that is indexed: what both begin with is neither decoded nor digested again."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain

from cosremaster.codecs.base import Codec
from cosremaster.errors import Place
from cosremaster.io.pieces import PieceTable
from cosremaster.io.streams import ByteReader, LastBytes, common_prefix_length
from cosremaster.layers.identify import Identification
from cosremaster.layers.model import IndexedFile, Layer
from cosremaster.layers.scan import TAIL, MemberScanner, PlainStream, ScannedArchive, ScanOptions
from cosremaster.records import Struct


class IndexedBeside(Struct, frozen=True):
    """A file that was indexed beside another; the first ``entries`` of its archive are the other's, not read again."""

    file: IndexedFile
    entries: int


def index_beside(
    path: bytes, packed: PieceTable, identification: Identification, place: Place, options: ScanOptions, beside: Layer
) -> IndexedBeside | None:
    """Index the archive ``packed`` as ``index_file`` does, without its digest, with the help of a similar archive.

    Equal packed bytes are equal plain bytes: entries in front of the first difference are taken over from ``beside``,
    which was indexed with the same options. None where that is not worth trying, or one of the two is no single
    archive. Raises as ``index_file``.
    """
    codec, layer_format, variant, _, prefix = identification
    if (
        (beside.parameters.name, beside.format, beside.variant) != (codec.name, layer_format, variant)
        or beside.concatenation is not None
        or beside.span != (0, beside.size)
        or options.nesting
        or prefix
    ):
        return None
    if (
        packed.length == beside.packed.length
        and common_prefix_length(packed.chunks(), beside.packed.chunks()) == packed.length
    ):
        archive = ScannedArchive(
            beside.format, variant, beside.parameters, beside.size, beside.decoded.tail, beside.span, beside.index
        )
        file = IndexedFile(path=path, digest=b"", sums=b"", archive=archive)
        return IndexedBeside(file, beside.index.entry_count)
    if beside.is_converted:
        return None
    return _index_behind_front(path, packed, codec, place, options, beside)


def _index_behind_front(
    path: bytes, packed: PieceTable, codec: Codec, place: Place, options: ScanOptions, beside: Layer
) -> IndexedBeside | None:
    """Index the archive in the stream ``packed`` from where it begins to differ from that of ``beside``."""
    front = codec.shared_front(beside.parameters, beside.packed, packed)
    split = None if front is None else beside.index.split_before(front.plain)
    if front is None or split is None:
        return None
    start, entries = split
    reader = ByteReader(packed.cut(front.end, packed.length).chunks(), place)
    reader.position = front.end
    if not reader.peek(1):
        return None  # cut off where a frame ends
    decoding, tail = front.decode_rest(reader), LastBytes(TAIL)
    behind = PlainStream(codec, reader, decoding, options, None)
    chunks: Iterator[bytes] = chain(beside.decoded.chunks(start, front.plain - start), behind.chunks())
    plain = ByteReader(tail.watch(chunks), place)
    plain.position = start
    rest = beside.format.index(plain, 0, MemberScanner(options, 1), None)
    behind.is_complete = beside.format.is_initramfs
    plain.skip_zeros()
    reader.skip_zeros()
    if plain.peek(1) or reader.peek(1):
        return None  # several archives
    size = plain.position
    archive = ScannedArchive(
        beside.format, beside.variant, decoding.parameters, size, tail.bytes(), (0, size), entries.joined(rest)
    )
    return IndexedBeside(IndexedFile(path=path, digest=b"", sums=b"", archive=archive), entries.entry_count)
