"""The command that builds what a recipe describes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from cosremaster.cli.colors import paint_mark
from cosremaster.cli.commands import takes_output_options, write_result
from cosremaster.cli.options import JSON, QUIET, LocalPath, OutputPath, StrictCommand
from cosremaster.cli.standard_streams import write_json
from cosremaster.cli.terminal import terminal_progress


def _print_schema(context: click.Context, _: click.Parameter, value: bool) -> None:
    """Print the JSON Schema of recipes and exit, where the flag is given."""
    if value and not context.resilient_parsing:
        from cosremaster.recipe.schema import shipped_schema  # noqa: PLC0415 - needs pydantic, which help does not

        click.echo(shipped_schema(), nl=False)
        context.exit()


@click.command(cls=StrictCommand)
@click.argument("recipe", metavar="RECIPE", type=LocalPath())
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="NAME=VALUE",
    help="Give a variable of the recipe its value, over the environment's and the default. May be given again.",
)
@click.option("--output", metavar="OUT", type=OutputPath(), help="Write OUT, whatever the recipe says.")
@click.option("--threads", type=click.IntRange(min=1), help="Threads that compress; all processors by default.")
@click.option(
    "--check-index", is_flag=True, help="Trust a remembered index only if the files of the input have its SHA-256."
)
@takes_output_options
@click.option("--plan", "only_plan", is_flag=True, help="Print what would be done, without writing it.")
@JSON
@QUIET
@click.option(
    "--schema",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_schema,
    help="Print the JSON Schema of recipes, for editors.",
)
def build_command(
    recipe: Path, settings: tuple[str, ...], output: Path | None, only_plan: bool, quiet: bool, as_json: bool,
    **options: Any,
) -> None:  # fmt: skip
    """Write the image that the TOML file RECIPE describes.

    Paths in RECIPE are relative to it. All its faults are listed at once, before any work.
    """
    from cosremaster.recipe import build, plan, read_recipe, resolve_output  # noqa: PLC0415 - needs pydantic
    from cosremaster.recipe.variables import parse_settings  # noqa: PLC0415 - the same

    threads = options.pop("threads")
    read = read_recipe(recipe, parse_settings(settings), threads=threads)
    progress = terminal_progress(quiet=quiet)
    if only_plan:
        writing = {name: options[name] for name in ("check_index", "report", "force")}
        planned = plan(read, output=output, progress=progress, **writing)
        if as_json:
            write_json(planned.values)
            return
        for line in planned.lines:
            click.echo(paint_mark(line))
        return
    target = resolve_output(read, output)
    write_result(
        lambda path: build(read, output=path, progress=progress, **options), target, options, quiet=quiet,
        as_json=as_json,
    )  # fmt: skip
