"""Parse configurations of lines ``key=value``: boot.cfg of ESXi's mboot, and xen.cfg, which xen.efi reads.

ESXi: ``kernelopt`` are the arguments of the kernel that ``kernel`` names (VMware, "About the boot.cfg File"). Xen: each
section but ``[global]`` names a kernel of domain 0 with its arguments behind ``kernel=`` (Xen, docs/misc/efi.pandoc).
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from cosremaster.boot_config.menus.model import (
    KernelLine,
    Menu,
    MenuLanguage,
    UnreadLine,
    detect_line_end,
    find_insertion_point,
    split_arguments,
)
from cosremaster.lazy_regex import lazy_regex
from cosremaster.records import Struct

_LINE = lazy_regex(rb"[ \t]*([A-Za-z][\w.-]*)[ \t]*=[ \t]*([^\r\n]*)")
_TITLES = frozenset((b"title", b"build"))
_KERNEL = lazy_regex(rb"^[ \t]*kernel[ \t]*=", re.MULTILINE)
_MODULES = lazy_regex(rb"^[ \t]*(?:modules|kernelopt)[ \t]*=", re.MULTILINE)
_GLOBAL = lazy_regex(rb"^[ \t]*\[global\]", re.MULTILINE)


class _Assignment(Struct, frozen=True):
    """A line ``key=value``: its number from 1, first byte, key in small letters, first byte and end of its value."""

    number: int
    start: int
    key: bytes
    value: int
    end: int


def detect_assignments(data: bytes) -> MenuLanguage | None:
    """Return the language of a menu that consists of assignments; None for any other file.

    A xen.cfg has a section ``[global]`` and a kernel, a boot.cfg a kernel and its modules or its arguments.
    """
    if not _KERNEL.search(data):
        return None
    if _GLOBAL.search(data):
        return MenuLanguage.XEN
    return MenuLanguage.ESXI if _MODULES.search(data) else None


def parse_esxi(data: bytes) -> Menu:
    """Parse a boot.cfg of ESXi. The last ``kernel`` and the last ``kernelopt`` count, as in mboot."""
    assignments = list(split_assignments(data))
    kernels = [line for line in assignments if line.key == b"kernel"]
    options = [line for line in assignments if line.key == b"kernelopt"]
    if not kernels:
        return _make_menu(MenuLanguage.ESXI, data, assignments, ())
    kernel, name = kernels[-1], data[kernels[-1].value : kernels[-1].end]
    if not options:
        indent = data[data.rfind(b"\n", 0, kernel.start) + 1 : kernel.start]
        lead = detect_line_end(data, kernel.end) + indent + b"kernelopt="
        line = KernelLine(number=kernel.number, kernel=name, arguments=(), insert=kernel.end, lead=lead)
        return _make_menu(MenuLanguage.ESXI, data, assignments, (line,))
    option = options[-1]
    arguments = split_arguments(data, option.value, option.end)
    if any(word.is_open for word in arguments):
        unread = UnreadLine(option.number, b"", "has a quote that does not end")
        return _make_menu(MenuLanguage.ESXI, data, assignments, (), (unread,))
    line = KernelLine(
        number=option.number, kernel=name, arguments=arguments, insert=option.end, first_lead=b""
    )  # fmt: skip
    return _make_menu(MenuLanguage.ESXI, data, assignments, (line,))


def parse_xen(data: bytes) -> Menu:
    """Parse a xen.cfg: each ``kernel=`` is a kernel and its arguments; ``chain=`` names another such file."""
    assignments = list(split_assignments(data))
    lines = list[KernelLine]()
    for line in assignments:
        kernel, *arguments = (split_arguments(data, line.value, line.end) if line.key == b"kernel" else ()) or (None,)
        if kernel is not None:
            insert = find_insertion_point(tuple(arguments), kernel.end)
            lines.append(KernelLine(number=line.number, kernel=kernel.text, arguments=tuple(arguments), insert=insert))
    return _make_menu(MenuLanguage.XEN, data, assignments, tuple(lines))


def _make_menu(
    language: MenuLanguage, data: bytes, assignments: list[_Assignment], lines: tuple[KernelLine, ...],
    unread: tuple[UnreadLine, ...] = (),
) -> Menu:  # fmt: skip
    """Return the menu with ``lines``."""
    searched = [
        (line.key, word)
        for line in assignments
        if line.key not in _TITLES
        for word in split_arguments(data, line.value, line.end)
    ]
    includes = tuple(data[line.value : line.end] for line in assignments if line.key == b"chain")
    return Menu(
        language=language, data=data, lines=lines, includes=includes, searched_words=tuple(searched), unread=unread
    )


def split_assignments(data: bytes) -> Iterator[_Assignment]:
    """Yield the lines that assign a value; comments and sections are left out."""
    at = 0
    for number, raw in enumerate(data.split(b"\n"), 1):
        match = _LINE.match(raw)
        if match:
            value = at + match.start(2)
            yield _Assignment(number, at + match.start(1), match[1].lower(), value, value + len(match[2].rstrip()))
        at += len(raw) + 1
