"""Deltas that are damaged, that lie, and that are bombs: an error with its place, and nothing written."""

from __future__ import annotations

import hashlib
import json
import os
import random
import tempfile
import tracemalloc
import zlib
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import cosremaster
from cosremaster import AddPath, InlineFile, OutputError, Request
from cosremaster.cli import main
from cosremaster.deltas import decode
from cosremaster.deltas.check import check_delta
from cosremaster.deltas.decode import decode_window, read_heads
from cosremaster.deltas.encode import SEGMENT, WINDOW, cut_windows, encode_delta, measure_delta
from cosremaster.deltas.note import DeltaNote, FileDigest, note_path
from cosremaster.deltas.sums import TableSums
from cosremaster.deltas.vcdiff import HEADER, encode_number, make_code_table
from cosremaster.errors import (
    CorruptError,
    CosremasterError,
    ImageError,
    Place,
    ProofError,
    UnsupportedError,
    UsageError,
)
from cosremaster.io.blobs import BlobStore
from cosremaster.io.files import FileSource
from cosremaster.io.frozen import FrozenTable, Origin, OriginRun, freeze_table
from cosremaster.io.pieces import Literal, Piece, PieceTable, Range, Zeros
from cosremaster.io.shared_sums import SharedSums
from cosremaster.io.source import open_file
from tests.support.examples import examples
from tests.support.small import write_small

BASE = random.Random(1).randbytes(150_000)
EARLY = Request(add=[InlineFile("/etc/hostname", b"site\n")], xz_preset=0)


def apply_bytes(delta: bytes, folder: Path, base: bytes = BASE) -> bytes:
    """What ``delta`` makes of ``base`` as the public function applies it; nothing may stay behind an error."""
    (folder / "base").write_bytes(base)
    (folder / "d.vcdiff").write_bytes(delta)
    target = folder / "out"
    try:
        cosremaster.apply(folder / "base", folder / "d.vcdiff", target, sync=False)
        return target.read_bytes()
    except CosremasterError:
        assert sorted(path.name for path in folder.iterdir()) == ["base", "d.vcdiff"]
        raise
    finally:
        target.unlink(missing_ok=True)


def make_window(
    made: int, data: bytes, codes: bytes, addresses: bytes, *, source: tuple[int, int] | None = None,
    adler: bytes | None = None, indicator: int = 0, compressed: int = 0,
) -> bytes:  # fmt: skip
    """A window by its parts; ``source``: size and offset of the base's segment."""
    adler = bytes(4) if adler is None else adler
    flags = indicator | (1 if source else 0) | (4 if adler else 0)
    head = b"".join(map(encode_number, source or ()))
    sizes = b"".join(map(encode_number, map(len, (data, codes, addresses))))
    inside = encode_number(made) + bytes([compressed]) + sizes + adler + data + codes + addresses
    return bytes([flags]) + head + encode_number(len(inside)) + inside


def with_sum(made: bytes, *parts: bytes, source: tuple[int, int] | None = None) -> bytes:
    """A delta of one window that makes ``made``."""
    data, codes, addresses = parts
    adler = zlib.adler32(made).to_bytes(4, "big")
    return HEADER + make_window(len(made), data, codes, addresses, source=source, adler=adler)


@pytest.fixture(scope="module")
def small_delta() -> tuple[bytes, bytes]:
    """A delta with all that ours have, and what it makes."""
    made = BASE[100:60_000] + b"new" + bytes(70) + BASE[5:400] + b"end"
    codes = b"\x13" + encode_number(59_900) + b"\1\3" + b"\0\x46" + b"\x13" + encode_number(395) + b"\4"
    return with_sum(
        made, b"new\0end", codes, encode_number(95) + encode_number(0), source=(59_995, 5)
    ), made  # fmt: skip


def test_a_delta_makes_what_it_says(small_delta: tuple[bytes, bytes], tmp_path: Path) -> None:
    delta, made = small_delta
    assert apply_bytes(delta, tmp_path) == made


