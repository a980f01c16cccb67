"""Commands that look into any layer and extract from it: ls, cat, stat, tree, find, extract.

Listing itself is in ``listing``, which loads next to nothing.
"""

from __future__ import annotations

from itertools import chain, islice
from pathlib import Path

import click

from cosremaster.api.functions import image_at
from cosremaster.browse.report import stat_lines
from cosremaster.cli.colors import paint_name
from cosremaster.cli.expected import takes_expected
from cosremaster.cli.facts import write_file
from cosremaster.cli.listing import list_address, print_json
from cosremaster.cli.options import JSON, MAX_EXPAND, QUIET, InputAddress, LocalPath, StrictCommand, takes_flags
from cosremaster.cli.patient import PatientProgress
from cosremaster.cli.standard_streams import reporting_finished_work, write_bytes, write_json
from cosremaster.cli.terminal import terminal_progress
from cosremaster.errors import UsageError, printable
from cosremaster.units import format_size

_ADDRESS = click.argument("address", metavar="ADDRESS", type=InputAddress())
_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON (docs/json.md).")


@click.command(cls=StrictCommand, context_settings={"help_option_names": ["--help"]})
@_ADDRESS
@takes_expected("address", "ADDRESS")
@MAX_EXPAND
@takes_flags("ls")
def ls_command(address: str, max_expand: int, **flags: bool) -> None:
    """List what stands in the directory, image or archive at ADDRESS, as in in.iso::live.cgz::rootfs.cxz::etc."""
    list_address(address, max_expand=max_expand, **flags)


@click.command(cls=StrictCommand)
@_ADDRESS
@takes_expected("address", "ADDRESS")
@MAX_EXPAND
def cat_command(address: str, max_expand: int) -> None:
    """Write the bytes of the file at ADDRESS to standard output."""
    write_file(address, max_expand)


@click.command(cls=StrictCommand)
@_ADDRESS
@takes_expected("address", "ADDRESS")
@MAX_EXPAND
@_JSON
def stat_command(address: str, as_json: bool, max_expand: int) -> None:
    """Print all that is known about what stands at ADDRESS."""
    with image_at(address, max_expand=max_expand, progress=PatientProgress()) as (image, inner):
        entry = image.stat(inner, full=not as_json)
        if as_json:
            print_json([entry])
            return
        for line in stat_lines(entry):
            click.echo(line)


@click.command(cls=StrictCommand)
@_ADDRESS
@takes_expected("address", "ADDRESS")
@MAX_EXPAND
@click.option(
    "-L", "--level", "levels", type=click.IntRange(min=1), metavar="N",
    help="Show N levels alone; no archive is entered for those below.",
)  # fmt: skip
@_JSON
def tree_command(address: str, as_json: bool, max_expand: int, levels: int | None) -> None:
    """Print everything at ADDRESS as a tree, through all layers."""
    with image_at(address, max_expand=max_expand, progress=PatientProgress()) as (image, inner):
        entries = image.walk(inner, levels=levels)
        if as_json:
            print_json(entries)
            return
        first = list(islice(entries, 1))  # reads what the next line looks at in such a way that it is not read again
        click.echo(image.stat(inner, follow=True).address)
        for entry in chain(first, entries):
            mark = "/" if entry.type == "directory" else ""
            if entry.target is not None:
                mark = f" -> {printable(entry.target)}"
            click.echo(f"{'  ' * (entry.depth + 1)}{paint_name(printable(entry.name), entry.type)}{mark}")


@click.command(cls=StrictCommand)
@_ADDRESS
@takes_expected("address", "ADDRESS")
@MAX_EXPAND
@click.argument("pattern")
@_JSON
def find_command(address: str, pattern: str, as_json: bool, max_expand: int) -> None:
    """Print the address of everything whose path matches PATTERN, in all layers.

    A pattern is matched against the whole path in each container; * does not cross /, ** does: **/*.conf
    """
    with image_at(address, max_expand=max_expand, progress=PatientProgress()) as (image, inner):
        entries = image.walk(inner, pattern)
        if as_json:
            print_json(entries)
            return
        for entry in entries:
            click.echo(entry.address)


@click.command(cls=StrictCommand)
@_ADDRESS
@takes_expected("address", "ADDRESS")
@MAX_EXPAND
@click.argument("target", metavar="DIR", type=LocalPath())
@click.option("--as", "form", type=click.Choice(["tar"]), help="Write a tar archive to DIR (- is standard output).")
@click.option("--force", is_flag=True, help="Replace an existing archive.")
@JSON
@QUIET
def extract_command(
    address: str, target: Path, form: str | None, force: bool, quiet: bool, as_json: bool, max_expand: int
) -> None:
    """Take what stands at ADDRESS out into the new folder DIR, or into a tar archive.

    Nothing is written outside DIR, and DIR appears only when it is complete. Without root, owners and device
    nodes go into DIR.mtree, and extended attributes are set if they are those of users. A tar archive keeps
    everything but sockets.
    """
    if form is None and str(target) == "-":
        raise UsageError("standard output takes a tar archive: --as tar (a folder called - is ./-)")
    progress = terminal_progress(quiet=quiet)
    with image_at(address, max_expand=max_expand, progress=progress) as (image, inner):
        if form == "tar" and str(target) == "-":
            if as_json:
                raise UsageError("--json and - exclude each other: both are for standard output")
            write_bytes(image.tar_chunks(inner, progress=progress))
            return
        made = image.extract(inner, target, as_tar=form == "tar", force=force, progress=progress)
    if form == "tar":
        summary = f"{made.entries:,} entries, {format_size(made.size)}"
    else:
        summary = f"{made.files:,} files, {made.directories:,} directories, {made.others:,} others"
    if made.without_xattrs:
        first, more = printable(made.without_xattrs[0]), len(made.without_xattrs) - 1
        others = f" and {more:,} more" if more else ""
        progress.warn(f"{target}: extended attributes could not be set: {first}{others} (--as tar keeps all)")
    if made.mtree is not None:
        summary += f"; owners and devices in {made.mtree}"
    if as_json:
        from cosremaster.cli.outcomes import extraction_report  # noqa: PLC0415 - after the work

        with reporting_finished_work(f"{target} is written"):
            write_json(extraction_report(made, target))
    elif not quiet:
        with reporting_finished_work(f"{target} is written"):
            click.echo(f"{target}: {summary}")
