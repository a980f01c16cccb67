"""Find where a menu looks for its volume by id or by date, and replace these.

Titles, messages and comments are left out: they are texts for people.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from cosremaster.boot_config.menus.grub import quote_grub_part
from cosremaster.boot_config.menus.model import Menu, MenuLanguage, Splice, Word, apply_splices
from cosremaster.lazy_regex import lazy_regex
from cosremaster.records import Struct

_UDEV_PLAIN = lazy_regex(rb"[A-Za-z0-9#+.:=@_/-]")
"""Letters that udev keeps in names below /dev/disk; others become ``\\xNN`` (libudev, encode_string)."""
_NOT_BEFORE = lazy_regex(rb"[A-Za-z0-9_.\\-]$")
_BEHIND = lazy_regex(rb"$|[:/,;\"'}]")
_OTHER_KEYS = lazy_regex(rb"(?:path|dir|file|name|host|title|args|initrd|theme|font|default|timeout)$", re.IGNORECASE)
"""Keys whose values are no volumes, though they may be spelled like one."""


class VolumeRename(Struct, frozen=True):
    """An old and a new name that a volume can be found by.

    :param attribute: which attribute of the volume it is, for people.
    :param is_unique: nothing else is spelled like the old name (a date), so that it is replaced wherever it is.
    """

    attribute: str
    old: bytes
    new: bytes
    is_unique: bool


class Mention(Struct, frozen=True):
    """A word that has the old name of a volume.

    :param line: its line, from 1.
    :param text: the word, or the whole ``search`` command that has it, as the menu spells it.
    :param new_text: the same with the new name.
    :param splices: replacements that make it the new name.
    """

    rename: VolumeRename
    line: int
    text: bytes
    new_text: bytes
    splices: tuple[Splice, ...]


def escape_for_udev(text: bytes) -> bytes:
    """Return ``text`` as udev spells it in names of devices, and dracut on kernel command lines."""
    letters = (text[at : at + 1] for at in range(len(text)))
    return b"".join(
        letter if _UDEV_PLAIN.match(letter) or letter >= b"\x80" else b"\\x%02x" % letter[0] for letter in letters
    )


def find_mentions(menu: Menu, renames: Iterable[VolumeRename]) -> tuple[Mention, ...]:
    """Return every mention of the volume's old names, in the order of the menu."""
    mentions: dict[tuple[int, str], Mention] = {}
    for rename in renames:
        for command, word in menu.searched_words:
            raw = menu.data[word.start : word.end]
            splices = tuple(_rename_splices(menu.language, command, word, raw, rename))
            if splices:
                start, end = word.start, word.end
                if command.startswith(b"search"):
                    start, end = _line_around(menu.data, word.start)
                text, new_text = menu.data[start:end], _changed_text(menu.data, start, end, splices)
                line = menu.line_number_at(word.start)
                mentions[word.start, rename.attribute] = Mention(rename, line, text, new_text, splices)
    return tuple(mentions[key] for key in sorted(mentions))


def _line_around(data: bytes, at: int) -> tuple[int, int]:
    """Return the first byte and the end of the line that has byte ``at``, without blanks around it."""
    start, end = data.rfind(b"\n", 0, at) + 1, data.find(b"\n", at)
    end = len(data) if end < 0 else end
    line = data[start:end]
    return start + len(line) - len(line.lstrip()), start + len(line.rstrip())


def _changed_text(data: bytes, start: int, end: int, splices: Iterable[Splice]) -> bytes:
    """Return bytes ``start`` to ``end`` of ``data`` with the replacements ``splices``, which lie in them."""
    return apply_splices(data[start:end], ((first - start, last - start, new) for first, last, new in splices))


def _rename_splices(
    language: MenuLanguage, command: bytes, word: Word, raw: bytes, rename: VolumeRename
) -> Iterator[Splice]:
    """Yield the splices that replace the old name in ``word``, whose bytes in the menu are ``raw``."""
    is_search = language is MenuLanguage.GRUB and command.startswith(b"search")
    for match in _spellings_of(rename.old).finditer(raw):
        if not _is_volume_name(raw[: match.start()], raw[match.end() :], is_search, rename):
            continue
        is_escaped = b"\\x" in match[0]
        if is_escaped or not (is_search or escape_for_udev(rename.old) != rename.old):
            new = escape_for_udev(rename.new)
        elif language is MenuLanguage.GRUB:
            new = quote_grub_part(raw[: match.start()], rename.new)
        else:
            new = rename.new
        yield word.start + match.start(), word.start + match.end(), new


def _spellings_of(old: bytes) -> re.Pattern[bytes]:
    """Return a pattern for ``old``: as it is, with udev's escapes, or with backslashes that GRUB needs."""
    parts = list[bytes]()
    for at in range(len(old)):
        letter = old[at : at + 1]
        plain = re.escape(letter)
        parts.append(plain if _UDEV_PLAIN.match(letter) else rb"(?:\\?%b|\\x(?i:%02x))" % (plain, letter[0]))
    return re.compile(b"".join(parts))


def _is_volume_name(prefix: bytes, suffix: bytes, is_search: bool, rename: VolumeRename) -> bool:
    """Return True if the text between ``prefix`` and ``suffix`` in a word is a whole value that finds a volume."""
    prefix = prefix.rstrip(b"\"'")
    if _NOT_BEFORE.search(prefix) or not _BEHIND.match(suffix):
        return False
    if rename.is_unique or prefix.endswith(b"by-label/"):
        return True
    if not prefix:
        return is_search
    key = prefix[:-1].rpartition(b"=")[2].lstrip(b"\"'")
    return prefix.endswith(b"=") and not _OTHER_KEYS.search(key)
