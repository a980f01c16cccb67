"""Deflate blocks of gzip's own streams that stay around changes, judged by gzip, busybox and ISA-L."""

import gzip as python_gzip
import random
import tempfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import cosremaster
from cosremaster.codecs.base import RepackJob, RepackResult
from cosremaster.codecs.gzip import checkpoints, splice
from cosremaster.codecs.gzip.borders import PackedStep
from cosremaster.codecs.gzip.codec import GzipCodec
from cosremaster.codecs.gzip.splice import _filler
from cosremaster.errors import Place
from cosremaster.io.pieces import Literal, Piece, PieceTable, Range
from cosremaster.io.spool import Spool
from cosremaster.io.streams import ByteReader
from cosremaster.layers.decoded import DecodedSource
from tests.fixtures import tools

PLACE = Place(("a.gz",))
CHANCE = random.Random(11)
TEXT = b" words and numbers ".join(CHANCE.randbytes(30).hex().encode() for _ in range(16_000))
NOISE = CHANCE.randbytes(400_000)
Parts: TypeAlias = Sequence[Piece | tuple[int, int]]
HEAD = b"\x1f\x8b\x08\0\0\0\0\0\0\xff"


def pack(plain: bytes, *options: str) -> bytes:
    """``plain`` packed by gzip(1)."""
    tools.require("gzip")
    return tools.run(["gzip", "-nc", *options], stdin=plain)


def repack(
    packed: bytes, pieces: Parts, step: int = 1 << 18, threads: int = 2, *, records_states: bool = False
) -> tuple[bytes, RepackResult, bytes]:
    """The new stream for ``pieces``, where two numbers are the ends of old bytes; how it was made; its plain bytes."""
    chunks = (packed[at : at + step] for at in range(0, len(packed), step))
    decoding = GzipCodec(records_states=records_states).decode(ByteReader(chunks, PLACE))
    plain = b"".join(decoding.chunks())
    table = PieceTable([Literal(packed[at : at + step]) for at in range(0, len(packed), step)])
    decoded = DecodedSource(table, decoding.parameters, PLACE, b"", len(plain))
    new = PieceTable(Range(decoded, piece[0], piece[1] - piece[0]) if len(piece) == 2 else piece for piece in pieces)
    expected = b"".join(
        plain[piece.offset : piece.offset + piece.length] if isinstance(piece, Range) else b"".join(piece.chunks())
        for piece in new.pieces
    )
    with tempfile.TemporaryDirectory() as folder, Spool(Path(folder)) as spool:
        job = RepackJob(
            packed=table, decoded=decoded, plain=new, spool=spool, threads=threads, advance=lambda _: None
        )  # fmt: skip
        result = decoding.parameters.repack(job)
        return b"".join(result.table.chunks()), result, expected


def judge(packed: bytes, expected: bytes) -> None:
    """Every unpacker makes ``expected`` of ``packed``."""
    tools.require("gzip", "busybox")
    assert tools.run(["gzip", "-dc"], stdin=packed) == expected
    assert tools.run(["busybox", "gunzip", "-c"], stdin=packed) == expected
    assert tools.load_module("isal.isal_zlib").decompress(packed, 31) == expected


