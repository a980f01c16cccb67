"""The command that makes a base for many remasters."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cosremaster.api.image import Image
from cosremaster.cli.commands import takes_options, takes_output_options
from cosremaster.cli.expected import takes_expected
from cosremaster.cli.options import MAX_EXPAND, QUIET, InputPath, OutputPath, StreamPath, StrictCommand
from cosremaster.cli.standard_streams import reporting_finished_work, write_json
from cosremaster.cli.terminal import terminal_progress
from cosremaster.errors import UsageError
from cosremaster.io.urls import Url
from cosremaster.units import format_size

if TYPE_CHECKING:
    from cosremaster.api.results import Preparation, PreparedLayer
    from cosremaster.reports.documents import PreparationDocument


@click.command(cls=StrictCommand)
@click.argument("source", metavar="IN", type=InputPath())
@click.argument("target", metavar="OUT", type=OutputPath())
@click.option(
    "--block-size", metavar="SIZE", default="4M", show_default=True,
    help="Decoded bytes of a block at most, which a later change compresses again: 64K to 1024M.",
)  # fmt: skip
@takes_options(("layer", "threads", "xz_preset"))
@MAX_EXPAND
@takes_output_options
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@QUIET
@takes_expected("source", "IN")
def prepare_command(
    source: Path | Url,
    target: Path,
    max_expand: int,
    as_json: bool,
    quiet: bool,
    layer: tuple[str, ...],
    **options: Any,
) -> None:
    """Write IN to OUT as a base for many remasters, of which a change of an early file costs little.

    Nothing in it changes. Layers are cut into blocks that are compressed one without the others, and files that people
    change early, such as etc/hostname, get blocks of their own. What is prepared already is copied.
    """
    if isinstance(target, StreamPath):
        raise UsageError("a base is a file that later runs read: prepare writes none to standard output")
    progress = terminal_progress(quiet=quiet)
    with Image(source, max_expand=max_expand) as image:
        prepared = image.write_base(target, layer=layer or None, progress=progress, **options)
    if quiet and not as_json:
        return
    with reporting_finished_work(f"{target} is written and proved"):
        if as_json:
            write_json(preparation_report(prepared, target))
        else:
            for line in _summary_lines(prepared, target):
                click.echo(line)


def preparation_report(prepared: Preparation, target: Path) -> PreparationDocument:
    """Return ``prepared``, which wrote ``target``, as plain values (docs/json.md)."""
    return {
        "schema": 1,
        "output": str(target),
        "identical": prepared.identical,
        "seconds": round(prepared.seconds, 3),
        "size": {"before": prepared.input_size, "after": prepared.output_size},
        "layers": [
            {
                "layer": layer.layer, "codec": layer.codec, "reason": layer.reason,
                "parts": {"before": layer.parts[0], "after": layer.parts[1]},
                "largest_part": {"before": layer.largest_part[0], "after": layer.largest_part[1]},
                "packed": {"before": layer.packed[0], "after": layer.packed[1]},
            }
            for layer in prepared.layers
        ],
        "warnings": list(prepared.warnings),
        "proof": list(prepared.proof),
    }  # fmt: skip


def _summary_lines(prepared: Preparation, target: Path) -> Iterator[str]:
    """Yield the summary of a preparation as lines."""
    before, after = prepared.input_size, prepared.output_size
    if prepared.identical:
        yield f"{target}: {format_size(after)}, a copy: there is nothing to do"
    else:
        grown = f"{100 * (after - before) / before:+.1f} %"
        yield f"{target}: {format_size(after)} (was {format_size(before)}, {grown}) in {prepared.seconds:.1f} s"
    for layer in prepared.layers:
        yield _layer_line(layer)
    yield "proved:"
    for line in prepared.proof:
        yield f"  {line}"


def _layer_line(layer: PreparedLayer) -> str:
    """Return what became of a layer."""
    if layer.reason is not None:
        return f"{layer.layer} {layer.reason}"
    (count, new_count), (largest, new_largest), (size, new_size) = layer.parts, layer.largest_part, layer.packed
    return (
        f"{layer.codec} {layer.layer}: {format_size(size)} -> {format_size(new_size)}, {count:,} -> {new_count:,}"
        f" blocks; a change encodes at most {format_size(new_largest)} again, where it was {format_size(largest)}"
    )
