"""Plan the places of all data when files change their sizes. Pure: spans and new sizes in, a layout out.

Spans are fixed, movable or appended (new). The end of the image (appended partitions, a backup GPT, padding) is the
tail, which moves as a whole. The end of a volume or of a partition belongs to the end of the data or to the tail, and
keeps its distance from it.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from itertools import pairwise
from math import lcm

from cosremaster.iso.spans import Span
from cosremaster.records import Struct
from cosremaster.units import SECTORS_PER_BLOCK, Lba, Sector

PADDING = 150
"""Blocks after the data that a drive may read ahead into (mkisofs(8), -pad)."""


class Placement(Struct, frozen=True, checked=False):
    """A span of the old volume at its place in the new one, where it has ``blocks`` blocks."""

    span: Span
    start: Lba
    blocks: int

    @property
    def end(self) -> Lba:
        """The block after the last one."""
        return Lba(self.start + self.blocks)


class VolumeSpans(Struct, frozen=True):
    """The spans of a volume before its files change; no two of them overlap.

    ``tail``: the first block of the tail. ``vacated``: spans whose data are removed or move to appended spans.
    ``ends``: the ends of volumes and partitions that the tail must leave room for. ``alignment``: the tail moves by a
    multiple of so many blocks. ``slack``: the end of the data moves to the front by so many blocks at most; None if
    nothing limits it. ``step``: whatever moves does so by a multiple of so many blocks.
    """

    fixed: Sequence[Span]
    movable: Sequence[Span]
    tail: int
    vacated: Sequence[Span] = ()
    ends: Sequence[Sector] = ()
    alignment: int = 1
    slack: int | None = None
    step: int = 1


class Layout(Struct, frozen=True, dict=True):
    """The new places of all spans: placements in the order of their new starts, without overlaps.

    ``tail`` and ``old_tail``: the new and the old first block of the tail. ``data_ends``: the old and the new end of
    the data. ``appended``: the placements of the new spans, in their order. ``records_end``: the block after all data
    that records of ISO 9660 name, if a volume of it ended before the data (on Windows discs the rest is UDF's).
    """

    placements: tuple[Placement, ...]
    tail: int
    old_tail: int
    data_ends: tuple[int, int]
    appended: tuple[Placement, ...] = ()
    records_end: int = 0

    @cached_property
    def moved_starts(self) -> dict[Lba, Lba]:
        """The old and the new start of each span that moved."""
        return {placed.span.start: placed.start for placed in self.placements if placed.start != placed.span.start}

    @cached_property
    def _by_old_start(self) -> list[Placement]:
        """The placements in the order of their old starts."""
        return sorted(self.placements, key=lambda placed: placed.span.start)

    @cached_property
    def _old_starts(self) -> list[Lba]:
        """The old starts of :attr:`_by_old_start`."""
        return [placed.span.start for placed in self._by_old_start]

    def may_move(self, end: Lba) -> bool:
        """Return whether anything in front of block ``end`` moves, as far as blocks can tell."""
        return bool(self.moved_starts) or (end > self.old_tail and self.tail != self.old_tail)

    def map_block(self, old: Lba) -> Lba:
        """Return the new place of block ``old`` of a span or of the tail."""
        if old >= self.old_tail:
            return Lba(old + self.tail - self.old_tail)
        if not self.moved_starts:
            return old
        index = bisect_right(self._old_starts, old) - 1
        placed = self._by_old_start[index] if index >= 0 else None
        return Lba(old + placed.start - placed.span.start) if placed and old < placed.span.end else old

    def moves_as_one(self, start: Lba, end: Lba) -> bool:
        """Return whether all blocks from ``start`` to ``end`` are known to move by the same number of blocks."""
        if end > self.old_tail:
            return start >= self.old_tail
        if not self.moved_starts:
            return True
        index = bisect_right(self._old_starts, start) - 1
        return index >= 0 and end <= self._by_old_start[index].span.end

    def map_start(self, old: Sector) -> Sector:
        """Return the new sector of a volume or partition that began at sector ``old``."""
        block, rest = divmod(old, SECTORS_PER_BLOCK)
        return Sector(self.map_block(Lba(block)) * SECTORS_PER_BLOCK + rest)

    def map_end(self, old: Sector) -> Sector:
        """Return the new end, in sectors, of a volume or partition that ended before sector ``old``."""
        if old >= (self.old_tail - 1) * SECTORS_PER_BLOCK:
            return Sector(old + (self.tail - self.old_tail) * SECTORS_PER_BLOCK)
        old_end, new_end = self.data_ends
        shift = new_end - old_end if old >= old_end * SECTORS_PER_BLOCK else 0
        return Sector(old + shift * SECTORS_PER_BLOCK)

    def map_volume_end(self, old: Lba) -> Lba:
        """Return the new end of a volume of ISO 9660 that ended before block ``old``."""
        end = self.map_end(Sector(old * SECTORS_PER_BLOCK)) // SECTORS_PER_BLOCK
        return Lba(max(end, self.records_end) if old < self.data_ends[0] else end)


def pin_overlaps(fixed: Iterable[Span], movable: Iterable[Span]) -> tuple[tuple[Span, ...], tuple[Span, ...]]:
    """Return the fixed and the movable spans without overlaps.

    A movable span that overlaps another span becomes fixed. Equal movable spans (hard links, files that share an
    extent) are one. Fixed spans that overlap are joined.
    """
    unique: dict[tuple[Lba, int], Span] = {}
    for span in sorted(set(movable), key=lambda span: (span.start, span.blocks, span.label)):
        unique.setdefault((span.start, span.blocks), span)
    spans = [(span, False) for span in unique.values()] + [(span, True) for span in fixed if span.blocks]
    spans.sort(key=lambda item: (item[0].start, item[0].end))
    groups: list[tuple[Span, bool]] = []
    for span, is_fixed in spans:
        if groups and span.start < groups[-1][0].end:
            last = groups[-1][0]
            end = max(last.end, span.end)
            groups[-1] = (Span(last.start, end - last.start, f"{last.label}, {span.label}"), True)
        else:
            groups.append((span, is_fixed))
    pinned = tuple(span for span, is_fixed in groups if is_fixed)
    return pinned, tuple(span for span, is_fixed in groups if not is_fixed)


def find_gaps(spans: Iterable[Span], blocks: int) -> tuple[Span, ...]:
    """Return the runs of blocks that no span covers, in a volume of ``blocks`` blocks."""
    ordered = sorted(spans, key=lambda span: span.start)
    edges = [Span(Lba(0), 0, ""), *ordered, Span(Lba(blocks), 0, "")]
    gaps, reached = [], 0
    for previous, following in pairwise(edges):
        reached = max(reached, previous.end)
        if following.start > reached:
            gaps.append(Span(Lba(reached), following.start - reached, "unreferenced data"))
    return tuple(gaps)


def plan_layout(volume: VolumeSpans, sizes: Mapping[Lba, int], appended: Sequence[Span] = ()) -> Layout:
    """Plan the layout of a volume in which some spans change their sizes.

    After the last fixed span, everything follows what changed before it, so that no room is wasted. Between fixed spans
    files move only into free room; a file that does not fit any more goes to the end of the data, and so do the
    appended spans. A fixed span that grows stays if there is room after it. Vacated spans stay empty, except where they
    ended the data. The tail keeps its distance from the end of the data; with an alignment it moves by the fewest
    multiples that leave room for the data, for the old :data:`PADDING`, and for the new places of the volume's
    ``ends``.

    :param sizes: the new number of blocks of each span that changes, by its old start.
    :param appended: new spans, of which only labels and numbers of blocks count; and movable spans that go there.
    """
    placements, overflow = _place_fixed(volume, sizes)
    leaving_starts = {span.start for span in appended if span.start}
    staying = [span for span in volume.movable if span.start not in leaving_starts]
    for run, limit in _list_runs(volume.fixed, staying):
        if not any(span.start in sizes for span in run):
            placements += [Placement(span, span.start, span.blocks) for span in run]
        elif limit is None:
            placements += _shift_run(run, sizes, volume.step)
        else:
            fitting, leaving = _fit_run(run, limit, sizes, volume.step)
            placements += fitting
            overflow += leaving
    old_end = max((span.end for span in (*volume.fixed, *volume.movable, *volume.vacated)), default=Lba(0))
    end = max((placed.end for placed in placements), default=Lba(0))
    last = [*overflow, *(Placement(span, span.start, sizes.get(span.start, span.blocks)) for span in appended)]
    for index, placed in enumerate(last):
        start = Lba(end + ((placed.span.start - end) % volume.step if placed.span.start else 0))
        last[index] = Placement(placed.span, start, placed.blocks)
        end = last[index].end
    if volume.slack is not None:
        end = Lba(max(end, old_end - volume.slack))
    new = [placed for placed in last[len(overflow) :] if not placed.span.start]
    placements += [placed for index, placed in enumerate(last) if index < len(overflow) or placed.span.start]
    placements.sort(key=lambda placed: (placed.start, placed.end))
    tail = volume.tail + _shift_tail(volume, old_end, end)
    return Layout(tuple(placements), tail, volume.tail, (old_end, end), tuple(new))


def _place_fixed(volume: VolumeSpans, sizes: Mapping[Lba, int]) -> tuple[list[Placement], list[Placement]]:
    """Return the placements of fixed spans that stay, and those of spans that have no room to grow."""
    starts = sorted(span.start for span in (*volume.fixed, *volume.movable))
    placements, overflow = list[Placement](), list[Placement]()
    for span in volume.fixed:
        size = sizes.get(span.start, span.blocks)
        index = bisect_left(starts, span.end)
        room = (starts[index] if index < len(starts) else volume.tail) - span.start
        (placements if size <= max(room, span.blocks) else overflow).append(Placement(span, span.start, size))
    return placements, overflow


def _shift_tail(volume: VolumeSpans, old_end: int, new_end: int) -> int:
    """Return by how many blocks the tail moves when the end of the data moves from ``old_end`` to ``new_end``."""
    if volume.alignment == 1:
        return -(-(new_end - old_end) // volume.step) * volume.step
    alignment = lcm(volume.alignment, volume.step)
    last_sector = (volume.tail - 1) * SECTORS_PER_BLOCK
    ends = (end for end in volume.ends if old_end * SECTORS_PER_BLOCK <= end < last_sector)
    last = max([old_end + min(PADDING, volume.tail - old_end), *(-(-end // SECTORS_PER_BLOCK) for end in ends)])
    needed = last + new_end - old_end - volume.tail
    return -(-needed // alignment) * alignment


def _list_runs(fixed: Sequence[Span], movable: Sequence[Span]) -> list[tuple[list[Span], Lba | None]]:
    """Return the runs of movable spans between fixed ones, each with the start of the next fixed span."""
    walls = sorted(span.start for span in fixed)
    runs: list[tuple[list[Span], Lba | None]] = []
    for span in sorted(movable, key=lambda span: span.start):
        index = bisect_left(walls, span.end)
        limit = walls[index] if index < len(walls) else None
        if runs and runs[-1][1] == limit:
            runs[-1][0].append(span)
        else:
            runs.append(([span], limit))
    return runs


def _shift_run(run: Sequence[Span], sizes: Mapping[Lba, int], step: int) -> list[Placement]:
    """Move each span of ``run`` by the growth of the spans before it, up to a multiple of ``step`` blocks."""
    shift, placements = 0, []
    for span in run:
        size = sizes.get(span.start, span.blocks)
        placements.append(Placement(span, Lba(span.start + shift), size))
        shift += -(-(size - span.blocks) // step) * step
    return placements


def _fit_run(
    run: Sequence[Span], limit: Lba, sizes: Mapping[Lba, int], step: int
) -> tuple[list[Placement], list[Placement]]:
    """Return the placements before ``limit``, and those of spans that have to leave.

    A span moves up only where the span before it grew into it. If not all spans fit, the growing ones leave.
    """
    placements, end = [], Lba(0)
    for span in run:
        shift = -(-max(end - span.start, 0) // step) * step
        placements.append(Placement(span, Lba(span.start + shift), sizes.get(span.start, span.blocks)))
        end = placements[-1].end
    if end <= limit:
        return placements, []
    placements = [Placement(span, span.start, sizes.get(span.start, span.blocks)) for span in run]
    growing = [placed for placed in placements if placed.blocks > placed.span.blocks]
    return [placed for placed in placements if placed.blocks <= placed.span.blocks], growing
