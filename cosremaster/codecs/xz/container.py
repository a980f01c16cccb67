"""The .xz container as values: stream header and footer, block header, index, LZMA2 chunk header.

Specification: The .xz File Format 1.2.1; each value names its section. Nothing here does IO.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from typing import Any

from cosremaster.codecs.checks import NAMES
from cosremaster.codecs.lzma_module import lzma
from cosremaster.errors import CorruptError, Place, UnsupportedError
from cosremaster.records import Struct

MAGIC = b"\xfd7zXZ\0"
FOOTER_MAGIC = b"YZ"
STREAM_HEADER_SIZE = 12
DICT_LIMIT = 1 << 30
"""The largest dictionary in bytes: decoding takes as much memory, so larger ones are refused."""

FILTER_DELTA, FILTER_LZMA2 = 0x03, 0x21
_BCJ = {
    0x04: lzma.FILTER_X86, 0x05: lzma.FILTER_POWERPC, 0x06: lzma.FILTER_IA64,
    0x07: lzma.FILTER_ARM, 0x08: lzma.FILTER_ARMTHUMB, 0x09: lzma.FILTER_SPARC,
}  # fmt: skip
MAX_VLI = (1 << 63) - 1


def encode_vli(value: int) -> bytes:
    """Return ``value`` as a multibyte integer (section 1.2)."""
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def decode_vli(data: bytes, start: int, place: Place) -> tuple[int, int]:
    """Return the multibyte integer at ``start`` (section 1.2) and the offset behind it.

    :raises CorruptError: it is malformed.
    """
    value = shift = 0
    for position in range(start, min(start + 9, len(data))):
        byte = data[position]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            if byte == 0 and shift:
                break
            return value, position + 1
        shift += 7
    raise CorruptError("malformed number in an xz header", place)


def _crc(data: bytes) -> bytes:
    """Return the CRC32 field of ``data``."""
    return zlib.crc32(data).to_bytes(4, "little")


def pack_stream_header(check: int) -> bytes:
    """Return a stream header (section 2.1.1) for check id ``check``."""
    flags = bytes((0, check))
    return MAGIC + flags + _crc(flags)


def parse_stream_header(raw: bytes, place: Place) -> int:
    """Return the check id of a stream header (section 2.1.1).

    :raises CorruptError: wrong magic or CRC. :raises UnsupportedError: a check or flag of a later format.
    """
    if not raw.startswith(MAGIC):
        raise CorruptError("no xz stream begins here", place)
    if raw[8:12] != _crc(raw[6:8]):
        raise CorruptError("xz stream header CRC32 does not fit", place)
    if raw[6] or raw[7] not in NAMES:
        raise UnsupportedError(f"xz stream flags {raw[6:8].hex()} are not supported", place)
    return raw[7]


def pack_stream_footer(check: int, index_size: int) -> bytes:
    """Return a stream footer (section 2.1.2); ``index_size``: bytes of the index."""
    body = (index_size // 4 - 1).to_bytes(4, "little") + bytes((0, check))
    return _crc(body) + body + FOOTER_MAGIC


def check_stream_footer(raw: bytes, check: int, index_size: int, place: Place) -> None:
    """Check a stream footer (section 2.1.2). :raises CorruptError: it does not fit the header and the index."""
    if raw != pack_stream_footer(check, index_size):
        raise CorruptError("xz stream footer does not fit its header and index", place)


class IndexRecord(Struct, frozen=True):
    """A record of an index (section 4.3). ``unpadded``: bytes of header, data and check; ``plain``: decoded bytes."""

    unpadded: int
    plain: int

    @property
    def padded(self) -> int:
        """The bytes of the block in the stream, with its padding."""
        return self.unpadded + -self.unpadded % 4


def pack_index(records: Iterable[IndexRecord]) -> bytes:
    """Return an index (section 4)."""
    fields = [encode_vli(record.unpadded) + encode_vli(record.plain) for record in records]
    body = b"\0" + encode_vli(len(fields)) + b"".join(fields)
    body += bytes(-len(body) % 4)
    return body + _crc(body)


class BlockHeader(Struct, frozen=True):
    """A block header (section 3.1).

    :ivar packed: the size of the compressed data; None where the header does not tell it.
    :ivar plain: the size of the decoded data, or None.
    :ivar filters: pairs of filter id and properties.
    """

    raw: bytes
    packed: int | None
    plain: int | None
    filters: tuple[tuple[int, bytes], ...]

    @property
    def is_copied(self) -> bool:
        """Whether it says that the data did not shrink: LZMA2 chunks hold them as they are, and decoding copies."""
        return self.packed is not None and self.plain is not None and self.packed >= self.plain

    @classmethod
    def make(cls, packed: int | None, plain: int | None, dictionary_size: int) -> BlockHeader:
        """Return a header for an LZMA2 filter whose dictionary has at least ``dictionary_size`` bytes."""
        flags = (0x40 if packed is not None else 0) | (0x80 if plain is not None else 0)
        filters = ((FILTER_LZMA2, pack_dictionary_size(dictionary_size)),)
        body = bytes((flags,))
        body += b"".join(encode_vli(size) for size in (packed, plain) if size is not None)
        body += b"".join(encode_vli(number) + encode_vli(len(props)) + props for number, props in filters)
        size = 1 + len(body) + 4
        size += -size % 4
        body = bytes((size // 4 - 1,)) + body
        body += bytes(size - 4 - len(body))
        return cls(body + _crc(body), packed, plain, filters)

    @classmethod
    def parse(cls, raw: bytes, place: Place) -> BlockHeader:
        """Return the header with the bytes ``raw``, its size byte included.

        :raises CorruptError: it is malformed.
        :raises UnsupportedError: it has flags of a later format.
        """
        if raw[-4:] != _crc(raw[:-4]):
            raise CorruptError("xz block header CRC32 does not fit", place)
        flags = raw[1]
        if flags & 0x3C:
            raise UnsupportedError("reserved xz block flags are set", place)
        body, at = raw[:-4], 2
        sizes: list[int | None] = [None, None]
        for index, bit in enumerate((0x40, 0x80)):
            if flags & bit:
                sizes[index], at = decode_vli(body, at, place)
        filters = []
        for _ in range((flags & 3) + 1):
            number, at = decode_vli(body, at, place)
            length, at = decode_vli(body, at, place)
            if at + length > len(body):
                raise CorruptError("xz filter properties leave the block header", place)
            filters.append((number, body[at : at + length]))
            at += length
        if any(body[at:]):
            raise CorruptError("xz block header is not padded with zeros", place)
        return cls(raw, sizes[0], sizes[1], tuple(filters))

    def decoder_filters(self, place: Place) -> list[dict[str, Any]]:
        """Return the filter chain for ``lzma.LZMADecompressor(FORMAT_RAW)``.

        :raises UnsupportedError: there is a filter that Python's lzma module does not have, or a huge dictionary.
        """
        chain: list[dict[str, Any]] = []
        for number, props in self.filters:
            if number == FILTER_LZMA2 and len(props) == 1 and props[0] <= 40:
                size = unpack_dictionary_size(props[0])
                if size > DICT_LIMIT:
                    raise UnsupportedError(f"xz dictionary of {size:,} bytes is too large", place)
                chain.append({"id": lzma.FILTER_LZMA2, "dict_size": size})
            elif number == FILTER_DELTA and len(props) == 1:
                chain.append({"id": lzma.FILTER_DELTA, "dist": props[0] + 1})
            elif number in _BCJ and len(props) in (0, 4):
                offset = {"start_offset": int.from_bytes(props, "little")} if props else {}
                chain.append({"id": _BCJ[number], **offset})
            else:
                raise UnsupportedError(f"xz filter 0x{number:X} is not supported", place)
        if self.filters[-1][0] != FILTER_LZMA2:
            raise CorruptError("xz filter chain does not end with LZMA2", place)
        return chain

    @property
    def dictionary_size(self) -> int:
        """The bytes of the LZMA2 filter's dictionary; the chain was checked by :meth:`decoder_filters`."""
        return unpack_dictionary_size(self.filters[-1][1][0])


