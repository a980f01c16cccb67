"""The splice: what stays compressed, judged by xz and busybox against a plain rewrite, byte for byte."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cosremaster.codecs.base import BlockCache, RepackJob
from cosremaster.codecs.checks import CRC64
from cosremaster.codecs.xz import encode
from cosremaster.codecs.xz import repack as xz_form
from cosremaster.codecs.xz.encode import SEGMENT, EncoderOptions
from cosremaster.errors import CosremasterError
from cosremaster.io.parallel import StopFlag
from cosremaster.io.pieces import Literal, Piece, PieceTable, Range
from cosremaster.io.spool import Spool
from cosremaster.layers.decoded import DecodedSource
from cosremaster.progress import Advance
from tests.fixtures import tools
from tests.support.xz_streams import CHANCE, PLACE, PLAIN, Old, judge, mixed, old_stream, splice, xz

CHECKS = ("none", "crc32", "crc64", "sha256")
LAYOUTS: dict[str, tuple[str, ...]] = {
    "one block": ("-T1", "-1"),
    "many blocks": ("-T2", "-1", "--block-size=100000"),
    "blocks without sizes": ("-T1", "-1", "--block-list=150000,300000,0"),
    "BCJ": ("-T1", "--x86", "--lzma2=preset=1", "--block-size=200000"),
    "delta": ("-T1", "--delta=dist=4", "--lzma2=preset=1", "--block-size=200000"),
}


@st.composite
def edits(draw: st.DrawFn) -> list[tuple[int, int, bytes]]:
    """(keep from, keep to, then these bytes) in order: removals, replacements, insertions, additions."""
    borders = sorted(draw(st.lists(st.integers(0, len(PLAIN)), min_size=2, max_size=8)))
    borders = [0, *borders] if draw(st.booleans()) else borders
    borders = [*borders, len(PLAIN)] if draw(st.booleans()) else borders
    runs = list(zip(borders[::2], borders[1::2], strict=False))
    sizes = draw(st.lists(st.sampled_from([0, 0, 1, 500, 70_000]), min_size=len(runs), max_size=len(runs)))
    return [(start, end, mixed(size, 99)) for (start, end), size in zip(runs, sizes, strict=True)]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("check", CHECKS)
def test_any_edit_gives_what_a_rewrite_gives(layout: str, check: str) -> None:
    tools.require("xz", "busybox")
    old = old_stream(xz(PLAIN, *LAYOUTS[layout], f"--check={check}"))
    plain_filter = layout not in ("BCJ", "delta")

    @settings(max_examples=5, deadline=None, derandomize=True, database=None)
    @given(edits())
    def holds(runs: list[tuple[int, int, bytes]]) -> None:
        pieces: list[Piece] = []
        for start, end, data in runs:
            pieces += [Range(old.decoded, start, end - start), Literal(data)]
        new, packed = splice(old, pieces)
        judge(new, pieces, PLAIN, busybox=plain_filter)
        assert new[7] == old.packed[7]
        assert splice(old, pieces, threads=3)[0] == new
        again = old_stream(new)  # what we wrote is a base as good as any
        size = sum(piece.length for piece in pieces)
        more: list[Piece] = [Range(again.decoded, 0, size), Literal(b"more")]
        newer, second = splice(again, more)
        assert tools.run(["xz", "-dc"], stdin=newer) == tools.run(["xz", "-dc"], stdin=new) + b"more"
        assert second.reused == sum(block.end - block.start for block in again.form.blocks)
        assert packed.reused <= len(old.packed)

    holds()


def borders_of(old: Old) -> list[tuple[int, int]]:
    """(plain, packed) of every chunk border, counted with liblzma's own sizes from our walk."""
    return [pair for block in old.form.blocks for pair in zip(block.borders.plain, block.borders.packed, strict=True)]


