"""What indexing learned, as JSON values and back: so that an image is indexed once.

Pure: values in, values out. Bytes are base64; columns of equal things stand joined, since there may be a
hundred thousand entries.
"""

from __future__ import annotations

from array import array
from base64 import b64decode, b64encode
from collections.abc import Sequence
from typing import Any

from cosremaster import cpio
from cosremaster.codecs import codec_named
from cosremaster.layers.index import FoundArchive, Member

Values = dict[str, Any]

_NO_DIGEST = bytes(32)


def dump_archive(found: FoundArchive) -> Values:
    """``found`` as values for :func:`load_archive`. :raises ValueError: something in it cannot be written so."""
    entries = [member.entry for member in found.members]
    positions = {entry.offset: number for number, entry in enumerate(entries)}
    return {
        "form": found.form.dump(),
        "size": found.size,
        "headers": _text(b"".join(entry.header.raw for entry in entries)),
        "names": _join([entry.name for entry in entries]),
        "offsets": _text(array("Q", [entry.offset for entry in entries]).tobytes()),
        "targets": _join([member.target for member in found.members]),
        "digests": _text(b"".join(member.digest or _NO_DIGEST for member in found.members)),
        "trailer": [_text(found.trailer.header.raw), found.trailer.offset],
        "tail": _text(found.tail),
        "inner": [[positions[holder.offset], codec.name, dump_archive(inner)] for holder, codec, inner in found.inner],
    }


def load_archive(values: Values, codec: str) -> FoundArchive:
    """What :func:`dump_archive` was given; ``codec`` is the name of the one it was read with.

    :raises ValueError, KeyError, TypeError: these are not such values.
    """
    names, targets = _split(values["names"]), _split(values["targets"])
    headers, digests = b64decode(values["headers"]), b64decode(values["digests"])
    offsets = array("Q")
    offsets.frombytes(b64decode(values["offsets"]))
    count = len(offsets)
    if not len(names) == len(targets) == count == len(headers) // cpio.HEADER_SIZE == len(digests) // 32:
        raise ValueError("columns of different lengths")
    entries = [
        cpio.Entry(cpio.Header(headers[at : at + cpio.HEADER_SIZE]), name, offset)
        for at, name, offset in zip(range(0, len(headers), cpio.HEADER_SIZE), names, offsets, strict=True)
    ]
    members = tuple(
        Member(entry, target, b"" if digest == _NO_DIGEST else digest)
        for entry, target, digest in zip(entries, targets, _parts(digests, 32), strict=True)
    )
    inner = tuple(
        (entries[number], codec_named(name), load_archive(below, name)) for number, name, below in values["inner"]
    )
    raw, offset = values["trailer"]
    return FoundArchive(
        form=codec_named(codec).load(values["form"]),
        size=values["size"],
        members=members,
        trailer=cpio.Entry(cpio.Header(b64decode(raw)), cpio.TRAILER, offset),
        tail=b64decode(values["tail"]),
        inner=inner,
    )


def _text(data: bytes) -> str:
    return b64encode(data).decode("ascii")


def _parts(data: bytes, size: int) -> list[bytes]:
    return [data[at : at + size] for at in range(0, len(data), size)]


def _join(strings: Sequence[bytes]) -> str:
    """Strings that hold no NUL, one after another."""
    joined = b"".join(string + b"\0" for string in strings)
    if joined.count(b"\0") != len(strings):
        raise ValueError("a string holds a NUL")
    return _text(joined)


def _split(text: str) -> list[bytes]:
    return b64decode(text).split(b"\0")[:-1]
