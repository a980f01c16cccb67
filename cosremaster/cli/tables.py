"""Rows for people: a table of rich on a terminal, elsewhere the lines that programs read."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from cosremaster.cli.colors import uses_color

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from cosremaster.reports.fact_sections import FactSection

NUMBER = ">"
"""The end of a column's title whose cells are numbers, which stand at the right."""


_ANY_WIDTH = 10_000
"""Columns of a terminal on which every table fits."""


def print_sections(sections: Iterable[FactSection]) -> None:
    """Print ``sections`` for a terminal.

    A line that is in no table has what it tells of in one column and the facts in the other. So have those of a table
    whose words the terminal is too narrow for.
    """
    console = _open_console()
    lines: list[str] = []
    for section in sections:
        table = _make_table(section.titles, section.rows) if section.rows else None
        if table is not None:
            table.columns[0].no_wrap = True
        if table is None or not _fit(table, console):
            lines += section.lines
            continue
        _print_lines([*lines, *section.heads], console)
        lines.clear()
        console.print(table)
    _print_lines(lines, console)


def print_table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> bool:
    """Print ``rows`` below ``titles`` where standard output is a terminal that has room for them; else return False."""
    if not sys.stdout.isatty():
        return False
    console, table = _open_console(), _make_table(titles, rows)
    if not _fit(table, console):
        return False
    console.print(table)
    return True


def _open_console() -> Console:
    """Return the terminal on standard output, with colours where they are wanted."""
    from rich.console import Console  # noqa: PLC0415 - only for somebody who looks

    colored = uses_color(sys.stdout)
    return Console(file=sys.stdout, no_color=not colored, color_system="standard" if colored else None)


def _make_table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    """Return a table of ``rows`` below ``titles``."""
    from rich.box import SIMPLE_HEAD  # noqa: PLC0415 - only for somebody who looks
    from rich.table import Table  # noqa: PLC0415 - the same
    from rich.text import Text  # noqa: PLC0415 - the same

    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for title in titles:
        is_number = title.endswith(NUMBER)
        table.add_column(
            title.removesuffix(NUMBER), justify="right" if is_number else "left", overflow="fold", no_wrap=is_number
        )
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    return table


def _fit(table: Table, console: Console) -> bool:
    """Give the columns of ``table`` their widths; return False where the terminal is too narrow for the longest words.

    Left to itself rich would break words, such as paths, in wide columns while others have more room than they need.
    """
    from rich.measure import Measurement  # noqa: PLC0415 - only for somebody who looks

    options = console.options.update(width=_ANY_WIDTH)
    needs = [
        Measurement(0, 0)
        if not cells
        else Measurement(
            max(cell.maximum if column.no_wrap else cell.minimum for cell in cells), max(cell.maximum for cell in cells)
        )
        for column in table.columns
        for cells in [[Measurement.get(console, options, cell) for cell in (column.header, *column.cells)]]
    ]
    widths = [need.minimum for need in needs]
    _set_widths(table, widths)  # rich before 15 pads a column of a set width at the table's edge too
    room = console.width - table.__rich_measure__(console, options).maximum
    if room < 0:
        _set_widths(table, [None] * len(widths))
        return False
    order = sorted(range(len(needs)), key=lambda number: needs[number].maximum - needs[number].minimum)
    for rank, number in enumerate(order):  # who wants little gets it, the others share what is left
        more = min(needs[number].maximum - widths[number], room // (len(order) - rank))
        widths[number] += more
        room -= more
    _set_widths(table, widths)
    return True


def _set_widths(table: Table, widths: Iterable[int | None]) -> None:
    """Give each column of ``table`` its width, or none where rich is to choose it."""
    for column, width in zip(table.columns, widths, strict=True):
        column.width = width


def _print_lines(lines: Iterable[str], console: Console) -> None:
    """Print what each of ``lines`` tells of, and beside it the facts: what stands behind its first colon."""
    from rich.table import Table  # noqa: PLC0415 - only for somebody who looks
    from rich.text import Text  # noqa: PLC0415 - the same

    grid = Table.grid(padding=(0, 2))
    grid.add_column(overflow="fold")
    grid.add_column(overflow="fold")
    for line in lines:
        name, colon, facts = line.partition(": ")
        grid.add_row(Text(name if colon else ""), Text(facts if colon else line.strip()))
    if grid.rows:
        _fit(grid, console)
        console.print(grid)
