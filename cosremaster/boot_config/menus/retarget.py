"""Where a menu looks for its volume by id or by date, and the same with another id or date.

Titles, messages and comments are not looked at: what they say is for people.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from msgspec import Struct

from cosremaster.boot_config.menus.grub import quote_grub_part
from cosremaster.boot_config.menus.model import Menu, MenuLanguage, Splice, Word

_UDEV_PLAIN = re.compile(rb"[A-Za-z0-9#+.:=@_/-]")
"""What udev leaves as it is in names below /dev/disk; the rest becomes ``\\xNN`` (libudev, encode_string)."""
_NOT_BEFORE = re.compile(rb"[A-Za-z0-9_.\\-]$")
_BEHIND = re.compile(rb"$|[:/,;\"'}]")
_OTHER_KEYS = re.compile(rb"(?:path|dir|file|name|host|title|args|initrd|theme|font|default|timeout)$", re.IGNORECASE)
"""Keys whose values are no volumes, though they may be spelled like one."""


class VolumeRename(Struct, frozen=True):
    """What a volume is found by. ``unique``: nothing else is spelled like it (a date), wherever it stands."""

    attribute: str
    old: bytes
    new: bytes
    is_unique: bool


class Mention(Struct, frozen=True):
    """A word in line ``line`` that says ``target``'s old value; ``text``: it, or the search that it ends, as it
    stands; ``splices`` make it say the new one."""

    rename: VolumeRename
    line: int
    text: bytes
    splices: tuple[Splice, ...]


def escape_for_udev(text: bytes) -> bytes:
    """``text`` as udev writes it in names of devices, and dracut on kernel command lines."""
    letters = (text[at : at + 1] for at in range(len(text)))
    return b"".join(one if _UDEV_PLAIN.match(one) or one >= b"\x80" else b"\\x%02x" % one[0] for one in letters)


def find_mentions(menu: Menu, targets: Iterable[VolumeRename]) -> tuple[Mention, ...]:
    """Every mention of the targets' old values, in order."""
    found: dict[tuple[int, str], Mention] = {}
    for target in targets:
        for command, word in menu.searched_words:
            raw = menu.data[word.start : word.end]
            splices = tuple(_splices(menu.language, command, word, raw, target))
            if splices:
                text = _line(menu.data, word.start) if command.startswith(b"search") else raw
                found[word.start, target.attribute] = Mention(target, menu.line_number_at(word.start), text, splices)
    return tuple(found[key] for key in sorted(found))


def _line(data: bytes, at: int) -> bytes:
    """The line around byte ``at``, no more of it than people read."""
    end = data.find(b"\n", at)
    return data[data.rfind(b"\n", 0, at) + 1 : len(data) if end < 0 else end].strip()[:100]


def _splices(kind: MenuLanguage, command: bytes, word: Word, raw: bytes, target: VolumeRename) -> Iterator[Splice]:
    search = kind is MenuLanguage.GRUB and command.startswith(b"search")
    for found in _spelled(target.old).finditer(raw):
        if not _stands_alone(raw[: found.start()], raw[found.end() :], search, target):
            continue
        escaped = b"\\x" in found[0]
        if escaped or not (search or escape_for_udev(target.old) != target.old):
            new = escape_for_udev(target.new)
        else:
            new = quote_grub_part(raw[: found.start()], target.new) if kind is MenuLanguage.GRUB else target.new
        yield word.start + found.start(), word.start + found.end(), new


def _spelled(old: bytes) -> re.Pattern[bytes]:
    """``old`` as it stands, with udev's escapes, or with a backslash before what GRUB would not take as it is."""
    parts = list[bytes]()
    for at in range(len(old)):
        letter = old[at : at + 1]
        plain = re.escape(letter)
        parts.append(plain if _UDEV_PLAIN.match(letter) else rb"(?:\\?%b|\\x(?i:%02x))" % (plain, letter[0]))
    return re.compile(b"".join(parts))


def _stands_alone(before: bytes, behind: bytes, search: bool, target: VolumeRename) -> bool:
    """True when what stands between ``before`` and ``behind`` in a word is all of a value that finds a volume."""
    before = before.rstrip(b"\"'")
    if _NOT_BEFORE.search(before) or not _BEHIND.match(behind):
        return False
    if target.is_unique or before.endswith(b"by-label/"):
        return True
    if not before:
        return search
    key = before[:-1].rpartition(b"=")[2].lstrip(b"\"'")
    return before.endswith(b"=") and not _OTHER_KEYS.search(key)
