"""The entries of an archive that is read once, front to back, without being indexed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from cosremaster.codecs import SNIFF_SIZE
from cosremaster.io.streams import ByteReader
from cosremaster.layers.identify import identify

if TYPE_CHECKING:
    from cosremaster.codecs.base import Codec
    from cosremaster.layers.formats import StreamedEntry


def open_stream(packed: ByteReader) -> Iterator[StreamedEntry] | None:
    """Return the entries of the archive that begins where ``packed`` stands, under any compression.

    None where it is no archive of a format that is read so; nothing of ``packed`` is consumed then. The iterator raises
    CorruptError for damage, with its place.
    """
    codec, layer_format, variant, _, prefix = identify(packed.peek)
    if layer_format is None or variant or prefix or layer_format.random_access:
        return None
    reader = packed if codec.is_identity else ByteReader(_decode(codec, packed), packed.place)
    return layer_format.stream_entries(reader)


def _decode(codec: Codec, packed: ByteReader) -> Iterator[bytes]:
    """Yield the plain bytes of all streams of ``codec`` at the beginning of ``packed``, as ``zcat`` does."""
    decoding = codec.for_reading().decode(packed)
    while True:
        yield from decoding.next_stream()
        packed.skip_zeros()
        if not codec.sniff(packed.peek(SNIFF_SIZE)):
            return
