"""GRUB's configuration language, as far as finding its kernel lines needs (GRUB manual, "Shell-like scripting";
grub-core/script/yylex.l): words, quotes, escapes, variables, comments, commands."""

from __future__ import annotations

import re
from collections.abc import Iterator

from msgspec import Struct

from cosremaster.boot_config.menus.model import KernelLine, Menu, MenuLanguage, Word, find_insertion_point, is_linux

_META = frozenset(b"{}|&;<>")
_BLANK = frozenset(b" \t\r")
_STARTERS = frozenset((b"if", b"then", b"else", b"elif", b"while", b"until", b"do", b"!", b"time"))
"""Words behind which a command begins."""

_LINUX = re.compile(rb"linux(?:16|efi)?|linux\$\{?\w+\}?|\$\{?linux\w*\}?")
_MODULE = re.compile(rb"module2?")
_KERNEL_NAME = re.compile(rb"vmlinu|bzimage|linux", re.IGNORECASE)
_MESSAGES = frozenset((b"menuentry", b"submenu", b"echo", b"title"))
_READERS = frozenset((b"source", b"configfile", b".", b"extract_entries_source", b"extract_entries_configfile",
                      b"syslinux_configfile"))  # fmt: skip
_VARIABLE = re.compile(rb"\$(?:\{\w+\}|\w+|[@*#?])")
_HEX_ESCAPE = re.compile(rb"\\x[0-9A-Fa-f]{2}")


class _Break(Struct, frozen=True):
    """The end of a command."""


def parse_grub(data: bytes) -> Menu:
    """The menu in ``data``. What stands behind a quote that never ends is not looked at."""
    lines, includes, sought = list[KernelLine](), list[bytes](), list[tuple[bytes, Word]]()
    number, counted = 1, 0
    for words in _commands(data):
        command = words[0].text
        if command not in _MESSAGES:
            sought += [(command, word) for word in words]
        if command in _READERS and len(words) > 1:
            includes.append(words[-1].text)
        if len(words) > 1 and _is_kernel_line(data, words):
            number += data.count(b"\n", counted, words[0].start)
            counted = words[0].start
            arguments = tuple(words[2:])
            lines.append(
                KernelLine(
                    number=number,
                    kernel=words[1].text,
                    arguments=arguments,
                    insert=find_insertion_point(arguments, words[1].end),
                )
            )
    return Menu(
        language=MenuLanguage.GRUB,
        data=data,
        lines=tuple(lines),
        includes=tuple(includes),
        searched_words=tuple(sought),
    )


def _is_kernel_line(data: bytes, words: list[Word]) -> bool:
    """A command that loads Linux: linux and its kin; of a hypervisor's modules the one that is named like a kernel."""
    raw, kernel = data[words[0].start : words[0].end], words[1].text
    if _LINUX.fullmatch(raw):
        return is_linux(kernel)
    return bool(_MODULE.fullmatch(raw) and _KERNEL_NAME.search(kernel.rpartition(b"/")[2])) and is_linux(kernel)


def _commands(data: bytes) -> Iterator[list[Word]]:
    words: list[Word] = []
    for token in _tokens(data):
        if isinstance(token, Word) and (words or token.text not in _STARTERS):
            words.append(token)
        elif not isinstance(token, Word):
            if words:
                yield words
            words = []
    if words:
        yield words


def _tokens(data: bytes) -> Iterator[Word | _Break]:
    """Words, and breaks between commands."""
    at = 0
    while at < len(data):
        byte = data[at]
        if byte in _BLANK:
            at += 1
        elif (joined := _continuation(data, at)) > at:
            at = joined
        elif byte == ord("\n") or byte in _META:
            yield _Break()
            at += 1
        elif byte == ord("#"):
            end = data.find(b"\n", at)
            at = len(data) if end < 0 else end
        else:
            word = _word(data, at)
            if word is None:
                return
            yield word
            at = word.end


def _continuation(data: bytes, at: int) -> int:
    """The byte behind a backslash and line end at ``at``; ``at`` where there are none."""
    if data[at : at + 1] != b"\\":
        return at
    end = 3 if data[at + 1 : at + 3] == b"\r\n" else 2
    return at + end if data[at + end - 1 : at + end] == b"\n" else at


def _word(data: bytes, start: int) -> Word | None:
    """The word that begins at ``start``; None where a quote in it never ends."""
    text, at = bytearray(), start
    while at < len(data):
        byte = data[at]
        if byte in _BLANK or byte == ord("\n") or byte in _META:
            break
        if byte == ord("\\"):
            if _continuation(data, at) > at:
                # GRUB joins what stands on both sides; nobody writes that, and it must not be cut apart.
                if data[at - 1 : at].isspace() or _next_is_blank(data, _continuation(data, at)):
                    break
                at = _continuation(data, at)
                continue
            if _HEX_ESCAPE.match(data, at):  # Fedora's GRUB hands these on
                text += data[at : at + 4]
                at += 4
                continue
            text += data[at + 1 : at + 2]
            at += 2
        elif byte == ord("'"):
            end = data.find(b"'", at + 1)
            if end < 0:
                return None
            text += data[at + 1 : end]
            at = end + 1
        elif byte == ord('"'):
            end = _double_quoted(data, at + 1, text)
            if end < 0:
                return None
            at = end
        elif byte == ord("$") and (variable := _VARIABLE.match(data, at)):
            text += variable[0]
            at = variable.end()
        else:
            text.append(byte)
            at += 1
    return Word(start, at, bytes(text))


def _next_is_blank(data: bytes, at: int) -> bool:
    return data[at : at + 1] in (b"", b" ", b"\t", b"\r", b"\n")


def _double_quoted(data: bytes, at: int, text: bytearray) -> int:
    """Adds what stands in double quotes to ``text``; the byte behind them, -1 where they never end."""
    while at < len(data):
        byte = data[at]
        if byte == ord('"'):
            return at + 1
        if byte == ord("\\"):
            joined = _continuation(data, at)
            if joined > at:
                at = joined
                continue
            if data[at + 1 : at + 2] in (b"$", b"\\", b'"'):
                at += 1
                byte = data[at]
        text.append(byte)
        at += 1
    return -1


_PLAIN = re.compile(rb"[A-Za-z0-9_.,:/=+@%^~*?!\[\]()\x80-\xff-]")


def quote_grub_word(text: bytes) -> bytes:
    """``text`` as a word of GRUB's language, quoted where it must be. ``\\xNN`` stays: Fedora's GRUB hands it on."""
    if b" " in text or b"\t" in text or not text:
        return b'"' + re.sub(rb"([\\$\"])", rb"\\\1", text) + b'"'
    return _escaped(text)


def quote_grub_part(before: bytes, text: bytes) -> bytes:
    """``text`` as it stands inside a word of which ``before`` stands before it: in quotes where that opened them."""
    quote = 0
    for found in re.finditer(rb"\\.|['\"]", before, re.DOTALL):
        if found[0] in (b"'", b'"'):
            quote = 0 if quote == found[0][0] else quote or found[0][0]
    if quote == ord("'"):
        return text.replace(b"'", b"'\\''")
    return re.sub(rb"([\\$\"])", rb"\\\1", text) if quote else _escaped(text)


def _escaped(text: bytes) -> bytes:
    """``text`` outside quotes."""
    parts, at = list[bytes](), 0
    while at < len(text):
        escape = _HEX_ESCAPE.match(text, at)
        letter = escape[0] if escape else text[at : at + 1]
        parts.append(letter if escape or _PLAIN.match(letter) else b"\\" + letter)
        at += len(letter)
    return b"".join(parts)
