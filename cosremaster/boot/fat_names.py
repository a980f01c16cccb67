"""Names and dates in the directory entries of a FAT file system. Pure: bytes in, bytes out.

Section names are those of "FAT: General Overview of On-Disk Format" (Microsoft, 1.03).
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Mapping, Sequence

from cosremaster.lazy_regex import lazy_regex
from cosremaster.units import date_seconds

ENTRY_SIZE = 32
ATTRIBUTES = 11
"""The offset of a directory entry's attributes."""
DIRECTORY, ARCHIVE, LONG_NAME = 0x10, 0x20, 0x0F
LAST_LONG = 0x40
"""The bit in the number of the long entry that comes first and holds the end of the name."""
MAX_LONG_NAME = 255
"""Characters of a long name ("Long File Name Implementation")."""
_LONG_CHARACTERS = 13
_LOWER_BASE, _LOWER_EXTENSION = 0x08, 0x10
_SHORT = lazy_regex(rb"[A-Z0-9!#$%&'()@^_`{}~-]{1,8}(\.[A-Z0-9!#$%&'()@^_`{}~-]{1,3})?")
_FORBIDDEN = lazy_regex('[\x00-\x1f"*/:<>?\\\\|\x7f]')
_NO_SHORT_CHARACTER = lazy_regex(rb"[^A-Z0-9!#$%&'()@^_`{}~-]")
_FIRST, _LAST = 315_532_800, 4_354_819_198
"""Seconds since 1970 of the first and the last time that an entry can hold: in 1980 and in 2107."""


def fold_path(path: bytes) -> str:
    """Return ``path`` in the form in which names are compared: letters of either case are the same."""
    return path.decode("utf-8", "surrogateescape").upper()


def fold_paths(paths: Iterable[bytes]) -> dict[str, bytes]:
    """Return ``paths`` by their :func:`folded <fold_path>` forms."""
    return {fold_path(path): path for path in paths}


def spell_path(folded: Mapping[str, bytes], path: bytes) -> bytes:
    """Return ``path`` as far as it exists in a FAT file system, in the letters that it has there.

    ``folded``: the paths of the file system, as :func:`fold_paths` returns them.

    >>> spell_path(fold_paths([b"EFI", b"EFI/BOOT"]), b"efi/boot/new.cfg")
    b'EFI/BOOT/new.cfg'
    """
    parts = path.split(b"/")
    for count in range(len(parts), 0, -1):
        known = folded.get(fold_path(b"/".join(parts[:count])))
        if known is not None:
            return b"/".join((known, *parts[count:]))
    return path


def find_name_fault(name: bytes) -> str:
    """Return why ``name`` cannot be a name in a FAT file system, in words; empty if it can ("Long Directory Entries").

    >>> find_name_fault(b"grub.cfg"), find_name_fault(b"a:b")
    ('', 'holds a character that FAT forbids')
    """
    try:
        text = name.decode("utf-8")
    except UnicodeDecodeError:
        return "is no UTF-8"
    if _FORBIDDEN.search(text):
        return "holds a character that FAT forbids"
    if text[-1:] in ("", " ", "."):
        return "ends with a dot or a space, which FAT drops"
    if len(text.encode("utf-16-le")) > 2 * MAX_LONG_NAME:
        return f"has more than {MAX_LONG_NAME} characters"
    return ""


