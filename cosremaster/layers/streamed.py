"""The entries of an archive that is read once, front to back, without being indexed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from cosremaster.codecs import SNIFF_SIZE
from cosremaster.errors import CorruptError
from cosremaster.io.streams import ByteReader
from cosremaster.layers.identify import identify

if TYPE_CHECKING:
    from cosremaster.codecs.base import Codec
    from cosremaster.layers.formats import EntryStream

MAX_REST = 16 << 30
"""Bytes behind the end of an archive that are decoded for the checksum behind them."""


def open_stream(packed: ByteReader) -> EntryStream | None:
    """Return the entries of the archive that begins where ``packed`` stands, under any compression.

    None where it is no archive of a format that is read so; nothing of ``packed`` is consumed then. The iterator raises
    CorruptError for damage, with its place.
    """
    codec, layer_format, variant, _, prefix = identify(packed.peek)
    if layer_format is None or variant or prefix or layer_format.random_access:
        return None
    if codec.is_identity:
        return layer_format.stream_entries(packed)
    reader = ByteReader(_decode(codec, packed), packed.place)
    entries = layer_format.stream_entries(reader)
    return None if entries is None else _check_streams(entries, reader)


def read_streams(packed: ByteReader) -> None:
    """Decode all streams at the beginning of ``packed``, so that their checksums are compared.

    Nothing is read of what is not compressed, or by a codec that is not known. Raises as :func:`_read_rest`.
    """
    codec = identify(packed.peek).codec
    if not codec.is_identity:
        _read_rest(ByteReader(_decode(codec, packed), packed.place))


def _check_streams(entries: EntryStream, reader: ByteReader) -> EntryStream:
    """Yield ``entries``, and read to the end of the streams: a checksum stands there. Raises as :func:`_read_rest`."""
    oddity = yield from entries
    _read_rest(reader)
    return oddity


def _read_rest(reader: ByteReader) -> None:
    """Read ``reader`` to its end.

    :raises CorruptError: a checksum is wrong, a stream is cut off, or there are more than :data:`MAX_REST` bytes.
    """
    end = reader.position + MAX_REST
    while reader.read_some():
        if reader.position > end:
            raise CorruptError(f"more than {MAX_REST >> 30} GiB stand behind the end of the archive", reader.next_place)


def _decode(codec: Codec, packed: ByteReader) -> Iterator[bytes]:
    """Yield the plain bytes of all streams of ``codec`` at the beginning of ``packed``, as ``zcat`` does."""
    decoding = codec.for_reading().decode(packed)
    while True:
        yield from decoding.next_stream()
        packed.skip_zeros()
        if not codec.sniff(packed.peek(SNIFF_SIZE)):
            return
