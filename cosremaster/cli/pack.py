"""The command that makes a new archive or file system from folders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from cosremaster.api.pack import pack
from cosremaster.cli.commands import (
    check_standard_input,
    describe_mtree,
    print_result_values,
    takes_options,
    takes_output_options,
)
from cosremaster.cli.options import JSON, QUIET, FileText, OutputPath, StrictCommand
from cosremaster.cli.standard_streams import reporting_finished_work
from cosremaster.cli.terminal import terminal_progress
from cosremaster.overlay.request import AddPath
from cosremaster.records.lazy_dataclass import replace
from cosremaster.units import format_size

_RULES = ("owner", "mode", "keep_modes", "setuid", "xattrs")
"""The options of each source."""


@click.command(cls=StrictCommand)
@click.argument("sources", metavar="SRC[:DEST]...", nargs=-1, required=True, type=FileText())
@click.argument("target", metavar="OUT", type=OutputPath())
@takes_options((*_RULES, "mtree", "force_type", "threads", "xz_preset", "always_compress", "gzip"))
@click.option("--compression", metavar="NAME", help="Of a squashfs: zstd, xz, gzip, lz4 or lzo. Default: zstd.")
@click.option("--block-size", metavar="SIZE", help="Of a squashfs: 4K to 1M, a power of two. Default: 128K.")
@takes_output_options
@JSON
@QUIET
def pack_command(sources: tuple[str, ...], target: Path, quiet: bool, as_json: bool, **options: Any) -> None:
    """Make OUT, an archive or file system, from folders, archives and files, by the rules of --add.

    The end of OUT says what to make: .cpio or .tar, alone or with .gz, .xz, .zst, .bz2, .lz4 or .lzo behind, or
    .squashfs. Contents of a folder or an archive go to / or DEST; root owns what comes from a folder.
    """
    rules = {name: options.pop(name) for name in _RULES}
    items = [replace(AddPath.parse(text, "pack"), **rules) for text in sources]
    check_standard_input(items)
    items = describe_mtree(items, options.pop("mtree"), "")
    result = pack(items, target, progress=terminal_progress(quiet=quiet), **options)
    if as_json:
        print_result_values(result, target, is_new=True)
    if quiet or as_json:
        return
    from cosremaster.reports.text import packed_line  # noqa: PLC0415 - after the work

    with reporting_finished_work(f"{target} is written and proved"):
        click.echo(f"{target}: {format_size(result.output_size)}, {len(result.added) + len(result.parents):,} entries")
        for layer in result.packed:
            click.echo(packed_line(layer))
        click.echo("proved:")
        for line in result.proof:
            click.echo(f"  {line}")
