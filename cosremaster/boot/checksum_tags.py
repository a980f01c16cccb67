"""The MD5 tags that xorriso writes with ``-md5`` (libisofs, doc/checksums.txt, "Checksum tags").

A tag is a text line at the beginning of a block that belongs to no file: ``libisofs_sb_checksum_tag_v1 pos=18
range_start=0 range_size=18 next=24 md5=HEX self=HEX``. Numbers count blocks of 2,048 bytes; ``md5`` is that of the
range, ``self`` that of the line before it. The tag behind the volume descriptors leads to the tree's, and that to the
session's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from cosremaster.lazy_regex import lazy_regex
from cosremaster.records import Struct
from cosremaster.units import BLOCK, Lba, lba_offset

_LINE = lazy_regex(
    rb"(?P<text>libisofs_(?:rlsb32_|sb_|tree_)?checksum_tag_v1 pos=(?P<pos>\d{1,10})"
    rb" range_start=(?P<start>\d{1,10}) range_size=(?P<size>\d{1,10})"
    rb"(?: session_start=(?P<session>\d{1,10})| next=(?P<next>\d{1,10}))?"
    rb" md5=(?P<md5>[0-9a-f]{32})) self=(?P<self>[0-9a-f]{32})\n"
)
_DESCRIPTORS = Lba(16)
"""Blocks from the start of a session to its volume descriptors."""


class ChecksumTag(Struct, frozen=True):
    """A tag at the block ``lba``: the MD5, in hexadecimal digits, of ``size`` blocks from ``start`` on."""

    lba: Lba
    start: Lba
    size: int
    md5: str


def read_checksum_tags(read: Callable[[int, int], bytes], sessions: frozenset[Lba]) -> Iterator[ChecksumTag]:
    """Yield the tags of the ``sessions``, which begin at these blocks.

    :param read: returns bytes of the image: from an offset on, as many; fewer at its end.
    """
    waiting = [_find_descriptors_end(read, session) for session in sorted(sessions)]
    seen: set[Lba] = set()
    while waiting:
        lba = waiting.pop(0)
        line = _LINE.match(read(lba_offset(lba), BLOCK))
        if line is None or int(line["pos"]) != lba or lba in seen or _md5(line["text"]) != line["self"].decode():
            continue
        seen.add(lba)
        yield ChecksumTag(lba, Lba(int(line["start"])), int(line["size"]), line["md5"].decode())
        if line["session"]:
            waiting.append(_find_descriptors_end(read, Lba(int(line["session"]))))
        elif line["next"]:
            waiting.append(Lba(int(line["next"])))


def _find_descriptors_end(read: Callable[[int, int], bytes], session: Lba) -> Lba:
    """Return the block behind the volume descriptors of the session that begins at the block ``session``."""
    lba = Lba(session + _DESCRIPTORS)
    while read(lba_offset(lba) + 1, 5) == b"CD001":
        lba = Lba(lba + 1)
    return lba


def _md5(data: bytes) -> str:
    """Return the MD5 of ``data`` in hexadecimal digits."""
    import hashlib  # noqa: PLC0415 - loads OpenSSL, which small commands do not need

    return hashlib.md5(data, usedforsecurity=False).hexdigest()
