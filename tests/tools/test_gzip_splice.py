"""gzip packed again: stored blocks and fronts that are kept, judged by gzip and busybox beside a plain rewrite."""

import random
import re
import tempfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from cosremaster.codecs.base import RepackJob, RepackResult
from cosremaster.codecs.checks import crc32_joined, crc32_without
from cosremaster.codecs.gzip import inflate
from cosremaster.codecs.gzip.codec import GzipDecoding
from cosremaster.codecs.gzip.repack import STORE_FROM, GzipParameters
from cosremaster.codecs.gzip.stored import StoredBlockFinder, StoredBlocks
from cosremaster.errors import Place
from cosremaster.io.pieces import Literal, Piece, PieceTable, Range
from cosremaster.io.spool import Spool
from cosremaster.io.streams import ByteReader
from cosremaster.layers.decoded import DecodedSource
from tests.fixtures import tools

PLACE = Place(("a.gz",))
CHANCE = random.Random(7)
NOISE = CHANCE.randbytes(1_500_000)
WORDS = [CHANCE.randbytes(CHANCE.randrange(2, 9)).hex().encode() for _ in range(500)]
TEXT = b" ".join(CHANCE.choices(WORDS, k=60_000))
PLAIN = TEXT[:300_000] + NOISE[:1_000_000] + TEXT[300_000:400_000] + NOISE[1_000_000:] + TEXT[400_000:]
FIRST_NOISE, SECOND_NOISE = (300_000, 1_300_000), (1_400_000, 1_900_000)


@pytest.fixture(autouse=True, scope="module", params=["zlib", "isal"])
def inflater(request: pytest.FixtureRequest) -> Iterator[None]:
    """Every test with both ways to inflate."""
    if request.param == "isal":
        tools.require_module("isal")
    patch = pytest.MonkeyPatch()
    patch.setattr(inflate, "HAS_ISAL", request.param == "isal")
    yield
    patch.undo()


@dataclass(frozen=True)
class Old:
    """An old stream, decoded by us."""

    packed: bytes
    table: PieceTable
    form: GzipParameters
    decoded: DecodedSource
    plain: bytes


def old_stream(packed: bytes, step: int = 1 << 18) -> Old:
    """``packed`` indexed as in the product."""
    reader = ByteReader((packed[at : at + step] for at in range(0, len(packed), step)), PLACE)
    decoding = GzipDecoding(reader)
    plain = b"".join(decoding.chunks())
    table = PieceTable([Literal(packed)])
    return Old(
        packed, table, decoding.parameters, DecodedSource(table, decoding.parameters, PLACE, b"", len(plain)), plain
    )


def gzip(data: bytes, *options: str) -> bytes:
    """``data`` packed by gzip."""
    tools.require("gzip")
    return tools.run(["gzip", "-nc", *options], stdin=data)


def again(old: Old, pieces: Sequence[Piece]) -> tuple[bytes, RepackResult]:
    """The new stream, which gzip and busybox unpack to what ``pieces`` say."""
    tools.require("gzip", "busybox")
    told: list[int] = []
    with tempfile.TemporaryDirectory() as folder, Spool(Path(folder)) as spool:
        plain = PieceTable(pieces)
        job = RepackJob(
            packed=old.table, decoded=old.decoded, plain=plain, spool=spool, threads=2, advance=told.append
        )  # fmt: skip
        packed = old.form.repack(job)
        new = b"".join(packed.table.chunks())
    assert sum(told) == plain.length
    wanted = b"".join(
        old.plain[one.offset : one.offset + one.length] if isinstance(one, Range) else b"".join(one.chunks())
        for one in pieces
    )
    assert tools.run(["gzip", "-dc"], stdin=new) == wanted
    assert tools.run(["busybox", "gunzip", "-c"], stdin=new) == wanted
    return new, packed


def lies(old: Old) -> None:
    """Every block that was found holds the plain bytes it is said to hold."""
    blocks = old.form.stored
    for packed, plain, length in zip(blocks.packed, blocks.plain, blocks.lengths, strict=True):
        assert old.packed[packed : packed + length] == old.plain[plain : plain + length]
    assert list(blocks.plain) == sorted(blocks.plain)


def found(old: Old, start: int, end: int) -> int:
    """How many of the plain bytes ``start`` to ``end`` were found in stored blocks."""
    return sum(min(run.end, end) - max(run.start, start) for run in old.form.stored.runs(start, end))


@pytest.mark.parametrize("step", [997, 1 << 16, 1 << 18, 1 << 30])
@pytest.mark.parametrize("level", [1, 6, 9])
def test_what_gzip_stored_is_found(level: int, step: int) -> None:
    old = old_stream(gzip(PLAIN, f"-{level}"), step)
    assert old.plain == PLAIN
    lies(old)
    for start, end in (FIRST_NOISE, SECOND_NOISE):
        assert found(old, start, end) > 0.7 * (end - start)
    assert found(old, 0, FIRST_NOISE[0] - 70_000) == 0, "text is not stored"


