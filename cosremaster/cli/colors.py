"""Colours by meaning, where somebody looks at a terminal that shows them. Nothing here loads click or rich.

``--color`` decides; auto is on a terminal without NO_COLOR (no-color.org) and with a TERM that is not ``dumb``.
"""

from __future__ import annotations

import os
import re
import sys
from typing import TextIO

from cosremaster.cli.settings import Settings
from cosremaster.lazy_regex import lazy_regex

_CODES = {
    "error": "1;31", "warning": "1;33", "good": "32", "bad": "1;31", "note": "33",
    "added": "32", "removed": "31", "changed": "33", "directory": "1;34", "symlink": "36", "device": "33",
}  # fmt: skip
"""Of each meaning the parameters of SGR (ECMA-48)."""

_LONG_NAME = lazy_regex(r"( \d{4,}-\d\d-\d\d \d\d:\d\d )(.*)", re.DOTALL)
_KINDS = {"d": "directory", "l": "symlink", "c": "device", "b": "device"}
_TYPES = {"directory": "directory", "symlink": "symlink", "char": "device", "block": "device"}
_MARKS = {"+": "added", "-": "removed", "~": "changed", "!": "changed", "m": "note", "z": "note", "b": "changed"}
_LEVELS = {"ok": "good", "was": "note", "note": "note", "FAIL": "bad"}


def uses_color(stream: TextIO) -> bool:
    """Return whether what is written to ``stream`` has colours."""
    if Settings.color != "auto":
        return Settings.color == "always"
    return not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb" and stream.isatty()


def paint(text: str, meaning: str, stream: TextIO | None = None) -> str:
    """Return ``text`` in the colour of ``meaning``, where ``stream`` (standard output if None) has colours."""
    if not text or not meaning or not uses_color(sys.stdout if stream is None else stream):
        return text
    return f"\x1b[{_CODES[meaning]}m{text}\x1b[0m"


def paint_name(name: str, kind: str) -> str:
    """Return the name of an entry of the type ``kind`` as it is listed."""
    return paint(name, _TYPES.get(kind, ""))


def paint_long_line(line: str) -> str:
    """Return a line of ``ls -l`` with its name in the colour of its type."""
    meaning = _KINDS.get(line[:1])
    match = _LONG_NAME.search(line) if meaning is not None else None
    if meaning is None or match is None:
        return line
    name, arrow, target = match[2].partition(" -> ") if meaning == "symlink" else (match[2], "", "")
    return f"{line[: match.start(2)]}{paint(name, meaning)}{arrow}{target}"


def paint_mark(line: str) -> str:
    """Return a line about a change, which begins with its mark (``+ etc/site``), in the colour of that."""
    mark = line.lstrip()[:2]
    return paint(line, _MARKS.get(mark[:1], "")) if mark[1:] == " " else line


def paint_text_diff(line: str) -> str:
    """Return a line of a unified diff in its colour."""
    return paint(line, {"+": "added", "-": "removed", "@": "note"}.get(line[:1], ""))


def paint_finding(line: str) -> str:
    """Return a line of ``verify`` with its level in its colour; of the last line, the verdict."""
    level, space, rest = line.partition(" ")
    if level in _LEVELS:
        return f"{paint(level, _LEVELS[level])}{space}{rest}"
    for word, meaning in (("NOT SOUND", "bad"), ("sound", "good")):
        head, separator, tail = line.rpartition(f": {word} (")
        if separator:
            return f"{head}: {paint(word, meaning)} ({tail}"
    return line
