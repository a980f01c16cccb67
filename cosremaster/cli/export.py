"""The command that exports for MAAS or for a network boot."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from cosremaster.api.functions import export
from cosremaster.browse.export import MaasResource
from cosremaster.browse.system_archives import ContainerImage, LxdImage
from cosremaster.cli.expected import takes_expected
from cosremaster.cli.options import GZIP, JSON, MAX_EXPAND, InputAddress, LocalPath, NewFilePath, StrictCommand
from cosremaster.cli.standard_streams import reporting_finished_work, write_json
from cosremaster.cli.terminal import terminal_progress
from cosremaster.errors import UsageError

if TYPE_CHECKING:
    from cosremaster.api.views import Export

_OF_MAAS = ("title", "base_image", "profile")
_OF_ARCHIVES = ("exclude", "clean", "sparse", "gzip", "output", "threads", "force", "arch")
"""Parameters that have an effect on some exports alone."""


@click.command(cls=StrictCommand)
@click.argument("address", metavar="ADDRESS", type=InputAddress())
@click.option("--maas", metavar="NAME", help="Write the layer as a .tar.gz for MAAS, as custom/NAME.")
@click.option("--lxd", metavar="NAME", help="Write the layer as an image of LXD or Incus, NAME.tar.gz.")
@click.option(
    "--docker", metavar="NAME[:TAG]", help="Write the layer as an OCI image that docker load and podman take, NAME.tar."
)
@click.option("--pxe", metavar="DIR", type=LocalPath(), help="Kernel, initramfs, iPXE script into DIR.")
@click.option(
    "--entry", metavar="ENTRY", help="Number, title or label of the boot entry for --pxe; else the default one."
)
@click.option(
    "--exclude", metavar="PATTERN", multiple=True, help="Leave out what PATTERN matches (/srv/**); repeatable."
)
@click.option(
    "--maas-clean",
    "clean",
    is_flag=True,
    help="Leave out host keys, cloud-init's state, apt's caches and *.dpkg-old; empty the machine-id.",
)
@click.option("--sparse", is_flag=True, help="Holes of files take no place in the archive (GNU tar's form).")
@GZIP
@click.option("--title", help="What MAAS shows; NAME by default.")
@click.option(
    "--arch", default="", help="Architecture, as MAAS has it; by default that of its programs, or else amd64/generic."
)
@click.option(
    "--base-image",
    default="",
    metavar="OS/RELEASE",
    help="MAAS' own image that installs it, as in ubuntu/jammy; by default that of an Ubuntu system.",
)
@click.option("--profile", default="admin", show_default=True, help="Profile of the maas command.")
@click.option("--output", type=NewFilePath(), help="The archive; named after NAME by default.")
@click.option("--threads", type=click.IntRange(min=1), help="Threads that compress; all processors by default.")
@click.option("--force", is_flag=True, help="Replace an existing archive.")
@JSON
@MAX_EXPAND
@takes_expected("address", "ADDRESS")
def export_command(
    address: str, maas: str | None, lxd: str | None, docker: str | None, pxe: Path | None, entry: str | None,
    as_json: bool, **options: Any,
) -> None:  # fmt: skip
    """Export the layer at ADDRESS for MAAS, LXD or Docker, or an image's kernel and initramfs for a network boot.

    Of a whole image the root filesystem is exported.
    """
    if sum(choice is not None for choice in (maas, lxd, docker, pxe)) != 1:
        raise UsageError("export wants --maas NAME, --lxd NAME, --docker NAME or --pxe DIR")
    if entry is not None and pxe is None:
        raise UsageError("--entry goes with --pxe")
    if entry is not None and not entry.strip():
        raise UsageError("--entry is empty, and names no boot entry; without it the default one is taken")
    _check_options(is_boot=pxe is not None, is_maas=maas is not None)
    progress = terminal_progress(quiet=False)  # --quiet counts for all commands, and leaves results
    max_expand = options.pop("max_expand")
    if pxe is not None:
        boot = export(address, pxe, entry=entry or "", max_expand=max_expand, progress=progress)
        no_entry = "no boot menu names this kernel; its arguments are to be added to boot.ipxe"
        with reporting_finished_work(f"{pxe} is written"):
            if as_json:
                _print_values(boot)
                return
            click.echo("\n".join(boot.files))
            click.echo(f"boot entry: {boot.entry}" if boot.entry else no_entry)
        return
    archive = _make_archive(maas, lxd, docker, options)
    target = options.pop("output") or Path(archive.file_name)
    exported = export(address, target, archive=archive, max_expand=max_expand, progress=progress, **options)
    with reporting_finished_work(f"{target} is written"):
        if as_json:
            _print_values(exported)
            return
        click.echo(f"layer {exported.layer}")
        packed = "" if archive.gzip == "zlib" else f"gzip by {archive.gzip}, "
        click.echo(f"{target}: {exported.size} bytes, {packed}SHA-256 {exported.sha256}, also in {target}.sha256")
        click.echo(exported.command)


def _check_options(*, is_boot: bool, is_maas: bool) -> None:
    """Check that no option was given that has no effect on what is made. :raises UsageError: one was."""
    context = click.get_current_context()
    idle = (*(() if is_maas else _OF_MAAS), *(_OF_ARCHIVES if is_boot else ()))
    for parameter in context.command.params:
        name = parameter.name or ""
        if name in idle and context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            what = "--maas" if name in _OF_MAAS else "an archive: --maas, --lxd or --docker"
            raise UsageError(f"{parameter.opts[-1]} goes with {what}")


def _print_values(exported: Export) -> None:
    """Print what was exported as JSON."""
    from cosremaster.cli.outcomes import export_report  # noqa: PLC0415 - after the work

    write_json(export_report(exported))


def _make_archive(
    maas: str | None, lxd: str | None, docker: str | None, options: dict[str, Any]
) -> MaasResource | LxdImage | ContainerImage:
    """Return the archive that the options mean, and take those that it has out of ``options``.

    :raises UsageError: it cannot have such a name.
    """
    title, base_image, profile = (options.pop(key) for key in ("title", "base_image", "profile"))
    values = {"exclude": tuple(options.pop("exclude")), "architecture": options.pop("arch")}
    values |= {key: options.pop(key) for key in ("clean", "sparse", "gzip")}
    if maas is not None:
        return MaasResource(name=maas, title=title or "", base_image=base_image, profile=profile, **values)
    if lxd is not None:
        return LxdImage(name=lxd, **values)
    assert docker is not None
    return ContainerImage(name=docker, **values)
