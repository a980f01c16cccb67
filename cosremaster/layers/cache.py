"""Remembered indexes: files in the user's cache directory, one for each image, each verified before it is used.

A file holds its CRC64, two lines of JSON, and the bytes that these refer to. An index is used only if the image's file
is the same inode with the same size and times and the same first and last bytes, if its own checksum holds, and if
everything in it has its type and agrees with the rest. Anything else is ignored, and the image indexed again. The
checksum finds what storage does to bytes; people are kept out by the folder's mode, and no digest would do that: who
can write to the file can write its digest too.

The packed bytes that an index stands for are compared with checksums in it (:mod:`cosremaster.layers.packed_sums`).
It stands for none of a file system that is read when it is needed, of which it holds no checksums.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, Any

from cosremaster import __about__
from cosremaster.codecs import codec_named
from cosremaster.crc import crc64_xz
from cosremaster.errors import CorruptError, CosremasterError, ImageError, Place
from cosremaster.io.parallel import StopFlag
from cosremaster.io.pieces import PieceTable
from cosremaster.io.source import ByteSource
from cosremaster.io.streams import sha256_of
from cosremaster.iso.model import SourceImage
from cosremaster.layers.blobs import Blob, Blobs, blob_reader
from cosremaster.layers.cache_folder import (
    MAX_BYTES,
    SUFFIX,
    CachedIndex,
    has_index,
    index_folder,
    read_index,
    write_index,
)
from cosremaster.layers.formats import FORMATS, load_format
from cosremaster.layers.model import IndexedFile
from cosremaster.layers.packed_sums import check_sums, sums_size
from cosremaster.layers.scan import NestedArchive, ScannedArchive
from cosremaster.layers.system_images import ForeignFile
from cosremaster.lazy_path import make_path
from cosremaster.records import NumberRange, Struct
from cosremaster.records.json import MismatchError, decode_json, encode_json

if TYPE_CHECKING:
    from pathlib import Path

INDEX_FORMAT = 7

_DIGEST_SIZE = 32
"""Bytes of a SHA-256."""
_EDGE = 1 << 16
"""Bytes at the beginning and the end of an image that are compared."""

Count = Annotated[int, NumberRange(ge=0, le=(1 << 63) - 1)]
Span = tuple[Count, Count]


class StoredIndex(Struct, frozen=True):
    """The indexed files of an image, and, for people, files that look like something that cannot be opened."""

    files: tuple[IndexedFile, ...]
    foreign_files: tuple[ForeignFile, ...]


class _Head(Struct, frozen=True, forbid_unknown_fields=True):
    """The first line of JSON. ``image``: its path, for people; ``key``: what :func:`_key` returns."""

    image: str
    key: dict[str, int | str | list[str]]


class _ArchiveValues(Struct, frozen=True, forbid_unknown_fields=True):
    """A scanned archive as values. ``parameters`` and ``index`` are for the codec and the layer format."""

    format: str
    variant: str
    codec: str
    parameters: dict[str, Any]
    size: Count
    tail: Span
    index: dict[str, Any]
    nested: tuple[tuple[Count, _ArchiveValues], ...] = ()


class _FileValues(Struct, frozen=True, forbid_unknown_fields=True):
    """An indexed file as values; ``path`` and ``digest`` in hexadecimal digits, ``sums`` a place among the blobs."""

    path: str
    digest: str
    sums: Span
    archive: _ArchiveValues


class _Body(Struct, frozen=True, forbid_unknown_fields=True):
    """The second line of JSON. ``foreign_files``: path in hexadecimal digits, and what the file is."""

    files: tuple[_FileValues, ...]
    foreign_files: tuple[tuple[str, str], ...]


def index_path(source: ByteSource) -> Path:
    """Return the path of the index of the image in ``source``."""
    return make_path(index_folder()) / _file_name(source)


def is_remembered(source: ByteSource) -> bool:
    """Return whether there is an index of the image in ``source``; it may not fit."""
    return has_index(_file_name(source))


def indexed_image(index: CachedIndex) -> str:
    """Return the path of the image that ``index`` was made of; empty where its first bytes do not tell."""
    _, _, rest = index.head.partition(b"\n")
    try:
        return decode_json(rest.partition(b"\n")[0], _Head).image
    except MismatchError:
        return ""


def _file_name(source: ByteSource) -> str:
    """Return the name of the index of the image in ``source``."""
    return f"{source.identity().name}{SUFFIX}"


def _key(source: ByteSource) -> dict[str, int | str | list[str]]:
    """Return what must be equal for an index to be that of this image; quick to make."""
    import hashlib  # noqa: PLC0415 - loads OpenSSL, which small commands do not need

    edges = source.read(0, _EDGE) + source.read(max(source.size - _EDGE, 0), _EDGE)
    return {
        "format": INDEX_FORMAT,
        "layer_formats": list(FORMATS),
        "version": __about__.__version__,
        **source.identity().state,
        "edges": hashlib.sha256(edges).hexdigest(),
    }


def load_index(source: ByteSource, image: SourceImage, *, check: bool) -> StoredIndex | None:
    """Return the index of this image, None if there is none that fits.

    :param check: also read every indexed file of the image and compare its SHA-256.
    """
    data = read_index(_file_name(source))
    if data is None:
        return None
    sizes = {file.path: file.size for file in image.files}
    try:
        index = _parse_index(data, source, sizes)
    except (ValueError, LookupError, TypeError, OverflowError, RecursionError, MismatchError, CosremasterError):
        return None
    if index is None:
        return None
    by_path = {file.path: file for file in image.files}
    is_dated = source.identity().is_dated  # else another medium may be in the device
    for indexed in index.files:
        table = image.bytes_of(by_path[indexed.path])
        is_other = check and bool(indexed.digest) and sha256_of(table.chunks()) != indexed.digest
        if is_other or not (is_dated or _has_sums(table, indexed.sums)):
            return None
    return index


def _has_sums(packed: PieceTable, sums: bytes) -> bool:
    """Return whether the file ``packed`` has these checksums."""
    try:
        check_sums(packed, sums, Place(), StopFlag())
    except CorruptError:
        return False
    return True


def _parse_index(data: bytes, source: ByteSource, sizes: dict[bytes, int]) -> StoredIndex | None:
    """Return the index in the file ``data``; None where it is that of another state of the image in ``source``.

    ``sizes``: of the image's files, in bytes, by path. Raises as :func:`_load_archive`.
    """
    view = memoryview(data)  # large parts are not copied
    head = data.index(b"\n") + 1
    body = data.index(b"\n", head) + 1
    end = data.index(b"\n", body)
    if data[: head - 1] != _checksum_line([view[head:]]):
        return None
    if decode_json(view[head : body - 1], _Head).key != _key(source):
        return None
    values, blobs = decode_json(view[body:end], _Body), view[end + 1 :]
    files = tuple(_load_file(file, blobs, sizes) for file in values.files)
    foreign = tuple(ForeignFile(bytes.fromhex(path), noun) for path, noun in values.foreign_files)
    return StoredIndex(files, foreign)


def _checksum_line(parts: Iterable[Blob]) -> bytes:
    """Return the first line of an index: the CRC64 of ``parts``, which stand behind it, in hexadecimal digits."""
    checksum = 0
    for part in parts:
        checksum = crc64_xz(part, checksum)
    return b"%016x" % checksum


def _load_file(values: _FileValues, blobs: memoryview, sizes: dict[bytes, int]) -> IndexedFile:
    """Return the indexed file that :func:`store_index` made values of; raises as :func:`_load_archive`."""
    path, digest, sums = bytes.fromhex(values.path), bytes.fromhex(values.digest), blob_reader(blobs)(values.sums)
    archive = _load_archive(values.archive, blobs, sizes[path])
    is_hashed = not (archive.format.reads_on_demand and archive.parameters.is_identity)
    lengths = (_DIGEST_SIZE, sums_size(sizes[path])) if is_hashed else (0, 0)
    if (len(digest), len(sums)) != lengths:
        raise ValueError("a digest of another length")
    return IndexedFile(path=path, digest=digest, sums=sums, archive=archive)


def _dump_archive(archive: ScannedArchive, blobs: Blobs) -> _ArchiveValues:
    """Return ``archive`` as values for :func:`_load_archive`, with its bytes in ``blobs``.

    :raises ValueError: something in it cannot be written so.
    """
    nested = [(number, inner) for number, inner, _ in archive.nested if inner is not None]
    return _ArchiveValues(
        format=archive.format.name,
        variant=archive.variant,
        codec=archive.parameters.name,
        parameters=archive.parameters.dump(),
        size=archive.size,
        tail=blobs.put(archive.tail),
        index=archive.contents.dump(blobs),
        nested=tuple((number, _dump_archive(inner, blobs)) for number, inner in nested),
    )


def _load_archive(values: _ArchiveValues, blobs: memoryview, packed: int) -> ScannedArchive:
    """Return the archive that :func:`_dump_archive` made ``values`` of; ``packed``: bytes of its stream.

    :raises ValueError, KeyError, TypeError, MismatchError, CosremasterError: these are not such values.
    """
    layer_format, size, variant = load_format(values.format), values.size, values.variant
    parameters = codec_named(values.codec).load(values.parameters)
    is_converted = layer_format.converter(variant) is not None
    parameters.check_sizes(packed, None if is_converted else size)
    contents = layer_format.load(values.index, blobs)
    tail = blob_reader(blobs)(values.tail)
    if len(tail) > size:
        raise ValueError("more last bytes than bytes")
    contents.check_loaded(size, tail)
    nested = []
    for number, inner in values.nested:
        entry = contents.container_entry(number)
        nested.append(NestedArchive(number, _load_archive(inner, blobs, entry.size)))
    return ScannedArchive(
        format=layer_format, variant=variant, parameters=parameters, size=size, tail=tail, span=(0, size),
        contents=contents, nested=tuple(nested),
    )  # fmt: skip


def store_index(source: ByteSource, files: Iterable[IndexedFile], foreign_files: Iterable[ForeignFile]) -> bool:
    """Write the index of the image in ``source``; return False where it cannot be written, which harms nothing.

    Files of several archives are not remembered: reading such an index costs as much as making it. Nor are those with
    damaged archives in them.
    """
    files = tuple(files)
    if any(file.streams or file.archive.unreadable for file in files):
        return False
    try:
        source.check_unchanged()
        blobs = Blobs()
        paths = [os.fspath(path.absolute()) for path in source.local_paths] or [source.place.parts[0]]
        head = _Head(paths[0].encode("utf-8", "backslashreplace").decode(), _key(source))
        body = _Body(
            files=tuple(
                _FileValues(
                    path=file.path.hex(),
                    digest=file.digest.hex(),
                    sums=blobs.put(file.sums),
                    archive=_dump_archive(file.archive, blobs),
                )
                for file in files
            ),
            foreign_files=tuple((file.path.hex(), file.noun) for file in foreign_files),
        )
        lines = b"%s\n%s\n" % (encode_json(head), encode_json(body))
        parts = (_checksum_line([lines, *blobs.parts]) + b"\n", lines, *blobs.parts)
        if sum(map(len, parts)) > MAX_BYTES:
            return False
        write_index(_file_name(source), parts)
    except (OSError, ValueError, ImageError):
        return False
    return True
