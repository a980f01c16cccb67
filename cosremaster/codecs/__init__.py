"""One codec family a file, one protocol, and a registry that knows them by their magic."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator

from cosremaster.codecs.base import Codec
from cosremaster.codecs.bzip2 import Bzip2Codec
from cosremaster.codecs.gzip import GzipCodec
from cosremaster.codecs.lzma_module import AVAILABLE as HAS_LZMA
from cosremaster.codecs.lzop import LzopCodec
from cosremaster.codecs.plain import PlainCodec
from cosremaster.codecs.zstd import ZstdCodec


def _optional() -> Iterator[Codec]:
    """The codecs whose libraries are installed here."""
    if HAS_LZMA:
        from cosremaster.codecs.lzma_alone import LzmaCodec  # noqa: PLC0415 - only where there is lzma
        from cosremaster.codecs.xz import XzCodec  # noqa: PLC0415 - only where there is lzma

        yield XzCodec()
        yield LzmaCodec()
    if importlib.util.find_spec("lz4") is not None:
        from cosremaster.codecs.lz4 import LegacyCodec, Lz4Codec  # noqa: PLC0415 - only where it is installed

        yield Lz4Codec()
        yield LegacyCodec()


PLAIN = PlainCodec()
CODECS: tuple[Codec, ...] = (GzipCodec(), ZstdCodec(), Bzip2Codec(), LzopCodec(), *_optional())

_READING = {"gzip": GzipCodec(note=False)}

_FOREIGN = (
    (b"\x04\x22\x4d\x18", "lz4 (which the extra cosremaster[lz4] opens)"),
    (b"\x02\x21\x4c\x18", "legacy lz4 (which the extra cosremaster[lz4] opens)"),
    (b"\xfd7zXZ\x00", "xz (which the extra cosremaster[lzma] opens, as this Python has no lzma module)"),
)

SNIFF_SIZE = 16
"""How many bytes :func:`find_codec` and :func:`foreign_codec` want to see."""


def find_codec(head: bytes) -> Codec | None:
    """The codec whose magic ``head`` begins with, or None."""
    return next((codec for codec in CODECS if codec.sniff(head)), None)


def foreign_codec(head: bytes) -> str | None:
    """The name of a compression that ``head`` announces and this version cannot decode, or None."""
    if find_codec(head) is not None:
        return None
    return next((name for magic, name in _FOREIGN if head.startswith(magic)), None)


def reading(codec: Codec) -> Codec:
    """``codec`` for who only reads: what decoding would note for packing anew alone costs no time."""
    return _READING.get(codec.name, codec)


def codec_named(name: str) -> Codec:
    """The codec called ``name``. :raises ValueError: there is none."""
    for codec in (PLAIN, *CODECS):
        if codec.name == name:
            return codec
    raise ValueError(f"no codec is called {name!r}")
