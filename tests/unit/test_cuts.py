"""The planner of parts: whatever stays, parts follow one another, none is too large, and borders begin parts."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from cosremaster.codecs.cuts import Cut, Cutting, measure_parts, move_borders, plan_cuts
from cosremaster.codecs.plain import PlainParameters
from cosremaster.errors import Place
from cosremaster.io.pieces import Literal, Piece, PieceTable, Range
from cosremaster.layers.decoded import DecodedSource
from cosremaster.layers.early_files import MOST, NEAR, join_spans

SIZE = 1000
OLD = DecodedSource(PieceTable([]), PlainParameters(), Place(), b"", 0)  # nothing of it is read


@st.composite
def old_parts(draw: st.DrawFn) -> list[tuple[int, int]]:
    """Parts of an old stream of :data:`SIZE` plain bytes."""
    edges = sorted({0, SIZE, *draw(st.lists(st.integers(0, SIZE), max_size=8))})
    return list(pairwise(edges))


@st.composite
def new_streams(draw: st.DrawFn) -> PieceTable:
    """Ranges of the old stream in order, with other bytes between them."""
    edges = draw(st.lists(st.integers(0, SIZE), max_size=8).map(sorted))
    pieces: list[Piece] = []
    for start, end in zip(edges[::2], edges[1::2], strict=False):
        pieces += [Range(OLD, start, end - start), Literal(b"x" * draw(st.integers(0, 300)))]
    return PieceTable(pieces)


cuttings = st.builds(
    Cutting, st.integers(1, 400), st.lists(st.integers(0, SIZE), max_size=6, unique=True).map(sorted).map(tuple)
)


@settings(max_examples=80, deadline=None, derandomize=True, database=None)
@given(new_streams(), old_parts(), cuttings)
def test_parts_cover_the_new_stream(plain: PieceTable, parts: list[tuple[int, int]], cutting: Cutting) -> None:
    cuts = plan_cuts(plain, OLD, parts, cutting)
    assert [cut.start for cut in cuts] == [0, *(cut.end for cut in cuts)][: len(cuts)]
    assert (cuts[-1].end if cuts else 0) == plain.length
    assert all(0 < cut.end - cut.start <= cutting.size for cut in cuts)
    starts = {cut.start for cut in cuts} | {plain.length}
    assert starts.issuperset(move_borders(plain, OLD, cutting.borders))
    for cut in cuts:
        if cut.number is not None:
            start, end = parts[cut.number]
            assert plain.cut(cut.start, cut.end).pieces == (Range(OLD, start, end - start),)


@settings(max_examples=80, deadline=None, derandomize=True, database=None)
@given(old_parts(), cuttings)
def test_a_second_plan_keeps_all(parts: list[tuple[int, int]], cutting: Cutting) -> None:
    whole = PieceTable([Range(OLD, 0, SIZE)])
    cuts = plan_cuts(whole, OLD, parts, cutting)
    assert cutting.is_met_by((cut.start, cut.end) for cut in cuts)
    again = plan_cuts(whole, OLD, [(cut.start, cut.end) for cut in cuts], cutting)
    assert again == tuple(Cut(cut.start, cut.end, number) for number, cut in enumerate(cuts))
    assert cutting.is_met_by(parts) == all(cut.number is not None for cut in cuts)
    for start, end in parts:  # what fits stays
        if cutting.keeps(start, end):
            assert any((cut.start, cut.end) == (start, end) and cut.number is not None for cut in cuts)


def test_parts_between_borders_are_of_one_size() -> None:
    plain = PieceTable([Range(OLD, 0, 1000)])
    cuts = plan_cuts(plain, OLD, [(0, 1000)], Cutting(400, (100, 130)))
    assert [(cut.start, cut.end) for cut in cuts] == [(0, 100), (100, 130), (130, 420), (420, 710), (710, 1000)]
    assert measure_parts([(0, 100), (100, 130)]) == (2, 100)
    assert measure_parts([]) == (0, 0)


spans = st.lists(st.tuples(st.integers(0, 3 * NEAR), st.integers(1, 2 * MOST)), max_size=20)


@settings(max_examples=50, deadline=None, derandomize=True, database=None)
@given(spans)
def test_near_files_share_a_part(gaps: list[tuple[int, int]]) -> None:
    listed, position = [], 0
    for gap, size in gaps:
        listed.append((position + gap, position + gap + size))
        position += gap + size
    runs = list(join_spans(listed))
    assert all(any(first <= start and end <= last for first, last in runs) for start, end in listed)
    assert {edge for run in runs for edge in run} <= {edge for span in listed for edge in span}
    for first, last in runs:
        assert last - first <= MOST or (first, last) in listed
    assert all(last < first or last == first for (_, last), (first, _) in pairwise(runs))
    for (first, last), (start, end) in pairwise(runs):  # else they were joined
        following = next(span for span in listed if span[0] == start)
        assert start - last > NEAR or following[1] - first > MOST, end
