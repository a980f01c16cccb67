"""The command for a shell inside an image."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from cosremaster.api.image import Image
from cosremaster.cli.commands import pop_request, takes_output_options, takes_request, write_result
from cosremaster.cli.expected import takes_expected
from cosremaster.cli.options import MAX_EXPAND, QUIET, InputPath, OutputPath, StreamPath, StrictCommand
from cosremaster.cli.terminal import terminal_progress
from cosremaster.errors import UsageError
from cosremaster.io.files import SHOWN_NAMES
from cosremaster.io.urls import Url


@click.command(cls=StrictCommand)
@click.argument("source", metavar="IN", type=InputPath())
@click.argument("target", metavar="OUT", type=OutputPath())
@takes_request
@MAX_EXPAND
@takes_output_options
@QUIET
@takes_expected("source", "IN")
def shell_command(source: Path | Url, target: Path, max_expand: int, quiet: bool, **options: Any) -> None:
    """Open a shell in the root filesystem of IN, and write OUT with what was changed in it.

    The other options count before the shell begins. OUT is written when the shell ends with the exit code 0; with any
    other code ("exit 1") nothing is written.
    """
    if str(source) in SHOWN_NAMES or isinstance(target, StreamPath):
        raise UsageError("a shell needs standard input and output for itself: neither IN nor OUT can be -")
    request = pop_request(options, is_shell=True)
    progress = terminal_progress(quiet=quiet)
    with Image(source, max_expand=max_expand) as image:
        write_result(
            lambda path: image.remaster(path, request, progress=progress, **options), target, options, quiet=quiet
        )