def test_what_zlib_and_we_store_is_found_whole() -> None:
    maker = zlib.compressobj(0, zlib.DEFLATED, 31)
    stored = old_stream(maker.compress(PLAIN) + maker.flush())
    lies(stored)
    assert found(stored, 0, len(PLAIN)) > len(PLAIN) - 2 * 65535
    ours, _ = again(stored, [Literal(TEXT), Range(stored.decoded, *_span(FIRST_NOISE), packed=True)])
    old = old_stream(ours)
    lies(old)
    assert found(old, len(TEXT), len(TEXT) + _span(FIRST_NOISE)[1]) == _span(FIRST_NOISE)[1]


def _span(ends: tuple[int, int]) -> tuple[int, int]:
    """Offset and length."""
    return ends[0], ends[1] - ends[0]


@pytest.mark.parametrize("level", [1, 6])
def test_stored_blocks_are_ranges_of_the_old_stream(level: int) -> None:
    old = old_stream(gzip(PLAIN, f"-{level}"))
    start, length = _span(FIRST_NOISE)
    new, packed = again(old, [Literal(b"in front"), Range(old.decoded, start, length, packed=True), Literal(TEXT)])
    assert packed.reused > 0.8 * length
    assert packed.stored == length + len(b"in front"), "which get a block of their own"
    assert len(new) <= length * 1.001 + len(gzip(TEXT, "-6")) * (1.3 if level == 1 else 1.005) + 100


def test_a_front_is_kept_as_it_was_deflated() -> None:
    first = old_stream(gzip(PLAIN[:200_000]))
    front, rest = Range(first.decoded, 0, 150_000), Range(first.decoded, 150_000, 50_000)
    ours, packed = again(first, [front, Literal(b"one" * 2000), rest])
    assert packed.reused == 0, "gzip made no border"
    second = old_stream(ours)
    new, packed = again(second, [Range(second.decoded, 0, 150_000), Literal(b"two" * 2000)])
    assert packed.encoded == 6000
    assert new[: packed.reused] == ours[: packed.reused]
    assert packed.reused > 1000
    _, packed = again(second, [Range(second.decoded, 0, 149_999), Literal(b"two" * 2000)])
    assert packed.reused == 0, "the border is behind the change"
    _, packed = again(second, [Range(second.decoded, 1, 149_999), Literal(b"two" * 2000)])
    assert packed.reused == 0, "nothing begins where it began"


@pytest.mark.parametrize("zeros", range(5))
def test_a_block_behind_zeros_is_found_whole(zeros: int) -> None:
    """They may be taken for those that its own header ends with."""
    first = old_stream(gzip(PLAIN))
    start, length = _span(FIRST_NOISE)
    header = b"0707" * 30 + bytes(zeros)
    data = Range(first.decoded, start, length, packed=True)
    ours, _ = again(first, [Literal(TEXT[:8000]), Literal(header), data])
    second = old_stream(ours)
    lies(second)
    assert found(second, 8000, len(second.plain)) == len(header) + length


def test_what_looks_like_an_empty_block_is_not_found_for_ever() -> None:
    """Data that begin with the end of their own header, found by the bytes behind that."""
    needle = bytes(range(65, 97)) + b"Q" * 100
    maker = zlib.compressobj(9, zlib.DEFLATED, -15, 9, zlib.Z_FIXED)
    deflated = maker.compress(needle) + maker.flush(zlib.Z_SYNC_FLUSH)
    for zeros in range(5):
        data = b"x" + bytes(zeros) + b"\xff\xff" + needle
        size = len(data).to_bytes(2, "little") + (len(data) ^ 0xFFFF).to_bytes(2, "little")
        plain = needle + data
        ends = zlib.crc32(plain).to_bytes(4, "little") + len(plain).to_bytes(4, "little")
        old = old_stream(b"\x1f\x8b\x08" + bytes(6) + b"\x03" + deflated + b"\0" + size + data + b"\x03\0" + ends)
        assert old.plain == plain
        lies(old)


@pytest.mark.parametrize("step", [1 << 16, 1 << 18, 1 << 30])
@pytest.mark.parametrize("kept", [0, 20])
@pytest.mark.parametrize("zeros", range(5))
def test_what_stands_before_packed_data_takes_as_much_room_again(step: int, kept: int, zeros: int) -> None:
    """So that a layer that we wrote once stays at its offset when its cpio header changes. ``kept``: old bytes of the
    same block, as an xz block's header; ``zeros``: it ends with, as with those behind a name."""
    first = old_stream(gzip(PLAIN))
    front = Range(first.decoded, 0, 150_000)
    data = Range(first.decoded, *_span(FIRST_NOISE), packed=True)
    old_header, new_header = (name * 30 + bytes(zeros) for name in (b"0707", b"1707"))
    ours, _ = again(first, [front, Literal(old_header), Literal(b"x" * kept), data, Literal(TEXT)])
    second = old_stream(ours, step)
    lies(second)
    at, length = 150_000 + len(old_header), kept + data.length
    assert found(second, 150_000, at + length) == len(old_header) + length, "the header's block too"
    assert second.form.stored.lengths[0] == len(old_header) + kept, "which holds nothing of what is packed"
    old = Range(second.decoded, at, length, packed=True)
    rest: list[Piece] = [Literal(new_header), old, Literal(b"other" * 2000)]
    new, packed = again(second, [Range(second.decoded, 0, 150_000), *rest])
    end = second.form.stored.packed[-1] + second.form.stored.lengths[-1]
    assert new[:end].replace(b"1707", b"0707") == ours[:end]
    assert packed.reused > end - 200


