"""Placing files whose size changed: nothing overlaps, nothing moves that need not, the partitions follow."""

from collections.abc import Mapping, Sequence
from itertools import pairwise

import pytest
from hypothesis import assume, event, given, settings
from hypothesis import strategies as st

from cosremaster.boot.mbr import ChsGeometry, MbrPartition, encode_chs
from cosremaster.iso.ecma119.sections import MAX_EXTENT, MAX_SECTION, split_into_sections
from cosremaster.iso.layout.place import PADDING, Layout, Placement, VolumeSpans, find_gaps, pin_overlaps, plan_layout
from cosremaster.iso.spans import Span
from cosremaster.units import Lba, Sector
from tests.support.examples import examples


def span(start: int, blocks: int, label: str = "") -> Span:
    return Span(Lba(start), blocks, label)


SPANS = st.lists(st.builds(span, st.integers(0, 40), st.integers(1, 8), st.sampled_from(["a", "b"])), max_size=9)


def covered(spans: Sequence[Span]) -> set[int]:
    return {block for one in spans for block in range(one.start, one.end)}


@settings(max_examples=examples(100), deadline=None)
@given(SPANS, SPANS)
def test_pinning_leaves_no_overlap_and_loses_no_block(fixed: list[Span], movable: list[Span]) -> None:
    pinned, free = pin_overlaps(fixed, movable)
    every = [*pinned, *free]
    assert sum(one.blocks for one in every) == len(covered(every)), "two of them share a block"
    assert covered(every) == covered([*fixed, *movable]) and covered(pinned) >= covered(fixed)
    ranges = {(one.start, one.end) for one in movable}
    lonely = {
        one for one in ranges if not any(one != other and one[0] < other[1] and other[0] < one[1] for other in ranges)
    }
    blocks = covered(fixed)
    want = {one for one in lonely if not blocks & set(range(*one))}
    assert {(one.start, one.end) for one in free} == want, "free is just what shares no block with another"


def test_pinning_joins_names_and_keeps_equal_files_movable() -> None:
    twice = [span(10, 5, "file"), span(10, 5, "other name")]
    pinned, free = pin_overlaps([], twice)
    assert pinned == () and len(free) == 1 and free[0] in twice
    pinned, free = pin_overlaps([span(8, 3, "boot image"), span(9, 0, "nothing")], [span(10, 5, "file")])
    assert pinned == (span(8, 7, "boot image, file"),) and free == ()
    assert pin_overlaps([span(5, 5)], [span(10, 5)]) == ((span(5, 5),), (span(10, 5),)), "neighbours share nothing"


@settings(max_examples=examples(100), deadline=None)
@given(SPANS, st.integers(0, 10))
def test_gaps_are_what_no_span_covers(spans: list[Span], behind: int) -> None:
    blocks = max((one.end for one in spans), default=0) + behind
    found = find_gaps(spans, blocks)
    assert covered(found) == set(range(blocks)) - covered(spans)
    assert all(one.blocks > 0 for one in found)
    assert all(one.end < other.start for one, other in pairwise(found)), "sorted, each as long as can be"


@st.composite
def volumes(draw: st.DrawFn) -> tuple[list[Span], list[Span], int]:
    """(fixed, movable, blocks) of a volume in which nothing overlaps."""
    fixed, at = [span(0, 2)], 2
    movable: list[Span] = []
    for _ in range(draw(st.integers(1, 9))):
        at += draw(st.sampled_from([0, 0, 1, 4]))
        one = span(at, draw(st.integers(1, 6)))
        (fixed if draw(st.integers(0, 3)) == 0 else movable).append(one)
        at = one.end
    return fixed, movable, at + draw(st.integers(0, 5))


@st.composite
def changes(draw: st.DrawFn) -> tuple[list[Span], list[Span], int, dict[Lba, int]]:
    fixed, movable, blocks = draw(volumes())
    assume(movable)
    chosen = draw(st.lists(st.sampled_from(movable), min_size=1, max_size=2, unique=True))
    return fixed, movable, blocks, {one.start: max(1, one.blocks + draw(st.integers(-5, 9))) for one in chosen}


def by_old(layout: Layout) -> dict[Span, Placement]:
    return {one.span: one for one in layout.placements}


