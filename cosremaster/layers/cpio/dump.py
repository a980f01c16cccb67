"""The index of a cpio archive as JSON values and blobs, and back: so that an image is indexed once.

Pure: values in, values out. Each column is one blob, since there may be a hundred thousand entries.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from functools import partial
from typing import Any

from cosremaster.layers.blobs import Blobs, blob_reader
from cosremaster.layers.cpio import newc as cpio
from cosremaster.layers.cpio.read import CpioIndex, Member

Values = dict[str, Any]

_NO_DIGEST = bytes(32)

# Each makes a named tuple of a tuple without a call of a Python function: there may be a hundred thousand.
_header = partial(tuple.__new__, cpio.Header)
_entry = partial(tuple.__new__, cpio.NewcEntry)
_member = partial(tuple.__new__, Member)


def dump_index(index: CpioIndex, blobs: Blobs) -> Values:
    """Return ``index`` as values for :func:`load_index`, with its bytes in ``blobs``.

    :raises ValueError: a name or target holds a NUL.
    """
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

    :raises ValueError, KeyError, TypeError: these are not such values.
    """
    read = blob_reader(blobs)
    names, targets = _split(read(values["names"])), _split(read(values["targets"]))
    headers, digests = read(values["headers"]), read(values["digests"])
    offsets = array("Q")
    offsets.frombytes(read(values["offsets"]))
    count = len(offsets)
    if not len(names) == len(targets) == count == len(headers) // cpio.HEADER_SIZE == len(digests) // 32:
        raise ValueError("columns of different lengths")
    packed_headers = map(_header, zip(_parts(headers, cpio.HEADER_SIZE)))
    entries = map(_entry, zip(packed_headers, names, offsets, strict=True))
    taken = [b"" if digest == _NO_DIGEST else digest for digest in _parts(digests, 32)]
    raw, offset = values["trailer"]
    trailer = cpio.NewcEntry(cpio.Header(read(raw)), cpio.TRAILER, offset)
    return CpioIndex(tuple(map(_member, zip(entries, targets, taken, strict=True))), trailer)


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
