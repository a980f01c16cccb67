"""Remembered indexes: files in the user's cache directory, one for each image, each verified before it is used.

A file holds its SHA-256, a line of JSON, and the bytes that the JSON refers to. An index is used only if the
image's file is the same inode with the same size and times and the same first and last bytes, and if its own
digest holds. Anything else is ignored, and the image indexed again.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec.json
from msgspec import Struct

from cosremaster import __about__
from cosremaster.codecs import codec_named
from cosremaster.io.source import ByteSource
from cosremaster.io.streams import sha256_of
from cosremaster.iso.model import SourceImage
from cosremaster.layers.blobs import Blobs, blob_reader
from cosremaster.layers.formats import FORMATS, load_format
from cosremaster.layers.model import IndexedFile
from cosremaster.layers.scan import NestedArchive, ScannedArchive

INDEX_FORMAT = 3
MAX_INDEXES = 32
"""How many indexes are kept; the ones unused for longest are removed."""

_EDGE = 1 << 16
"""Bytes at the beginning and the end of an image that are compared."""


class StoredIndex(Struct, frozen=True):
    """The indexed files of an image, and, for people, files that look like something that cannot be opened."""

    files: tuple[IndexedFile, ...]
    foreign_files: tuple[str, ...]


def index_path(source: ByteSource) -> Path:
    """Return the path of the index of the image in ``source``."""
    from platformdirs import user_cache_path  # noqa: PLC0415 - an exchange on the ISO's own tree needs none

    return Path(user_cache_path("cosremaster")) / "index" / f"{source.identity().name}.index"


def _key(source: ByteSource) -> dict[str, Any]:
    """Return what must be equal for an index to be that of this image; quick to make."""
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
    path = index_path(source)
    try:
        data = path.read_bytes()
        view = memoryview(data)  # large parts are not copied
        body = data.index(b"\n") + 1
        end = data.index(b"\n", body)
        if data[: body - 1] != hashlib.sha256(view[body:]).hexdigest().encode():
            return None
        values, blobs = msgspec.json.decode(view[body:end]), view[end + 1 :]
        if values["key"] != _key(source):
            return None
        files = tuple(_load_file(file, blobs) for file in values["files"])
        foreign = tuple(str(text) for text in values["foreign_files"])
    except (OSError, ValueError, KeyError, TypeError, IndexError, msgspec.DecodeError):
        return None
    by_path = {file.path: file for file in image.files}
    for indexed in files:
        file = by_path.get(indexed.path)
        if file is None or (check and sha256_of(image.bytes_of(file).chunks()) != indexed.digest):
            return None
    with contextlib.suppress(OSError):
        os.utime(path)
    return StoredIndex(files, foreign)


def _load_file(values: dict[str, Any], blobs: memoryview) -> IndexedFile:
    """Return the indexed file that :func:`store_index` made values of; raises as :func:`_load_archive`."""
    return IndexedFile(
        path=bytes.fromhex(values["path"]),
        digest=bytes.fromhex(values["digest"]),
        archive=_load_archive(values["archive"], blobs),
    )


def _dump_archive(archive: ScannedArchive, blobs: Blobs) -> dict[str, Any]:
    """Return ``archive`` as JSON values for :func:`_load_archive`, with its bytes in ``blobs``.

    :raises ValueError: something in it cannot be written so.
    """
    nested = [(number, inner) for number, inner, _ in archive.nested if inner is not None]
    return {
        "format": archive.format.name,
        "variant": archive.variant,
        "codec": archive.parameters.name,
        "parameters": archive.parameters.dump(),
        "size": archive.size,
        "tail": blobs.put(archive.tail),
        "index": archive.contents.dump(blobs),
        "nested": [[number, _dump_archive(inner, blobs)] for number, inner in nested],
    }


def _load_archive(values: dict[str, Any], blobs: memoryview) -> ScannedArchive:
    """Return the archive that :func:`_dump_archive` made ``values`` of.

    :raises ValueError, KeyError, TypeError: these are not such values.
    """
    layer_format, size = load_format(values["format"]), values["size"]
    codec, variant = codec_named(values["codec"]), values["variant"]
    return ScannedArchive(
        format=layer_format,
        variant=variant,
        parameters=codec.load(values["parameters"]),
        size=size,
        tail=blob_reader(blobs)(values["tail"]),
        span=(0, size),
        contents=layer_format.load(values["index"], blobs),
        nested=tuple(NestedArchive(number, _load_archive(inner, blobs)) for number, inner in values["nested"]),
    )


def store_index(source: ByteSource, files: Iterable[IndexedFile], foreign_files: Iterable[str]) -> bool:
    """Write the index of the image in ``source``; return False where it cannot be written, which harms nothing.

    Files of several archives are not remembered: reading such an index costs as much as making it.
    """
    files = tuple(files)
    if any(file.streams for file in files):
        return False
    try:
        blobs = Blobs()
        values = {
            "key": _key(source),
            "foreign_files": list(foreign_files),
            "files": [
                {
                    "path": file.path.hex(),
                    "digest": file.digest.hex(),
                    "archive": _dump_archive(file.archive, blobs),
                }
                for file in files
            ],
        }
        head = msgspec.json.encode(values) + b"\n"
        digest = hashlib.sha256(head)
        digest.update(blobs.data)
        path = index_path(source)
        path.parent.mkdir(parents=True, exist_ok=True)
        import tempfile  # noqa: PLC0415 - only the first run with an image writes

        with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as output:
            try:
                output.writelines((digest.hexdigest().encode() + b"\n", head, blobs.data))
                output.close()
                os.replace(output.name, path)
            except BaseException:
                os.unlink(output.name)
                raise
        _prune(path.parent)
    except (OSError, ValueError):
        return False
    return True


def _prune(folder: Path) -> None:
    """Remove the indexes unused for longest beyond :data:`MAX_INDEXES`."""
    indexes = sorted(folder.glob("*.index"), key=lambda path: path.stat().st_mtime)
    for path in indexes[:-MAX_INDEXES]:
        path.unlink(missing_ok=True)
