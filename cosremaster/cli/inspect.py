"""The command that shows what an image is made of."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path

import click

from cosremaster.boot_config.places import find_boot_menus
from cosremaster.boot_memory.estimate import MemoryEstimate
from cosremaster.boot_memory.needs import estimate_image_memory, estimate_packed_memory
from cosremaster.cli.options import AGAINST_MISSING, MAX_EXPAND
from cosremaster.cli.terminal import terminal_progress
from cosremaster.errors import LayerError, UsageError, printable
from cosremaster.layers.find import choose_layer, find_archive_files
from cosremaster.remastering.image import OpenedImage
from cosremaster.reports.inspect import inspect_report
from cosremaster.reports.menus import menu_lines
from cosremaster.reports.text import image_lines, layer_lines, memory_lines
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
    with OpenedImage(source, max_expand=max_expand) as opened:
        found = chosen = None
        why = ""
        if deep or layer is not None:
            found = opened.layers(layer, terminal_progress(quiet=not sys.stderr.isatty()))
            try:
                chosen = choose_layer(opened.image, found, None if layer is None else opened.address_in(layer))
            except LayerError as error:
                why = error.message
        archives = tuple(find_archive_files(opened.image))
        volume = opened.image.volume
        menus = None if volume is None else find_boot_menus(volume)
        if as_json:
            report = inspect_report(opened.image, archives, None if found is None else found.layers, chosen, menus)
            click.echo(json.dumps(report, indent=2, ensure_ascii=False))
            return
        for line in (*image_lines(opened.image), *(() if menus is None else menu_lines(menus))):
            click.echo(line)
        if found is None:
            for one in archives:
                click.echo(f"archive {printable(one.path)}: {one.codec}, {format_size(one.size)}; --deep reads it")
            _echo_memory(estimate_packed_memory((one.path, one.size) for one in archives))
            return
        for line in layer_lines(found.layers, chosen):
            click.echo(line)
        _echo_memory(estimate_image_memory(opened.image, found.layers))
        if why:
            click.echo(f"--add has no layer to go to: {why}")


def _echo_memory(needs: Mapping[bytes, MemoryEstimate]) -> None:
    for path, need in needs.items():
        for line in memory_lines(printable(path), need):
            click.echo(line)
        for warning in need.warnings:
            click.echo(f"warning: {printable(path)} {warning}")


def _write_page(
    source: Path, html: Path, against: Path | None, changed: tuple[str, ...], *, force: bool, max_expand: int
) -> None:
    from cosremaster.reports.build import write_overview  # noqa: PLC0415 - other commands start faster without it

    names = [os.fsencode(name).strip(b"/") for name in changed]
    progress = terminal_progress(quiet=not sys.stderr.isatty())
    write_overview(source, html, against=against, changed=names, force=force, max_expand=max_expand, progress=progress)
    click.echo(f"{html}: {format_size(html.stat().st_size)}")
