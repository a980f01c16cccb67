"""The command that makes an image from its base and a delta."""

from __future__ import annotations

from pathlib import Path

import click

from cosremaster.api.delta import apply
from cosremaster.cli.options import MAX_EXPAND, QUIET, OutputPath, StreamPath, StrictCommand
from cosremaster.cli.standard_streams import reporting_finished_work
from cosremaster.cli.terminal import terminal_progress
from cosremaster.errors import UsageError
from cosremaster.units import format_size


@click.command(cls=StrictCommand)
@click.argument("base", metavar="BASE", type=click.Path(path_type=Path))
@click.argument("delta", metavar="DELTA", type=click.Path(path_type=Path))
@click.argument("target", metavar="OUT", type=OutputPath())
@MAX_EXPAND
@click.option("--force", is_flag=True, help="Replace OUT if it exists.")
@click.option(
    "--no-sync", "sync", is_flag=True, flag_value=False, default=True,
    help="Do not wait until OUT is on the disk; a power cut may then lose it.",
)  # fmt: skip
@QUIET
def apply_command(
    base: Path, delta: Path, target: Path, max_expand: int, force: bool, sync: bool, quiet: bool
) -> None:  # fmt: skip
    """Write the image OUT that DELTA makes from BASE.

    DELTA.json, which stands beside a delta of ours, says which base is the right one and what comes of it: both are
    proved before OUT gets its name. Other deltas in the format VCDIFF are read too, if they hold checksums.
    """
    if isinstance(target, StreamPath):
        raise UsageError("what a delta makes is proved before anybody reads it: it is not written to standard output")
    progress = terminal_progress(quiet=quiet)
    result = apply(base, delta, target, force=force, sync=sync, max_expand=max_expand, progress=progress)
    if quiet:
        return
    with reporting_finished_work(f"{target} is written and proved"):
        click.echo(f"{target}: {format_size(result.size)}")
        click.echo("proved:")
        for line in result.proof:
            click.echo(f"  {line}")
