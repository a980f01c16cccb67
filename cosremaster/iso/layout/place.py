"""Where everything goes when files change size. Pure: spans and new sizes in, a layout out.

Some spans are fixed, some movable, some new ("appended"); what ends the image (appended partitions, a backup GPT,
padding) is the tail, which moves as one. An end (of a volume, of a partition) belongs to the data's end or to the
tail, and keeps its distance from what it belongs to.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from itertools import pairwise

from msgspec import Struct

from cosremaster.iso.spans import Span
from cosremaster.units import SECTORS_PER_BLOCK, Lba, Sector

PADDING = 150
"""Blocks behind the data that readers of discs may read ahead into (mkisofs(8), -pad)."""


class Placement(Struct, frozen=True):
    """A span of the old volume at its place in the new one, ``blocks`` long there."""

    span: Span
    start: Lba
    blocks: int

    @property
    def end(self) -> Lba:
        """The block behind the last."""
        return Lba(self.start + self.blocks)


class Layout(Struct, frozen=True, dict=True):
    """Placements in order of their new place, without overlap.

    ``tail``: where the tail began; ``blocks``: where it begins now; ``data``: the old and the new end of the data.
    ``appended``: where each of the new spans went.
    """

    placements: tuple[Placement, ...]
    tail: int
    old_tail: int
    data_ends: tuple[int, int]
    appended: tuple[Placement, ...] = ()

    @cached_property
    def moved_starts(self) -> dict[Lba, Lba]:
        """Old start -> new start of everything that moved."""
        return {one.span.start: one.start for one in self.placements if one.start != one.span.start}

    @cached_property
    def _by_old(self) -> list[Placement]:
        return sorted(self.placements, key=lambda one: one.span.start)

    def map_block(self, old: Lba) -> Lba:
        """Where block ``old`` of a span, or of the tail, stands now."""
        if old >= self.old_tail:
            return Lba(old + self.tail - self.old_tail)
        index = bisect_right(self._by_old, old, key=lambda one: one.span.start) - 1
        found = self._by_old[index] if index >= 0 else None
        inside = found is not None and old < found.span.end
        return Lba(old + found.start - found.span.start) if found and inside else old

    def map_start(self, old: Sector) -> Sector:
        """Where a start that stood at sector ``old`` stands now."""
        block, rest = divmod(old, SECTORS_PER_BLOCK)
        return Sector(self.map_block(Lba(block)) * SECTORS_PER_BLOCK + rest)

    def map_end(self, old: Sector) -> Sector:
        """Where an end that stood at sector ``old`` stands now."""
        if old >= (self.old_tail - 1) * SECTORS_PER_BLOCK:
            return Sector(old + (self.tail - self.old_tail) * SECTORS_PER_BLOCK)
        before, now = self.data_ends
        return Sector(old + (now - before) * SECTORS_PER_BLOCK) if old >= before * SECTORS_PER_BLOCK else old


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


def find_gaps(spans: Iterable[Span], blocks: int) -> tuple[Span, ...]:
    """The runs of blocks of a volume of ``blocks`` that no span covers."""
    ordered = sorted(spans, key=lambda span: span.start)
    edges = [Span(Lba(0), 0, ""), *ordered, Span(Lba(blocks), 0, "")]
    found, reached = [], 0
    for before, after in pairwise(edges):
        reached = max(reached, before.end)
        if after.start > reached:
            found.append(Span(Lba(reached), after.start - reached, "unreferenced data"))
    return tuple(found)


def plan_layout(
    fixed: Sequence[Span],
    movable: Sequence[Span],
    tail: int,
    sizes: Mapping[Lba, int],
    *,
    appended: Sequence[Span] = (),
    vacated: Sequence[Span] = (),
    ends: Sequence[Sector] = (),
    align: int = 1,
) -> Layout:
    """The layout of an image whose tail begins at block ``tail``, when spans at ``sizes`` take so many blocks.

    No two of the spans overlap. Behind the last fixed span everything follows what changed before it, so
    that nothing is wasted; between fixed spans files move only into room that is there, and one that no
    longer fits goes to the end of the data. So do the ``appended``, each as long as its span tells. A fixed span may be
    among ``sizes``: it stays if it has the room. What was ``vacated`` is in none of the others; it stays empty, but for
    what of it ended the data. The tail keeps its distance from the data's end; with ``align`` it
    moves by multiples of so many blocks, the fewest that leave room for the data, for :data:`PADDING` as far as there
    was any, and for what ``ends`` become.
    """
    starts = sorted(span.start for span in (*fixed, *movable))
    placements: list[Placement] = []
    overflow: list[Placement] = []
    for span in fixed:
        size = sizes.get(span.start, span.blocks)
        index = bisect_left(starts, span.end)
        room = (starts[index] if index < len(starts) else tail) - span.start
        (placements if size <= max(room, span.blocks) else overflow).append(Placement(span, span.start, size))
    for run, limit in _runs(fixed, movable):
        if not any(span.start in sizes for span in run):
            placements += [Placement(span, span.start, span.blocks) for span in run]
        elif limit is None:
            placements += _shifted(run, sizes)
        else:
            stay, out = _fitted(run, limit, sizes)
            placements += stay
            overflow += out
    old_end = max((span.end for span in (*fixed, *movable, *vacated)), default=Lba(0))
    end = max((one.end for one in placements), default=Lba(0))
    behind = [*overflow, *(Placement(span, span.start, span.blocks) for span in appended)]
    for index, one in enumerate(behind):
        behind[index] = Placement(one.span, Lba(end), one.blocks)
        end = behind[index].end
    placements = sorted([*placements, *behind[: len(overflow)]], key=lambda one: (one.start, one.end))
    shift = _shift(old_end, end, tail, ends, align)
    return Layout(tuple(placements), tail + shift, tail, (old_end, end), tuple(behind[len(overflow) :]))


def _shift(old: int, new: int, tail: int, ends: Iterable[Sector], align: int) -> int:
    """By how many blocks the tail moves when the data's end goes from ``old`` to ``new``."""
    if align == 1:
        return new - old
    near = [end for end in ends if old * SECTORS_PER_BLOCK <= end < (tail - 1) * SECTORS_PER_BLOCK]
    last = max([old + min(PADDING, tail - old), *(-(-end // SECTORS_PER_BLOCK) for end in near)])
    need = last + new - old - tail
    return -(-need // align) * align


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
