"""The command that checks an image."""

from __future__ import annotations

from pathlib import Path

import click

from cosremaster.api.functions import verify
from cosremaster.cli.colors import paint_finding
from cosremaster.cli.expected import takes_expected
from cosremaster.cli.looking import LookingProgress
from cosremaster.cli.options import AGAINST_MISSING, InputPath, StrictCommand
from cosremaster.cli.standard_streams import write_json
from cosremaster.errors import UsageError
from cosremaster.io.urls import Url
from cosremaster.reports.verify import verify_lines, verify_report


@click.command(cls=StrictCommand)
@click.argument("source", metavar="IMAGE", type=InputPath())
@click.option(
    "--against",
    metavar="ORIGINAL",
    type=InputPath(),
    help="Compare with the image it was made from; what is wrong there too does not count.",
)
@click.option(
    "--changed", multiple=True, metavar="PATH",
    help="A path on the image, or in a FAT file system on it, that may differ from ORIGINAL's, or be in one of both"
    " alone. Repeatable.",
)  # fmt: skip
@click.option("--changed-volume", is_flag=True, help="The volume id and date may differ from ORIGINAL's.")
@click.option("--deep", is_flag=True, help="Decode every layer.")
@click.option("--digest", is_flag=True, help="Compare with IMAGE.sha256 or IMAGE.md5, as sha256sum -c does.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@takes_expected("source", "IMAGE", "against", "ORIGINAL")
def verify_command(
    source: Path | Url, against: Path | Url | None, changed: tuple[str, ...], changed_volume: bool, as_json: bool,
    **checks: bool,
) -> int:  # fmt: skip
    """Check every pointer of IMAGE, where it leads, and whether it holds. Ends with 1 if something fails."""
    if (changed or changed_volume) and against is None:
        raise UsageError(AGAINST_MISSING if changed else AGAINST_MISSING.replace("--changed", "--changed-volume"))
    progress = LookingProgress()
    report = verify(
        source, against=against, changed=changed, changed_volume=changed_volume, progress=progress, **checks
    )
    if as_json:
        write_json(verify_report(report))
    else:
        for line in verify_lines(report):
            click.echo(paint_finding(line))
    return 0 if report.ok else 1
