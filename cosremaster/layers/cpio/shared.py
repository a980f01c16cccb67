"""Indexing a file beside one that is indexed: what both begin with is neither decoded nor digested again."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain

from cosremaster.codecs.base import Codec
from cosremaster.errors import Place
from cosremaster.io.parallel import prefetch_batches
from cosremaster.io.pieces import PieceTable
from cosremaster.io.streams import ByteReader, LastBytes, common_prefix_length
from cosremaster.layers.cpio.scan import TAIL, ScannedArchive, ScanOptions, bounded, read_contents, skip_zeros
from cosremaster.layers.model import IndexedFile, Layer


def index_beside(
    path: bytes, packed: PieceTable, codec: Codec, place: Place, effort: ScanOptions, known: Layer
) -> IndexedFile | None:
    """Indexes the archive ``packed`` as ``index_file`` does, but for the digest of ``packed``, by what is known of
    ``known``, an archive that was indexed with the same effort.

    Equal packed bytes are equal plain bytes: members in front of the first difference are taken over. None where that
    is not worth trying, or one of the two is no single archive. Raises as ``index_file``.
    """
    if (
        known.concatenation is not None
        or known.parameters.name != codec.name
        or known.span != (0, known.size)
        or effort.nesting
    ):
        return None
    if (
        packed.length == known.packed.length
        and common_prefix_length(packed.chunks(), known.packed.chunks()) == packed.length
    ):
        found = ScannedArchive(
            form=known.parameters, size=known.size, members=known.members, trailer=known.trailer,
            tail=known.decoded.tail, inner=(), span=known.span,
        )  # fmt: skip
        return IndexedFile(path=path, codec=codec, digest=b"", archive=found)
    return _behind_front(path, packed, codec, place, effort, known) if codec.name == "xz" else None


def _behind_front(
    path: bytes, packed: PieceTable, codec: Codec, place: Place, effort: ScanOptions, known: Layer
) -> IndexedFile | None:
    from cosremaster.codecs.xz.codec import XzDecoding  # noqa: PLC0415 - not where there is no lzma
    from cosremaster.codecs.xz.repack import XzParameters  # noqa: PLC0415 - the same
    from cosremaster.codecs.xz.shared import shared_front  # noqa: PLC0415 - the same

    assert isinstance(known.parameters, XzParameters)
    front = shared_front(known.parameters, known.packed, packed)
    if front is None:
        return None
    kept = tuple(member for member in known.members if member.entry.end <= front.plain)
    start = kept[-1].entry.end if kept else 0
    reader = ByteReader(packed.cut(front.end, packed.length).chunks(), place)
    reader.position = front.end
    decoding, tail = XzDecoding(reader, front), LastBytes(TAIL)
    fresh = bounded(prefetch_batches(decoding.next_stream()), reader, decoding, effort.max_expand)
    chunks: Iterator[bytes] = chain(known.decoded.chunks(start, front.plain - start), fresh)
    plain = ByteReader(tail.watch(chunks), place)
    plain.position = start
    contents = read_contents(plain, 0, effort, 1)
    skip_zeros(plain)
    skip_zeros(reader)
    if plain.peek(1) or reader.peek(1):
        return None  # several archives
    size = plain.position
    found = ScannedArchive(
        form=decoding.parameters, size=size, members=kept + contents.members, trailer=contents.trailer,
        tail=tail.bytes(), inner=contents.inner, span=(0, size),
    )  # fmt: skip
    return IndexedFile(path=path, codec=codec, digest=b"", archive=found)
