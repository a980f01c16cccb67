"""What a boot menu is made of: its bytes, and the places in them where a kernel gets its arguments."""

from __future__ import annotations

import re
from collections.abc import Iterable
from enum import Enum

from msgspec import Struct


class MenuLanguage(Enum):
    """The language a menu is written in."""

    GRUB = "GRUB"
    SYSLINUX = "SYSLINUX"
    LOADER_ENTRY = "systemd-boot entry"


class Word(Struct, frozen=True):
    """A word of a menu at bytes ``start`` to ``end``. ``text``: what it says without the language's quotes."""

    start: int
    end: int
    text: bytes


class KernelLine(Struct, frozen=True, kw_only=True):
    """A place where a Linux kernel gets its arguments.

    ``number``: the line of the file, from 1, that names the kernel (or where the arguments stand alone); ``kernel``:
    what it loads. ``insert``: the byte at which a new argument goes, None where none may; ``lead``: what comes
    before the first new one; ``stub``: a word that says "no arguments" and goes when one comes.
    """

    number: int
    kernel: bytes
    arguments: tuple[Word, ...]
    insert: int | None
    lead: bytes = b" "
    stub: Word | None = None


class Menu(Struct, frozen=True, kw_only=True):
    """A menu. ``includes``: paths as it names them of other menus that it reads; ``sought``: words by which it finds
    or names a volume (all words but those of titles, messages and comments), each with its line's first word.
    ``defaults``: arguments at its head count for what it includes too.
    """

    language: MenuLanguage
    data: bytes
    lines: tuple[KernelLine, ...]
    includes: tuple[bytes, ...] = ()
    searched_words: tuple[tuple[bytes, Word], ...] = ()
    defaults: bool = False

    def line_number_at(self, at: int) -> int:
        """The line, from 1, in which byte ``at`` stands."""
        return self.data.count(b"\n", 0, at) + 1


Splice = tuple[int, int, bytes]
"""Bytes ``start`` to ``end`` of a menu, and what stands there instead."""


def apply_splices(data: bytes, splices: Iterable[Splice]) -> bytes:
    """``data`` with ``splices``, which do not overlap; those at one place in their order."""
    parts, reached = list[bytes](), 0
    for start, end, new in sorted(splices, key=lambda one: (one[0], one[1])):
        if start < reached:
            raise ValueError(f"splice at {start} overlaps another")
        parts += (data[reached:start], new)
        reached = end
    return b"".join((*parts, data[reached:]))


SEPARATORS = (b"--", b"---")
"""Arguments behind these are for the installed system (Debian Installation Guide, 5.3), or for init."""

_OTHER_PROGRAMS = (b"memtest", b"mt86", b"memdisk", b"ipxe", b"gpxe", b"wimboot", b"hdt", b"grub", b"ntldr", b"freedos")


def is_linux(kernel: bytes) -> bool:
    """False for the name of a program that is loaded the way a kernel is, but is none."""
    name = kernel.replace(b"\\", b"/").rpartition(b"/")[2].lower()
    return bool(name) and not name.startswith(_OTHER_PROGRAMS)


def split_arguments(data: bytes, start: int, end: int) -> tuple[Word, ...]:
    """The arguments in ``data`` from ``start`` to ``end`` as the kernel splits its command line (lib/cmdline.c,
    next_arg): at white space outside double quotes."""
    words, at = list[Word](), start
    while at < end:
        if data[at : at + 1].isspace():
            at += 1
            continue
        first, quoted = at, False
        while at < end and (quoted or not data[at : at + 1].isspace()):
            quoted ^= data[at] == ord('"')
            at += 1
        last = first + len(data[first:at].rstrip())  # a quote that never ends takes what is left
        words.append(Word(first, last, data[first:last].replace(b'"', b"")))
    return tuple(words)


_DOS_END = re.compile(rb"[ \t]*\r\n")


def detect_line_end(data: bytes, at: int) -> bytes:
    """How the line ends of which nothing but blanks follows byte ``at``."""
    return b"\r\n" if _DOS_END.match(data, at) else b"\n"


def find_insertion_point(arguments: tuple[Word, ...], otherwise: int) -> int:
    """Where a new argument goes: behind the last one before a separator, ``otherwise`` where there is none."""
    last = otherwise
    for word in arguments:
        if word.text in SEPARATORS:
            break
        last = word.end
    return last
