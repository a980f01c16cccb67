"""What indexing learned, as JSON values and blobs, and back: so that an image is indexed once.

Pure: values in, values out. Columns of equal things stand joined, since there may be a hundred thousand entries.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from msgspec import Struct, field

from cosremaster.layers.cpio import newc as cpio
from cosremaster.layers.cpio.old import layer_codec
from cosremaster.layers.cpio.scan import Member, ScannedArchive

Values = dict[str, Any]

_NO_DIGEST = bytes(32)

# Each from a tuple of its fields, without a Python function for each of a hundred thousand.
_header = partial(tuple.__new__, cpio.Header)
_entry = partial(tuple.__new__, cpio.NewcEntry)
_member = partial(tuple.__new__, Member)


class Blobs(Struct):
    """Bytes beside JSON values, which hold their places."""

    data: bytearray = field(default_factory=bytearray)

    def put(self, data: bytes) -> list[int]:
        """Keeps ``data``; returns its place."""
        self.data += data
        return [len(self.data) - len(data), len(self.data)]


def _taker(kept: memoryview) -> Callable[[list[int]], bytes]:
    """Gives from ``kept``, all that :meth:`Blobs.put` was given, what stands at a place.

    The function raises ValueError or TypeError where nothing does.
    """

    def take(place: list[int]) -> bytes:
        start, end = place
        if not 0 <= start <= end <= len(kept):
            raise ValueError("no blob there")
        return bytes(kept[start:end])

    return take


def dump_archive(found: ScannedArchive, blobs: Blobs) -> Values:
    """``found`` as values for :func:`load_archive`, bytes in ``blobs``.

    :raises ValueError: something in it cannot be written so.
    """
    entries = [member.entry for member in found.members]
    positions = {entry.offset: number for number, entry in enumerate(entries)}
    return {
        "form": found.form.dump(),
        "size": found.size,
        "headers": blobs.put(b"".join(entry.header.raw for entry in entries)),
        "names": blobs.put(_join([entry.name for entry in entries])),
        "offsets": blobs.put(array("Q", [entry.offset for entry in entries]).tobytes()),
        "targets": blobs.put(_join([member.target for member in found.members])),
        "digests": blobs.put(b"".join(member.digest or _NO_DIGEST for member in found.members)),
        "trailer": [blobs.put(found.trailer.header.raw), found.trailer.offset],
        "tail": blobs.put(found.tail),
        "inner": [
            [positions[holder.offset], codec.name, dump_archive(inner, blobs)] for holder, codec, inner in found.inner
        ],
    }


def load_archive(values: Values, codec: str, kept: memoryview) -> ScannedArchive:
    """What :func:`dump_archive` was given. ``kept``: the bytes of its blobs; ``codec``: the name of the one it was read
    with.

    :raises ValueError, KeyError, TypeError: these are not such values.
    """
    take = _taker(kept)
    names, targets = _split(take(values["names"])), _split(take(values["targets"]))
    headers, digests = take(values["headers"]), take(values["digests"])
    offsets = array("Q")
    offsets.frombytes(take(values["offsets"]))
    count = len(offsets)
    if not len(names) == len(targets) == count == len(headers) // cpio.HEADER_SIZE == len(digests) // 32:
        raise ValueError("columns of different lengths")
    kept_headers = map(_header, zip(_parts(headers, cpio.HEADER_SIZE)))
    entries = list(map(_entry, zip(kept_headers, names, offsets, strict=True)))
    known = [b"" if digest == _NO_DIGEST else digest for digest in _parts(digests, 32)]
    members = tuple(map(_member, zip(entries, targets, known, strict=True)))
    inner = tuple(
        (entries[number], layer_codec(name), load_archive(below, name, kept)) for number, name, below in values["inner"]
    )
    raw, offset = values["trailer"]
    return ScannedArchive(
        form=layer_codec(codec).load(values["form"]),
        size=values["size"],
        members=members,
        trailer=cpio.NewcEntry(cpio.Header(take(raw)), cpio.TRAILER, offset),
        tail=take(values["tail"]),
        inner=inner,
    )


def _parts(data: bytes, size: int) -> list[bytes]:
    return [data[at : at + size] for at in range(0, len(data), size)]


def _join(strings: Sequence[bytes]) -> bytes:
    """Strings that hold no NUL, one after another."""
    joined = b"".join(string + b"\0" for string in strings)
    if joined.count(b"\0") != len(strings):
        raise ValueError("a string holds a NUL")
    return joined


def _split(joined: bytes) -> list[bytes]:
    return joined.split(b"\0")[:-1]
