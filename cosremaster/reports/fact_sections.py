"""Facts about an image by what they tell: lines of text, and the rows of a table for people."""

from __future__ import annotations

from collections.abc import Iterable

from cosremaster.records import Struct

NUMBER = ">"
"""The end of a column's title whose cells are numbers, which stand at the right."""


class FactSection(Struct, frozen=True):
    """Facts of one kind. ``lines``: all of them, as text.

    ``titles`` and ``rows``: of a table; ``heads``: those of the lines that stand above it. Without a table they are
    all lines.
    """

    lines: tuple[str, ...]
    heads: tuple[str, ...] = ()
    titles: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()


def make_section(lines: Iterable[str]) -> FactSection:
    """Return the section of ``lines`` that are no rows of a table."""
    heads = tuple(lines)
    return FactSection(heads, heads)
