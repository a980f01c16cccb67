"""The command that serves images of sites over HTTP."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import click

from cosremaster.cli.options import LocalPath, StrictCommand
from cosremaster.errors import OutputError, UsageError
from cosremaster.serve.access_log import AccessLog
from cosremaster.serve.app import ServeApp
from cosremaster.serve.listen import ServerLimits, format_address, open_socket, parse_address
from cosremaster.serve.sites import SiteImages
from cosremaster.serve.tokens import Tokens

TOKENS_VARIABLE = "COSREMASTER_TOKENS"


@click.command(cls=StrictCommand)
@click.argument("files", metavar="FILE...", nargs=-1, required=True, type=LocalPath())
@click.option(
    "--listen", default="127.0.0.1:8080", show_default=True, metavar="HOST:PORT",
    help="Where to listen; port 0 is any free one.",
)  # fmt: skip
@click.option(
    "--token-file", metavar="FILE", type=LocalPath(),
    help=f"A token in each line, and behind it the sites that it opens, none for all; else those in {TOKENS_VARIABLE}.",
)  # fmt: skip
@click.option("--log", "log_file", metavar="FILE", type=LocalPath(), help="Append the access log to FILE.")
@click.option(
    "--plans", type=click.IntRange(min=1), default=1000, show_default=True, metavar="N",
    help="Keep the plans of N sites in memory.",
)  # fmt: skip
@click.option(
    "--connections", type=click.IntRange(min=1), default=1024, show_default=True, metavar="N",
    help="Take N connections at a time; from one address a quarter of them, on loopback all.",
)  # fmt: skip
def serve_command(
    files: tuple[Path, ...], listen: str, token_file: Path | None, log_file: Path | None, plans: int, connections: int
) -> None:
    """Serve the images of sites over HTTP, without writing them.

    FILE is a fleet, as for `cosremaster fleet`; or each FILE is a recipe, which is a site of its name, or a folder of
    recipes.
    Sites may appear, change and vanish while the server runs.

    /SITE.iso is the image, /SITE.iso.sha256 its checksum, /SITE/boot.ipxe a script that boots its kernel, and / lists
    the sites. With tokens, /s/TOKEN/ stands before all of these. The access log, JSON in lines, goes to standard
    output.
    """
    from cosremaster.serve.catalogs import open_catalog  # noqa: PLC0415 - needs pydantic, which help does not
    from cosremaster.serve.server import make_server  # noqa: PLC0415 - it says which package is missing

    address = parse_address(listen)
    tokens = _read_tokens(token_file)
    catalog = open_catalog(files)
    names = catalog.names()
    with open_socket(address) as listener:
        bound = address._replace(port=listener.getsockname()[1])
        log = AccessLog(_open_log(log_file))
        sites = SiteImages(catalog, plans)
        count = f"{len(names)} site{'s' if len(names) != 1 else ''}"
        limits = ServerLimits(connections, connections if address.is_loopback else -(-connections // 4))
        server = make_server(ServeApp(sites, log, tokens, catalog.title), limits)
        try:
            with server.capture_signals():  # from the first line on, an end is orderly
                sys.stderr.write(f"serving {count} at http://{format_address(bound)}/\n")
                if not tokens and not address.is_loopback:
                    sys.stderr.write(
                        "warning: anybody who reaches this address can read all sites: --token-file limits that\n"
                    )
                sys.stderr.flush()
                server.run(sockets=[listener])
        finally:
            log.close()
            sites.close()
    sys.stderr.write("stopped\n")


def _read_tokens(path: Path | None) -> Tokens:
    """Return the tokens in the file ``path``, or in the environment. :raises UsageError: they cannot be read."""
    if path is None:
        return Tokens(os.environ.get(TOKENS_VARIABLE, "").splitlines(), TOKENS_VARIABLE)
    try:
        tokens = Tokens(path.read_text("utf-8-sig").splitlines(), str(path))
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "is no text"
        raise UsageError(f"--token-file {path}: {reason}") from error
    if not tokens:
        raise UsageError(f"--token-file {path}: has no token")
    return tokens


def _open_log(path: Path | None) -> Callable[[str], object]:
    """Return what appends text to ``path``, or to standard output. :raises OutputError: it cannot be opened."""
    if path is None:
        return _write_output
    try:
        return path.open("a", encoding="utf-8", buffering=1).write
    except OSError as error:
        raise OutputError(f"--log {path}: {error.strerror}") from error


def _write_output(text: str) -> None:
    """Write ``text`` to standard output."""
    sys.stdout.write(text)
    sys.stdout.flush()
