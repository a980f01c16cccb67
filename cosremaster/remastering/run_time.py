"""How long the run will take that a plan is for: from rates that were measured, never from others.

What was planned was also done: layers were decoded and packed, and how long that took is known. What is left is copied
and read again, at the rates of earlier runs on this machine, if there were any.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from cosremaster.io.pieces import Range
from cosremaster.io.source import ByteSource
from cosremaster.progress import COPY, DECODE, ENCODE, PROOF
from cosremaster.records import Struct, replace

if TYPE_CHECKING:
    from cosremaster.layers.remembered_parts import RememberedParts
    from cosremaster.progress.events import Basis
    from cosremaster.remastering.plan import RemasterPlan

SCRIPT, TAKE = "script", "take"
"""The kinds of work of scripts that run in the image, which has no bytes, and of taking what the plan packed."""


class WorkTime(Struct, frozen=True, kw_only=True):
    """Work of a ``kind`` in the run: ``count`` bytes, and about how many ``seconds`` they take.

    ``method``: what sets its speed, may be empty. ``basis``: rates that were ``measured`` while planning, or are
    ``remembered`` of earlier runs. Both are None where such work was never measured on this machine.
    """

    kind: str
    method: str
    count: int
    seconds: float | None
    basis: Basis | None


class RunTime(Struct, frozen=True):
    """About how long a run will take, by its work."""

    work: tuple[WorkTime, ...]

    @property
    def seconds(self) -> float:
        """The seconds of all work whose rate is known."""
        return sum(work.seconds or 0.0 for work in self.work)

    @property
    def is_known(self) -> bool:
        """Whether the rate of any work is known, or there is none."""
        return not self.work or any(work.seconds is not None for work in self.work)

    @property
    def is_complete(self) -> bool:
        """Whether the rate of all work is known."""
        return all(work.seconds is not None for work in self.work)


def estimate_run(
    plan: RemasterPlan, source: ByteSource, measured: Mapping[tuple[str, str], tuple[int, float]],
    remembered: Mapping[tuple[str, str], float], *, keeps_index: bool, parts: RememberedParts | None = None,
) -> RunTime:  # fmt: skip
    """Return about how long the run of ``plan`` takes, in which pieces of ``source`` are copied.

    ``measured``: bytes and seconds of the work of planning, by kind and method; ``remembered``: bytes in a second of
    earlier runs. ``keeps_index``: the run decodes nothing to index the layers. ``parts``: what was kept for the run,
    which is not packed again.
    """
    work: list[WorkTime] = []
    for (kind, method), (count, seconds) in sorted(measured.items()):
        if kind != DECODE or not keeps_index:
            work += _split_work(
                WorkTime(kind=kind, method=method, count=count, seconds=seconds, basis="measured"), parts
            )
    scripts = sum(outcome.seconds for outcome in plan.runs if not outcome.is_remembered)
    if scripts:
        work.append(WorkTime(kind=SCRIPT, method="", count=0, seconds=scripts, basis="measured"))
    table = plan.result.table
    old = sum(piece.length for piece in table.pieces if isinstance(piece, Range) and piece.source is source)
    writing = (COPY, "" if plan.delta is None else "delta")
    work += [
        _recall(key, count, remembered) for key, count in ((writing, table.length), ((PROOF, ""), table.length - old))
    ]
    return RunTime(tuple(part for part in work if part.count or part.seconds))


def _split_work(work: WorkTime, parts: RememberedParts | None) -> Iterator[WorkTime]:
    """Yield what is left of ``work`` in the run, and taking what of it was kept in ``parts``."""
    plain = parts.uses[work.method].plain if parts is not None and work.method in parts.uses else 0
    if parts is None or work.kind != ENCODE or not plain or not work.count:
        yield work
        return
    plain = min(plain, work.count)
    rest, rate = work.count - plain, parts.rates.get(work.method)
    yield replace(work, count=rest, seconds=(work.seconds or 0.0) * rest / work.count)
    seconds, basis = (plain / rate, work.basis) if rate else (None, None)
    yield WorkTime(kind=TAKE, method=work.method, count=plain, seconds=seconds, basis=basis)


def _recall(key: tuple[str, str], count: int, remembered: Mapping[tuple[str, str], float]) -> WorkTime:
    """Return how long ``count`` bytes of work of the kind and method ``key`` take, by rates of earlier runs."""
    rate = remembered.get(key)
    kind, method = key
    if not rate:
        return WorkTime(kind=kind, method=method, count=count, seconds=None, basis=None)
    return WorkTime(kind=kind, method=method, count=count, seconds=count / rate, basis="remembered")