@settings(max_examples=examples(400), deadline=None)
@given(changes())
def test_everything_has_a_place_and_nothing_overlaps(
    change: tuple[list[Span], list[Span], int, dict[Lba, int]],
) -> None:
    fixed, movable, blocks, sizes = change
    layout = plan_layout(VolumeSpans(fixed, movable, blocks), sizes)
    assert all(one.end <= other.start for one, other in pairwise(layout.placements))
    placed = by_old(layout)
    assert len(placed) == len(layout.placements) and set(placed) == {*fixed, *movable}
    assert all((placed[one].start, placed[one].blocks) == (one.start, one.blocks) for one in fixed)
    assert all(placed[one].blocks == sizes.get(one.start, one.blocks) for one in movable)
    end, old_end = max(one.end for one in layout.placements), max(one.end for one in (*fixed, *movable))
    assert layout.tail - end == blocks - old_end, "the volume's end keeps its distance from the data's"
    moved = (one for one in layout.placements if one.start != one.span.start)
    assert layout.moved_starts == {one.span.start: one.start for one in moved}


@settings(max_examples=examples(300), deadline=None)
@given(changes(), st.lists(st.integers(0, 9), max_size=3), st.sampled_from([2, 4]), st.sampled_from([1, 7]))
def test_what_moves_moves_by_whole_steps_where_that_is_asked_for(
    change: tuple[list[Span], list[Span], int, dict[Lba, int]], more: list[int], step: int, align: int
) -> None:
    fixed, movable, tail, sizes = change
    spans = VolumeSpans(fixed, movable, tail, alignment=align, step=step)
    layout = plan_layout(spans, sizes, [span(0, blocks) for blocks in more])
    assert all((one.start - one.span.start) % step == 0 for one in layout.placements)
    assert (layout.tail - tail) % (step if align == 1 else step * align) == 0
    every = (*layout.placements, *layout.appended)
    assert all(one.end <= other.start for one, other in pairwise(every) if one.blocks and other.blocks)
    assert set(by_old(layout)) == {*fixed, *movable} and [one.blocks for one in layout.appended] == more
    assert layout.tail - layout.data_ends[1] >= min(PADDING, tail - layout.data_ends[0])
    if not sizes:
        assert not layout.moved_starts


@settings(max_examples=examples(100), deadline=None)
@given(volumes())
def test_no_change_is_the_same_layout(volume: tuple[list[Span], list[Span], int]) -> None:
    fixed, movable, blocks = volume
    everything: list[Mapping[Lba, int]] = [{}, {one.start: one.blocks for one in movable}]
    for sizes in everything:
        layout = plan_layout(VolumeSpans(fixed, movable, blocks), sizes)
        assert layout.tail == blocks and not layout.moved_starts
        assert [(one.start, one.blocks) for one in layout.placements] == sorted(
            (one.start, one.blocks) for one in (*fixed, *movable)
        )


@settings(max_examples=examples(400), deadline=None)
@given(changes())
def test_nothing_moves_further_than_it_must(change: tuple[list[Span], list[Span], int, dict[Lba, int]]) -> None:
    fixed, movable, blocks, sizes = change
    layout = plan_layout(VolumeSpans(fixed, movable, blocks), sizes)
    placed, wall = by_old(layout), max(one.end for one in fixed)
    grown = {one for one in movable if sizes.get(one.start, 0) > one.blocks}
    last = [one for one in movable if one.start >= wall]
    if all(one in last for one in movable if one.start in sizes):
        event("in the last run")
        growth = sum(sizes[one.start] - one.blocks for one in last if one.start in sizes)
        assert layout.tail == blocks + growth
        for one in movable:
            before = sum(sizes[other.start] - other.blocks for other in last if other in last and other.start in sizes
                         and other.start < one.start)  # fmt: skip
            assert placed[one].start == one.start + (before if one in last else 0)
        return
    event("between fixed spans")
    old_end = max(one.end for one in (*fixed, *movable))
    for one in movable:
        if one in last and not any(other.start in sizes for other in last):
            assert placed[one].start == one.start, "a run that nothing changed in"
        elif one not in last:
            limit = min(other.start for other in fixed if other.start >= one.end)
            behind = max((other.end for other in fixed if other.end <= one.start), default=0)
            run = [other for other in movable if behind <= other.start and other.end <= limit]
            inside = behind <= placed[one].start and placed[one].end <= limit
            assert inside or (one in grown and placed[one].start >= old_end - sum(o.blocks for o in last)), (
                "only one that grew leaves its run, and it goes to the end"
            )
            neighbours = [other for other in run if other.start < one.start]
            if inside and not any(other in grown for other in neighbours):
                assert placed[one].start == one.start, "nobody before it grew"
            room = limit - max((other.end for other in run), default=behind)
            if not inside:
                need = sum(sizes[other.start] - other.blocks for other in run if other in grown)
                assert need > room, "there was room for it"


