"""Scripts that ran in a layer, as values that become JSON, and as lines of text."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, cast

from cosremaster.errors import printable
from cosremaster.overlay.run_outcome import ScriptOutcome
from cosremaster.remastering.change_report import run_facts
from cosremaster.units import format_size

if TYPE_CHECKING:
    from cosremaster.reports.documents import RunDocument

_WAYS = {
    "subuid": "ids of /etc/subuid", "single": "owners by a supervisor", "root": "ids that nobody has",
    "vm": "a virtual machine",
}  # fmt: skip
"""How owners were kept, in words."""


def runs_report(outcomes: Iterable[ScriptOutcome]) -> list[RunDocument]:
    """Return what came of scripts as plain values (docs/json.md)."""
    return [cast("RunDocument", run_facts(outcome)) for outcome in outcomes]


def run_lines(outcomes: Sequence[ScriptOutcome]) -> Iterator[str]:
    """Yield lines about what scripts changed and left, and how they ran."""
    has_several = len({outcome.layer for outcome in outcomes}) > 1
    for outcome in outcomes:
        counts = (
            (len(outcome.added), "added"), (len(outcome.changed), "changed"), (len(outcome.removed), "removed"),
        )  # fmt: skip
        changes = ", ".join(f"{count:,} {word}" for count, word in counts if count) or "nothing changed"
        where = f" in {outcome.layer}" if has_several else ""
        yield f"run {printable(outcome.name)}{where}: {changes} ({_describe_run(outcome)})"
        for leftover in outcome.leftovers:
            files = f"{len(leftover.paths):,} {'file' if len(leftover.paths) == 1 else 'files'}"
            end = "left out" if outcome.is_cleaned else "--clean leaves them out"
            yield f"  left behind: {leftover.name}, {files}, {format_size(leftover.size)} ({end})"
        yield from (f"  {note}" for note in outcome.notes)


def _describe_run(outcome: ScriptOutcome) -> str:
    """Return how a script ran, in words."""
    took = "remembered" if outcome.is_remembered else f"{outcome.seconds:.1f} s"
    network = ["with network"] if outcome.has_network else []
    return ", ".join([took, _WAYS.get(outcome.way, outcome.way), *network])