def test_every_truncation_is_an_error_with_its_place(small_delta: tuple[bytes, bytes], tmp_path: Path) -> None:
    delta, _ = small_delta
    for length in range(len(delta)):
        with pytest.raises((CorruptError, ImageError)) as caught:
            apply_bytes(delta[:length], tmp_path)
        place = str(caught.value.place)
        assert "d.vcdiff" in place
        assert length < 3 or "@0x" in place


def test_a_delta_that_makes_nothing_has_a_note(tmp_path: Path) -> None:
    """Without, it is one of which nothing but the header is left."""
    base, delta, target = tmp_path / "base", tmp_path / "d.vcdiff", tmp_path / "out"
    base.write_bytes(BASE)
    delta.write_bytes(HEADER)
    with pytest.raises(CorruptError, match=r"ends behind its header, and no .*d\.vcdiff\.json beside it says"):
        cosremaster.apply(base, delta, target)
    assert not target.exists()
    digests = [FileDigest(len(data), hashlib.sha256(data).hexdigest()) for data in (BASE, b"")]
    note_path(delta).write_bytes(DeltaNote(*digests).encode(len(HEADER)))
    assert cosremaster.apply(base, delta, target).size == 0
    assert target.read_bytes() == b""


def test_a_warning_says_what_goes_unseen_without_a_note(
    small_delta: tuple[bytes, bytes], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base, delta, target = tmp_path / "base", tmp_path / "d.vcdiff", tmp_path / "out"
    base.write_bytes(BASE)
    delta.write_bytes(small_delta[0])
    assert main(["apply", str(base), str(delta), str(target), "--quiet"]) == 0
    assert f"warning: {delta}.json is not there: if whole windows are cut off" in capsys.readouterr().err


def test_a_delta_cut_off_between_windows_is_noticed_by_its_note(tmp_path: Path) -> None:
    base, delta = write_small(tmp_path), tmp_path / "d.vcdiff"
    big = tmp_path / "big"
    big.write_bytes(random.Random(2).randbytes(WINDOW + 70_000))
    cosremaster.remaster(base, delta, delta=True, add=[AddPath(big, "/opt/big")], xz_preset=0)
    with open_file(delta) as source:
        first, second, *_ = read_heads(source, base.stat().st_size)
    os.truncate(delta, second.offset)
    with pytest.raises(CorruptError, match=r"makes 4,194,304 bytes, and [\d,]+ were expected: it may be cut off"):
        cosremaster.apply(base, delta, tmp_path / "out.iso")
    assert first.length == WINDOW


@settings(max_examples=60)
@given(st.lists(st.tuples(st.integers(0, 200), st.integers(0, 255)), min_size=1, max_size=4), st.booleans())
def test_a_mutated_delta_never_makes_other_bytes_or_a_traceback(
    small_delta: tuple[bytes, bytes],
    tmp_path_factory: pytest.TempPathFactory,
    changes: list[tuple[int, int]],
    cut: bool,
) -> None:
    delta, made = bytearray(small_delta[0]), small_delta[1]
    for at, value in changes:
        delta[at % len(delta)] = value
    if cut:
        del delta[changes[0][0] % len(delta)]
    folder = tmp_path_factory.mktemp("mutated")
    try:
        assert apply_bytes(bytes(delta), folder) == made
    except CosremasterError as error:
        assert error.place is not None or isinstance(error, UsageError)


NUMBER = st.integers(0, 300).map(encode_number)


@settings(max_examples=60)
@given(
    st.lists(st.tuples(st.integers(0, 255), NUMBER), max_size=12), st.binary(max_size=60), st.lists(NUMBER, max_size=9)
)
def test_windows_of_any_instructions_are_decoded_or_refused(
    tmp_path_factory: pytest.TempPathFactory, codes: list[tuple[int, bytes]], data: bytes, addresses: list[bytes]
) -> None:
    instructions = b"".join(
        bytes([code]) + (size if make_code_table()[code][0].size == 0 else b"") for code, size in codes
    )
    window = make_window(500, data, instructions, b"".join(addresses), source=(200, 10), adler=b"")
    path = tmp_path_factory.mktemp("any") / "d.vcdiff"
    path.write_bytes(HEADER + window)
    base = path.with_name("base")
    base.write_bytes(BASE[:1000])
    with open_file(path) as delta, open_file(base) as old:
        try:
            (head,) = read_heads(delta, old.size)
            assert PieceTable(decode_window(delta, head, old)).length == 500
        except CorruptError as error:
            assert error.place is not None
            assert error.place.offset is not None


HUGE = encode_number((1 << 63) - 1)
WRONG: dict[str, tuple[bytes, type[CosremasterError], str]] = {
    "no delta": (b"PK\3\4" + bytes(60), ImageError, "is no delta in the format VCDIFF"),
    "open-vcdiff": (b"\xd6\xc3\xc4S\0", UnsupportedError, "is a delta of version 0x53, not of RFC 3284"),
    "code table": (b"\xd6\xc3\xc4\0\2", UnsupportedError, "has a code table of its own"),
    "header flags": (b"\xd6\xc3\xc4\0\x80", CorruptError, "its header has unknown flags"),
    "application header": (b"\xd6\xc3\xc4\0\4" + HUGE, CorruptError, "ends in its application header"),
    "window flags": (HEADER + b"\x10", CorruptError, "a window has unknown flags 0x10"),
    "VCD_TARGET": (HEADER + make_window(1, b"a", b"\2", b"", indicator=2), UnsupportedError, "VCD_TARGET"),
    "secondary": (HEADER + make_window(1, b"a", b"\2", b"", compressed=1), UnsupportedError, "a secondary compression"),
    "segment past the end": (
        HEADER + make_window(1, b"", b"\x13\1", b"\0", source=(1, len(BASE))), CorruptError,
        "a window takes bytes 150,000 to 150,001 of a base of 150,000",
    ),
    "huge segment": (HEADER + b"\5" + HUGE + HUGE, CorruptError, "a window takes bytes"),
    "huge number": (HEADER + b"\5" + b"\xff" * 12, CorruptError, "a number has more than 63 bits"),
    "huge window": (HEADER + make_window(1 << 40, b"a", b"\2", b""), UnsupportedError, "a window makes 1,099,511,6"),
    "huge sections": (HEADER + b"\4\x10\1\0" + HUGE + HUGE + HUGE, CorruptError, "pass the end of their section"),
    "sections that lie": (HEADER + b"\4\x0a\1\0\1\1\2" + bytes(4) + b"a", CorruptError, "the sections of a window"),
    "an add past its data": (HEADER + make_window(2, b"a", b"\3", b""), CorruptError, "2 bytes pass the end of their"),
    "too much": (HEADER + make_window(2, b"abc", b"\4", b""), CorruptError, "an instruction passes the end of"),
    "too little": (HEADER + make_window(4, b"abc", b"\4", b""), CorruptError, "a window makes 3 bytes of its 4"),
    "data to spare": (HEADER + make_window(3, b"abcd", b"\4", b""), CorruptError, "bytes that no instruction takes"),
    "addresses to spare": (HEADER + make_window(3, b"abc", b"\4", b"\0"), CorruptError, "bytes that no instruction"),
    "a copy of what is not made": (
        HEADER + make_window(9, b"", b"\x13\x09", encode_number(100), source=(100, 0)), CorruptError,
        "a copy begins at 100, where nothing is",
    ),
    "a copy from before": (HEADER + make_window(8, b"abcd", b"\5\x24", b"\5"), CorruptError, "a copy begins at -1"),
    "an endless copy": (
        HEADER + make_window(1 << 20, b"a", b"\2\x13" + HUGE, b"\0"), CorruptError, "passes the end of its window"
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", WRONG)
def test_what_is_wrong_is_one_sentence_with_a_place(kind: str, tmp_path: Path) -> None:
    delta, error, sentence = WRONG[kind]
    with pytest.raises(error, match=sentence.replace("(", r"\(")) as caught:
        apply_bytes(delta, tmp_path)
    assert kind == "no delta" or "d.vcdiff @0x" in str(caught.value)


def test_a_wrong_sum_says_so(small_delta: tuple[bytes, bytes], tmp_path: Path) -> None:
    with pytest.raises(CorruptError, match=r"another Adler-32: .*base is not its base"):
        apply_bytes(small_delta[0], tmp_path, BASE[::-1])


def test_a_bomb_is_refused_before_it_is_made(tmp_path: Path) -> None:
    (tmp_path / "base").write_bytes(b"a")
    window = make_window(decode.MAX_WINDOW, b"b", b"\0" + encode_number(decode.MAX_WINDOW), b"")
    (tmp_path / "d.vcdiff").write_bytes(HEADER + window * 100)
    words = ["apply", str(tmp_path / "base"), str(tmp_path / "d.vcdiff"), str(tmp_path / "out")]
    assert main(words) == CorruptError.exit_code
    assert not (tmp_path / "out").exists()


def test_memory_is_bounded_by_the_window(tmp_path: Path) -> None:
    """Many instructions of single bytes make no values of their own that stay."""
    count = 10_000
    data, codes = os.urandom(count), (b"\2\x13\1") * count
    made = b"".join(bytes([byte]) + BASE[:1] for byte in data)
    (tmp_path / "base").write_bytes(BASE)
    (tmp_path / "d.vcdiff").write_bytes(with_sum(made, data, codes, bytes(count), source=(10, 0)))
    with open_file(tmp_path / "d.vcdiff") as delta, open_file(tmp_path / "base") as base:
        (head,) = read_heads(delta, base.size)
        tracemalloc.start()
        pieces = list(decode_window(delta, head, base))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert PieceTable(pieces).read() == made
    assert peak < 10 * len(made)


def test_copies_of_what_is_made_may_overlap_and_begin_in_the_base(tmp_path: Path) -> None:
    codes = b"\3\x13\x08" + b"\x13\x0a"
    made = b"ab" + b"ab" * 4 + BASE[95:100] + b"ababa"
    addresses = encode_number(100) + encode_number(95)
    assert apply_bytes(with_sum(made, b"ab", codes, addresses, source=(100, 0)), tmp_path) == made


@pytest.mark.parametrize("sums", [True, False])
def test_windows_keep_their_bounds_and_the_size_is_known_before(sums: bool, tmp_path: Path) -> None:
    far = SEGMENT + 5
    with open(tmp_path / "base", "wb") as file:
        file.truncate(3 * SEGMENT)
    with open_file(tmp_path / "base") as base:
        pieces: list[Piece] = [
            Range(base, 0, 9),
            Range(base, far, 3 * WINDOW),
            Literal(b"x"),
            Range(base, 4, 6),
            Zeros(99),
        ]
        table = freeze_table(PieceTable(pieces), base, BlobStore(tmp_path))
        windows = list(cut_windows(table.runs()))
        assert [window.length for window in windows] == [9, WINDOW, WINDOW, WINDOW, 106]
        assert sum(window.length for window in windows) == table.size
        for window in windows:
            taken = [run for run in window.runs if run.origin is Origin.BASE]
            assert max(run.offset + run.length for run in taken) - min(run.offset for run in taken) <= SEGMENT
        delta = b"".join(encode_delta(table, has_sums=sums))
        assert measure_delta(table, has_sums=sums) == len(delta) < 200
        (tmp_path / "d.vcdiff").write_bytes(delta)
        with open_file(tmp_path / "d.vcdiff") as source:
            check_delta(source, table, source.place)
            assert {head.adler is None for head in read_heads(source, base.size)} == {not sums}


def test_a_run_is_cut_at_the_end_of_a_window() -> None:
    assert OriginRun(Origin.BASE, 5, 10).split(4) == (OriginRun(Origin.BASE, 5, 4), OriginRun(Origin.BASE, 9, 6))
    assert OriginRun(Origin.BYTES, 0, 3).split(4) == (OriginRun(Origin.BYTES, 0, 3), OriginRun(Origin.BYTES, 0, 0))


def test_a_delta_of_other_pieces_is_no_proof(tmp_path: Path) -> None:
    (tmp_path / "base").write_bytes(BASE)
    with open_file(tmp_path / "base") as base:
        store = BlobStore(tmp_path)

        def freeze(*pieces: Piece) -> FrozenTable:
            """The frozen table of ``pieces``."""
            return freeze_table(PieceTable(pieces), base, store)

        planned = freeze(Range(base, 7, 90_000), Literal(b"a" * 5000), Zeros(90_000))
        others = [
            freeze(Range(base, 8, 90_000), Literal(b"a" * 5000), Zeros(90_000)),
            freeze(Range(base, 7, 90_000), Literal(b"a" * 4999 + b"b"), Zeros(90_000)),
            freeze(Range(base, 7, 90_000), Literal(b"a" * 5000), Zeros(89_999)),
            freeze(Range(base, 7, 90_000), Literal(b"a" * 5000), Zeros(90_000), Literal(b"c")),
        ]
        for number, table in enumerate([planned, *others]):
            path = tmp_path / f"{number}.vcdiff"
            path.write_bytes(b"".join(encode_delta(table)))
            with open_file(path) as delta:
                if table is planned:
                    check_delta(delta, planned, Place())
                    continue
                with pytest.raises(ProofError, match=r"makes (other bytes than planned at|[\d,]+ bytes, and)"):
                    check_delta(delta, planned, Place())


def test_a_delta_appears_whole_with_its_note_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base, delta = write_small(tmp_path), tmp_path / "d.vcdiff"
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with monkeypatch.context() as patch:
        patch.setattr(TableSums, "sum_window", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            cosremaster.Image(base).remaster(delta, EARLY, delta=True)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    (tmp_path / "d.vcdiff.json").write_text("mine")
    with cosremaster.open(base) as image:
        with pytest.raises(OutputError, match=r"d\.vcdiff\.json: exists already"):
            image.remaster(delta, EARLY, delta=True)
        assert (tmp_path / "d.vcdiff.json").read_text() == "mine"
        image.remaster(delta, EARLY, delta=True, force=True, digest="sha256")
    assert json.loads((tmp_path / "d.vcdiff.json").read_text())["delta"] == {"size": delta.stat().st_size}
    assert (tmp_path / "d.vcdiff.sha256").read_text().endswith("  d.vcdiff\n")


def test_a_delta_under_the_name_of_an_image_has_a_warning(tmp_path: Path) -> None:
    with cosremaster.open(write_small(tmp_path)) as image:
        for name, warns in {"d.vcdiff": False, "d": False, "d.ISO": True, "d.img": True}.items():
            warnings = image.remaster(tmp_path / name, EARLY, delta=True).warnings
            assert [text for text in warnings if "which no machine boots" in text and name in text] == (
                [f"{tmp_path / name}: is a delta, which no machine boots, though its name says an image"] * warns
            )


def test_what_a_delta_cannot_be_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base, delta = str(write_small(tmp_path)), str(tmp_path / "d.vcdiff")
    for words, sentence in {
        (base, delta, "--plain"): "--plain",
        (base, delta, "--delta", "--read-back"): "--read-back",
        (base, delta, "--delta", "--report", f"{delta}.r"): "--report",
        (base, "-", "--delta"): "they are not written to standard output",
        (base, base, "--delta", "--force"): "is the input itself",
        ("apply", base, delta, "-"): "it is not written to standard output",
        ("apply", base, f"{delta}.missing", delta): "No such file",
    }.items():
        assert main(list(words)) != 0
        assert sentence in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["in.iso"]


NOTES: dict[str, str | dict[str, object]] = {
    "no JSON": "{", "a list": "[]", "another schema": {"schema": 2}, "no base": {"base": None},
    "a short digest": {"base": {"size": 1, "sha256": "00"}}, "no number": {"result": {"size": "1", "sha256": "0" * 64}},
    "deep": "[" * 50_000, "long": " " * 70_000,
}  # fmt: skip


@pytest.mark.parametrize("kind", NOTES)
def test_a_damaged_note_is_refused(kind: str, small_delta: tuple[bytes, bytes], tmp_path: Path) -> None:
    digest = {"size": 1, "sha256": "0" * 64}
    note = {"schema": 1, "format": "vcdiff", "base": digest, "result": digest}
    change = NOTES[kind]
    (tmp_path / "d.vcdiff.json").write_text(change if isinstance(change, str) else json.dumps(note | change))
    (tmp_path / "d.vcdiff").write_bytes(small_delta[0])
    (tmp_path / "base").write_bytes(BASE)
    with pytest.raises(CorruptError, match=r"d\.vcdiff\.json: is no note of a delta"):
        cosremaster.apply(tmp_path / "base", tmp_path / "d.vcdiff", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_neither_base_nor_delta_is_replaced(small_delta: tuple[bytes, bytes], tmp_path: Path) -> None:
    (tmp_path / "d.vcdiff").write_bytes(small_delta[0])
    (tmp_path / "base").write_bytes(BASE)
    for name in ("base", "d.vcdiff"):
        with pytest.raises(OutputError, match="is the input itself"):
            cosremaster.apply(tmp_path / "base", tmp_path / "d.vcdiff", tmp_path / name, force=True)


def test_a_delta_for_the_base_of_another_is_of_the_image_that_the_other_makes_now(tmp_path: Path) -> None:
    """The other delta may be replaced, or be one that makes another image: then there is none for its base."""
    base, first = write_small(tmp_path, extra={"pad": random.Random(2).randbytes(200_000)}), tmp_path / "first.vcdiff"
    request = Request(add=[InlineFile("/etc/site", b"x")])
    inner = [tmp_path / "inner-0.iso", tmp_path / "inner-1.iso"]
    for number, target in enumerate(inner):
        data = random.Random(number).randbytes(20_000 << number)
        add = [InlineFile("/etc/motd", data)]
        cosremaster.remaster(base, first, add=add, delta=True, force=True, sync=False)
        cosremaster.apply(base, first, target, sync=False)
        with cosremaster.open(target) as image:
            image.remaster(tmp_path / f"{number}.vcdiff", request, delta=True, base_delta=first, sync=False)
            image.remaster(tmp_path / f"{number}.iso", request, sync=False)
        cosremaster.apply(base, tmp_path / f"{number}.vcdiff", tmp_path / f"made-{number}.iso", sync=False)
        assert (tmp_path / f"made-{number}.iso").read_bytes() == (tmp_path / f"{number}.iso").read_bytes()
    same_size = bytearray(inner[1].read_bytes())
    same_size[-1] ^= 1
    (tmp_path / "3.iso").write_bytes(same_size)
    for other in (inner[0], tmp_path / "3.iso"):
        target = tmp_path / "wrong.vcdiff"
        with cosremaster.open(other) as image, pytest.raises(ImageError, match=r"makes another image than .*\.iso$"):
            image.remaster(target, request, delta=True, base_delta=first, sync=False)
        assert not target.exists() and not target.with_name("wrong.vcdiff.json").exists()


def test_what_makes_a_delta_large_is_told_by_the_plan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("cosremaster.remastering.delta.MUCH", 1 << 10)
    base = write_small(tmp_path)
    with cosremaster.open(base) as image:
        written = image.remaster(tmp_path / "d.vcdiff", EARLY, delta=True)
        plan = image.plan(EARLY, delta=True)
        late = image.plan(Request(add=[InlineFile("/etc/zz", b"7")], xz_preset=0), delta=True)
    assert plan.delta is not None
    assert written.delta is not None
    assert plan.delta.size == written.delta.size == (tmp_path / "d.vcdiff").stat().st_size
    (early,) = plan.delta.early
    assert (early.path, early.layer) == (b"etc/hostname", "debirf-live-demo.cgz::rootfs.cxz")
    assert written.delta.early == plan.delta.early
    assert late.delta is not None
    assert late.delta.early == ()
    assert plan.values["delta"]["early"] == [{"layer": early.layer, "path": "etc/hostname", "bytes": early.size}]
    (line,) = [line for line in plan.lines if "stands early" in line]
    assert "because etc/hostname stands early in debirf-live-demo.cgz::rootfs.cxz" in line
    assert "cosremaster prepare" in line
    assert main(["plan", str(base), "--delta"]) == 0
    assert "delta: 27 B" in capsys.readouterr().out


@settings(max_examples=examples(60), deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(["base", "own", "zeros"]), st.integers(0, 3), st.integers(1, 70)), min_size=1)
)
def test_sums_of_windows_are_those_of_their_bytes(parts: list[tuple[str, int, int]]) -> None:
    """Of images that begin alike, by what the ones before left; hashlib and zlib sum all bytes."""
    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        patch.setattr("cosremaster.deltas.sums.MIN_SHARED", 30)
        patch.setattr("cosremaster.deltas.sums.STEP", 20)
        folder = Path(name)
        (folder / "base").write_bytes(BASE)
        with open_file(folder / "base") as base:
            shared = SharedSums(base)
            for end in range(1, len(parts) + 1):
                pieces: list[Piece] = []
                for kind, at, length in parts[:end]:
                    if kind == "base":
                        pieces.append(Range(base, at * 100, length))
                    else:
                        pieces.append(Literal(bytes([at]) * length) if kind == "own" else Zeros(length))
                table = freeze_table(PieceTable(pieces), base, BlobStore(folder))
                sums, data = TableSums(table, shared), table.read(0, table.size)
                for start in range(0, table.size, 64):
                    window = data[start : start + 64]
                    assert sums.sum_window(start, len(window)) == zlib.adler32(window)
                assert sums.hexdigest() == hashlib.sha256(data).hexdigest()


def test_all_windows_are_read_into_one_buffer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A buffer of its own for each window has its pages made anew, which took half as long as the digest."""
    (tmp_path / "base").write_bytes(BASE)
    buffers: list[int] = []

    def make_buffer(size: int) -> memoryview:
        """Counts the buffers."""
        buffers.append(size)
        return memoryview(bytearray(size))

    for module in ("deltas.sums", "io.shared_sums"):
        monkeypatch.setattr(f"cosremaster.{module}.aligned_buffer", make_buffer)
    with open_file(tmp_path / "base") as base:
        table = freeze_table(PieceTable([Range(base, 0, len(BASE))]), base, BlobStore(tmp_path))
        sums = TableSums(table, SharedSums(base))
        for start in range(0, len(BASE), 10_000):
            assert sums.sum_window(start, 10_000) == zlib.adler32(BASE[start : start + 10_000])
    assert sums.hexdigest() == hashlib.sha256(BASE).hexdigest()
    assert len(buffers) == 1


def test_what_is_known_of_a_base_is_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "base").write_bytes(BASE)
    monkeypatch.setattr("cosremaster.deltas.sums.MIN_SHARED", 4096)
    monkeypatch.setattr("cosremaster.deltas.sums._MOST_ADLERS", 3)
    read: list[tuple[int, int]] = []
    needed: list[tuple[int, int]] = []
    real = FileSource.read_into

    def read_into(source: FileSource, offset: int, views: Sequence[memoryview]) -> None:
        read.append((offset, sum(map(len, views))))
        real(source, offset, views)

    with open_file(tmp_path / "base") as base:
        shared, front, tail = SharedSums(base), Range(base, 0, 8192), Range(base, 9000, 5000)
        monkeypatch.setattr(FileSource, "read_into", read_into)
        for own in (b"1", b"2"):
            table = freeze_table(PieceTable([front, Literal(own), tail]), base, BlobStore(tmp_path))
            sums = TableSums(table, shared)
            sums.sum_window(0, table.size)
            needed += read
            assert sums.hexdigest() == hashlib.sha256(table.read(0, table.size)).hexdigest()
            read.clear()
        assert needed == [(0, 8192), (9000, 5000), (9000, 5000)], "behind other bytes SHA-256 is another"
        for offset in range(5):
            part = freeze_table(PieceTable([Range(base, offset, 4096)]), base, BlobStore(tmp_path))
            TableSums(part, shared).sum_window(0, 4096)
        assert len(shared.adlers) <= 3
