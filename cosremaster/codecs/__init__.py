"""One codec family a file, one protocol, and a registry that knows them by their magic.

A family's module is loaded when the first stream of it is met: listing a gzip'd initramfs needs no xz.
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
"""First bytes of frames that zstd and lz4 say are to be skipped."""

_HOMES: dict[str, tuple[bytes, str, str]] = {
    "gzip": (b"\x1f", "gzip.codec", "GzipCodec"),
    "zstd": (b"\x28" + _SKIPPABLE, "zstd", "ZstdCodec"),
    "bzip2": (b"B", "bzip2", "Bzip2Codec"),
    "lzop": (b"\x89", "lzop.codec", "LzopCodec"),
    "xz": (b"\xfd", "xz.codec", "XzCodec"),
    "lzma": (b"\x5d", "lzma_alone", "LzmaCodec"),
    "lz4": (b"\x04" + _SKIPPABLE, "lz4", "Lz4Codec"),
    "lz4-legacy": (b"\x02", "lz4", "Lz4LegacyCodec"),
}
"""By the codec's name: the first bytes its streams can have, module, class."""

_FOREIGN = (
    (b"\x04\x22\x4d\x18", "lz4 (which the extra cosremaster[lz4] opens)"),
    (b"\x02\x21\x4c\x18", "legacy lz4 (which the extra cosremaster[lz4] opens)"),
    (b"\xfd7zXZ\x00", "xz (which the extra cosremaster[lzma] opens, as this Python has no lzma module)"),
)

SNIFF_SIZE = 16
"""How many bytes :func:`find_codec` and :func:`unsupported_compression` want to see."""


def find_codec(head: bytes) -> Codec | None:
    """The codec whose magic ``head`` begins with, or None."""
    for name, (first, _, _) in _HOMES.items():
        if head[:1] in first and head and (codec := _loaded(name)) is not None and codec.sniff(head):
            return codec
    return None


@cache
def _loaded(name: str) -> Codec | None:
    """The codec called ``name``; None where the library that it needs is not installed."""
    _, module, kind = _HOMES[name]
    if module in ("xz.codec", "lzma_alone"):
        from cosremaster.codecs.lzma_module import AVAILABLE  # noqa: PLC0415 - only where one of these is asked for

        if not AVAILABLE:
            return None
    if module == "lz4" and importlib.util.find_spec("lz4") is None:
        return None
    made: Codec = getattr(importlib.import_module(f"cosremaster.codecs.{module}"), kind)()
    return made


def unsupported_compression(head: bytes) -> str | None:
    """The name of a compression that ``head`` announces and this version cannot decode, or None."""
    if find_codec(head) is not None:
        return None
    return next((name for magic, name in _FOREIGN if head.startswith(magic)), None)


def codec_named(name: str) -> Codec:
    """The codec called ``name``. :raises ValueError: there is none."""
    found = PLAIN if name == PLAIN.name else _loaded(name) if name in _HOMES else None
    if found is not None:
        return found
    raise ValueError(f"no codec is called {name!r}")