@pytest.mark.parametrize(
    ("size", "places", "blocks"),
    [
        (10, {20: 20, 30: 30, 50: 50}, 60),  # fills the hole behind it
        (8, {20: 20, 30: 30, 50: 50}, 60),
        (12, {20: 20, 30: 32, 50: 50}, 60),  # its neighbour makes room
        (15, {20: 20, 30: 35, 50: 50}, 60),
        (16, {20: 55, 30: 30, 50: 50}, 76),  # no longer fits: to the end
    ],
)
def test_a_file_between_fixed_spans(size: int, places: dict[int, int], blocks: int) -> None:
    fixed, movable = [span(0, 20), span(40, 2)], [span(20, 8), span(30, 5), span(50, 5)]
    layout = plan_layout(VolumeSpans(fixed, movable, 60), {Lba(20): size})
    assert {one.span.start: one.start for one in layout.placements if one.span in movable} == places
    assert layout.tail == blocks


GEOMETRY: ChsGeometry = (64, 32)


def partition(start: int, count: int, geometry: ChsGeometry = GEOMETRY, kind: int = 0x83) -> MbrPartition:
    first, last = encode_chs(start, geometry), encode_chs(start + count - 1, geometry)
    return MbrPartition(0x80, first, kind, last, Sector(start), count)


EMPTY = MbrPartition.parse(bytes(16))


@pytest.mark.parametrize("geometry", [(64, 32), (255, 63), (16, 63), (7, 19)])
@pytest.mark.parametrize("new", [5000, 900, 1001, 1000])
def test_partitions_follow_the_end_of_the_volume(new: int, geometry: ChsGeometry) -> None:
    """Over the volume: grows. Appended: moves. Inside: stays. CHS follow."""
    old, shift = 1000, (new - 1000) * 4
    layout = plan_layout(VolumeSpans([span(0, 250)], [span(250, 700)], old), {Lba(250): 700 + new - old})
    before = [(0, 4000), (4000, 2880), (200, 800), (64, 3936)]
    after = [(0, 4000 + shift), (4000 + shift, 2880), (200, 800), (64, 3936 + shift)]
    for one, other in zip(before, after, strict=True):
        start, end = layout.map_start(Sector(one[0])), layout.map_end(Sector(sum(one)))
        assert (start, end - start) == other
        assert partition(*one, geometry).moved_to(start, end - start, geometry) == partition(*other, geometry)


def test_chs_beyond_1024_cylinders_is_the_last_address() -> None:
    moved = partition(0, 4000).moved_to(Sector(0), 4_000_000, GEOMETRY)
    assert moved.last == bytes((63, 0xC0 | 32, 0xFF))
    assert partition(4000, 40).moved_to(Sector(4_000_000), 40, GEOMETRY).first == moved.last


def test_chs_that_no_geometry_explains_stays_as_found() -> None:
    odd = MbrPartition(0, b"\1\2\3", 0x83, b"\4\5\6", Sector(0), 4000)
    moved = odd.moved_to(Sector(0), 8000, None)
    assert (moved.first, moved.last, moved.start, moved.count) == (odd.first, odd.last, 0, 8000)


def test_a_beyond_that_isohybrid_wrote_stays() -> None:
    marker = b"\xfe\xff\xff"
    odd = MbrPartition(0, marker, 0xEF, marker, Sector(156), 5760)
    assert odd.moved_to(Sector(400), 5760, GEOMETRY) == MbrPartition(0, marker, 0xEF, marker, Sector(400), 5760)


@settings(max_examples=examples(400), deadline=None)
@given(changes(), st.integers(0, 400), st.integers(0, 400), st.sampled_from([1, 7, 512]))
def test_every_end_keeps_its_distance_from_what_it_belongs_to(
    change: tuple[list[Span], list[Span], int, dict[Lba, int]], padding: int, volume: int, align: int
) -> None:
    fixed, movable, _, sizes = change
    data = max(one.end for one in (*fixed, *movable))
    tail = data + padding
    end = Sector((data + min(volume, padding)) * 4)
    layout = plan_layout(VolumeSpans(fixed, movable, tail, ends=(end,), alignment=align), sizes)
    old, new = layout.data_ends
    assert (old, new) == (data, max(one.end for one in layout.placements))
    assert (layout.tail - tail) % align == 0
    room = layout.tail - new
    assert room >= min(PADDING, padding), "what readers read ahead into"
    moved = layout.map_end(end)
    if end >= (tail - 1) * 4:
        assert layout.tail * 4 - moved == tail * 4 - end, "it belongs to the tail"
    else:
        assert moved - new * 4 == end - old * 4, "it belongs to the data"
    assert new * 4 <= moved <= layout.tail * 4
    needed = max(min(PADDING, padding), min(volume, padding) if end < (tail - 1) * 4 else 0)
    assert room - needed < align if align > 1 else room == padding, "no longer than needed"
    assert layout.map_block(Lba(tail + 5)) == layout.tail + 5