def make_entries(name: bytes, entry: bytes, taken: Collection[bytes]) -> bytes:
    """Return the directory entries of a new file: those of its long name, if it needs one, and ``entry``.

    A name in capital letters of the form 8.3 is stored in ``entry`` alone.

    :param entry: 32 bytes, of which the first 11 get the short name.
    :param taken: short names, of 11 bytes, of the other files in the directory.
    """
    if _SHORT.fullmatch(name):
        base, _, extension = name.partition(b".")
        short = base.ljust(8) + extension.ljust(3)
        if short not in taken:
            return short + entry[11:]
    short = make_short_name(name, taken)
    text = name.decode("utf-8").encode("utf-16-le")
    count = -(-len(text) // (2 * _LONG_CHARACTERS))
    padded = text + (b"\0\0" + b"\xff" * 2 * _LONG_CHARACTERS if len(text) % (2 * _LONG_CHARACTERS) else b"")
    checksum = compute_checksum(short)
    entries = b""
    for number in range(count, 0, -1):
        part = padded[(number - 1) * 26 : number * 26]
        order = number | LAST_LONG if number == count else number
        head = bytes([order]) + part[:10] + bytes([LONG_NAME, 0, checksum])
        entries += head + part[10:22] + b"\0\0" + part[22:26]
    return entries + short + entry[11:]


def make_short_name(name: bytes, taken: Collection[bytes]) -> bytes:
    """Return a short name of 11 bytes for a long one, with a number behind ``~`` ("Short and Long File Name Matching").

    >>> make_short_name(b"archiso-x86_64-linux.conf", ())
    b'ARCHIS~1CON'
    """
    base, dot, extension = name.upper().replace(b" ", b"").lstrip(b".").rpartition(b".")
    if not dot:
        base, extension = extension, b""
    base = _NO_SHORT_CHARACTER.sub(b"_", base.replace(b".", b""))
    extension = _NO_SHORT_CHARACTER.sub(b"_", extension)[:3].ljust(3)
    number = 1
    while True:
        tail = b"~%d" % number
        short = (base[: 8 - len(tail)] + tail).ljust(8) + extension
        if short not in taken:
            return short
        number += 1


def join_long_name(parts: Mapping[int, bytes], short: bytes) -> bytes:
    """Return the long name ("Long File Name Implementation"), empty where the long entries belong to no short entry.

    ``parts``: the name parts of the long entries by number, each followed by its checksum. ``short``: the short name.
    """
    if not parts or sorted(parts) != list(range(1, len(parts) + 1)):
        return b""
    checksum = compute_checksum(short)
    if any(part[26] != checksum for part in parts.values()):
        return b""
    text = b"".join(parts[number][:26] for number in sorted(parts)).decode("utf-16-le", "replace")
    return text.partition("\0")[0].encode("utf-8")


def decode_short_name(raw: bytes) -> bytes:
    """Return the short (8.3) name, in lower case where the entry says so, as Windows NT, Linux and mtools do."""
    base, extension = raw[:8].rstrip(b" "), raw[8:11].rstrip(b" ")
    if base[:1] == b"\x05":
        base = b"\xe5" + base[1:]
    base = base.lower() if raw[12] & _LOWER_BASE else base
    extension = extension.lower() if raw[12] & _LOWER_EXTENSION else extension
    return base + b"." + extension if extension else base


def compute_checksum(short: Sequence[int]) -> int:
    """Return the checksum of a short name that its long entries hold."""
    checksum = 0
    for byte in short:
        checksum = ((checksum >> 1) | (checksum << 7 & 0x80)) + byte & 0xFF
    return checksum


def pack_time(seconds: int) -> bytes:
    """Return time and date, 4 bytes, for ``seconds`` since 1970 in UTC ("Date Format"); 1980 to 2107 can be held."""
    when = time.gmtime(min(max(seconds, _FIRST), _LAST))
    clock = when.tm_hour << 11 | when.tm_min << 5 | when.tm_sec // 2
    date = when.tm_year - 1980 << 9 | when.tm_mon << 5 | when.tm_mday
    return (clock | date << 16).to_bytes(4, "little")


def parse_time(raw: bytes) -> int:
    """Return the seconds since 1970 of the 4 bytes time and date, taken as UTC; 0 where they are no date."""
    value = int.from_bytes(raw, "little")
    clock, date = value & 0xFFFF, value >> 16
    seconds = date_seconds(
        1980 + (date >> 9), date >> 5 & 15, date & 31, clock >> 11, clock >> 5 & 63, (clock & 31) * 2
    )  # fmt: skip
    return seconds or 0
