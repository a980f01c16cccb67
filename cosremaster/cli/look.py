"""Commands that look into any layer and take things out: ls, cat, stat, tree, find, extract.

The listing itself is in ``listing``, which loads next to nothing.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from pathlib import Path

import click

from cosremaster.browse.container import NodeRef, enter_if_container, follow, is_container
from cosremaster.browse.extract import extract_nodes, select_nodes
from cosremaster.browse.report import stat_lines
from cosremaster.browse.tar import build_tar
from cosremaster.browse.walk import walk
from cosremaster.cli.listing import list_address, looking, print_json
from cosremaster.cli.options import MAX_EXPAND
from cosremaster.cli.terminal import terminal_progress
from cosremaster.errors import LayerError, printable
from cosremaster.io.output import Output
from cosremaster.io.pieces import PieceTable
from cosremaster.overlay.patterns import Pattern
from cosremaster.tree.nodes import NodeKind
from cosremaster.units import format_size

_ADDRESS = click.argument("address", metavar="ADDRESS")
_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON (docs/json.md).")


@click.command()
@_ADDRESS
@MAX_EXPAND
@click.option("-l", "--long", "long", is_flag=True, help="Mode, owner, size, time (UTC) and symlink target.")
@click.option("-R", "--recursive", is_flag=True, help="Everything below, not into archives.")
@_JSON
def ls_command(address: str, long: bool, recursive: bool, as_json: bool, max_expand: int) -> None:
    """List what stands in the directory, image or archive at ADDRESS, as in in.iso::live.cgz::rootfs.cxz::etc."""
    list_address(address, long=long, recursive=recursive, as_json=as_json, max_expand=max_expand)


@click.command()
@_ADDRESS
@MAX_EXPAND
def cat_command(address: str, max_expand: int) -> None:
    """Write the bytes of the file at ADDRESS to standard output."""
    with looking(address, max_expand) as (_, top, rest):
        at = follow(top, rest)
        _write_out(_content(at).chunks())


def _content(at: NodeRef) -> PieceTable:
    """:raises LayerError: no file with data."""
    if at.node.content is None:
        raise LayerError(f"is a {at.node.kind.noun}, which has no bytes", at.place)
    return at.node.content.table()


def _write_out(chunks: Iterable[bytes]) -> None:
    sys.stdout.flush()
    for chunk in chunks:
        sys.stdout.buffer.write(chunk)
    sys.stdout.buffer.flush()


@click.command()
@_ADDRESS
@MAX_EXPAND
@_JSON
def stat_command(address: str, as_json: bool, max_expand: int) -> None:
    """Print all that is known about what stands at ADDRESS."""
    with looking(address, max_expand) as (_, top, rest):
        at = follow(top, rest, last=False)
        if as_json:
            print_json([at])
            return
        digest = at.node.content.digest().hex() if at.node.content is not None else None
        if not at.node.path:
            contains: str | None = at.container.kind
        else:
            contains = enter_if_container(at).container.kind if is_container(at.node) else None
        for line in stat_lines(at, digest, contains):
            click.echo(line)


@click.command()
@_ADDRESS
@MAX_EXPAND
def tree_command(address: str, max_expand: int) -> None:
    """Print everything at ADDRESS as a tree, through all layers."""
    with looking(address, max_expand) as (_, top, rest):
        at = enter_if_container(follow(top, rest))
        click.echo(at.address)
        for one, depth in walk(at.container, at.node.path) if at.node.kind is NodeKind.DIRECTORY else ():
            mark = {NodeKind.DIRECTORY: "/", NodeKind.SYMLINK: f" -> {printable(one.node.target)}"}.get(
                one.node.kind, ""
            )
            click.echo(f"{'  ' * (depth + 1)}{printable(one.node.path.rpartition(b'/')[2])}{mark}")


@click.command()
@_ADDRESS
@MAX_EXPAND
@click.argument("pattern")
@_JSON
def find_command(address: str, pattern: str, as_json: bool, max_expand: int) -> None:
    """Print the address of everything whose path matches PATTERN, in all layers.

    A pattern is matched against the whole path in each container; * does not cross /, ** does: **/*.conf
    """
    wanted = Pattern(os.fsencode(pattern))
    with looking(address, max_expand) as (_, top, rest):
        at = enter_if_container(follow(top, rest))
        found = (one for one, _ in walk(at.container, at.node.path) if wanted.matches(one.node.path))
        if as_json:
            print_json(found)
            return
        for one in found:
            click.echo(one.address)


@click.command()
@_ADDRESS
@MAX_EXPAND
@click.argument("target", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--as", "form", type=click.Choice(["tar"]), help="Write a tar archive to DIR (- is standard output).")
@click.option("--force", is_flag=True, help="Replace an existing archive.")
@click.option("--quiet", is_flag=True, help="Print nothing but errors.")
def extract_command(address: str, target: Path, form: str | None, force: bool, quiet: bool, max_expand: int) -> None:
    """Take what stands at ADDRESS out into the new folder DIR, or into a tar archive.

    Nothing is written outside DIR, and DIR appears only when it is complete. Without root, owners and device
    nodes go into DIR.mtree. A tar archive keeps everything.
    """
    progress = terminal_progress(quiet=quiet)
    with looking(address, max_expand) as (source, top, rest):
        nodes = select_nodes(enter_if_container(follow(top, rest)))
        size = sum(node.content.size for node in nodes if node.content is not None)
        if form == "tar":
            table = build_tar(nodes).table()
            if str(target) == "-":
                _write_out(table.chunks())
                return
            with Output(target, source.local_paths, force=force) as output:
                with progress.step(f"write {target}", table.length) as advance:
                    output.write(table, None, advance)
                source.check_unchanged()
                output.publish()
            done = f"{target}: {len(nodes):,} entries, {format_size(table.length)}"
        else:
            with progress.step(f"extract to {target}", size) as advance:
                made = extract_nodes(nodes, target, advance)
            done = f"{target}: {made.files:,} files, {made.folders:,} directories, {made.others:,} others"
            if made.mtree is not None:
                done += f"; owners and devices in {made.mtree}"
    if not quiet:
        click.echo(done)
