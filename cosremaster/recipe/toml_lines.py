"""Find the line of each key and array element of a TOML document; tomllib returns the values alone.

The document must be one that tomllib accepts. Then a scan that only separates strings, comments, brackets and keys is
enough (TOML 1.0, https://toml.io/en/v1.0.0). It decides nothing about values.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TypeAlias

from cosremaster.lazy_regex import lazy_regex

KeyPath: TypeAlias = tuple[str | int, ...]
"""Keys of tables and numbers of array elements, from the document inwards."""

_BLANK = lazy_regex(r"(?:[ \t\r\n]|#[^\n]*)*")
_SPACE = lazy_regex(r"[ \t]*")
_BARE = lazy_regex(r"[A-Za-z0-9_-]+")
_STRINGS = (
    # Triple quotes first. Up to two more quotes may precede the closing three.
    lazy_regex(r'"""(?:[^"\\]|\\.|"{1,2}(?!"))*?"{3,5}', re.DOTALL),
    lazy_regex(r"'''(?:[^']|'{1,2}(?!'))*?'{3,5}", re.DOTALL),
    lazy_regex(r'"(?:[^"\\]|\\.)*"'),
    lazy_regex(r"'[^']*'"),
)
_SCALAR = lazy_regex(r"[^,\]}#\n]+")  # numbers, booleans, dates
_ESCAPE = lazy_regex(r"\\(?:u([0-9A-Fa-f]{4})|U([0-9A-Fa-f]{8})|(.))")
_ESCAPED = {"b": "\b", "t": "\t", "n": "\n", "f": "\f", "r": "\r"}


def line_of(lines: Mapping[KeyPath, int], path: KeyPath) -> int | None:
    """Return the line, from 1, of the value at ``path``, or of the nearest table or array around it that has one."""
    while path:
        if path in lines:
            return lines[path]
        path = path[:-1]
    return None


def find_lines(text: str) -> dict[KeyPath, int]:
    """Return the line, from 1, on which each key and each array element of the valid document ``text`` begins.

    The line of a table is that of its header, or of the first key in it.
    """
    return _TomlScan(text.replace("\r\n", "\n")).lines


class _TomlScan:
    """One pass over a document. ``lines``: the line of each value."""

    def __init__(self, text: str) -> None:
        """Scan the whole document."""
        self._text = text
        self._offset = 0
        self._line = 1  # of the character at _line_offset
        self._line_offset = 0
        self._element_counts: dict[KeyPath, int] = {}  # of arrays of tables
        self.lines: dict[KeyPath, int] = {}
        table: KeyPath = ()
        self._skip(_BLANK)
        while self._offset < len(text):
            if text[self._offset] == "[":
                table = self._scan_header()
            else:
                self._scan_pair(table)
            self._skip(_BLANK)

    def _skip(self, pattern: re.Pattern[str]) -> str:
        """Go past the text that matches ``pattern`` and return it."""
        match = pattern.match(self._text, self._offset)
        assert match is not None, f"no TOML at character {self._offset}"
        self._offset = match.end()
        return match[0]

    def _current_line(self) -> int:
        """Return the number of the current line."""
        self._line += self._text.count("\n", self._line_offset, self._offset)
        self._line_offset = self._offset
        return self._line

    def _record(self, path: KeyPath, line: int) -> None:
        """Record ``line`` for ``path`` and for the tables around it that have no line yet."""
        for depth in range(1, len(path) + 1):
            self.lines.setdefault(path[:depth], line)

    def _scan_header(self) -> KeyPath:
        """Scan ``[a.b]`` or ``[[a.b]]``. Return the path of the table that the following keys belong to."""
        line = self._current_line()
        is_array = self._text.startswith("[[", self._offset)
        self._offset += 2 if is_array else 1
        keys = self._scan_keys()
        self._offset += 2 if is_array else 1
        path: KeyPath = ()
        for number, key in enumerate(keys):
            path = (*path, key)
            if is_array and number == len(keys) - 1:
                self._element_counts[path] = self._element_counts.get(path, 0) + 1
            if path in self._element_counts:
                path = (*path, self._element_counts[path] - 1)
        self._record(path, line)
        return path

    def _scan_pair(self, table: KeyPath) -> None:
        """Scan ``key = value`` in ``table``."""
        line = self._current_line()
        path = (*table, *self._scan_keys())
        self._record(path, line)
        self._offset += 1  # the equals sign
        self._skip(_SPACE)
        self._scan_value(path)

    def _scan_keys(self) -> tuple[str, ...]:
        """Scan keys such as ``a . "b" . c`` and the space around them."""
        keys: list[str] = []
        while True:
            self._skip(_SPACE)
            first = self._text[self._offset]
            keys.append(self._scan_string() if first in "\"'" else self._skip(_BARE))
            self._skip(_SPACE)
            if self._text[self._offset] != ".":
                return tuple(keys)
            self._offset += 1

    def _scan_string(self) -> str:
        """Scan a string. Return its text, with escapes resolved as far as keys need it."""
        for pattern in _STRINGS:
            if match := pattern.match(self._text, self._offset):
                self._offset = match.end()
                quoted = match[0]
                return _ESCAPE.sub(_unescape, quoted[1:-1]) if quoted[0] == '"' else quoted[1:-1]
        raise AssertionError(f"no TOML string at character {self._offset}")

    def _scan_value(self, path: KeyPath) -> None:
        """Scan the value at ``path``."""
        first = self._text[self._offset]
        if first in "\"'":
            self._scan_string()
        elif first == "[":
            self._scan_array(path)
        elif first == "{":
            self._scan_inline_table(path)
        else:
            self._skip(_SCALAR)

    def _scan_array(self, path: KeyPath) -> None:
        """Scan the array at ``path``."""
        self._offset += 1
        number = 0
        while True:
            self._skip(_BLANK)
            if self._text[self._offset] == "]":
                break
            if self._text[self._offset] == ",":
                self._offset += 1
                continue
            element = (*path, number)
            self.lines[element] = self._current_line()
            self._scan_value(element)
            number += 1
        self._offset += 1

    def _scan_inline_table(self, path: KeyPath) -> None:
        """Scan the inline table at ``path``."""
        self._offset += 1
        while True:
            self._skip(_BLANK)
            if self._text[self._offset] == "}":
                break
            if self._text[self._offset] == ",":
                self._offset += 1
                continue
            self._scan_pair(path)
        self._offset += 1


def _unescape(match: re.Match[str]) -> str:
    """Return the character that an escape stands for."""
    number = match[1] or match[2]
    return chr(int(number, 16)) if number else _ESCAPED.get(match[3], match[3])
