"""The command that compares two images or anything in them."""

from __future__ import annotations

import click

from cosremaster.api.image import diff
from cosremaster.browse.compare import Difference
from cosremaster.cli.expected import takes_expected
from cosremaster.cli.options import MAX_EXPAND, InputAddress, StrictCommand
from cosremaster.cli.standard_streams import write_json
from cosremaster.io.urls import shown_image_path

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

    Exit code 1 when they differ. + added, - removed, ~ content, m metadata, ! type, z packed otherwise, b boot record.
    """
    differences = diff(old, new, text=text, max_expand=max_expand)
    if as_json:
        values = [_values(difference) for difference in differences]
        sides = {"a": shown_image_path(old), "b": shown_image_path(new)}
        report = {"schema": SCHEMA, **sides, "different": bool(values), "differences": values}
        write_json(report)
        return int(bool(values))
    has_difference = False
    for difference in differences:
        has_difference = True
        click.echo(f"{_MARKS[difference.what]} {difference.where or '.'}: {'; '.join(difference.details)}")
        for line in difference.text:
            click.echo(f"    {line}")
    return int(has_difference)


def _values(difference: Difference) -> dict[str, object]:
    """Return ``difference`` as values for JSON."""
    return {
        "what": difference.what,
        "address": difference.where,
        "details": list(difference.details),
        "text": list(difference.text),
    }