@pytest.mark.parametrize("check", CHECKS)
def test_additions_keep_everything_before_the_last_border(check: str) -> None:
    old = old_stream(xz(PLAIN, "-T1", "-1", f"--check={check}"))
    end = len(PLAIN) - 600  # where the trailer would stand
    pieces: list[Piece] = [Range(old.decoded, 0, end), Literal(b"new entry"), Range(old.decoded, end, 600)]
    new, packed = splice(old, pieces)
    judge(new, pieces, PLAIN)
    plain, at = max(border for border in borders_of(old) if border[0] <= end)
    assert len(borders_of(old)) > 5
    assert packed.reused == at - old.form.blocks[0].data > 0.8 * len(old.packed)
    assert packed.encoded + packed.stored == len(PLAIN) - plain + len(b"new entry")
    start = old.form.blocks[0].data
    assert old.packed[start:at] in new


def test_a_change_in_the_middle_keeps_all_other_blocks() -> None:
    old = old_stream(xz(PLAIN, "-T2", "-1", "--block-size=100000"))
    assert len(old.form.blocks) == 9
    pieces: list[Piece] = [
        Range(old.decoded, 0, 410_000),
        Literal(b"replaced"),
        Range(old.decoded, 410_100, len(PLAIN) - 410_100),
    ]
    new, packed = splice(old, pieces)
    judge(new, pieces, PLAIN)
    whole = [block for number, block in enumerate(old.form.blocks) if number != 4]
    for block in whole:
        assert old.packed[block.start : block.end] in new
    assert packed.reused >= sum(block.end - block.start for block in whole)
    assert packed.encoded + packed.stored <= 100_000 - 100 + len(b"replaced")


def test_blocks_under_another_check_than_the_first_streams_are_encoded_anew() -> None:
    half = len(PLAIN) // 2
    packed = xz(PLAIN[:half], "-1", "--check=crc32") + bytes(8) + xz(PLAIN[half:], "-1", "--check=crc64")
    old = old_stream(packed)
    assert old.form.streams == 2
    pieces: list[Piece] = [Range(old.decoded, 0, len(PLAIN)), Literal(b"more")]
    new, done = splice(old, pieces)
    judge(new, pieces, PLAIN)
    assert done.reused == old.form.blocks[0].end - old.form.blocks[0].start
    assert done.encoded + done.stored == len(PLAIN) - half + 4


