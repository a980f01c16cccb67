"""How long a run will take, as values that become JSON, and as a line of text."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal, cast

from cosremaster.progress import COPY, DECODE, ENCODE, PROOF, READ, SUM
from cosremaster.remastering.run_time import SCRIPT, TAKE, RunTime, WorkTime
from cosremaster.units import format_seconds, format_size

if TYPE_CHECKING:
    from cosremaster.reports.documents import RunTimeDocument, WorkTimeDocument

_NOUNS = {
    DECODE: "decoding", ENCODE: "packing", COPY: "writing", PROOF: "proving", SUM: "checksums", READ: "reading files",
    SCRIPT: "scripts", TAKE: "taking what is packed",
}  # fmt: skip
_SHORTEST = 0.1
"""Seconds from which on the line has a number: as the least that a run takes, less says nothing."""
_LEAST = 0.5
"""Seconds from which on work is named in the line."""


def time_report(time: RunTime) -> RunTimeDocument:
    """Return ``time`` as plain values (docs/json.md)."""
    return {
        "seconds": round(time.seconds, 3) if time.is_complete else None,
        "at_least": round(time.seconds, 3) if time.is_known else None,
        "work": [_describe_work(work) for work in time.work],
    }


def _describe_work(work: WorkTime) -> WorkTimeDocument:
    """Return ``work`` as plain values."""
    return {
        "kind": work.kind, "method": work.method, "bytes": work.count,
        "seconds": None if work.seconds is None else round(work.seconds, 3),
        "basis": cast("Literal['measured', 'remembered'] | None", work.basis),
    }  # fmt: skip


def time_lines(time: RunTime | None) -> Iterator[str]:
    """Yield about how long the run will take, and which work makes it long, for people; nothing for None."""
    if time is None:
        return
    parts = [_describe_part(work) for work in time.work if work.seconds is None or work.seconds >= _LEAST]
    if time.is_complete:
        amount = f"about {_format(time.seconds)}" if time.seconds >= _SHORTEST else f"less than {_SHORTEST} s"
    else:
        amount = f"at least {_format(time.seconds)}" if time.seconds >= _SHORTEST else "not known"
    yield f"time for the run: {amount}" + (f" ({'; '.join(parts)})" if parts else "")


def _describe_part(work: WorkTime) -> str:
    """Return how long ``work`` takes, and how that is known."""
    amount = f" {format_size(work.count)}" if work.count else ""
    noun = _NOUNS.get(work.kind, "other work")
    if work.seconds is None:
        return f"{noun}{amount}: never measured on this machine"
    how = "measured" if work.basis == "measured" else "as in earlier runs"
    return f"{noun}{amount} {_format(work.seconds)}, {how}"


def _format(seconds: float) -> str:
    """Return ``seconds`` for people, few of them with a decimal."""
    return f"{seconds:.1f} s" if seconds < 10 else format_seconds(seconds)