def test_a_long_way_to_a_border_is_gone() -> None:
    first = old_stream(gzip(PLAIN))
    start, length = _span(FIRST_NOISE)
    ours, _ = again(first, [Range(first.decoded, start, length), Literal(b"one" * 2000)])
    second = old_stream(ours)
    _, packed = again(second, [Range(second.decoded, 0, length), Literal(b"two" * 2000)])
    assert packed.encoded == 6000
    assert packed.reused > 0.9 * length


def test_what_only_looks_like_a_border_is_none() -> None:
    """The bytes a sync flush ends with, as they stand inside stored blocks: as data, and across a header."""
    looks = b"\0\0\xff\xff"
    plain = NOISE[:40_000] + looks + NOISE[40_000:80_000] + looks * 3 + NOISE[80_000:100_000]
    old = old_stream(gzip(plain))
    assert looks in old.packed
    for start in (40_004, 80_016, 100_000):
        new, packed = again(old, [Range(old.decoded, 0, start), Literal(TEXT[:5000])])
        assert packed.reused == 0
        assert new


SHAPES = st.lists(
    st.tuples(st.sampled_from(["noise", "text", "zeros"]), st.integers(0, 1 << 20), st.integers(0, 200_000)), max_size=7
)


@settings(max_examples=40, deadline=None, derandomize=True, database=None)
@given(SHAPES, st.lists(st.tuples(st.integers(0, 1 << 20), st.integers(0, 1 << 20), st.booleans()), max_size=5),
       st.sampled_from([("-1",), ("-6",), ("-9",)]), st.booleans())  # fmt: skip
def test_any_edit_gives_what_a_rewrite_gives(
    shape: list[tuple[str, int, int]], cuts: list[tuple[int, int, bool]], options: tuple[str, ...], twice: bool
) -> None:
    contents = {"noise": NOISE, "text": TEXT, "zeros": bytes(1 << 18)}
    plain = b"".join(contents[kind][start % 1000 : start % 1000 + length] for kind, start, length in shape)
    old = old_stream(gzip(plain, *options), 50_021)
    lies(old)
    for _ in range(1 + twice):
        size = len(old.plain)
        pieces: list[Piece] = [Range(old.decoded, 0, size // 2)] if twice else []
        for start, length, packed in cuts:
            at = min(start, size)
            pieces += [Range(old.decoded, at, min(length, size - at), packed), Literal(TEXT[at % 99 : at % 99 + 500])]
        new, done = again(old, [piece for piece in pieces if piece.length])
        event("kept" if done.reused else "nothing kept")
        old = old_stream(new)
        lies(old)


def test_columns_come_back_and_other_values_do_not() -> None:
    old = old_stream(gzip(PLAIN))
    values = old.form.stored.dump()
    assert StoredBlocks.load(values) == old.form.stored
    assert len(old.form.stored.plain) > 10
    for damaged in (values[:-1], [*values, ""], ["", *values[1:]], ["zz", *values[1:]]):
        with pytest.raises(ValueError, match=r"."):
            StoredBlocks.load(damaged)


def test_the_finder_holds_little_and_looks_seldom_where_nothing_is_stored() -> None:
    finder = StoredBlockFinder()
    size, count = 1 << 16, 200
    noise = [random.Random(number).randbytes(size) for number in range(8)]
    for number in range(count):  # what goes in has nothing to do with what comes out
        finder.feed(noise[number % 8], number * size, noise[(number + 3) % 8][::-1], number * size)
        assert len(finder._packed) <= 4 * size and len(finder._plain) <= 4 * size
    assert not finder.blocks.plain


@given(st.binary(max_size=300), st.binary(max_size=300), st.integers(0, 5000))
def test_sums_of_two_runs_make_the_sum_of_both(first: bytes, second: bytes, more: int) -> None:
    second += bytes(more)
    both = zlib.crc32(first + second)
    assert crc32_joined(zlib.crc32(first), zlib.crc32(second), len(second)) == both
    assert crc32_without(both, zlib.crc32(first), len(second)) == zlib.crc32(second)


def test_a_small_packed_piece_of_the_old_stream_is_deflated() -> None:
    old = old_stream(gzip(PLAIN))
    piece = Range(old.decoded, FIRST_NOISE[0] + 5000, STORE_FROM - 1, packed=True)
    _, packed = again(old, [Literal(TEXT[:100]), piece])
    assert packed.reused == packed.stored == 0
    assert re.match("level 6", old.form.describe())
