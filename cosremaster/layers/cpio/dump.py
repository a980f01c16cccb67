"""The index of a cpio archive as JSON values and blobs, and back: so that an image is indexed once.

Pure: values in, values out. Each column is one blob, since there may be a hundred thousand entries.
"""

from __future__ import annotations

import binascii
import hashlib
import struct
from array import array
from bisect import bisect_left
from collections.abc import Sequence
from itertools import chain
from typing import Annotated, Any

from cosremaster.layers.blobs import Blobs, blob_reader, view_blob
from cosremaster.layers.cpio import newc as cpio
from cosremaster.layers.cpio.members import DIGEST_SIZE, FIELDS_SIZE, HeaderStyle, Member, Members
from cosremaster.layers.cpio.read import SYMLINK, TYPES, CpioIndex
from cosremaster.records import NumberRange, Struct
from cosremaster.records.json import convert

Values = dict[str, Any]
Count = Annotated[int, NumberRange(ge=0, le=(1 << 63) - 1)]
Span = tuple[Count, Count]


_unpack_sizes = struct.Struct(
    ">24xI16xI4x"
).iter_unpack  # of the 13 fields of a header: 6, of the data, and 11, of the name
_ALIGNED = -cpio.ALIGNMENT  # as a mask
_AT_ONCE = 4096  # strings
_NAMED = cpio.HEADER_SIZE + cpio.ALIGNMENT - 1


class _Places(Struct, frozen=True, forbid_unknown_fields=True):
    """The values of an index: where its columns stand among the blobs; of the trailer its header, and its offset."""

    magic: str
    is_upper: bool
    other_headers: dict[str, str]
    fields: Span
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
    members = index.members
    return {
        "magic": members.headers.magic.hex(),
        "is_upper": members.headers.is_upper,
        "other_headers": {str(number): raw.hex() for number, raw in members.headers.others.items()},
        "fields": blobs.put(members.fields),
        "names": blobs.put(_join(members.names)),
        "offsets": blobs.put(members.offsets.tobytes()),
        "targets": blobs.put(_join([members.targets.get(number, b"") for number in range(len(members))])),
        "digests": blobs.put(members.digests),
        "trailer": [blobs.put(index.trailer.header.raw), index.trailer.offset],
    }


def load_index(values: Values, blobs: memoryview) -> CpioIndex:
    """Return the index that :func:`dump_index` made ``values`` of; ``blobs``: the bytes of its blobs.

    :raises ValueError, MismatchError: these are not such values.
    """
    read, places = blob_reader(blobs), convert(values, _Places)
    names, targets = _split(read(places.names)), _split(read(places.targets))
    fields, digests = bytearray(view_blob(blobs, places.fields)), bytearray(view_blob(blobs, places.digests))
    offsets = array("Q")
    offsets.frombytes(read(places.offsets))
    count = len(offsets)
    lengths = len(fields), len(digests)
    if not len(names) == len(targets) == count or lengths != (count * FIELDS_SIZE, count * DIGEST_SIZE):
        raise ValueError("columns of different lengths")
    texts = {number: target for number, target in enumerate(targets) if target}
    raw, offset = places.trailer
    trailer = cpio.NewcEntry(cpio.Header(read(raw)), cpio.TRAILER, offset)
    others = {int(number): bytes.fromhex(raw) for number, raw in places.other_headers.items()}
    headers = HeaderStyle(bytes.fromhex(places.magic), others, is_upper=places.is_upper)
    return CpioIndex(Members(headers, fields, names, offsets, texts, digests), trailer)


def check_entries(index: CpioIndex, size: int) -> None:
    """Check that the entries of ``index`` follow one another in ``size`` bytes, and that their headers are possible.

    :raises ValueError: no archive has such entries.
    """
    members, trailer = index.members, index.trailer
    magics = {members.headers.magic, trailer.header.magic, *(raw[:6] for raw in members.headers.others.values())}
    if not magics <= {*cpio.MAGICS, b""} or len(trailer.header.raw) != cpio.HEADER_SIZE:
        raise ValueError("no headers")
    for number, raw in members.headers.others.items():
        if bytes(members.fields[number * FIELDS_SIZE : (number + 1) * FIELDS_SIZE]) != binascii.unhexlify(raw[6:]):
            raise ValueError("another header")
    names = map(len, members.names)
    if not all(
        name < length <= cpio.MAX_NAME for name, (_, length) in zip(names, _unpack_sizes(members.fields), strict=True)
    ):
        raise ValueError("no names of entries")
    # Each entry ends where the next begins: header and name, then data, both padded as by cpio.padding_size.
    ends = array("Q", [0])
    ends.extend(
        ((offset + _NAMED + length & _ALIGNED) + size + cpio.ALIGNMENT - 1) & _ALIGNED
        for offset, (size, length) in zip(members.offsets, _unpack_sizes(members.fields), strict=True)
    )
    end = ends.pop()
    if ends != members.offsets:
        raise ValueError("entries do not follow one another")
    if trailer.offset != end or trailer.end > size or trailer.header.namesize != len(cpio.TRAILER) + 1:
        raise ValueError("entries of another archive")
    kinds = members.type_digits()
    if set(kinds) - set(TYPES):
        raise ValueError("an entry of no type")
    for number, target in members.targets.items():
        if kinds[number] not in SYMLINK or len(target) > members[number].entry.header.size:
            raise ValueError("an entry of another type")


def check_tail(index: CpioIndex, size: int, tail: bytes) -> None:
    """Check that ``tail``, the last of ``size`` bytes, holds the entries that ``index`` has there.

    :raises ValueError: it holds others.
    """
    start = size - len(tail)
    first = bisect_left(index.members.offsets, start)
    for entry, target, digest in chain(index.members[first:], [Member(index.trailer, b"", b"")]):
        if entry.offset < start:
            continue
        begin = entry.data_offset - start
        data = tail[begin : begin + entry.header.size]
        is_same = tail.startswith(entry.header.raw + entry.name + b"\0", entry.offset - start)
        if not is_same or not data.startswith(target) or (digest and hashlib.sha256(data).digest() != digest):
            raise ValueError("last bytes of another archive")


def _join(strings: Sequence[bytes]) -> bytes:
    """Return ``strings``, each with a NUL behind it. :raises ValueError: one holds a NUL."""
    chunks = (strings[start : start + _AT_ONCE] for start in range(0, len(strings), _AT_ONCE))
    joined = b"".join([b"\0".join((*chunk, b"")) for chunk in chunks])
    if joined.count(b"\0") != len(strings):
        raise ValueError("a string holds a NUL")
    return joined


def _split(joined: bytes) -> list[bytes]:
    """Return the strings that :func:`_join` was given."""
    return joined.split(b"\0")[:-1]