@settings(max_examples=examples(200), deadline=None)
@given(changes(), st.lists(st.integers(0, 9), max_size=3))
def test_new_files_stand_behind_all_data_and_before_the_tail(
    change: tuple[list[Span], list[Span], int, dict[Lba, int]], more: list[int]
) -> None:
    fixed, movable, tail, sizes = change
    without = plan_layout(VolumeSpans(fixed, movable, tail), sizes)
    layout = plan_layout(VolumeSpans(fixed, movable, tail), sizes, [span(0, blocks) for blocks in more])
    assert layout.placements == without.placements
    assert layout.tail == without.tail + sum(more)
    every = (*layout.placements, *layout.appended)
    assert all(one.end <= other.start for one, other in pairwise(every))
    assert [one.blocks for one in layout.appended] == more


@settings(max_examples=examples(400), deadline=None)
@given(volumes(), st.data(), st.lists(st.integers(0, 9), max_size=4), st.sampled_from([1, 7]))
def test_what_is_given_up_leaves_room_only_at_the_end(
    volume: tuple[list[Span], list[Span], int], data: st.DataObject, more: list[int], align: int
) -> None:
    """Directories and files that go: nothing takes their blocks but by what moves, and the volume ends sooner."""
    fixed, movable, tail = volume
    every = [*fixed, *movable]
    vacated = data.draw(st.lists(st.sampled_from(every[1:]), unique=True)) if every[1:] else []
    fixed, movable = ([one for one in spans if one not in vacated] for spans in (fixed, movable))
    changing = data.draw(st.lists(st.sampled_from(movable), max_size=1)) if movable else []
    sizes = {one.start: one.blocks + data.draw(st.integers(-2, 9)) for one in changing}
    sizes = {start: max(1, blocks) for start, blocks in sizes.items()}
    appended = [span(0, blocks) for blocks in more]
    layout = plan_layout(VolumeSpans(fixed, movable, tail, vacated=vacated, alignment=align), sizes, appended)
    placed = by_old(layout)
    assert set(placed) == {*fixed, *movable} and [one.blocks for one in layout.appended] == more
    both = sorted((*layout.placements, *layout.appended), key=lambda one: (one.start, one.end))
    assert all(one.end <= other.start for one, other in pairwise(both) if one.blocks and other.blocks)
    assert all(placed[one].start == one.start for one in fixed)
    if not sizes:
        assert not layout.moved_starts, "nothing moves because something went"
    end = max(one.end for one in both)
    old_end = max(one.end for one in every)
    assert layout.data_ends == (old_end, end)
    if align == 1:
        assert layout.tail - end == tail - old_end, "the volume's end keeps its distance from the data's"
        if not sizes and not any(more) and vacated and max(one.end for one in vacated) == old_end:
            assert layout.tail == tail - (old_end - max(one.end for one in (*fixed, *movable)))
    else:
        assert (layout.tail - tail) % align == 0 and layout.tail >= end
    assert all(one.start >= max((other.end for other in layout.placements), default=0) for one in layout.appended)


@settings(max_examples=examples(300), deadline=None)
@given(volumes(), st.data())
def test_a_fixed_span_whose_content_is_exchanged_stays_if_it_has_room(
    volume: tuple[list[Span], list[Span], int], data: st.DataObject
) -> None:
    fixed, movable, tail = volume
    one = data.draw(st.sampled_from(fixed))
    size = one.blocks + data.draw(st.integers(-1, 9))
    layout = plan_layout(VolumeSpans(fixed, movable, tail), {one.start: size})
    placed = by_old(layout)
    room = min([other.start for other in (*fixed, *movable) if other.start >= one.end] + [Lba(tail)]) - one.start
    assert placed[one].blocks == size
    assert all(before.end <= after.start for before, after in pairwise(layout.placements))
    end = max(other.end for other in (*fixed, *movable))
    assert placed[one].start == (
        one.start if size <= room else max(end, one.end) if end != one.end else placed[one].start
    )
    assert all(placed[other].start == other.start for other in (*fixed, *movable) if other != one)


@given(st.integers(0, 1 << 36))
def test_sections_are_whole_blocks_and_as_few_as_can_be(length: int) -> None:
    found = split_into_sections(length)
    assert sum(found) == length
    assert all(one % 2048 == 0 for one in found[:-1])
    assert all(0 <= one <= MAX_EXTENT for one in found)
    assert len(found) == (1 if length <= MAX_EXTENT else -(-(length - MAX_EXTENT) // MAX_SECTION) + 1)
