"""The command that writes the man pages."""

from __future__ import annotations

from pathlib import Path

import click

from cosremaster.cli.man_pages import write_pages
from cosremaster.cli.options import LocalPath, StrictCommand


@click.command(cls=StrictCommand)
@click.argument("folder", metavar="DIR", type=LocalPath(file_okay=False))
def man_command(folder: Path) -> None:
    """Write the man pages of the program and its commands into the folder DIR.

    Packages install them. Without one, ~/.local/share/man/man1 is where man looks.
    """
    paths = write_pages(folder)
    click.echo(f"{folder}: {len(paths)} pages; man -l {paths[0]} shows the first")
