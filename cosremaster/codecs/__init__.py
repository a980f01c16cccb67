"""One codec family a file, one protocol, and a registry that knows them by their magic.

They are loaded when a stream begins as theirs do: each takes some milliseconds of a start.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Iterator
from functools import cached_property
from typing import Any, cast

from cosremaster.codecs.base import Codec, Decoding, Form
from cosremaster.codecs.lzma_module import AVAILABLE as HAS_LZMA
from cosremaster.codecs.plain import PlainCodec
from cosremaster.streams import ByteReader


class _Later:
    """The codec ``kind`` of ``module``, loaded when a stream begins with one of the bytes ``firsts``."""

    def __init__(self, name: str, module: str, kind: str, firsts: bytes) -> None:
        self.name = name
        self._home, self._firsts = (module, kind), firsts

    @cached_property
    def _codec(self) -> Codec:
        module, kind = self._home
        return cast("Codec", getattr(importlib.import_module(f"cosremaster.codecs.{module}"), kind)())

    @cached_property
    def reach(self) -> int:
        """See :class:`Codec`."""
        return self._codec.reach

    def sniff(self, head: bytes) -> bool:
        """See :class:`Codec`."""
        return head[:1] in self._firsts and bool(head) and self._codec.sniff(head)

    def first(self, head: bytes, count: int) -> bytes:
        """See :class:`Codec`."""
        return self._codec.first(head, count)

    def decode(self, reader: ByteReader) -> Decoding:
        """See :class:`Codec`."""
        return self._codec.decode(reader)

    def load(self, values: dict[str, Any]) -> Form:
        """See :class:`Codec`."""
        return self._codec.load(values)


def _optional() -> Iterator[Codec]:
    """The codecs whose libraries are installed here."""
    if HAS_LZMA:
        yield _Later("xz", "xz", "XzCodec", b"\xfd")
        yield _Later("lzma", "lzma_alone", "LzmaCodec", b"\x5d")
    if importlib.util.find_spec("lz4") is not None:
        yield _Later("lz4", "lz4", "Lz4Codec", b"\x04")
        yield _Later("lz4-legacy", "lz4", "LegacyCodec", b"\x02")


PLAIN = PlainCodec()
CODECS: tuple[Codec, ...] = (
    _Later("gzip", "gzip", "GzipCodec", b"\x1f"),
    _Later("zstd", "zstd", "ZstdCodec", b"\x28" + bytes(range(0x50, 0x60))),
    _Later("bzip2", "bzip2", "Bzip2Codec", b"B"),
    _Later("lzop", "lzop", "LzopCodec", b"\x89"),
    *_optional(),
)

_READING = {"gzip": _Later("gzip", "gzip", "reading_codec", b"\x1f")}

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
