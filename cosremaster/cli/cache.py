"""The command for remembered indexes."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import TYPE_CHECKING

import click

from cosremaster.cli.options import JSON, StrictCommand
from cosremaster.cli.standard_streams import write_json
from cosremaster.cli.tables import NUMBER, print_table
from cosremaster.errors import OutputError, Place, printable
from cosremaster.layers.cache import indexed_image
from cosremaster.layers.cache_folder import (
    PARTS_SUFFIX,
    RUN_SUFFIX,
    clear_indexes,
    index_folder,
    list_indexes,
    measure_remembered,
)
from cosremaster.units import format_size

if TYPE_CHECKING:
    from cosremaster.reports.documents import CacheDocument

    _ChoiceType = click.Choice[str]
else:  # click 8.1, which Debian 13 has, knows no kinds of them
    _ChoiceType = click.Choice


class _Action(_ChoiceType):
    """What to do; that it is missing is told in one line."""

    def get_missing_message(self, param: click.Parameter, ctx: click.Context | None = None) -> str:
        """Return what may be chosen."""
        return f"It is one of {', '.join(self.choices)}."


@click.command(cls=StrictCommand)
@click.argument("action", type=_Action(("list", "clear", "path")))
@JSON
def cache_command(action: str, as_json: bool) -> None:
    """List or remove the remembered indexes, or print where they are.

    An index is what is known of the layers of an image; without it the next run reads the layers again. What plans
    compressed for their runs stands there too.
    """
    if as_json:
        write_json(_describe_cache(_clear() if action == "clear" else None))
    elif action == "path":
        click.echo(_folder())
    elif action == "clear":
        count = _clear()
        click.echo(f"removed {count:,} {'index' if count == 1 else 'indexes'}")
    else:
        indexes = list_indexes()
        rows = [
            (
                format_size(index.size),
                datetime.fromtimestamp(index.used, timezone.utc).strftime("%Y-%m-%d %H:%M"),
                index.path.name,
                printable(indexed_image(index)) or "(of another version)",
            )
            for index in indexes
        ]
        if not (rows and print_table((f"size{NUMBER}", "last used (UTC)", "index", "image"), rows)):
            for size_text, used, name, image in rows:
                click.echo(f"{size_text}, last used {used} UTC, {name}: {image}")
        total = format_size(sum(index.size for index in indexes))
        runs, size = measure_remembered(RUN_SUFFIX)
        if runs:
            click.echo(f"{format_size(size)} of {runs:,} {'run' if runs == 1 else 'runs'} of scripts (--reuse-runs)")
        plans, size = measure_remembered(PARTS_SUFFIX)
        if plans:
            click.echo(f"{format_size(size)} that {plans:,} {'plan' if plans == 1 else 'plans'} compressed")
        click.echo(f"{len(indexes):,} {'index' if len(indexes) == 1 else 'indexes'}, {total}, in {_folder()}")


def _folder() -> str:
    """Return the path of the folder. :raises OutputError: there is none."""
    try:
        return index_folder()
    except FileNotFoundError as error:
        raise OutputError(str(error), Place(("~/.cache",))) from error


def _clear() -> int:
    """Remove all indexes, and return how many. :raises OutputError: that cannot be done."""
    try:
        return clear_indexes()
    except OSError as error:
        raise OutputError(f"cannot be cleared: {error.strerror or error}", Place((_folder(),))) from error


def _describe_cache(removed: int | None) -> CacheDocument:
    """Return what is remembered as plain values; ``removed``: how many indexes were there, if all were removed."""
    runs, size = measure_remembered(RUN_SUFFIX)
    plans, plans_size = measure_remembered(PARTS_SUFFIX)
    return {
        "schema": 1,
        "folder": _folder(),
        "indexes": [
            {"path": str(index.path), "image": printable(indexed_image(index)), "size": index.size, "used": index.used}
            for index in list_indexes()
        ],
        "runs": runs,
        "runs_size": size,
        "plans": plans,
        "plans_size": plans_size,
        "removed": removed,
    }
