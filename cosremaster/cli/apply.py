"""The command that makes an image from its base and a delta."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from cosremaster.api.delta import apply
from cosremaster.cli.options import JSON, MAX_EXPAND, QUIET, InputPath, LocalPath, OutputPath, StreamPath, StrictCommand
from cosremaster.cli.standard_streams import reporting_finished_work, write_json
from cosremaster.cli.terminal import terminal_progress
from cosremaster.errors import UsageError
from cosremaster.io.urls import ImagePath
from cosremaster.units import format_size


@click.command(cls=StrictCommand)
@click.argument("base", metavar="BASE", type=InputPath())
@click.argument("delta", metavar="DELTA", type=LocalPath())
@click.argument("target", metavar="OUT", type=OutputPath())
@MAX_EXPAND
@click.option("--force", is_flag=True, help="Replace OUT if it exists.")
@click.option(
    "--no-sync", "sync", is_flag=True, flag_value=False, default=True,
    help="Do not wait until OUT is on the disk; a power cut may then lose it.",
)  # fmt: skip
@JSON
@QUIET
def apply_command(
    base: ImagePath, delta: Path, target: Path, quiet: bool, as_json: bool, **options: Any
) -> None:  # fmt: skip
    """Write the image OUT that DELTA makes from BASE.

    DELTA.json, which stands beside a delta of ours, says which base is the right one and what comes of it: both are
    proved before OUT gets its name. Other deltas in the format VCDIFF are read too, if they hold checksums.
    """
    if isinstance(target, StreamPath):
        raise UsageError("what a delta makes is proved before anybody reads it: it is not written to standard output")
    progress = terminal_progress(quiet=quiet)
    result = apply(base, delta, target, progress=progress, **options)
    if quiet and not as_json:
        return
    with reporting_finished_work(f"{target} is written and proved"):
        if as_json:
            write_json(
                {
                    "schema": 1, "output": str(target), "size": result.size, "sha256": result.sha256,
                    "proof": list(result.proof),
                }
            )  # fmt: skip
            return
        click.echo(f"{target}: {format_size(result.size)}")
        click.echo("proved:")
        for line in result.proof:
            click.echo(f"  {line}")