@pytest.fixture
def short_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs of 100,000 bytes are long."""
    monkeypatch.setattr(splice, "MIN_RUN", 100_000)


@pytest.mark.parametrize("bit", range(8))
def test_empty_blocks_lead_to_every_bit(bit: int) -> None:
    bits, length = _filler(bit)
    assert length % 8 == bit
    bits |= 3 << length
    stream = HEAD + bits.to_bytes((length + 10 + 7) // 8, "little") + bytes(8)
    judge(stream, b"")


@pytest.mark.usefixtures("short_runs")
@pytest.mark.parametrize("level", ["-1", "-6", "-9"])
def test_blocks_of_gzip_stay_around_changes(level: str) -> None:
    old = pack(TEXT, level)
    size = len(TEXT)
    pieces: Parts = [
        (0, 300_003),
        Literal(b"new" * 99),
        (300_512, 300_900),
        (301_024, 700_001),
        (704_000, size),
        Literal(b"z"),
    ]
    new, result, expected = repack(old, pieces)
    judge(new, expected)
    assert result.reused > 0.5 * len(old)
    assert result.encoded < 0.5 * size
    assert len(new) < 1.01 * len(old)


@pytest.mark.usefixtures("short_runs")
def test_all_but_the_end_stays_where_something_is_added() -> None:
    old = pack(TEXT)
    new, result, expected = repack(old, [(0, len(TEXT) - 500), Literal(b"added" * 100)])
    judge(new, expected)
    assert result.encoded < 200_000
    assert new[: result.reused] == old[: result.reused], "the front is the input's"


@pytest.mark.usefixtures("short_runs")
def test_the_bytes_depend_on_nothing_by_chance() -> None:
    old = pack(TEXT)
    pieces: Parts = [(100, 500_000), Literal(b"new"), (600_000, len(TEXT))]
    first = repack(old, pieces)[0]
    assert all(repack(old, pieces, step, threads)[0] == first for step, threads in ((50_021, 4),))


@pytest.mark.usefixtures("short_runs")
def test_what_an_earlier_run_spliced_is_spliced_again() -> None:
    old = pack(TEXT)
    for number in range(2):
        start = 150_000 + 1000 * number
        old, result, expected = repack(old, [(0, start), Literal(b"%d" % number * 3000), (start + 700, len(TEXT))])
        judge(old, expected)
        assert result.reused > 0.5 * len(old)


@pytest.mark.usefixtures("short_runs")
def test_streams_without_such_borders_are_packed_anew() -> None:
    fixed = zlib.compressobj(6, zlib.DEFLATED, 31, 8, zlib.Z_FIXED)
    for old in (fixed.compress(TEXT) + fixed.flush(), pack(NOISE), pack(bytes(400_000)), pack(TEXT) + pack(TEXT)):
        size = len(python_gzip.decompress(old))
        new, _, expected = repack(old, [(3, 150_000), Literal(b"new"), (150_000, size - 5)])
        judge(new, expected)


@pytest.mark.usefixtures("short_runs")
def test_a_root_tarball_of_gzip_stays_compressed_around_edits(tmp_path: Path) -> None:
    tools.require("tar", "gzip", "fakeroot")
    tree, site = tmp_path / "tree", tmp_path / "site"
    for number in range(12):
        (tree / "usr" / f"data-{number:02}").mkdir(parents=True)
        (tree / "usr" / f"data-{number:02}" / "file").write_bytes(TEXT[number * 100_000 :][:100_000])
    (site / "opt").mkdir(parents=True)
    (site / "opt" / "small").write_text("site\n")
    (site / "opt").chmod(0o755)  # whatever the umask
    (site / "opt" / "small").chmod(0o644)
    archive, target = tmp_path / "root.tar.gz", tmp_path / "out.tar.gz"
    tools.run(["tar", "--sort=name", "--owner=0", "--group=0", "-C", tree, "-czf", archive, "."])
    removed = "usr/data-05/file"
    cosremaster.remaster(archive, target, add=[site], remove=[removed], remember=False)
    old, new = archive.read_bytes(), target.read_bytes()
    assert old[10:150_000] in new
    assert old[-200_000:-100_000] in new
    (tree / removed).unlink()
    tools.run(["cp", "-a", site / "opt", tree])
    tools.run(["gzip", "-t", target])
    tools.run(["fakeroot", "tar", "-C", tree, "--compare", "-zf", target])  # where all is root's, as in the image


@pytest.mark.usefixtures("short_runs")
def test_a_remaster_does_not_inflate_again_what_lies_within_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tools.require("tar", "gzip")
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "first").write_bytes(TEXT + NOISE)
    (tmp_path / "tree" / "second").write_text("second\n")
    (tmp_path / "tree" / "third").write_bytes(NOISE + TEXT)
    archive = tmp_path / "root.tar.gz"
    tools.run(["tar", "--sort=name", "-C", tmp_path / "tree", "-czf", archive, "."])
    steps = 0

    class CountedStep(PackedStep, frozen=True):
        """A step that counts."""

        def __post_init__(self) -> None:
            nonlocal steps
            steps += 1

    monkeypatch.setattr(splice, "PackedStep", CountedStep)
    targets = []
    for spacing in (1, 1000):
        monkeypatch.setattr(checkpoints, "_FIRST_SPACING", spacing)
        targets.append((tmp_path / f"{spacing}.tar.gz", steps))
        cosremaster.remaster(archive, targets[-1][0], remove=["second"], remember=False)
    assert targets[0][0].read_bytes() == targets[1][0].read_bytes()
    with_checkpoints = targets[1][1]
    assert 5 < with_checkpoints < 32 < archive.stat().st_size // checkpoints.STEP < steps - with_checkpoints + 5


def test_short_runs_are_not_searched() -> None:
    _, result, _ = repack(pack(TEXT), [(0, len(TEXT)), Literal(b"new")])
    assert result.reused == 0


@settings(max_examples=25, deadline=None, derandomize=True, database=None)
@given(
    st.lists(st.tuples(st.sampled_from(["text", "noise", "zeros"]), st.integers(0, 400_000)), min_size=1, max_size=5),
    st.lists(st.tuples(st.integers(0, 60_000), st.integers(0, 500_000), st.integers(0, 900)), max_size=5),
    st.sampled_from(["-1", "-6", "-9"]), st.integers(0, 200_000), st.integers(2, 30),
)  # fmt: skip
def test_any_edit_of_long_runs_gives_what_a_rewrite_gives(
    shape: list[tuple[str, int]], cuts: list[tuple[int, int, int]], level: str, noted: int, most: int
) -> None:
    contents = {"text": TEXT, "noise": NOISE, "zeros": bytes(400_000)}
    plain = b"".join(contents[kind][:length] for kind, length in shape)
    pieces: list[Piece | tuple[int, int]] = []
    at = 0
    for gap, length, new in cuts:
        start, end = min(at + gap, len(plain)), min(at + gap + length, len(plain))
        pieces += [(start, end)] if start < end else []
        pieces += [Literal(TEXT[new : 2 * new])] if new else []
        at = end
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(splice, "MIN_RUN", 40_000)
        patch.setattr(splice, "_MOST_NOTED", noted)
        new_stream, _, expected = repack(pack(plain, level), pieces)
        patch.setattr(checkpoints, "_FIRST_SPACING", 1)
        patch.setattr(checkpoints, "MOST", most)
        assert repack(pack(plain, level), pieces, 70_001, records_states=True)[0] == new_stream
    assert tools.run(["gzip", "-dc"], stdin=new_stream) == expected
