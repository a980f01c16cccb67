"""The command that serves images of sites over HTTP."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from cosremaster.cli.options import LocalPath, NewFilePath, StrictCommand
from cosremaster.cli.serve_log import open_log
from cosremaster.errors import UsageError
from cosremaster.records.tuples import NamedTuple
from cosremaster.serve.access_log import AccessLog
from cosremaster.serve.app import ServeApp
from cosremaster.serve.listen import Address, ServerLimits, fit_connections, format_address, open_socket, parse_address
from cosremaster.serve.sites import SiteImages
from cosremaster.serve.tokens import TokenList, read_token_lines

TOKENS_VARIABLE = "COSREMASTER_TOKENS"
MOST_WORKERS = 256


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
@click.option("--log", "log_file", metavar="FILE", type=NewFilePath(), help="Append the access log to FILE.")
@click.option(
    "--plans", type=click.IntRange(min=1), default=1000, show_default=True, metavar="N",
    help="Keep the plans of N sites in memory, each server process its own.",
)  # fmt: skip
@click.option(
    "--connections", type=click.IntRange(min=1), default=1024, show_default=True, metavar="N",
    help="Take N connections at a time; from one address a quarter of them, on loopback all.",
)  # fmt: skip
@click.option(
    "--workers", type=click.IntRange(1, MOST_WORKERS), default=1, show_default=True, metavar="N",
    help="Serve by N processes, each of which takes the memory of one: for a machine with several cores.",
)  # fmt: skip
def serve_command(
    files: tuple[Path, ...], listen: str, token_file: Path | None, log_file: Path | None, plans: int,
    connections: int, workers: int,
) -> None:  # fmt: skip
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
    counting = tokens.open()
    catalog = open_catalog(files)
    names = catalog.names()
    room = fit_connections(connections)
    if room < connections:
        sys.stderr.write(f"warning: {room} connections at a time, as no more files may be open (ulimit -n)\n")
    connections = room
    limits = ServerLimits(connections, connections if address.is_loopback else -(-connections // 4))
    with open_socket(address) as listener:
        start = StartMessage(address._replace(port=listener.getsockname()[1]), len(names), is_open=not counting)
        if workers > 1:
            from cosremaster.cli.serve_workers import ServeSetup, serve_by_workers  # noqa: PLC0415 - few serve so

            log_name = None if log_file is None else str(log_file)
            setup = ServeSetup(tuple(map(str, files)), tokens, log_name, plans, limits, workers)
            serve_by_workers(setup, listener, start.write)
        else:
            log = AccessLog(open_log(log_file))
            sites = SiteImages(catalog, plans, log.metrics)
            server = make_server(ServeApp(sites, log, counting, catalog.title), limits)
            try:
                with server.capture_signals():  # from the first line on, an end is orderly
                    start.write()
                    server.run(sockets=[listener])
            finally:
                log.close()
                sites.close()
    sys.stderr.write("stopped\n")


class StartMessage(NamedTuple):
    """What is said when the server is ready. ``sites``: how many; ``is_open``: without tokens."""

    address: Address
    sites: int
    is_open: bool

    def write(self) -> None:
        """Write it to standard error."""
        plural = "s" if self.sites != 1 else ""
        sys.stderr.write(f"serving {self.sites} site{plural} at http://{format_address(self.address)}/\n")
        if self.is_open and not self.address.is_loopback:
            sys.stderr.write("warning: anybody who reaches this address can read all sites: --token-file limits that\n")
        sys.stderr.flush()


def _read_tokens(path: Path | None) -> TokenList:
    """Return the tokens in the file ``path``, or in the environment. :raises UsageError: they cannot be read."""
    if path is None:
        return TokenList(tuple(os.environ.get(TOKENS_VARIABLE, "").splitlines()), TOKENS_VARIABLE)
    if path.is_file():
        return TokenList((), str(path), str(path))
    tokens = TokenList(read_token_lines(path), str(path))  # a pipe is read once, and by no other process
    if not tokens.open():
        raise UsageError(f"--token-file {path}: has no token")
    return tokens
