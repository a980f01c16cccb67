"""Arguments, results on standard output, errors on standard error, exit codes (docs/exit-codes.md)."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

import click

from cosremaster import __version__
from cosremaster.cli.terminal import terminal_progress
from cosremaster.demo import run_demo
from cosremaster.errors import CosremasterError, LayerError
from cosremaster.files import FileSource
from cosremaster.layers.address import parse_address
from cosremaster.overlay.request import Add
from cosremaster.pipeline import Result, choose_layer, find_layers, open_image, remaster
from cosremaster.reports.text import change_lines, image_lines, layer_lines, packed_line
from cosremaster.units import human

INTERRUPTED = 128

_EPILOG = """\b
Other commands: cosremaster inspect IMAGE, cosremaster demo [--keep DIR].
(For a file of such a name write ./inspect.)"""


def _version(context: click.Context, _: click.Parameter, value: bool) -> None:
    if value:
        click.echo(f"cosremaster {__version__}")
        context.exit()


@click.command(epilog=_EPILOG)
@click.argument("source", metavar="IN", type=click.Path(path_type=Path))
@click.argument("target", metavar="OUT", type=click.Path(path_type=Path))
@click.option(
    "--add", "adds", multiple=True, metavar="SRC[:DEST]",
    help="Add a file or a directory's contents to the root filesystem. DEST is absolute in it; a file goes into"
    " DEST if that ends in / or is a directory. Without DEST a directory merges at /. May be given again.",
)  # fmt: skip
@click.option(
    "--layer", metavar="ADDRESS", help="The layer to add to, as in live.cgz::rootfs.cxz; else found by content."
)
@click.option("--force", is_flag=True, help="Replace OUT if it exists.")
@click.option("--threads", type=click.IntRange(min=1), help="Threads that compress; all processors by default.")
@click.option("--quiet", is_flag=True, help="Print nothing but errors.")
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_version, help="Print the version."
)
def remaster_command(
    source: Path, target: Path, adds: tuple[str, ...], layer: str | None, force: bool, threads: int | None, quiet: bool
) -> None:
    """Write the bootable image IN to OUT with files added to its root filesystem.

    IN is never changed. OUT appears under its name only when it is complete and proved.
    """
    result = remaster(
        source, target, add=[Add.parse(text) for text in adds], layer=layer, force=force, threads=threads,
        progress=terminal_progress(quiet=quiet),
    )  # fmt: skip
    if not quiet:
        print_result(result, target)


def print_result(result: Result, target: Path) -> None:
    """What was done, on standard output."""
    change = "identical to the input" if result.identical else f"was {human(result.input_size)}"
    click.echo(f"{target}: {human(result.output_size)} ({change})")
    if result.layer is not None:
        counts = (
            (len(result.added), "added"), (len(result.replaced), "replaced"), (len(result.removed), "removed"),
            (len(result.parents), "made as parents"), (len(result.unchanged), "unchanged"),
        )  # fmt: skip
        told = ", ".join(f"{count:,} {word}" for count, word in counts if count) or "nothing to do"
        click.echo(f"{result.layer}: {told}")
        for mark, paths in (("+", result.added), ("~", result.replaced), ("-", result.removed), ("d", result.parents)):
            for line in change_lines(mark, paths):
                click.echo(line)
    for layer in result.packed:
        click.echo(packed_line(layer.address, layer.codec, layer.packed))
    click.echo("proved:")
    for line in result.proof:
        click.echo(f"  {line}")


@click.command()
@click.argument("source", metavar="IMAGE", type=click.Path(path_type=Path))
@click.option("--layer", metavar="ADDRESS", help="Look into this layer's file alone.")
def inspect_command(source: Path, layer: str | None) -> None:
    """Show an image's boot records, partitions and layers with their codecs and sizes."""
    wanted = None if layer is None else parse_address(layer)
    with FileSource(source) as file:
        image = open_image(file)
        for line in image_lines(image):
            click.echo(line)
        found = find_layers(image, wanted, terminal_progress(quiet=not sys.stderr.isatty()))
        try:
            chosen, why = choose_layer(image, found, wanted), ""
        except LayerError as error:
            chosen, why = None, error.message
        for line in layer_lines(found.layers, chosen):
            click.echo(line)
        if why:
            click.echo(f"--add has no layer to go to: {why}")


@click.command()
@click.option("--keep", metavar="DIR", type=click.Path(path_type=Path), help="Keep the images in DIR.")
def demo_command(keep: Path | None) -> None:
    """Build a small image and remaster it."""
    run_demo(keep, click.echo, print_result)


COMMANDS: dict[str, click.Command] = {"inspect": inspect_command, "demo": demo_command}


class _Stopped(BaseException):
    """A signal asked us to end; unwinding removes what is unfinished."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def _stop(number: int, _: FrameType | None) -> None:
    raise _Stopped(number)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the program and returns its exit code. ``arguments``: those of the process when None."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    command, name = remaster_command, "cosremaster"
    if words and words[0] in COMMANDS:
        command, name = COMMANDS[words[0]], f"cosremaster {words[0]}"
        words = words[1:]
    before = {number: signal.signal(number, _stop) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        code = command.main(words, prog_name=name, standalone_mode=False)
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or the interpreter complains at its end
        return INTERRUPTED + signal.SIGPIPE
    except (click.ClickException, click.Abort, CosremasterError, KeyboardInterrupt, _Stopped) as error:
        return _explain(error)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _explain(error: BaseException) -> int:
    """Says on standard error why the program ends, and returns its exit code."""
    if isinstance(error, click.ClickException):
        error.show()
        return error.exit_code
    if isinstance(error, CosremasterError):
        click.echo(f"cosremaster: {error}", err=True)
        return error.exit_code
    if isinstance(error, _Stopped):
        click.echo("cosremaster: stopped", err=True)
        return INTERRUPTED + error.number
    click.echo("cosremaster: interrupted", err=True)
    return INTERRUPTED + signal.SIGINT
