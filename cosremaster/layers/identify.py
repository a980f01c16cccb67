"""What a file is, by its first bytes: the codec to read it with, and whether an archive begins."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from cosremaster.codecs import PLAIN, find_codec, unsupported_compression
from cosremaster.layers.cpio import newc as cpio

if TYPE_CHECKING:
    from cosremaster.codecs.base import Codec

HEAD_SIZE = 4096
"""Bytes of a file that are looked at to tell what it is."""

_PLAIN_HEAD = 512
"""Plain bytes that tell whether an archive begins."""


class Identification(NamedTuple):
    """What the first bytes of a file say: the codec to read it with and whether an archive begins."""

    codec: Codec
    is_archive: bool
    foreign: str | None
    """Something recognized that this version cannot open, for people."""


def look(peek: Callable[[int], bytes]) -> Identification:
    """Looks at a file, of which ``peek(count)`` gives the first bytes (fewer when it is shorter)."""
    head = peek(HEAD_SIZE)
    codec = find_codec(head)
    return probe(peek(codec.peek_size) if codec is not None and codec.peek_size > HEAD_SIZE else head)


def probe(head: bytes) -> Identification:
    """What the first bytes of a file say."""
    codec = find_codec(head) or PLAIN
    plain = codec.peek(head, _PLAIN_HEAD)
    if plain.startswith(cpio.MAGICS):
        return Identification(codec, True, None)
    from cosremaster.layers.cpio.old import OldCodec, old_form  # noqa: PLC0415 - no layer today needs it

    old = old_form(plain)
    if old is not None:
        return Identification(OldCodec(codec, old), True, None)
    foreign = unsupported_compression(head)
    foreign = f"{foreign} compressed data" if foreign else _foreign_archive(plain)
    return Identification(codec, False, foreign)


def _foreign_archive(plain: bytes) -> str | None:
    if plain.startswith(b"hsqs"):
        return "a squashfs file system"
    return None
