"""Boot loader entries of type 1 (UAPI.1, "Boot Loader Specification"): systemd-boot's, and GRUB's blscfg's."""

from __future__ import annotations

import re

from cosremaster.boot_config.menus.model import (
    KernelLine,
    Menu,
    MenuLanguage,
    Word,
    detect_line_end,
    find_insertion_point,
    is_linux,
    split_arguments,
)

_LINE = re.compile(rb"[ \t]*([^\s#]\S*)[ \t]*([^\r\n]*)")
_MESSAGES = frozenset((b"title", b"version", b"machine-id", b"sort-key"))


def parse_loader_entry(data: bytes) -> Menu:
    """The entry in ``data``. Its arguments are those of all its ``options``; a new one goes to the last of them."""
    values: dict[bytes, list[tuple[int, int, int, int]]] = {}
    sought, at = list[tuple[bytes, Word]](), 0
    for number, raw in enumerate(data.split(b"\n"), 1):
        found = _LINE.match(raw)
        if found:
            start, end = at + found.start(2), at + found.start(2) + len(found[2].rstrip())
            values.setdefault(found[1], []).append((number, at + found.end(1), start, end))
            if found[1] not in _MESSAGES:
                sought += [(found[1], word) for word in split_arguments(data, start, end)]
        at += len(raw) + 1
    return Menu(language=MenuLanguage.LOADER_ENTRY, data=data, lines=_lines(data, values), searched_words=tuple(sought))


def _lines(data: bytes, values: dict[bytes, list[tuple[int, int, int, int]]]) -> tuple[KernelLine, ...]:
    options = values.get(b"options", [])
    programs = values.get(b"linux") or values.get(b"uki") or (options and values.get(b"efi")) or []
    if not programs:
        return ()
    number, _, start, end = programs[0]
    kernel = data[start:end]
    if not is_linux(kernel):
        return ()
    if not options:
        return (
            KernelLine(
                number=number, kernel=kernel, arguments=(), insert=end, lead=detect_line_end(data, end) + b"options "
            ),
        )
    arguments = [split_arguments(data, first, last) for _, _, first, last in options]
    number, behind, _, _ = options[-1]
    flat = tuple(word for words in arguments for word in words)
    insert = find_insertion_point(arguments[-1], behind)
    return (KernelLine(number=number, kernel=kernel, arguments=flat, insert=insert),)
