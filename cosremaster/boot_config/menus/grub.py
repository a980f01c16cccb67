"""Parse GRUB's configuration language as far as finding its kernel lines needs.

These are words, quotes, escapes, variables, comments and commands (GRUB manual, "Shell-like scripting";
grub-core/script/yylex.l).
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from cosremaster.boot_config.menus.model import (
    KernelLine,
    Menu,
    MenuLanguage,
    UnreadLine,
    Word,
    find_insertion_point,
    is_linux,
)
from cosremaster.boot_config.menus.multiboot import Module, find_kernel_modules, strip_options
from cosremaster.lazy_regex import lazy_regex
from cosremaster.records import Struct

_META = frozenset(b"{}|&;<>")
_STEPS = {ord("{"): 1, ord("}"): -1}
"""What a brace adds to the number of open blocks."""
_BLANK = frozenset(b" \t\r")
_STARTERS = frozenset((b"if", b"then", b"else", b"elif", b"while", b"until", b"do", b"!", b"time"))
"""Words that a command may follow on the same line."""

_LINUX = lazy_regex(rb"linux(?:16|efi)?|linux\$\{?\w+\}?|\$\{?linux\w*\}?")
_HYPERVISOR = lazy_regex(rb"multiboot2?|xen_hypervisor")
_MODULE = lazy_regex(rb"module2?|xen_module")
ENTRY_COMMANDS = frozenset((b"menuentry", b"submenu"))
_MAY_LOAD = lazy_regex(rb"^[ \t]*\$?\{?(?:linux|multiboot|module|xen_)", re.MULTILINE)
"""What loads a kernel in a text that cannot be read as commands."""
_MESSAGES = frozenset((b"menuentry", b"submenu", b"echo", b"title"))
_READERS = frozenset((b"source", b"configfile", b".", b"extract_entries_source", b"extract_entries_configfile",
                      b"syslinux_configfile"))  # fmt: skip
_VARIABLE = lazy_regex(rb"\$(?:\{\w+\}|\w+|[@*#?])")
_HEX_ESCAPE = lazy_regex(rb"\\x[0-9A-Fa-f]{2}")


class _CommandEnd(Struct, frozen=True):
    """The end of a command. ``step``: 1 where a brace opens a block, -1 where one closes it, else 0."""

    step: int = 0


def parse_grub(data: bytes) -> Menu:
    """Parse a GRUB menu. Text behind a quote that never ends is not read, and GRUB reads no part of such a file."""
    includes, searched, commands = list[bytes](), list[tuple[bytes, Word]](), list[list[Word]]()
    open_quotes = list[int]()
    for words in read_commands(data, open_quotes):
        command = words[0].text
        if command not in _MESSAGES:
            searched += [(command, word) for word in words]
        if command in _READERS and len(words) > 1:
            includes.append(words[-1].text)
        commands.append(words)
    lines = tuple(_kernel_lines(data, commands))
    return Menu(
        language=MenuLanguage.GRUB,
        data=data,
        lines=lines,
        includes=tuple(includes),
        searched_words=tuple(searched),
        unread=tuple(
            UnreadLine(data.count(b"\n", 0, at) + 1, b"", "has a quote that never ends, so GRUB cannot read this menu")
            for at in open_quotes
            if lines or _MAY_LOAD.search(data, at)
        ),
    )


def _kernel_lines(data: bytes, commands: list[list[Word]]) -> Iterator[KernelLine]:
    """Yield the kernel line of each command that loads Linux, and of each module of a hypervisor that is Linux."""
    modules = {kernel.start for kernel in _find_kernel_modules(data, commands)}
    number, counted = 1, 0
    for words in commands:
        is_linux_command = _is_command(data, words, _LINUX)
        kernel, *arguments = (words[1:] if is_linux_command else strip_options(words[1:])) or (None,)
        if kernel is None or not (kernel.start in modules or (is_linux_command and is_linux(kernel.text))):
            continue
        number += data.count(b"\n", counted, words[0].start)
        counted = words[0].start
        insert = find_insertion_point(tuple(arguments), kernel.end)
        yield KernelLine(number=number, kernel=kernel.text, arguments=tuple(arguments), insert=insert)


def _is_command(data: bytes, words: list[Word], pattern: re.Pattern[bytes]) -> bool:
    """Return True if ``pattern`` fits the name of the command as the menu spells it, and it has an argument."""
    return len(words) > 1 and bool(pattern.fullmatch(data, words[0].start, words[0].end))


def _find_kernel_modules(data: bytes, commands: list[list[Word]]) -> Iterator[Word]:
    """Yield the file name of each module that is a Linux kernel; modules belong to the hypervisor before them."""
    program, modules = b"", list[Module]()
    for words in commands:
        if _is_command(data, words, _MODULE):
            modules.append(words[1:])
        elif words[0].text in ENTRY_COMMANDS or _is_command(data, words, _HYPERVISOR):
            yield from (module[0] for module in find_kernel_modules(program, modules))
            loaded = strip_options(words[1:]) if words[0].text not in ENTRY_COMMANDS else ()
            program, modules = loaded[0].text if loaded else b"", []
    yield from (module[0] for module in find_kernel_modules(program, modules))


def read_commands(data: bytes, open_quotes: list[int]) -> Iterator[list[Word]]:
    """Yield the words of each command; append the byte of the word that has a quote without an end."""
    return (words for _, words in read_nested_commands(data, open_quotes))


def read_nested_commands(data: bytes, open_quotes: list[int]) -> Iterator[tuple[int, list[Word]]]:
    """Yield, for each command, the number of blocks of braces around it, and its words.

    :param open_quotes: gets the byte of the word that has a quote without an end.
    """
    words, depth = list[Word](), 0
    for token in _tokens(data, open_quotes):
        if isinstance(token, Word):
            if words or token.text not in _STARTERS:
                words.append(token)
            continue
        if words:
            yield depth, words
        words, depth = [], max(depth + token.step, 0)
    if words:
        yield depth, words


def _tokens(data: bytes, open_quotes: list[int]) -> Iterator[Word | _CommandEnd]:
    """Yield the words, and the ends of commands; append the byte of the word that has a quote without an end."""
    at = 0
    while at < len(data):
        byte = data[at]
        if byte in _BLANK:
            at += 1
        elif (line_start := _skip_continuation(data, at)) > at:
            at = line_start
        elif byte == ord("\n") or byte in _META:
            yield _CommandEnd(_STEPS.get(byte, 0))
            at += 1
        elif byte == ord("#"):
            end = data.find(b"\n", at)
            at = len(data) if end < 0 else end
        else:
            word = _read_word(data, at)
            if word is None:
                open_quotes.append(at)
                return
            yield word
            at = word.end


def _skip_continuation(data: bytes, at: int) -> int:
    """Return the byte behind a backslash and line end at ``at``; ``at`` if there are none."""
    if data[at : at + 1] != b"\\":
        return at
    end = 3 if data[at + 1 : at + 3] == b"\r\n" else 2
    return at + end if data[at + end - 1 : at + end] == b"\n" else at


def _read_word(data: bytes, start: int) -> Word | None:
    """Return the word that begins at ``start``; None if a quote in it never ends."""
    text, at = bytearray(), start
    while at < len(data):
        byte = data[at]
        if byte in _BLANK or byte == ord("\n") or byte in _META:
            break
        if byte == ord("\\"):
            end = _read_escape(data, at, text)
            if end == at:
                break
        elif byte == ord("'"):
            end = data.find(b"'", at + 1) + 1
            text += data[at + 1 : end - 1]
        elif byte == ord('"'):
            end = _read_double_quoted(data, at + 1, text)
        elif byte == ord("$") and (variable := _VARIABLE.match(data, at)):
            end = variable.end()
            text += variable[0]
        else:
            end = at + 1
            text.append(byte)
        if end <= 0:
            return None
        at = end
    return Word(start, at, bytes(text), text.count(b'"') % 2 == 1)


def _read_escape(data: bytes, at: int, text: bytearray) -> int:
    """Append the letters of the escape at ``at`` to ``text``; return the byte behind it, ``at`` if a word ends here."""
    line_start = _skip_continuation(data, at)
    if line_start > at:
        # GRUB joins the text on both sides; nobody writes that, and a word of two lines must not be split.
        is_between_words = data[at - 1 : at].isspace() or data[line_start : line_start + 1] in b" \t\r\n"
        return at if is_between_words else line_start
    if _HEX_ESCAPE.match(data, at):  # Fedora's GRUB passes these on
        text += data[at : at + 4]
        return at + 4
    text += data[at + 1 : at + 2]
    return at + 2


def _read_double_quoted(data: bytes, at: int, text: bytearray) -> int:
    """Append the text in double quotes from ``at`` on to ``text``; return the byte behind it, -1 if it never ends."""
    while at < len(data):
        byte = data[at]
        if byte == ord('"'):
            return at + 1
        if byte == ord("\\"):
            line_start = _skip_continuation(data, at)
            if line_start > at:
                at = line_start
                continue
            if data[at + 1 : at + 2] in (b"$", b"\\", b'"'):
                at += 1
                byte = data[at]
        text.append(byte)
        at += 1
    return -1


_PLAIN = lazy_regex(rb"[A-Za-z0-9_.,:/=+@%^~*?!\[\]()\x80-\xff-]")


def quote_grub_word(text: bytes) -> bytes:
    """Return ``text`` as a GRUB word, quoted if necessary; ``\\xNN`` stays, because Fedora's GRUB passes it on."""
    if b" " in text or b"\t" in text or not text:
        return b'"' + re.sub(rb"([\\$\"])", rb"\\\1", text) + b'"'
    return _escape(text)


def quote_grub_part(prefix: bytes, text: bytes) -> bytes:
    """Quote ``text`` for insertion into a GRUB word after ``prefix``, honouring a quote that ``prefix`` leaves open."""
    quote = 0
    for match in re.finditer(rb"\\.|['\"]", prefix, re.DOTALL):
        if match[0] in (b"'", b'"'):
            quote = 0 if quote == match[0][0] else quote or match[0][0]
    if quote == ord("'"):
        return text.replace(b"'", b"'\\''")
    return re.sub(rb"([\\$\"])", rb"\\\1", text) if quote else _escape(text)


def _escape(text: bytes) -> bytes:
    """Return ``text`` as GRUB needs it outside quotes."""
    parts, at = list[bytes](), 0
    while at < len(text):
        escape = _HEX_ESCAPE.match(text, at)
        letter = escape[0] if escape else text[at : at + 1]
        parts.append(letter if escape or _PLAIN.match(letter) else b"\\" + letter)
        at += len(letter)
    return b"".join(parts)
