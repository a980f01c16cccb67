"""The command that makes the images of a fleet."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click

from cosremaster.cli.messages import say, warn, write_event
from cosremaster.cli.options import QUIET, LocalPath, StrictCommand
from cosremaster.cli.settings import Settings
from cosremaster.cli.standard_streams import reporting_finished_work, write_json
from cosremaster.cli.tables import NUMBER, print_table
from cosremaster.cli.terminal import is_live, looking_progress, terminal_progress
from cosremaster.errors import UsageError, printable
from cosremaster.progress import SITES, Advance, begin_work
from cosremaster.progress.events import SiteEnded
from cosremaster.records import replace
from cosremaster.remastering.request import Request
from cosremaster.units import format_size

if TYPE_CHECKING:
    from cosremaster.fleet.run import FleetPlan, FleetReport
    from cosremaster.fleet.state import SiteRecord
    from cosremaster.reports.documents import FleetPlanDocument, SiteDocument


@click.command(cls=StrictCommand)
@click.argument("fleet", metavar="FLEET", type=LocalPath())
@click.option("--only", "names", multiple=True, metavar="NAME", help="Make this site alone. May be given again.")
@click.option("--output-dir", metavar="DIR", type=LocalPath(), help="Write the images to DIR, whatever FLEET says.")
@click.option(
    "--jobs",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Images that are made at once, each by a process of its own.",
)
@click.option(
    "--scheduler",
    metavar="ADDRESS",
    help="Let the workers of a Dask cluster make the images, as in tcp://10.0.0.1:8786; they reach the same paths.",
)
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="NAME=VALUE",
    help="Give a variable of FLEET its value, over the environment's and the default; what a site says comes first.",
)
@click.option(
    "--threads", type=click.IntRange(min=1),
    help="Threads that compress an image; by default all processors, which --jobs shares out.",
)  # fmt: skip
@click.option(
    "--check-index", is_flag=True, help="Trust a remembered index only if the files of the base have its SHA-256."
)
@click.option("--force", is_flag=True, help="Make all images anew, and replace files that are not ours.")
@click.option(
    "--no-sync",
    "sync",
    is_flag=True,
    flag_value=False,
    default=True,
    help="Do not wait until the images are on the disk; a power cut may then lose them.",
)
@click.option("--read-back", is_flag=True, help="Read all images from the disk again and compare every byte.")
@click.option("--plan", "only_plan", is_flag=True, help="Print what would be done, without writing it.")
@click.option("--json", "as_json", is_flag=True, help="Print the records of the sites as JSON.")
@QUIET
def fleet_command(
    fleet: Path, names: tuple[str, ...], only_plan: bool, as_json: bool, quiet: bool, **options: Any
) -> int:
    """Write the images of all sites that the TOML file FLEET describes, from one base.

    What all have in common is done once. Images that are current are left as they are. One that fails stops no other;
    the exit code is the worst.
    """
    from cosremaster.fleet.cluster import open_cluster  # noqa: PLC0415 - needs pydantic, which help does not
    from cosremaster.fleet.read import read_fleet  # noqa: PLC0415 - the same
    from cosremaster.fleet.run import FleetOptions, plan_fleet, run_fleet  # noqa: PLC0415 - the same
    from cosremaster.fleet.state import STATE  # noqa: PLC0415 - the same
    from cosremaster.recipe.variables import parse_settings  # noqa: PLC0415 - the same

    variables = parse_settings(options.pop("settings"))
    if options["scheduler"] is not None and options["jobs"] > 1:
        raise UsageError("--jobs is about processes of this machine, and with --scheduler the cluster has its own")
    threads, folder = options.pop("threads"), options.pop("output_dir")
    read = read_fleet(fleet, variables, threads=threads, output_folder=folder)
    if only_plan:
        planned = plan_fleet(read, names, force=options["force"])
        if as_json:
            write_json(_describe_plan(planned))
            return 0
        for line in _plan_lines(planned):
            click.echo(line)
        return 0
    listener = SiteLines(quiet=quiet)
    scheduler, progress = options.pop("scheduler"), terminal_progress(quiet=quiet)
    try:
        with nullcontext() if scheduler is None else open_cluster(scheduler) as cluster:
            settings = FleetOptions(**options)
            if cluster is not None:
                settings = replace(settings, executor=cluster.executor, window=cluster.window)
            report = run_fleet(read, names, options=settings, listener=listener, progress=progress)
    finally:
        listener.end()
    with reporting_finished_work(f"{report.folder / STATE} tells what became of the sites"):
        if as_json:
            write_json(
                {"schema": 1, "folder": str(report.folder), "sites": [record.plain for record in report.records]}
            )
        elif not quiet:
            for line in _summary_lines(report):
                click.echo(line)
    for record in report.records:
        if record.error:
            say(f"cosremaster: {printable(record.site)}: {record.error}")
    return report.exit_code


class SiteLines:
    """Progress over all sites on standard error: a line that changes on a terminal, elsewhere a line for each site."""

    def __init__(self, *, quiet: bool) -> None:
        """Begin before the first site."""
        self._is_quiet = quiet or Settings.progress == "none"
        self._is_live = is_live() and Settings.progress != "json"
        self._total = self._finished = 0
        self._start = time.monotonic()
        self._steps = ExitStack()
        self._advance: Advance = lambda count: None

    def begin(self, count: int, current: int, has_common: bool) -> None:
        """Say how many sites there are, and that what is common is ready."""
        self._total, self._start = count, time.monotonic()
        if not self._is_quiet:
            common = ", from a base with what is common to all" if has_common else ""
            say(f"{count:,} to make{common}; {current:,} current")
        if count and not (self._is_quiet or self._is_live):  # sites may take long
            step = begin_work(looking_progress(), "make images", count, SITES)
            self._advance = self._steps.enter_context(step)

    def add(self, record: SiteRecord) -> None:
        """Say what became of a site, and how long the others will take."""
        self._finished += 1
        self._advance(1)
        for warning in record.warnings:
            warn(f"{printable(record.site)}: {warning}")
        if self._is_quiet:
            return
        spent = time.monotonic() - self._start
        rest = spent / self._finished * (self._total - self._finished)
        if Settings.progress == "json":
            write_event(
                SiteEnded(
                    site=printable(record.site), number=self._finished, total=self._total, size=record.size,
                    seconds=record.seconds, error=record.error, seconds_left=rest,
                )
            )  # fmt: skip
            return
        outcome = "failed" if record.error else f"{format_size(record.size)} in {record.seconds:.1f} s"
        line = f"[{self._finished:,}/{self._total:,}] {printable(record.site)}: {outcome}; {_clock(rest)} left"
        sys.stderr.write(f"\r\x1b[K{line}" if self._is_live else f"{line}\n")
        sys.stderr.flush()

    def end(self) -> None:
        """End what goes on beside the sites, and the line that changes."""
        self._steps.close()
        if self._is_live and self._finished and not self._is_quiet:
            sys.stderr.write("\r\x1b[K")


def _clock(seconds: float) -> str:
    """Return ``seconds`` as minutes and seconds, with hours where there are any."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}" if minutes >= 60 else f"{minutes}:{rest:02}"


