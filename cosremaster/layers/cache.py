"""Remembered indexes: files in the user's cache directory, one for each image, never trusted unseen.

A file holds its SHA-256, a line of JSON, and the bytes that this speaks of. An index is used only if the
image's file is the same inode with the same size and times and the same first and last bytes, and if its own
digest holds. Anything else is ignored, and the image indexed anew.
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

FORMAT = 3
MAX_INDEXES = 32
"""So many indexes are kept; the ones longest unused go."""

_EDGE = 1 << 16


class StoredIndex(Struct, frozen=True):
    """The indexed files of an image, and what else was recognized in it, in words."""

    files: tuple[IndexedFile, ...]
    others: tuple[str, ...]


def index_path(source: ByteSource) -> Path:
    """Where the index of the image in ``source`` is kept."""
    from platformdirs import user_cache_path  # noqa: PLC0415 - an exchange on the ISO's own tree needs none

    return Path(user_cache_path("cosremaster")) / "index" / f"{source.identity().name}.index"


def _key(source: ByteSource) -> dict[str, Any]:
    """What must be the same for an index to be this image's; cheap to look at."""
    edges = source.read(0, _EDGE) + source.read(max(source.size - _EDGE, 0), _EDGE)
    return {
        "format": FORMAT,
        "layer_formats": list(FORMATS),
        "version": __about__.__version__,
        **source.identity().state,
        "edges": hashlib.sha256(edges).hexdigest(),
    }


def load_index(source: ByteSource, image: SourceImage, *, check: bool) -> StoredIndex | None:
    """The index of this image, or None if there is none that fits.

    ``check``: also read every indexed file of the image and compare its SHA-256.
    """
    path = index_path(source)
    try:
        whole = path.read_bytes()  # of which nothing is copied at large
        begin = whole.index(b"\n") + 1
        if whole[: begin - 1] != hashlib.sha256(memoryview(whole)[begin:]).hexdigest().encode():
            return None
        end = whole.index(b"\n", begin)
        kept = memoryview(whole)[end + 1 :]
        values = msgspec.json.decode(memoryview(whole)[begin:end])
        if values["key"] != _key(source):
            return None
        files = tuple(_load_file(one, kept) for one in values["files"])
        others = tuple(str(one) for one in values["others"])
    except (OSError, ValueError, KeyError, TypeError, IndexError, msgspec.DecodeError):
        return None
    there = {file.path: file for file in image.files}
    for one in files:
        if one.path not in there:
            return None
        if check and sha256_of(image.bytes_of(there[one.path]).chunks()) != one.digest:
            return None
    with contextlib.suppress(OSError):
        os.utime(path)
    return StoredIndex(files, others)


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
    nested = [(one.number, one.archive) for one in archive.nested if one.archive is not None]
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


def store_index(source: ByteSource, files: Iterable[IndexedFile], others: Iterable[str]) -> bool:
    """Keeps an index for :func:`recall`; False where it cannot be written, which harms nothing.

    Files of several archives are not remembered; reading one again costs what reading it first did.
    """
    files = tuple(files)
    if any(one.streams for one in files):
        return False
    try:
        blobs = Blobs()
        values = {
            "key": _key(source),
            "others": list(others),
            "files": [
                {
                    "path": one.path.hex(),
                    "digest": one.digest.hex(),
                    "archive": _dump_archive(one.archive, blobs),
                }
                for one in files
            ],
        }
        head = msgspec.json.encode(values) + b"\n"
        digest = hashlib.sha256(head)
        digest.update(blobs.data)
        path = index_path(source)
        path.parent.mkdir(parents=True, exist_ok=True)
        import tempfile  # noqa: PLC0415 - only the first run with an image writes

        with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
            try:
                file.writelines((digest.hexdigest().encode() + b"\n", head, blobs.data))
                file.close()
                os.replace(file.name, path)
            except BaseException:
                os.unlink(file.name)
                raise
        _prune(path.parent)
    except (OSError, ValueError):
        return False
    return True


def _prune(folder: Path) -> None:
    """Removes the indexes longest unused beyond :data:`KEPT`."""
    found = sorted(folder.glob("*.index"), key=lambda path: path.stat().st_mtime)
    for path in found[:-MAX_INDEXES]:
        path.unlink(missing_ok=True)
