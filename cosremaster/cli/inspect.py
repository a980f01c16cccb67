"""The command that shows what an image is made of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from cosremaster.api.image import Image
from cosremaster.cli.expected import takes_expected
from cosremaster.cli.facts import print_facts
from cosremaster.cli.looking import LookingProgress
from cosremaster.cli.options import (
    AGAINST_MISSING,
    MAX_EXPAND,
    InputPath,
    InsideText,
    NewFilePath,
    StrictCommand,
    takes_flags,
)
from cosremaster.cli.standard_streams import reporting_finished_work
from cosremaster.errors import UsageError
from cosremaster.io.urls import Url
from cosremaster.units import format_size


@click.command(cls=StrictCommand)
@click.argument("source", metavar="IMAGE", type=InputPath())
@click.option("--layer", metavar="ADDRESS", type=InsideText(), help="Read this layer's file alone.")
@click.option("--deep", is_flag=True, help="Read every layer.")
@takes_flags("inspect")
@click.option("--html", metavar="FILE", type=NewFilePath(), help="Write a page to look at instead.")
@click.option(
    "--against",
    metavar="ORIGINAL",
    type=InputPath(),
    help="With --html: the image it was made from, for what changed, and for before and after.",
)
@click.option(
    "--changed", multiple=True, metavar="PATH", help="With --against: a boot image that may differ. Repeatable."
)
@click.option("--force", is_flag=True, help="With --html: replace FILE if it exists.")
@MAX_EXPAND
@takes_expected("source", "IMAGE", "against", "ORIGINAL")
def inspect_command(source: Path | Url, as_json: bool, html: Path | None, max_expand: int, **options: Any) -> None:
    """Show an image's boot records, partitions and archives; with --deep its layers with codecs and sizes.

    Without --deep no layer is read, nor its remembered index. With --html all layers are read, and a page of one file
    is written (docs/html.md).
    """
    page = {name: options.pop(name) for name in ("against", "changed", "force")}
    if html is not None:
        if as_json or options["layer"] is not None:
            raise UsageError(f"--html and {'--json' if as_json else '--layer'} exclude each other")
        if page["changed"] and page["against"] is None:
            raise UsageError(AGAINST_MISSING)
        with Image(source, max_expand=max_expand) as image:
            image.write_page(html, progress=LookingProgress(), **page)
        with reporting_finished_work(f"{html} is written"):
            click.echo(f"{html}: {format_size(html.stat().st_size)}")
        return
    if any(page.values()):
        raise UsageError("--against, --changed and --force belong to --html FILE, which is missing")
    print_facts(source, as_json=as_json, max_expand=max_expand, **options)
