"""Rows for people: a table of rich on a terminal, elsewhere the lines that programs read."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence

from cosremaster.cli.colors import uses_color

NUMBER = ">"
"""The end of a column's title whose cells are numbers, which stand at the right."""


def print_table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> bool:
    """Print ``rows`` below ``titles`` where standard output is a terminal; else return False."""
    if not sys.stdout.isatty():
        return False
    from rich.box import SIMPLE_HEAD  # noqa: PLC0415 - only for somebody who looks
    from rich.console import Console  # noqa: PLC0415 - the same
    from rich.table import Table  # noqa: PLC0415 - the same
    from rich.text import Text  # noqa: PLC0415 - the same

    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for title in titles:
        is_number = title.endswith(NUMBER)
        table.add_column(title.removesuffix(NUMBER), justify="right" if is_number else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    colored = uses_color(sys.stdout)
    Console(file=sys.stdout, no_color=not colored, color_system="standard" if colored else None).print(table)
    return True
