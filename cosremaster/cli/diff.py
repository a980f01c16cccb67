"""The command that compares two images or anything in them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, cast

import click

from cosremaster.api.functions import diff
from cosremaster.browse.compare import Difference
from cosremaster.cli.colors import paint_mark, paint_text_diff
from cosremaster.cli.expected import takes_expected
from cosremaster.cli.options import MAX_EXPAND, InputAddress, StrictCommand
from cosremaster.cli.patient import PatientProgress
from cosremaster.cli.standard_streams import write_json
from cosremaster.io.urls import shown_image_path

if TYPE_CHECKING:
    from cosremaster.reports.documents import DifferenceDocument, DifferenceKind

SCHEMA = 1
_MARKS = {"added": "+", "removed": "-", "type": "!", "metadata": "m", "content": "~", "packing": "z", "boot": "b"}


@click.command(cls=StrictCommand)
@click.argument("old", metavar="A", type=InputAddress())
@click.argument("new", metavar="B", type=InputAddress())
@click.option("--text", is_flag=True, help="Show how text files differ.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON (docs/json.md).")
@MAX_EXPAND
@takes_expected("old", "A", "new", "B")
def diff_command(old: str, new: str, text: bool, as_json: bool, max_expand: int) -> int:
    """Compare two addresses by meaning: boot records, files, and layers entry by entry.

    A line for each path: + added, - removed, ~ content, m metadata, ! type, z packed otherwise, b boot record.
    Exit code 1 when they differ.
    """
    differences = diff(old, new, text=text, max_expand=max_expand, progress=PatientProgress())
    if as_json:
        values = [_values(difference) for difference in differences]
        sides = {"a": shown_image_path(old), "b": shown_image_path(new)}
        report = {"schema": SCHEMA, **sides, "different": bool(values), "differences": values}
        write_json(report)
        return int(bool(values))
    has_difference = False
    for difference in _join_by_path(differences):
        has_difference = True
        line = f"{_MARKS[difference.what]} {difference.where or '.'}: {'; '.join(difference.details)}"
        click.echo(paint_mark(line))
        for line in difference.text:
            click.echo(f"    {paint_text_diff(line)}")
    return int(has_difference)


def _join_by_path(differences: Iterable[Difference]) -> Iterator[Difference]:
    """Yield ``differences`` with what differs in the metadata of a file behind what differs in its bytes."""
    waiting: Difference | None = None
    for difference in differences:
        if waiting is not None and waiting.where == difference.where:
            yield replace(difference, details=(*difference.details, *waiting.details))
            waiting = None
            continue
        if waiting is not None:
            yield waiting
        waiting = difference if difference.what == "metadata" else None
        if waiting is None:
            yield difference
    if waiting is not None:
        yield waiting


def _values(difference: Difference) -> DifferenceDocument:
    """Return ``difference`` as values for JSON."""
    return {
        "what": cast("DifferenceKind", difference.what),
        "address": difference.where,
        "details": list(difference.details),
        "text": list(difference.text),
    }
