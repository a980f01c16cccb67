"""The compression formats: a module or package for each, and a registry that finds a codec by the magic of a stream.

The module of a format is imported with the first stream of it: listing an initramfs under gzip needs no xz.
"""

from __future__ import annotations

import importlib
import importlib.util
from functools import cache
from typing import TYPE_CHECKING

from cosremaster.codecs.plain import PlainCodec

if TYPE_CHECKING:
    from cosremaster.codecs.base import Codec

PLAIN = PlainCodec()

_SKIPPABLE = bytes(range(0x50, 0x60))
"""First bytes of skippable frames in zstd and lz4."""

_CODECS: dict[str, tuple[bytes, str, str]] = {
    "gzip": (b"\x1f", "gzip.codec", "GzipCodec"),
    "zstd": (b"\x28" + _SKIPPABLE, "zstd", "ZstdCodec"),
    "bzip2": (b"B", "bzip2", "Bzip2Codec"),
    "lzop": (b"\x89", "lzop", "LzopCodec"),
    "xz": (b"\xfd", "xz.codec", "XzCodec"),
    "lzma": (b"\x5d", "lzma_alone", "LzmaCodec"),
    "lz4": (b"\x04" + _SKIPPABLE, "lz4", "Lz4Codec"),
    "lz4-legacy": (b"\x02", "lz4", "Lz4LegacyCodec"),
}
"""By the codec's name: the possible first bytes of its streams, module, class."""

_NAMES = {
    bytes((byte,)): tuple(name for name, (first_bytes, _, _) in _CODECS.items() if byte in first_bytes)
    for byte in {byte for first_bytes, _, _ in _CODECS.values() for byte in first_bytes}
}
"""The names of the codecs whose streams may begin with a byte: most files begin with none of these."""

_LIBRARIES = {"lz4": "lz4", "lzop": "lzokay"}
"""What a module needs that may be missing."""

_UNSUPPORTED = (
    (b"\x04\x22\x4d\x18", "lz4 (which the extra cosremaster[lz4] opens)"),
    (b"\x02\x21\x4c\x18", "legacy lz4 (which the extra cosremaster[lz4] opens)"),
    (b"\x89LZO\0", "lzop (which the extra cosremaster[lzo] opens)"),
    (b"LZIP", "lzip"),
    (b"LRZI", "lrzip"),
    (b"GRZipII\0", "grzip"),
    (b"\x1f\x9d", "compress (.Z)"),
    (b"\x1f\xa0", "compress -H (.Z)"),
    (b"\xfd7zXZ\x00", "xz (which the extra cosremaster[lzma] opens, as this Python has no lzma module)"),
)
"""The magic of formats that have no codec here, or whose library may be missing, and their description."""

SNIFF_SIZE = 16
"""The first bytes of a stream that :func:`find_codec` and :func:`unsupported_compression` need."""


def find_codec(head: bytes) -> Codec | None:
    """Return the codec of a stream that begins with ``head``, or None if there is none."""
    for name in _NAMES.get(head[:1], ()):
        codec = _load_codec(name)
        if codec is not None and codec.sniff(head):
            return codec
    return None


@cache
def _load_codec(name: str) -> Codec | None:
    """Return the codec ``name``, or None if its library is not installed."""
    _, module, class_name = _CODECS[name]
    if module in ("xz.codec", "lzma_alone"):
        from cosremaster.codecs.lzma_module import AVAILABLE  # noqa: PLC0415 - only these formats need it

        if not AVAILABLE:
            return None
    if module in _LIBRARIES and importlib.util.find_spec(_LIBRARIES[module]) is None:
        return None
    codec: Codec = getattr(importlib.import_module(f"cosremaster.codecs.{module}"), class_name)()
    return codec


def unsupported_compression(head: bytes) -> str | None:
    """Return the name of the compression of ``head`` if it cannot be decoded here, else None."""
    name = next((name for magic, name in _UNSUPPORTED if head.startswith(magic)), None)
    return None if name is None or find_codec(head) is not None else name


def codec_named(name: str) -> Codec:
    """Return the codec ``name``. :raises ValueError: there is none."""
    codec = PLAIN if name == PLAIN.name else _load_codec(name) if name in _CODECS else None
    if codec is None:
        raise ValueError(f"no codec is called {name!r}")
    return codec
