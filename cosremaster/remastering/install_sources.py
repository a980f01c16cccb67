"""subiquity's list of what may be installed, ``install-sources.yaml``: the size of each file system in it, in place.

livecd-rootfs (``update-source-catalog``) writes it by PyYAML: block mappings with a ``path`` and a ``size``, for each
source and each of its variations.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from cosremaster.lazy_regex import lazy_regex
from cosremaster.records import Struct, field

NAME = b"install-sources.yaml"

_LINE = lazy_regex(
    rb"^(?P<indent> *)(?P<dash>(?:- +)*)(?P<key>[\w.-]+) *:(?: +(?P<value>[^\r\n]*?))? *\r?$", re.MULTILINE
)
_NUMBER = lazy_regex(rb"\d{1,18}")


class SourceSize(Struct, frozen=True):
    """The ``size`` of the file system ``path``; ``start`` and ``end``: where its digits stand in the text."""

    path: bytes
    size: int
    start: int
    end: int


class _Mapping(Struct):
    """A block mapping that is being read: its indentation in columns, and where its values stand."""

    column: int
    values: dict[bytes, tuple[int, bytes]] = field(default_factory=dict)


def find_source_sizes(text: bytes) -> Iterator[SourceSize]:
    """Yield each mapping of ``text`` that has a path and a size."""
    waiting: list[_Mapping] = []
    for line in _LINE.finditer(text):
        column = len(line["indent"]) + len(line["dash"])
        while waiting and (waiting[-1].column > column or (line["dash"] and waiting[-1].column == column)):
            yield from _size_of(waiting.pop())
        if not waiting or waiting[-1].column < column:
            waiting.append(_Mapping(column))
        waiting[-1].values.setdefault(line["key"], (line.start("value"), line["value"] or b""))
    while waiting:
        yield from _size_of(waiting.pop())


def _size_of(mapping: _Mapping) -> Iterator[SourceSize]:
    """Yield the size that ``mapping`` tells of a file system, if it does."""
    path = mapping.values.get(b"path", (0, b""))[1].strip(b"\"'")
    start, value = mapping.values.get(b"size", (0, b""))
    if path and _NUMBER.fullmatch(value):
        yield SourceSize(path, int(value), start, start + len(value))
