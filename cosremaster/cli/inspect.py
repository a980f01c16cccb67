"""The command that shows what an image is made of."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from cosremaster.cli.options import AGAINST_MISSING, MAX_EXPAND
from cosremaster.cli.terminal import terminal_progress
from cosremaster.errors import UsageError
from cosremaster.image import Image, inspect
from cosremaster.progress import Progress
from cosremaster.units import format_size


@click.command()
@click.argument("source", metavar="IMAGE", type=click.Path(path_type=Path))
@click.option("--layer", metavar="ADDRESS", help="Read this layer's file alone.")
@click.option("--deep", is_flag=True, help="Read every layer.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON (docs/json.md).")
@click.option("--html", metavar="FILE", type=click.Path(path_type=Path), help="Write a page to look at instead.")
@click.option(
    "--against",
    metavar="ORIGINAL",
    type=click.Path(path_type=Path),
    help="With --html: the image it was made from, for what changed, and for before and after.",
)
@click.option(
    "--changed", multiple=True, metavar="PATH", help="With --against: a boot image that may differ. Repeatable."
)
@click.option("--force", is_flag=True, help="With --html: replace FILE if it exists.")
@MAX_EXPAND
def inspect_command(
    source: Path, layer: str | None, deep: bool, as_json: bool, html: Path | None, against: Path | None,
    changed: tuple[str, ...], force: bool, max_expand: int,
) -> None:  # fmt: skip
    """Show an image's boot records, partitions and archives; with --deep its layers with codecs and sizes.

    Without --deep no layer is read, nor its remembered index. With --html all are, and what they say becomes a
    page of one file (docs/html.md).
    """
    if html is not None:
        if as_json or layer is not None:
            raise UsageError(f"--html and {'--json' if as_json else '--layer'} exclude each other")
        if changed and against is None:
            raise UsageError(AGAINST_MISSING)
        _write_page(source, html, against, changed, force=force, max_expand=max_expand)
        return
    if against is not None or changed or force:
        raise UsageError("--against, --changed and --force belong to --html FILE, which is missing")
    info = inspect(source, deep=deep, layer=layer, max_expand=max_expand, progress=_progress())
    if as_json:
        click.echo(json.dumps(info.values, indent=2, ensure_ascii=False))
        return
    for line in info.lines:
        click.echo(line)


def _progress() -> Progress:
    """Return progress for a terminal; a file gets nothing but the result."""
    return terminal_progress(quiet=not sys.stderr.isatty())


def _write_page(
    source: Path, html: Path, against: Path | None, changed: tuple[str, ...], *, force: bool, max_expand: int
) -> None:
    """Write the page about ``source``."""
    with Image(source, max_expand=max_expand) as image:
        image.write_page(html, against=against, changed=changed, force=force, progress=_progress())
    click.echo(f"{html}: {format_size(html.stat().st_size)}")
