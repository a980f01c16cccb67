"""The index of a cpio archive as JSON values and blobs, and back: so that an image is indexed once.

Pure: values in, values out. Each column is one blob, since there may be a hundred thousand entries.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Sequence
from functools import partial
from typing import Annotated, Any

from msgspec import Meta, Struct, convert

from cosremaster.layers.blobs import Blobs, blob_reader
from cosremaster.layers.cpio import newc as cpio
from cosremaster.layers.cpio.read import SYMLINK, TYPES, CpioIndex, Member

Values = dict[str, Any]
Count = Annotated[int, Meta(ge=0, le=(1 << 63) - 1)]
Span = tuple[Count, Count]

_NO_DIGEST = bytes(32)

# Each makes a named tuple of a tuple without a call of a Python function: there may be a hundred thousand.
_header = partial(tuple.__new__, cpio.Header)
_entry = partial(tuple.__new__, cpio.NewcEntry)
_member = partial(tuple.__new__, Member)


class _Places(Struct, frozen=True, forbid_unknown_fields=True):
    """The values of an index: where its columns stand among the blobs; of the trailer its header, and its offset."""

    headers: Span
    names: Span
    offsets: Span
    targets: Span
    digests: Span
    trailer: tuple[Span, Count]


def dump_index(index: CpioIndex, blobs: Blobs) -> Values:
    """Return ``index`` as values for :func:`load_index`, with its bytes in ``blobs``.

    :raises ValueError: a name or target holds a NUL, or there is no trailer.
    """
    if not index.has_trailer:
        raise ValueError("there is no trailer")
    entries = [member.entry for member in index.members]
    return {
        "headers": blobs.put(b"".join(entry.header.raw for entry in entries)),
        "names": blobs.put(_join([entry.name for entry in entries])),
        "offsets": blobs.put(array("Q", [entry.offset for entry in entries]).tobytes()),
        "targets": blobs.put(_join([member.target for member in index.members])),
        "digests": blobs.put(b"".join(member.digest or _NO_DIGEST for member in index.members)),
        "trailer": [blobs.put(index.trailer.header.raw), index.trailer.offset],
    }


def load_index(values: Values, blobs: memoryview) -> CpioIndex:
    """Return the index that :func:`dump_index` made ``values`` of; ``blobs``: the bytes of its blobs.

    :raises ValueError, MsgspecError: these are not such values.
    """
    read, places = blob_reader(blobs), convert(values, _Places)
    names, targets = _split(read(places.names)), _split(read(places.targets))
    headers, digests = read(places.headers), read(places.digests)
    offsets = array("Q")
    offsets.frombytes(read(places.offsets))
    count = len(offsets)
    lengths = len(headers), len(digests)
    if not len(names) == len(targets) == count or lengths != (count * cpio.HEADER_SIZE, count * len(_NO_DIGEST)):
        raise ValueError("columns of different lengths")
    packed_headers = map(_header, zip(_parts(headers, cpio.HEADER_SIZE)))
    entries = map(_entry, zip(packed_headers, names, offsets, strict=True))
    taken = [b"" if digest == _NO_DIGEST else digest for digest in _parts(digests, 32)]
    raw, offset = places.trailer
    trailer = cpio.NewcEntry(cpio.Header(read(raw)), cpio.TRAILER, offset)
    return CpioIndex(tuple(map(_member, zip(entries, targets, taken, strict=True))), trailer)


def check_entries(index: CpioIndex, size: int) -> None:
    """Check that the entries of ``index`` follow one another in ``size`` bytes, and that their headers are possible.

    :raises ValueError: no archive has such entries.
    """
    entries = [member.entry for member in index.members] + [index.trailer]
    raw = [entry.header.raw for entry in entries]
    if any(len(header) != cpio.HEADER_SIZE or header[:6] not in cpio.MAGICS for header in raw):
        raise ValueError("no headers")
    end = 0
    for entry, fields in zip(entries, cpio.decode_headers(entry.header for entry in entries), strict=True):
        _, _, _, _, _, _, data, _, _, _, _, length, _ = fields
        if entry.offset != end or not len(entry.name) < length <= cpio.MAX_NAME:
            raise ValueError("entries do not follow one another")
        end += cpio.HEADER_SIZE + length
        end += cpio.padding_size(end) + data
        end += cpio.padding_size(end)
    if end > size:
        raise ValueError("entries of another archive")
    for entry, target, _ in index.members:
        kind = entry.header.type_digit
        if kind not in TYPES or len(target) > (entry.header.size if kind in SYMLINK else 0):
            raise ValueError("an entry of another type")


def check_tail(index: CpioIndex, size: int, tail: bytes) -> None:
    """Check that ``tail``, the last of ``size`` bytes, holds the entries that ``index`` has there.

    :raises ValueError: it holds others.
    """
    start = size - len(tail)
    for entry, target, digest in reversed([*index.members, Member(index.trailer, b"", b"")]):
        if entry.offset < start:
            return
        begin = entry.data_offset - start
        data = tail[begin : begin + entry.header.size]
        is_same = tail.startswith(entry.header.raw + entry.name + b"\0", entry.offset - start)
        if not is_same or not data.startswith(target) or (digest and hashlib.sha256(data).digest() != digest):
            raise ValueError("last bytes of another archive")


def _parts(data: bytes, size: int) -> list[bytes]:
    """Return ``data`` in parts of ``size`` bytes."""
    return [data[at : at + size] for at in range(0, len(data), size)]


def _join(strings: Sequence[bytes]) -> bytes:
    """Return ``strings``, each with a NUL behind it. :raises ValueError: one holds a NUL."""
    joined = b"".join(string + b"\0" for string in strings)
    if joined.count(b"\0") != len(strings):
        raise ValueError("a string holds a NUL")
    return joined


def _split(joined: bytes) -> list[bytes]:
    """Return the strings that :func:`_join` was given."""
    return joined.split(b"\0")[:-1]
