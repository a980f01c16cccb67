"""zstd, bzip2, lzma, lz4: their own tools make the layers and judge what we made of them."""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import pytest

import cosremaster
from cosremaster.cli import main
from cosremaster.codecs import codec_named, find_codec
from cosremaster.demo.image import build_archive, directory, regular, root_items
from tests.fixtures import tools
from tests.fixtures.tools import run
from tests.support.layers import identify_bytes
from tests.support.small import write_overlay

TOOLS: dict[str, tuple[str, Sequence[str], Sequence[str]]] = {
    "zstd": ("zstd", ["zstd", "-q", "-3"], ["zstd", "-dcq"]),
    "zstd -15 -T2": ("zstd", ["zstd", "-q", "-15", "-T2"], ["zstd", "-dcq"]),
    "zstd without checksum": ("zstd", ["zstd", "-q", "-1", "--no-check"], ["zstd", "-dcq"]),
    "bzip2": ("bzip2", ["bzip2", "-9"], ["bzip2", "-dc"]),
    "bzip2 -1": ("bzip2", ["bzip2", "-1"], ["bzip2", "-dc"]),
    "lzma": ("lzma", ["xz", "--format=lzma", "-6"], ["xz", "--format=lzma", "-dc"]),
    "lz4": ("lz4", ["lz4", "-q", "-c"], ["lz4", "-dcq"]),
    "lz4 -B4 -BI": ("lz4", ["lz4", "-q", "-9", "-B4", "-BX", "-c"], ["lz4", "-dcq"]),
    "lz4 -l": ("lz4-legacy", ["lz4", "-q", "-l", "-9", "-c"], ["lz4", "-dcq"]),
}


def _bulk() -> list[tuple[bytes, bytes]]:
    chance = random.Random(7)
    words = [bytes(chance.choices(b"etaoinshrdlu", k=5)) for _ in range(500)]
    return [(b"doc/%03d" % number, b" ".join(chance.choices(words, k=30_000))) for number in range(6)]


PLAIN = build_archive([*root_items(), directory(b"doc"), *(regular(name, data) for name, data in _bulk())])


def _pack(case: str, plain: bytes = PLAIN) -> bytes:
    tools.require(TOOLS[case][1][0])
    return run(TOOLS[case][1], stdin=plain)


@pytest.mark.parametrize("case", TOOLS)
def test_the_tool_reads_what_we_wrote(tmp_path: Path, case: str) -> None:
    tools.require("cpio")
    name, _, unpack = TOOLS[case]
    (tmp_path / "in").write_bytes(_pack(case))
    write_overlay(tmp_path)
    results = [
        cosremaster.remaster(tmp_path / "in", tmp_path / f"out{threads}", add=[tmp_path / "overlay"], threads=threads)
        for threads in (1, 2)
    ]
    assert (tmp_path / "out1").read_bytes() == (tmp_path / "out2").read_bytes()
    assert results[0].packed[0].codec == name
    plain = run(unpack, stdin=(tmp_path / "out1").read_bytes())
    assert run(["cpio", "-i", "--quiet", "--to-stdout", "etc/motd"], stdin=plain) == b"welcome\n"
    assert run(["cpio", "-i", "--quiet", "--to-stdout", "doc/004"], stdin=plain) == _bulk()[4][1]
    with cosremaster.open(tmp_path / "in") as one, cosremaster.open(tmp_path / "out1") as other:
        told = [opened.layers()[0].parameters for opened in (one, other)]
    if name == "zstd":  # the window of a frame that tells its size is that size
        told = [text.partition(", ")[2] for text in told]
    assert told[0] == told[1]


@pytest.mark.parametrize("case", ["zstd", "bzip2", "lz4"])
def test_clean_frames_are_kept(tmp_path: Path, case: str) -> None:
    """A row of frames, each packed by the tool: an addition keeps all but the last."""
    cuts = [*range(0, len(PLAIN), 250_000), len(PLAIN)]
    frames = [_pack(case, PLAIN[start:end]) for start, end in pairwise(cuts)]
    (tmp_path / "in").write_bytes(b"".join(frames))
    write_overlay(tmp_path)
    result = cosremaster.remaster(tmp_path / "in", tmp_path / "out", add=[tmp_path / "overlay"], remember=False)
    made = (tmp_path / "out").read_bytes()
    assert made.startswith(b"".join(frames[:-1]))
    assert result.packed[0].reused == len(b"".join(frames[:-1]))
    plain = run(TOOLS[case][2], stdin=made)
    assert run(["cpio", "-i", "--quiet", "--to-stdout", "etc/motd"], stdin=plain) == b"welcome\n"


def test_legacy_blocks_are_kept(tmp_path: Path) -> None:
    chance = random.Random(1)
    plain = build_archive([directory(b"etc"), directory(b"bin"), regular(b"big", chance.randbytes(9 << 20))])
    packed = _pack("lz4 -l", plain)
    (tmp_path / "in").write_bytes(packed)
    write_overlay(tmp_path)
    result = cosremaster.remaster(tmp_path / "in", tmp_path / "out", add=[tmp_path / "overlay"])
    assert result.packed[0].reused > 8 << 20
    plain = run(["lz4", "-dcq"], stdin=(tmp_path / "out").read_bytes())
    assert run(["cpio", "-i", "--quiet", "--to-stdout", "etc/motd"], stdin=plain) == b"welcome\n"


@pytest.mark.parametrize("case", TOOLS)
def test_remembered_forms_pack_the_same(tmp_path: Path, case: str) -> None:
    (tmp_path / "in").write_bytes(_pack(case))
    write_overlay(tmp_path)
    for name in ("first", "second"):
        cosremaster.remaster(tmp_path / "in", tmp_path / name, add=[tmp_path / "overlay"])
    assert (tmp_path / "first").read_bytes() == (tmp_path / "second").read_bytes()


@pytest.mark.parametrize("case", TOOLS)
def test_damage_is_located_and_bounded(tmp_path: Path, case: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Cut off or with a flipped bit: exit code 4 or 3 with a place, or the same content (what no check covers)."""
    small = build_archive(root_items())
    sound = _pack(case, small)
    chance = random.Random(case)
    for turn in range(60):
        at = chance.randrange(len(sound))
        flipped = bytearray(sound)
        flipped[at] ^= 1 << chance.randrange(8)
        data = sound[:at] if turn % 2 else bytes(flipped)
        (tmp_path / "bad").write_bytes(data)
        code = main(["find", str(tmp_path / "bad"), "**"])
        said = capsys.readouterr().err
        assert code in (0, 3, 4, 5), said
        assert "Traceback" not in said
        if code:
            assert "bad" in said


def test_the_registry_is_unambiguous() -> None:
    names = {TOOLS[case][0] for case in TOOLS}
    for case in TOOLS:
        packed = _pack(case, build_archive(root_items()))
        assert [name for name in sorted(names) if codec_named(name).sniff(packed)] == [TOOLS[case][0]]
        found = find_codec(packed)
        assert found is not None
        assert found.name == TOOLS[case][0]
        assert identify_bytes(packed).format is not None
        assert codec_named(TOOLS[case][0]).name == TOOLS[case][0]
