"""One codec family a file, one protocol, and a registry that knows them by their magic."""

from __future__ import annotations

from cosremaster.codecs.base import Codec
from cosremaster.codecs.gzip import GzipCodec
from cosremaster.codecs.plain import PlainCodec
from cosremaster.codecs.xz import XzCodec

PLAIN = PlainCodec()
CODECS: tuple[Codec, ...] = (XzCodec(), GzipCodec())

_FOREIGN = (
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"BZh", "bzip2"),
    (b"\x04\x22\x4d\x18", "lz4"),
    (b"\x02\x21\x4c\x18", "lz4 (legacy)"),
    (b"\x89LZO\x00", "lzop"),
    (b"\x5d\x00\x00", "lzma"),
)

SNIFF_SIZE = 16
"""How many bytes :func:`find_codec` and :func:`foreign_codec` want to see."""


def find_codec(head: bytes) -> Codec | None:
    """The codec whose magic ``head`` begins with, or None."""
    return next((codec for codec in CODECS if codec.sniff(head)), None)


def foreign_codec(head: bytes) -> str | None:
    """The name of a compression that ``head`` announces and this version cannot decode, or None."""
    return next((name for magic, name in _FOREIGN if head.startswith(magic)), None)


def codec_named(name: str) -> Codec:
    """The codec called ``name``. :raises ValueError: there is none."""
    for codec in (PLAIN, *CODECS):
        if codec.name == name:
            return codec
    raise ValueError(f"no codec is called {name!r}")