def unpack_dictionary_size(bits: int) -> int:
    """Return the bytes of the dictionary that is encoded as ``bits`` (section 5.3.1)."""
    return 0xFFFFFFFF if bits == 40 else (2 | (bits & 1)) << (bits // 2 + 11)


def pack_dictionary_size(size: int) -> bytes:
    """Return the encoding of the smallest dictionary (section 5.3.1) with at least ``size`` bytes."""
    return bytes((next(bits for bits in range(41) if unpack_dictionary_size(bits) >= size),))


class Lzma2ChunkHeader(Struct, frozen=True):
    """An LZMA2 chunk header (section 5.3.1 names LZMA2; layout as in xz-embedded's xz_dec_lzma2.c).

    ``size``: bytes of the chunk's data behind the header; ``plain``: bytes of its decoded data.
    """

    header: bytes
    size: int
    plain: int

    @classmethod
    def header_size(cls, control: int, place: Place) -> int:
        """Return the bytes of a header that begins with ``control`` (not 0). :raises CorruptError: none does."""
        if control >= 0x80:
            return 6 if control >= 0xC0 else 5
        if control in (1, 2):
            return 3
        raise CorruptError(f"no LZMA2 chunk begins with 0x{control:02X}", place)

    @classmethod
    def parse(cls, header: bytes) -> Lzma2ChunkHeader:
        """Return the values of a header of :meth:`header_size` bytes."""
        plain = int.from_bytes(header[1:3], "big") + 1
        if header[0] < 0x80:
            return cls(header, plain, plain)
        size = int.from_bytes(header[3:5], "big") + 1
        return cls(header, size, plain + ((header[0] & 0x1F) << 16))
