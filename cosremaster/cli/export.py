"""The command that exports for MAAS or for a network boot."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from cosremaster.api.image import export
from cosremaster.browse.export import MaasResource
from cosremaster.cli.options import MAX_EXPAND, InputAddress, StrictCommand
from cosremaster.cli.standard_streams import reporting_finished_work
from cosremaster.cli.terminal import terminal_progress
from cosremaster.errors import UsageError


@click.command(cls=StrictCommand)
@click.argument("address", metavar="ADDRESS", type=InputAddress())
@click.option("--maas", metavar="NAME", help="Write the layer as a .tar.gz for MAAS, as custom/NAME.")
@click.option("--pxe", metavar="DIR", type=click.Path(path_type=Path), help="Kernel, initramfs, iPXE script into DIR.")
@click.option(
    "--entry", metavar="ENTRY", help="Number, title or label of the boot entry for --pxe; else the default one."
)
@click.option("--title", help="What MAAS shows; NAME by default.")
@click.option("--arch", default="amd64/generic", show_default=True, help="MAAS architecture.")
@click.option(
    "--base-image",
    default="",
    metavar="OS/RELEASE",
    help="MAAS' own image that installs it, as in ubuntu/jammy; by default that of an Ubuntu system.",
)
@click.option("--profile", default="admin", show_default=True, help="Profile of the maas command.")
@click.option("--output", type=click.Path(path_type=Path), help="The archive; NAME.tar.gz by default.")
@click.option("--threads", type=click.IntRange(min=1), help="Threads that compress; all processors by default.")
@click.option("--force", is_flag=True, help="Replace an existing archive.")
@click.option("--quiet", is_flag=True, help="No progress.")
@MAX_EXPAND
def export_command(
    address: str, maas: str | None, pxe: Path | None, entry: str | None, output: Path | None, quiet: bool,
    max_expand: int, **options: Any,
) -> None:  # fmt: skip
    """Export the layer at ADDRESS for MAAS, or an image's kernel and initramfs for a network boot.

    Of a whole image MAAS gets the root filesystem.
    """
    if (maas is None) == (pxe is None):
        raise UsageError("export wants --maas NAME or --pxe DIR")
    if entry is not None and pxe is None:
        raise UsageError("--entry goes with --pxe")
    progress = terminal_progress(quiet=quiet)
    if pxe is not None:
        boot = export(address, pxe, entry=entry or "", max_expand=max_expand, progress=progress)
        no_entry = "no boot menu names this kernel; its arguments are to be added to boot.ipxe"
        with reporting_finished_work(f"{pxe} is written"):
            click.echo("\n".join(boot.files))
            click.echo(f"boot entry: {boot.entry}" if boot.entry else no_entry)
        return
    assert maas is not None
    resource = MaasResource(
        maas, options.pop("title") or "", options.pop("arch"), options.pop("base_image"), options.pop("profile")
    )
    target = output or Path(resource.file_name)
    exported = export(address, target, maas=resource, max_expand=max_expand, progress=progress, **options)
    with reporting_finished_work(f"{target} is written"):
        click.echo(f"layer {exported.layer}")
        click.echo(f"{target}: {exported.size} bytes, SHA-256 {exported.sha256}, also in {target}.sha256")
        click.echo(exported.command)
