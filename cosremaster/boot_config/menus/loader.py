"""Parse boot loader entries of type 1 (UAPI.1, "Boot Loader Specification"), read by systemd-boot and GRUB's blscfg."""

from __future__ import annotations

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
from cosremaster.lazy_regex import lazy_regex

_LINE = lazy_regex(rb"[ \t]*([^\s#]\S*)[ \t]*([^\r\n]*)")
_MESSAGES = frozenset((b"title", b"version", b"machine-id", b"sort-key"))


def parse_loader_entry(data: bytes) -> Menu:
    """Parse a boot loader entry. It has the arguments of all its ``options`` lines; a new one goes to the last."""
    values: dict[bytes, list[tuple[int, int, int, int]]] = {}
    searched, at = list[tuple[bytes, Word]](), 0
    for number, raw in enumerate(data.split(b"\n"), 1):
        match = _LINE.match(raw)
        if match:
            key, start = match[1], at + match.start(2)
            end = start + len(match[2].rstrip())
            values.setdefault(key, []).append((number, at + match.end(1), start, end))
            if key not in _MESSAGES:
                searched += [(key, word) for word in split_arguments(data, start, end)]
        at += len(raw) + 1
    lines = _kernel_lines(data, values)
    return Menu(language=MenuLanguage.LOADER_ENTRY, data=data, lines=lines, searched_words=tuple(searched))


def _kernel_lines(data: bytes, values: dict[bytes, list[tuple[int, int, int, int]]]) -> tuple[KernelLine, ...]:
    """Return the kernel line of an entry, if it loads Linux.

    :param values: key -> line number, end of the key, start and end of the value, for each line with that key.
    """
    options = values.get(b"options", [])
    programs = values.get(b"linux") or values.get(b"uki") or (options and values.get(b"efi")) or []
    if not programs:
        return ()
    number, _, start, end = programs[0]
    kernel = data[start:end]
    if not is_linux(kernel):
        return ()
    if not options:
        lead = detect_line_end(data, end) + b"options "
        return (KernelLine(number=number, kernel=kernel, arguments=(), insert=end, lead=lead),)
    arguments = [split_arguments(data, first, last) for _, _, first, last in options]
    open_lines = (index for index, words in enumerate(arguments) if any(word.is_open for word in words))
    index = next(open_lines, len(options) - 1)  # a quote without an end takes the lines behind it too
    number, key_end, _, _ = options[index]
    all_arguments = tuple(word for words in arguments for word in words)
    insert = find_insertion_point(arguments[index], key_end)
    return (KernelLine(number=number, kernel=kernel, arguments=all_arguments, insert=insert),)
