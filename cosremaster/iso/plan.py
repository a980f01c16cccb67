"""Where everything goes when files change size. Pure: spans and new sizes in, a layout out."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from cosremaster.iso.model import Span
from cosremaster.units import Lba


@dataclass(frozen=True, slots=True)
class Placement:
    """A span of the old volume at its place in the new one, ``blocks`` long there."""

    old: Span
    start: Lba
    blocks: int

    @property
    def end(self) -> Lba:
        """The block behind the last."""
        return Lba(self.start + self.blocks)


@dataclass(frozen=True, slots=True)
class Layout:
    """Placements in order of their new place, without overlap, and the new volume's ``blocks``."""

    placements: tuple[Placement, ...]
    blocks: int

    @property
    def moved(self) -> dict[Lba, Lba]:
        """Old start -> new start of everything that moved."""
        return {one.old.start: one.start for one in self.placements if one.start != one.old.start}


def pin_overlaps(fixed: Iterable[Span], movable: Iterable[Span]) -> tuple[tuple[Span, ...], tuple[Span, ...]]:
    """(fixed, movable) without overlaps: a movable span that shares blocks with another becomes fixed.

    Equal movable spans (hard links, files sharing an extent) are one. Fixed spans are joined where they
    overlap.
    """
    unique = sorted(set(movable), key=lambda span: (span.start, span.blocks, span.label))
    seen: dict[tuple[Lba, int], Span] = {}
    for span in unique:
        seen.setdefault((span.start, span.blocks), span)
    spans = [(span, False) for span in seen.values()] + [(span, True) for span in fixed if span.blocks]
    spans.sort(key=lambda item: (item[0].start, item[0].end))
    groups: list[tuple[Span, bool]] = []
    for span, pinned in spans:
        if groups and span.start < groups[-1][0].end:
            last = groups[-1][0]
            end = max(last.end, span.end)
            groups[-1] = (Span(last.start, end - last.start, f"{last.label}, {span.label}"), True)
        else:
            groups.append((span, pinned))
    return tuple(span for span, pin in groups if pin), tuple(span for span, pin in groups if not pin)


def gaps(spans: Iterable[Span], blocks: int) -> tuple[Span, ...]:
    """The runs of blocks of a volume of ``blocks`` that no span covers."""
    ordered = sorted(spans, key=lambda span: span.start)
    edges = [Span(Lba(0), 0, ""), *ordered, Span(Lba(blocks), 0, "")]
    found, reached = [], 0
    for before, after in pairwise(edges):
        reached = max(reached, before.end)
        if after.start > reached:
            found.append(Span(Lba(reached), after.start - reached, "unreferenced data"))
    return tuple(found)


def plan_layout(fixed: Sequence[Span], movable: Sequence[Span], blocks: int, sizes: Mapping[Lba, int]) -> Layout:
    """The layout of a volume of ``blocks`` in which the movable spans at ``sizes`` take so many blocks.

    No two of the spans overlap. Behind the last fixed span everything follows what changed before it, so
    that nothing is wasted; between fixed spans files move only into room that is there, and one that no
    longer fits goes to the volume's end. The volume's end keeps its distance from the end of its data.
    """
    placements = [Placement(span, span.start, span.blocks) for span in fixed]
    overflow: list[Placement] = []
    for run, limit in _runs(fixed, movable):
        if not any(span.start in sizes for span in run):
            placements += [Placement(span, span.start, span.blocks) for span in run]
        elif limit is None:
            placements += _shifted(run, sizes)
        else:
            stay, out = _fitted(run, limit, sizes)
            placements += stay
            overflow += out
    old_end = max((span.end for span in (*fixed, *movable)), default=Lba(0))
    end = max((one.end for one in placements), default=Lba(0))
    for one in overflow:
        placements.append(Placement(one.old, Lba(end), one.blocks))
        end = placements[-1].end
    placements.sort(key=lambda one: (one.start, one.end))
    return Layout(tuple(placements), blocks + end - old_end)


def _runs(fixed: Sequence[Span], movable: Sequence[Span]) -> list[tuple[list[Span], Lba | None]]:
    """Movable spans between fixed ones, each run with the start of the fixed span behind it, if any."""
    walls = sorted(span.start for span in fixed)
    runs: list[tuple[list[Span], Lba | None]] = []
    for span in sorted(movable, key=lambda one: one.start):
        index = bisect_left(walls, span.end)
        limit = walls[index] if index < len(walls) else None
        if runs and runs[-1][1] == limit:
            runs[-1][0].append(span)
        else:
            runs.append(([span], limit))
    return runs


def _shifted(run: Sequence[Span], sizes: Mapping[Lba, int]) -> list[Placement]:
    """Everything behind a change moves by what it grew or shrank."""
    shift, placed = 0, []
    for span in run:
        size = sizes.get(span.start, span.blocks)
        placed.append(Placement(span, Lba(span.start + shift), size))
        shift += size - span.blocks
    return placed


def _fitted(run: Sequence[Span], limit: Lba, sizes: Mapping[Lba, int]) -> tuple[list[Placement], list[Placement]]:
    """(what stays before ``limit``, what has to leave): moved up only where a neighbour grew into it."""
    placed, cursor = [], Lba(0)
    for span in run:
        start = max(span.start, cursor)
        placed.append(Placement(span, start, sizes.get(span.start, span.blocks)))
        cursor = placed[-1].end
    if cursor <= limit:
        return placed, []
    stay = [
        Placement(span, span.start, sizes.get(span.start, span.blocks))
        for span in run
        if sizes.get(span.start, 0) <= span.blocks
    ]
    leave = [Placement(span, span.start, sizes[span.start]) for span in run if sizes.get(span.start, 0) > span.blocks]
    return stay, leave
