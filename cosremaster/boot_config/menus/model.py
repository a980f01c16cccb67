"""A boot menu as a value: its bytes, and the places in them where a kernel gets its arguments."""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum

from cosremaster.lazy_regex import lazy_regex
from cosremaster.records import Struct


class MenuLanguage(Enum):
    """The language a menu is written in."""

    GRUB = "GRUB"
    SYSLINUX = "SYSLINUX"
    LOADER_ENTRY = "systemd-boot entry"
    ESXI = "ESXi boot.cfg"
    XEN = "xen.cfg"
    AREA = "kernel argument area"


class Word(Struct, frozen=True):
    """A word of a menu at bytes ``start`` to ``end``.

    :param text: its value without quotes and escapes.
    :param is_open: a quote of the kernel's begins in it and does not end, so that all words behind it belong to it.
    """

    start: int
    end: int
    text: bytes
    is_open: bool = False


class KernelLine(Struct, frozen=True, kw_only=True):
    """A place where a Linux kernel gets its arguments.

    :param number: the line of the file, from 1, that names the kernel, or that has only arguments.
    :param kernel: path of the kernel as the menu spells it.
    :param insert: the byte at which a new argument is inserted; None where that is impossible.
    :param lead: bytes in front of the first new argument.
    :param first_lead: the same where no argument stays in front of it; None where it makes no difference.
    :param stub: a word that means "no arguments", and is removed when there is one.
    """

    number: int
    kernel: bytes
    arguments: tuple[Word, ...]
    insert: int | None
    lead: bytes = b" "
    first_lead: bytes | None = None
    stub: Word | None = None


class UnreadLine(Struct, frozen=True):
    """A line whose kernel, or whose arguments, cannot be told, so that no arguments can change in this menu.

    :param number: the line of the file, from 1.
    :param label: the entry that it belongs to, as the menu spells it; empty where there is none.
    :param reason: why, as the end of a sentence that begins with the line.
    """

    number: int
    label: bytes
    reason: str


class Menu(Struct, frozen=True, kw_only=True):
    """A boot menu.

    :param includes: paths, as the menu spells them, of other menus that it reads.
    :param searched_words: words by which the menu may find or name a volume (all words but those of titles, messages
        and comments), each with the first word of its line.
    :param defaults: arguments at its head are valid for the menus that it includes too.
    :param unread: lines that start a kernel in a way that this module does not understand.
    """

    language: MenuLanguage
    data: bytes
    lines: tuple[KernelLine, ...]
    includes: tuple[bytes, ...] = ()
    searched_words: tuple[tuple[bytes, Word], ...] = ()
    defaults: bool = False
    unread: tuple[UnreadLine, ...] = ()

    def line_number_at(self, at: int) -> int:
        """Return the number of the line, from 1, that has byte ``at``."""
        return self.data.count(b"\n", 0, at) + 1


Splice = tuple[int, int, bytes]
"""Bytes ``start`` to ``end`` of a menu, and the bytes that replace them."""


def apply_splices(data: bytes, splices: Iterable[Splice]) -> bytes:
    """Return ``data`` with the replacements ``splices`` made; several at one place are made in their order.

    :raises ValueError: when two splices overlap.
    """
    parts, reached = list[bytes](), 0
    for start, end, new in sorted(splices, key=lambda splice: splice[:2]):
        if start < reached:
            raise ValueError(f"splice at {start} overlaps another")
        parts += (data[reached:start], new)
        reached = end
    return b"".join((*parts, data[reached:]))


SEPARATORS = (b"--", b"---")
"""Arguments behind these words are for the installed system (Debian Installation Guide, 5.3), or for init."""

_OTHER_PROGRAMS = (b"memtest", b"mt86", b"memdisk", b"ipxe", b"gpxe", b"wimboot", b"hdt", b"grub", b"ntldr", b"freedos")


def is_linux(kernel: bytes) -> bool:
    """Return False for the name of a program that is loaded like a kernel but is none, such as memtest."""
    name = kernel.replace(b"\\", b"/").rpartition(b"/")[2].lower()
    return bool(name) and not name.startswith(_OTHER_PROGRAMS)


def split_arguments(data: bytes, start: int, end: int) -> tuple[Word, ...]:
    """Return the arguments in bytes ``start`` to ``end`` of ``data``.

    They are split as the kernel does (lib/cmdline.c, next_arg): at white space outside double quotes.
    """
    words, at = list[Word](), start
    while at < end:
        if data[at : at + 1].isspace():
            at += 1
            continue
        first, quoted = at, False
        while at < end and (quoted or not data[at : at + 1].isspace()):
            quoted ^= data[at] == ord('"')
            at += 1
        last = first + len(data[first:at].rstrip())  # a quote without an end takes the rest of the line
        words.append(Word(first, last, data[first:last].replace(b'"', b""), quoted))
    return tuple(words)


_DOS_END = lazy_regex(rb"[ \t]*\r\n")


def detect_line_end(data: bytes, at: int) -> bytes:
    """Return CR LF if only blanks and that line end follow byte ``at`` on its line, else LF."""
    return b"\r\n" if _DOS_END.match(data, at) else b"\n"


def find_insertion_point(arguments: tuple[Word, ...], otherwise: int) -> int:
    """Return the byte for a new argument: behind the last one before a separator; ``otherwise`` if there is none.

    A quote that does not end would swallow a new argument behind it, so a new one goes before it.
    """
    last = otherwise
    for word in arguments:
        if word.text in SEPARATORS or word.is_open:
            break
        last = word.end
    return last
