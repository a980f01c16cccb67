"""The command that writes what MAAS or a network boot takes."""

from __future__ import annotations

from pathlib import Path

import click

from cosremaster.browse.container import enter_if_container, follow
from cosremaster.browse.export import MaasResource, gzip_tar, list_pxe_files
from cosremaster.browse.extract import extract_nodes, select_nodes
from cosremaster.browse.tar import build_tar
from cosremaster.cli.listing import looking
from cosremaster.cli.options import MAX_EXPAND
from cosremaster.cli.terminal import terminal_progress
from cosremaster.errors import UsageError
from cosremaster.io.output import Output
from cosremaster.io.parallel import cpu_count
from cosremaster.io.spool import Spool
from cosremaster.io.streams import sha256_of


@click.command()
@click.argument("address", metavar="ADDRESS")
@click.option("--maas", metavar="NAME", help="Write the layer as a .tar.gz for MAAS, as custom/NAME.")
@click.option("--pxe", metavar="DIR", type=click.Path(path_type=Path), help="Kernel, initramfs, iPXE script into DIR.")
@click.option("--title", help="What MAAS shows; NAME by default.")
@click.option("--arch", default="amd64/generic", show_default=True, help="MAAS architecture.")
@click.option("--output", type=click.Path(path_type=Path), help="The archive; NAME.tar.gz by default.")
@click.option("--threads", type=click.IntRange(min=1), help="Threads that compress; all processors by default.")
@click.option("--force", is_flag=True, help="Replace an existing archive.")
@click.option("--quiet", is_flag=True, help="No progress.")
@MAX_EXPAND
def export_command(
    address: str, maas: str | None, pxe: Path | None, title: str | None, arch: str, output: Path | None,
    threads: int | None, force: bool, quiet: bool, max_expand: int,
) -> None:  # fmt: skip
    """Export the root filesystem layer at ADDRESS for MAAS, or an image's kernel and initramfs for a network boot."""
    if (maas is None) == (pxe is None):
        raise UsageError("export wants --maas NAME or --pxe DIR")
    progress = terminal_progress(quiet=quiet)
    with looking(address, max_expand) as (source, top, rest):
        at = enter_if_container(follow(top, rest))
        if pxe is not None:
            nodes = list(list_pxe_files(at.container))
            with progress.step(f"export to {pxe}", None) as advance:
                extract_nodes(nodes, pxe, advance, notes=False)
            click.echo("\n".join(f"{pxe}/{node.path.decode(errors='backslashreplace')}" for node in nodes))
            return
        assert maas is not None
        name = maas if "/" in maas else f"custom/{maas}"
        resource = MaasResource(name=name, title=title or name.rpartition("/")[2], architecture=arch)
        target = output or Path(resource.file_name)
        tar = build_tar(select_nodes(at))
        with Output(target, source.local_paths, force=force) as result, Spool(result.folder) as spool:
            with progress.step(f"pack {target}", tar.table().length) as advance:
                table = gzip_tar(tar, spool, threads or cpu_count(), advance)
            result.write(table, None, lambda count: None)
            digest = sha256_of(table.chunks())
            source.check_unchanged()
            result.publish()
        click.echo(f"{target}: {table.length} bytes, SHA-256 {digest.hex()}")
        click.echo(resource.command(str(target), table.length, digest))
