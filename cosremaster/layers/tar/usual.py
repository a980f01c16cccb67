"""Entries of the usual shape, as most are: one header, perhaps behind a pax header with nothing but times.

They are taken from the bytes at hand in few steps. All others are left to :mod:`cosremaster.layers.tar.read`, which
tells what is wrong with them, too.
"""

from __future__ import annotations

import struct
from functools import lru_cache
from typing import TYPE_CHECKING
from zlib import adler32

from cosremaster.layers.tar.blocks import (
    BLOCK,
    CHECKSUM,
    DIRECTORY,
    GNU_MAGIC,
    HARD_LINK,
    OLD_REGULAR,
    PAX,
    REGULAR,
    SYMLINK,
    USTAR_MAGIC,
    parse_owner,
)
from cosremaster.layers.tar.entries import TarEntry
from cosremaster.lazy_regex import lazy_regex

if TYPE_CHECKING:
    from cosremaster.layers.tar.index import TarStyle

_FIELDS = struct.Struct("100s24s11s1s11s1s8x1s100s8s1s79x155s12x")
"""Name; mode and owners; size and time, each with what ends it; type, text of a link, magic, the first byte of the
owner's name, and ustar's prefix."""

_TYPE, _MAGIC, _HALF = 156, slice(257, 265), 256
_PAX = ord(PAX)
_SIZE, _SUM = slice(124, 135), slice(CHECKSUM.start, 154)
_ENDS, _SUM_ENDS = (b"\0", b" "), (b"\0 ", b" \0")
_NO_MAGIC = bytes(8)
_MAGICS = frozenset((USTAR_MAGIC, GNU_MAGIC, _NO_MAGIC))
_FILE, _DIRECTORY, _LINK = 0o100000, 0o040000, 0o120000
_KINDS = {REGULAR: _FILE, OLD_REGULAR: _FILE, HARD_LINK: _FILE, SYMLINK: _LINK, DIRECTORY: _DIRECTORY}
_LINKS = (HARD_LINK, SYMLINK)
_MTIME = b"mtime="
_SECONDS = 10
"""Digits of a time between the years 2001 and 2286."""

_TIMES = lazy_regex(
    b"(?:%s)+"
    % b"|".join(
        b"%d [acm]time=[0-9]{%d}%s\n" % (_SECONDS + 10 + fraction, _SECONDS, b"\\.[0-9]{%d}" % (fraction - 1))
        if fraction
        else b"%d [acm]time=[0-9]{%d}\n" % (_SECONDS + 10, _SECONDS)
        for fraction in (10, 0, *range(9, 1, -1))
    )
)
"""Records of nothing but times, by their lengths (POSIX.1-2001 pax, "pax Extended Header")."""

_UNSTATED = -1


def parse_usual(chunk: bytes, start: int, at: int, style: TarStyle) -> TarEntry | None:
    """Return the entry at offset ``at``, whose headers begin at ``start`` in ``chunk``, and note its ``style``.

    None where it is unusual or not all of it is there: what is damaged, or no header at all, is unusual too.
    """
    mtime, head = _UNSTATED, start
    if len(chunk) >= start + 3 * BLOCK and chunk[start + _TYPE] == _PAX:
        stated = _parse_times(chunk, start)
        if stated is None:
            return None
        mtime, head = stated, start + 2 * BLOCK
    block = chunk[head : head + BLOCK]
    if len(block) < BLOCK:
        return None
    name, modes, size, size_end, time, time_end, kind, link_name, magic, user, prefix = _FIELDS.unpack(block)
    file_type = _KINDS.get(kind)
    if (
        file_type is None
        or magic not in _MAGICS
        or (size_end not in _ENDS or time_end not in _ENDS)
        or not (size.isdigit() and time.isdigit() and _has_true_sum(block))
    ):
        return None
    try:
        permissions, uid, gid = _parse_modes(modes)
        length, seconds = int(size, 8), int(time, 8)
    except ValueError:
        return None
    name = name.partition(b"\0")[0]
    if magic == USTAR_MAGIC and prefix[0]:
        name = prefix.partition(b"\0")[0] + b"/" + name
    if kind in _LINKS:
        link_name = link_name.partition(b"\0")[0]
    elif name[-1:] == b"/":
        file_type = _DIRECTORY
    if length and (file_type != _FILE or kind == HARD_LINK):  # what follows says whether there are data
        return None
    style.note_usual(name, magic, is_pax=head > start, has_user=user != b"\0", is_directory=file_type == _DIRECTORY)
    own = at + head - start
    data = own + BLOCK
    target, link = link_name if kind == SYMLINK else b"", link_name if kind == HARD_LINK else None
    return TarEntry(
        name, file_type | permissions, uid, gid, seconds if mtime == _UNSTATED else mtime, at, own, data, length,
        data + length + -length % BLOCK, target, link,
    )  # fmt: skip


def _parse_times(chunk: bytes, start: int) -> int | None:
    """Return the time of change that the pax header at ``start`` states, :data:`_UNSTATED` without one.

    None where it is damaged, of another form than its entry, or has other records than times.
    """
    block = chunk[start : start + BLOCK]
    size = block[_SIZE]
    at = start + 2 * BLOCK
    if (
        not size.isdigit()
        or block[_SIZE.stop : _SIZE.stop + 1] not in _ENDS
        or block[_MAGIC] != chunk[at + _MAGIC.start : at + _MAGIC.stop]
        or not _has_true_sum(block)
    ):
        return None
    try:
        end = start + BLOCK + int(size, 8)
    except ValueError:
        return None
    if end > at or not _TIMES.fullmatch(chunk, start + BLOCK, end):
        return None
    at = chunk.rfind(_MTIME, start + BLOCK, end)
    return _UNSTATED if at < 0 else int(chunk[at + len(_MTIME) : at + len(_MTIME) + _SECONDS])


def _has_true_sum(block: bytes) -> bool:
    """Return whether the header ``block`` states the sum of its bytes, in usual form.

    Adler-32 ends in one more than the sum of the bytes, as long as that is less than 65,521 (RFC 1950, 8.2): so it is
    taken of parts. The checksum itself counts as spaces.
    """
    stated = block[_SUM]
    if not stated.isdigit() or block[_SUM.stop : CHECKSUM.stop] not in _SUM_ENDS:
        return False
    total = (adler32(block[: CHECKSUM.start]) & 0xFFFF) + (adler32(block[CHECKSUM.stop : _HALF]) & 0xFFFF)
    total += (adler32(block[_HALF:]) & 0xFFFF) - 3 + 8 * 32
    try:
        return int(stated, 8) == total
    except ValueError:
        return False


@lru_cache(1 << 10)  # they are few
def _parse_modes(fields: bytes) -> tuple[int, int, int]:
    """Return permissions and owners of these fields. :raises HeaderError: one is no number, or no system has it."""
    return parse_owner(fields[:8], fields[8:16], fields[16:])