def _summary_lines(report: FleetReport) -> Iterator[str]:
    """Yield what became of the sites as a table."""
    from cosremaster.fleet.state import STATE, SUMS  # noqa: PLC0415 - loaded by then

    rows = [
        (printable(record.site), record.state, format_size(record.size) if record.size else "",
         f"{record.seconds:.1f} s" if record.state == "written" else "", _format_changes(record))
        for record in report.records
    ]  # fmt: skip
    if not print_table(("site", "state", f"size{NUMBER}", f"time{NUMBER}", "changes"), rows):
        yield from _align_columns([("site", "state", "size", "time", "changes"), *rows])
    counts = Counter(record.state for record in report.records)
    summary = ", ".join(f"{count:,} {state}" for state, count in counts.items())
    yield f"{report.folder / STATE} and {SUMS}: {summary}"


def _format_changes(record: SiteRecord) -> str:
    """Return the counts of changes of a site, or that it failed."""
    if record.error:
        return "see below"
    return ", ".join(f"{kind.replace('_', ' ')} {count:,}" for kind, count in (record.changes or {}).items())


def _align_columns(rows: Sequence[tuple[str, ...]]) -> Iterator[str]:
    """Yield ``rows`` with columns as wide as their longest cell."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def _plan_lines(plan: FleetPlan) -> Iterator[str]:
    """Yield what a run would do."""
    from cosremaster.fleet.run import FOREIGN, UNREADABLE  # noqa: PLC0415 - loaded by then

    if plan.common is not None and plan.pending:
        yield f"once, in a base of its own: {_describe_common(plan.common)}"
    for site, _, reason in plan.pending:
        outcome = "fail" if reason in (FOREIGN, UNREADABLE) else "be written"
        yield f"{printable(site.name)}: {site.output}: would {outcome} ({reason})"
    for record in plan.current:
        yield f"{printable(record.site)}: {plan.folder / record.path}: current"
    yield f"{len(plan.pending):,} to make, {len(plan.current):,} current"


def _describe_plan(plan: FleetPlan) -> FleetPlanDocument:
    """Return what a run would do as plain values."""
    return {
        "schema": 1,
        "folder": str(plan.folder),
        "pending": [
            {"site": printable(site.name), "output": str(site.output), "reason": reason}
            for site, _, reason in plan.pending
        ],
        "current": [cast("SiteDocument", record.plain) for record in plan.current],
    }


def _describe_common(common: Request) -> str:
    """Return what is ``common`` to all sites, as counts."""
    names = {
        "add": "additions", "remove": "removals", "add_iso": "additions to the ISO", "remove_iso": "removals from it",
        "rename_iso": "renames on it", "kernel_args": "kernel arguments",
    }  # fmt: skip
    counts = {text: len(tuple(getattr(common, name))) for name, text in names.items()}
    return ", ".join(f"{count:,} {text}" for text, count in counts.items() if count) or "settings of the boot"
