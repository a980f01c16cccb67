"""Where things stand on the page: the map's boxes and the bar's parts, whatever sizes there are."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from cosremaster.errors import printable
from cosremaster.io.source import open_source
from cosremaster.iso.read import read_image
from cosremaster.reports.html.regions import KINDS, MOST, Region, Scale, drawn, regions
from cosremaster.reports.html.treemap import HEIGHT, WIDTH, Box, Weight, boxes, grow, squarified
from cosremaster.units import blocks_for
from tests.support.examples import examples
from tests.support.small import CGZ, write_small

falling = st.lists(st.integers(1, 1 << 40), min_size=1, max_size=60).map(lambda sizes: sorted(sizes, reverse=True))
sides = st.floats(1, 2000)


@given(falling, sides, sides)
def test_rectangles_fill_their_place_by_size_and_do_not_overlap(sizes: list[int], width: float, height: float) -> None:
    found = squarified(sizes, (5.0, 7.0, width, height))
    area, slack = width * height, 1e-6 * max(width, height)
    for size, (left, top, wide, high) in zip(sizes, found, strict=True):
        assert abs(wide * high - area * size / sum(sizes)) <= 1e-6 * area
        assert left >= 5 - slack
        assert top >= 7 - slack
        assert left + wide <= 5 + width + slack
        assert top + high <= 7 + height + slack
    for number, one in enumerate(found):
        for other in found[:number]:
            apart_x = one[0] + one[2] <= other[0] + slack or other[0] + other[2] <= one[0] + slack
            apart_y = one[1] + one[3] <= other[1] + slack or other[1] + other[3] <= one[1] + slack
            assert apart_x or apart_y


def test_equal_sizes_become_squares_nearly() -> None:
    ratios = [max(wide / high, high / wide) for _, _, wide, high in squarified([1] * 16, (0.0, 0.0, 400.0, 400.0))]
    assert max(ratios) < 1.5


parts = st.lists(st.sampled_from([b"usr", b"lib", b"bin", b"a", b"b", b"c"]), max_size=5)
trees = st.dictionaries(parts.map(lambda names: b"/".join([*names, b"file"])), st.integers(0, 1 << 30), max_size=80)


@settings(max_examples=examples(100), deadline=None)
@given(trees)
def test_boxes_account_for_every_byte_of_the_tree(sizes: dict[bytes, int]) -> None:
    """What stands in the boxes that are not opened is the whole tree, and opened ones hold what is over them."""
    top = grow(Weight(path, size) for path, size in sizes.items())
    assert (top.size, top.count) == (sum(sizes.values()), len(sizes))
    found = list(boxes(top))
    assert sum(box.size for box in found if not box.opened) == top.size
    assert all(0 <= box.x <= WIDTH and 0 <= box.y <= HEIGHT for box in found)
    for box in found:
        if not box.folder and not box.others:
            assert sizes[box.path] == box.size
    assert all(_inside(box, found) for box in found)


def _inside(box: Box, found: list[Box]) -> bool:
    folder = box.path if box.others else box.path.rpartition(b"/")[0]
    around = next((one for one in found if one.opened and one.path == folder), None)
    if around is None:
        return True
    return (
        around.x <= box.x + 1e-6 and around.y < box.y
        and box.x + box.width <= around.x + around.width + 1e-6
        and box.y + box.height <= around.y + around.height + 1e-6
    )  # fmt: skip


def test_hard_links_count_once_and_changes_stand_out() -> None:
    nodes = [Weight(b"bin/a", 9_000, "one"), Weight(b"bin/b", 9_000, "one"), Weight(b"etc/c", 5_000)]
    top = grow(nodes, {b"etc/c", b"not/here"})
    assert (top.size, top.count, top.changed) == (14_000, 2, 1)
    assert [box.path for box in boxes(top) if box.changed] == [b"etc/c"]


def test_many_small_files_are_few_boxes() -> None:
    top = grow(Weight(b"d%d/f%d" % (number % 300, number), 100 + number % 50) for number in range(50_000))
    found = list(boxes(top))
    assert len(found) < 2_500
    assert sum(box.count for box in found if not box.opened) == 50_000


def test_thousands_of_files_on_the_iso_are_a_bar_of_few_parts(tmp_path: Path) -> None:
    extra = {f"f{number}.bin": b"x" * (number % 5000) for number in range(2_000)}
    with open_source(write_small(tmp_path, extra=extra)) as source:
        image = read_image(source)
    whole = regions(image, {CGZ.encode()})
    few = drawn(whole)
    assert len(whole) > 1_000 > MOST >= len(few)
    for row in (whole, few):
        assert row[0].start == 0
        assert row[-1].end == blocks_for(image.size)
        assert all(one.end == other.start for one, other in pairwise(row))
    starts = {one.start: one for one in whole}
    for file in image.files:
        if file.size and file.path not in {boot.path for boot in image.boot_images}:
            assert printable(file.path) == starts[file.records[0].lba].label
    assert [one.label for one in few if one.kind == "layer"] == [CGZ]


rows = st.lists(st.tuples(st.integers(1, 1 << 24), st.sampled_from(sorted(KINDS))), min_size=1, max_size=200)


@given(rows, st.integers(1, 50), st.floats(1, 100))
def test_a_bar_is_as_wide_as_it_is_long_and_in_order(lengths: list[tuple[int, str]], most: int, total: float) -> None:
    row, at = [], 0
    for length, kind in lengths:
        row.append(Region(at, at + length, kind, f"{kind} at {at}"))
        at += length
    few = drawn(row, most)
    assert len(few) <= max(1, most)
    assert (few[0].start, few[-1].end, sum(one.count for one in few)) == (0, at, len(row))
    assert all(one.end == other.start for one, other in pairwise(few))
    scale = Scale.of(few, total)
    assert all(left < right for left, right in pairwise(scale.edges))
    assert abs(scale.edges[-1] - total) < 1e-6
    places = [scale.at(block) for one in few for block in (one.start, (one.start + one.end) / 2)]
    assert places == sorted(places)
    assert scale.at(at) == scale.edges[-1]