def test_damage_in_what_is_decoded_again_is_told() -> None:
    """The kept front stays as it was, damaged or not, only if nothing needs it; what is decoded is checked."""
    packed = bytearray(xz(PLAIN, "-T1", "-1"))
    old = old_stream(bytes(packed))
    packed[len(packed) // 2] ^= 0x40
    table = PieceTable([Literal(bytes(packed))])
    hurt = DecodedSource(table, old.form, PLACE, b"", len(PLAIN))
    pieces: list[Piece] = [Literal(b"first"), Range(hurt, 10, len(PLAIN) - 10)]
    with pytest.raises(CosremasterError, match=r"^a\.xz @0x[0-9A-F]+: "):
        splice(Old(bytes(packed), old.form, hurt, table), pieces)


SKEWED = bytes(max(CHANCE.randrange(256), CHANCE.randrange(40)) for _ in range(400_000))
NOISE = CHANCE.randbytes(3_000_000)
CONTENTS = {
    "noise": NOISE,
    "text": mixed(3_000_000, 3),
    "noise twice": NOISE[:1_500_000] * 2,
    "small noise many times": NOISE[:60_000] * 40,
    "skewed bytes": SKEWED,
    "text behind noise": NOISE + b"text and more text\n" * 30_000,
    "noise with islands of text": b"".join(
        NOISE[at : at + 90_000] + b"some words, %d of them\n" % at * 400 for at in range(0, 2_000_000, 90_000)
    ),
}


@pytest.mark.parametrize("content", CONTENTS)
def test_never_a_hundredth_above_xz(content: str) -> None:
    data = CONTENTS[content]
    old = old_stream(xz(b"", "-6"))
    pieces: list[Piece] = [Literal(data)]
    new, packed = splice(old, pieces)
    judge(new, pieces, b"")
    assert len(new) <= 1.01 * len(xz(data, "-6"))
    if content == "noise":
        assert (packed.encoded, packed.stored) == (0, len(data))


@pytest.mark.parametrize("length", [1, 3 << 20, 24 << 20, (24 << 20) + 1, 50 << 20, 100 << 20, (480 << 20) - 7])
@pytest.mark.parametrize("whole", [1, 11, 12, 100])
def test_blocks_of_a_part_are_of_one_size_and_even_in_number(length: int, whole: int) -> None:
    how = EncoderOptions(CRC64, 8 << 20)
    size = xz_form._block_size(length, length * whole, how)
    count = -(-length // size)
    assert size <= how.block_size
    if length > how.block_size:
        assert count % 2 == 0
        assert count - length // how.block_size <= 2
        assert count * size - length < count, "the last is as long as the others, but for a few bytes"
    elif whole >= xz_form.SMALL_PART:
        assert (count, size) == (xz_form.SPLIT, -(-length // xz_form.SPLIT)) or size == SEGMENT
    else:
        assert count == 1


def test_always_compress_and_preset_overrule() -> None:
    old = old_stream(xz(b"", "-6"))
    data = NOISE[:200_000] + PLAIN
    results = {}
    for preset, always in ((None, False), (0, False), (None, True)):
        with tempfile.TemporaryDirectory() as folder, Spool(Path(folder)) as spool:
            job = RepackJob(
                packed=old.table, decoded=old.decoded, plain=PieceTable([Literal(data)]), spool=spool, threads=1,
                advance=lambda _: None, preset=preset, always_compress=always,
            )  # fmt: skip
            packed = old.form.repack(job)
            new = b"".join(packed.table.chunks())
        judge(new, [Literal(data)], b"")
        results[preset, always] = (len(new), packed.stored)
    assert results[None, True][1] == 0
    assert results[0, False][0] > results[None, False][0]


LARGE = mixed(3_000_000, 3)


def splice_large(old: Old, pieces: list[Piece], cache: BlockCache, preset: int | None = None) -> bytes:
    """The new stream for ``pieces`` of :data:`LARGE`, by a job that keeps blocks in ``cache``."""
    with tempfile.TemporaryDirectory() as folder, Spool(Path(folder)) as spool:
        job = RepackJob(
            packed=old.table, decoded=old.decoded, plain=PieceTable(pieces), spool=spool, threads=2,
            advance=lambda _: None, cache=cache, preset=preset,
        )  # fmt: skip
        return b"".join(old.form.repack(job).table.chunks())


def test_a_little_data_at_the_end_of_a_large_stream_is_compressed_quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    """What stays of an old chunk is a block of its own, encoded once for an opened image."""
    presets: list[int] = []
    real = encode._lzma2

    def lzma2(
        data: memoryview, dictionary_size: int, preset: int, stop: StopFlag, advance: Advance
    ) -> tuple[bytes, ...]:
        presets.append(preset)
        return real(data, dictionary_size, preset, stop, advance)

    monkeypatch.setattr(encode, "_lzma2", lzma2)
    old, cache = old_stream(xz(LARGE, "-T1", "-6")), BlockCache()
    end = next(plain for plain, _ in borders_of(old) if plain > xz_form.QUICK_SHARE * 30_000) + 30_000
    pieces: list[Piece] = [Range(old.decoded, 0, end), Literal(b"words, and some more words\n" * 400)]
    new = splice_large(old, pieces, cache)
    assert presets == [1, 1]
    judge(new, pieces, LARGE)
    assert [block.record.plain for block in old_stream(new).form.blocks][1:] == [30_000, 10_800]
    assert splice_large(old, pieces, cache) == new, "whatever is kept"
    assert presets == [1, 1, 1], "the new bytes alone"
    long: list[Piece] = [Range(old.decoded, 0, end), Literal(LARGE[: xz_form.QUICK + 1])]
    judge(splice_large(old, long, cache), long, LARGE)
    assert presets[3:] and set(presets[3:]) == {encode.PRESET}, "much new data"
    presets.clear()
    judge(splice_large(old, pieces, cache, preset=4), pieces, LARGE)
    assert presets == [4], "as asked for, and the old bytes with the new ones"
