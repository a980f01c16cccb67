"""Deltas judged by xdelta3: what it makes of them is what a remaster writes, and its own deltas are read."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path

import pytest

import cosremaster
from cosremaster import InlineFile, Request
from cosremaster.cli import main
from cosremaster.deltas.decode import decode_window, read_heads
from cosremaster.deltas.encode import SEGMENT, WINDOW, encode_delta
from cosremaster.errors import UnsupportedError
from cosremaster.io.blobs import BlobStore
from cosremaster.io.frozen import freeze_table
from cosremaster.io.pieces import Literal, Piece, PieceTable, Range, Zeros
from cosremaster.io.source import open_file
from tests.fixtures import tools
from tests.fixtures.tools import run
from tests.support.deltas import apply_by_xdelta3
from tests.support.small import write_small

NOISE = random.Random(7).randbytes(1 << 20)
REQUESTS = {
    "nothing": Request(),
    "added": Request(add=[InlineFile("/etc/site", b"7" * 3000)], xz_preset=0),
    "replaced early": Request(add=[InlineFile("/etc/hostname", b"site\n")], supersede="never", xz_preset=0),
    "replaced late": Request(add=[InlineFile("/etc/os-release", NOISE[:9000])], xz_preset=0),
    "removed": Request(remove=["/etc/os-release"], xz_preset=0),
    "on the ISO": Request(add_iso=[InlineFile("/site.cfg", b"x" * 5000)]),
    "arguments": Request(kernel_args=["console=ttyS0"]),
    "volume id": Request(volume_id="SITE_7"),
}


@pytest.mark.parametrize("kind", REQUESTS)
def test_xdelta3_makes_the_written_image_of_each_kind_of_request(kind: str, tmp_path: Path) -> None:
    tools.require("xdelta3")
    base, delta = write_small(tmp_path), tmp_path / "site.vcdiff"
    with cosremaster.open(base) as image:
        written = image.remaster(tmp_path / "out.iso", REQUESTS[kind])
        made = image.remaster(delta, REQUESTS[kind], delta=True)
    expected = (tmp_path / "out.iso").read_bytes()
    assert apply_by_xdelta3(base, delta, tmp_path / "x.iso") == expected
    assert made.delta is not None
    assert made.delta.size == delta.stat().st_size
    assert made.output_size == written.output_size == len(expected)
    applied = cosremaster.apply(base, delta, tmp_path / "ours.iso")
    assert (tmp_path / "ours.iso").read_bytes() == expected
    (sums,) = run(["sha256sum", str(base), str(tmp_path / "x.iso")]).decode().splitlines()[:1]
    assert made.delta.base_sha256 == sums.split()[0]
    assert applied.sha256 == made.delta.sha256 in run(["sha256sum", str(tmp_path / "x.iso")]).decode()
    note = json.loads((tmp_path / "site.vcdiff.json").read_text())
    assert note["base"] == {"size": base.stat().st_size, "sha256": made.delta.base_sha256}
    assert note["result"] == {"size": len(expected), "sha256": made.delta.sha256}


def test_xdelta3_takes_a_compressed_base_as_it_is_with_an_option(tmp_path: Path) -> None:
    """It decompresses such a base by itself (docs/delta.md)."""
    tools.require("xdelta3", "xz", "tar")
    (tmp_path / "root").mkdir()
    (tmp_path / "root/noise").write_bytes(random.Random(1).randbytes(100_000))
    run(["tar", "-C", tmp_path / "root", "-cf", tmp_path / "base.tar", "."])
    base, delta = tmp_path / "base.tar.xz", tmp_path / "site.vcdiff"
    run(["xz", tmp_path / "base.tar"])
    with cosremaster.open(base) as image:
        request = Request(add=[InlineFile("/motd", b"x")])
        image.remaster(tmp_path / "out.tar.xz", request)
        image.remaster(delta, request, delta=True)
    assert delta.stat().st_size < 50_000  # the rest is copied
    run(["xdelta3", "-D", "-d", "-s", base, delta, tmp_path / "x"])
    assert (tmp_path / "x").read_bytes() == (tmp_path / "out.tar.xz").read_bytes()
    with pytest.raises(Exception, match="xdelta3"):
        apply_by_xdelta3(base, delta, tmp_path / "y")


def test_a_delta_is_as_small_as_that_of_xdelta3(tmp_path: Path) -> None:
    tools.require("xdelta3")
    base, delta, theirs = write_small(tmp_path), tmp_path / "site.vcdiff", tmp_path / "x.vcdiff"
    with cosremaster.open(base) as image:
        image.remaster(tmp_path / "out.iso", REQUESTS["added"])
        image.remaster(delta, REQUESTS["added"], delta=True)
    run(["xdelta3", "-e", "-S", "none", "-s", str(base), str(tmp_path / "out.iso"), str(theirs)])
    assert delta.stat().st_size <= 1.1 * theirs.stat().st_size


@pytest.mark.parametrize("options", [("-n",), (), ("-W", "16384"), ("-B", "524288", "-W", "65536"), ("-0",), ("-A",)])
def test_deltas_of_xdelta3_are_applied(options: tuple[str, ...], tmp_path: Path) -> None:
    tools.require("xdelta3")
    chance, old = random.Random(3), bytearray(NOISE)
    (tmp_path / "base").write_bytes(old)
    for _ in range(60):
        at = chance.randrange(len(old))
        new_part = chance.choice((b"", b"new" * 900, bytes(70_000), old[: chance.randrange(9000)]))
        old[at : at + chance.randrange(3000)] = new_part
    new, theirs, target = bytes(old) + b"abc" * 5000, tmp_path / "x.vcdiff", tmp_path / "out"
    (tmp_path / "new").write_bytes(new)
    run(["xdelta3", "-e", "-S", "none", *options, "-s", str(tmp_path / "base"), str(tmp_path / "new"), str(theirs)])
    words = ["apply", str(tmp_path / "base"), str(theirs), str(target), "--quiet"]
    if options == ("-n",):
        assert main(words) == 2  # neither a checksum nor a note says that this is the base
        return
    assert main(words) == 0
    assert target.read_bytes() == new


def test_a_delta_under_secondary_compression_is_refused_by_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tools.require("xdelta3")
    (tmp_path / "base").write_bytes(NOISE)
    (tmp_path / "new").write_bytes(NOISE[:5000] + NOISE[:60_000].hex().encode() + NOISE[5000:])
    theirs = str(tmp_path / "x.vcdiff")
    run(["xdelta3", "-e", "-S", "djw", "-s", str(tmp_path / "base"), str(tmp_path / "new"), theirs])
    assert main(["apply", str(tmp_path / "base"), theirs, str(tmp_path / "out")]) == UnsupportedError.exit_code
    assert "x.vcdiff @0x" in (message := capsys.readouterr().err)
    assert "has a secondary compression, which is not read here (xdelta3 -S none writes without)" in message
    assert not (tmp_path / "out").exists()


def test_a_base_above_4_gib_and_the_bounds_of_windows(tmp_path: Path) -> None:
    tools.require("xdelta3")
    size, far = 5 << 30, (4 << 30) + 4096
    with open(tmp_path / "base", "wb") as file:
        file.truncate(size)
        for at in (0, far, size - len(NOISE)):
            file.seek(at)
            file.write(NOISE)
    with open_file(tmp_path / "base") as base:
        pieces: list[Piece] = [
            Range(base, far, 900_000), Literal(b"new"), Range(base, 5, 70_000), Range(base, size - 1000, 1000),
            Zeros(9_000_000), Range(base, far + 7, 500), Literal(NOISE * 5), Range(base, (1 << 32) - 4096, 8192),
        ]  # fmt: skip
        table = freeze_table(PieceTable(pieces), base, BlobStore(tmp_path))
        delta = b"".join(encode_delta(table))
        expected = b"".join(table.chunks(0, table.size))
    (tmp_path / "d.vcdiff").write_bytes(delta)
    assert apply_by_xdelta3(tmp_path / "base", tmp_path / "d.vcdiff", tmp_path / "x") == expected
    cosremaster.apply(tmp_path / "base", tmp_path / "d.vcdiff", tmp_path / "ours", sync=False)
    assert (tmp_path / "ours").read_bytes() == expected
    heads = run(["xdelta3", "printhdrs", str(tmp_path / "d.vcdiff")]).decode()
    windows = [int(text) for text in re.findall(r"target window length: +(\d+)", heads)]
    segments = [int(text) for text in re.findall(r"copy window length: +(\d+)", heads)]
    offsets = [int(text) for text in re.findall(r"copy window offset: +(\d+)", heads)]
    assert sum(windows) == len(expected)
    assert max(windows) == WINDOW
    assert 0 < max(segments) <= SEGMENT
    assert max(offsets) > 1 << 32
    assert "VCD_APPHEADER" not in heads
    assert "COMP" not in heads
    assert heads.count("VCD_ADLER32") == len(windows)


def test_another_base_is_refused_with_both_digests(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tools.require("xdelta3")
    base, delta, target = write_small(tmp_path), tmp_path / "site.vcdiff", tmp_path / "out.iso"
    made = cosremaster.remaster(base, delta, delta=True, add=[InlineFile("/etc/site", b"7")], xz_preset=0)
    assert made.delta is not None
    for size in (None, 300_000):
        data = bytearray(base.read_bytes()[:size])
        data[200_000] ^= 1
        other = tmp_path / "other.iso"
        other.write_bytes(data)
        digest = run(["sha256sum", str(other)]).decode().split()[0]
        assert main(["apply", str(other), str(delta), str(target)]) == 3
        message = capsys.readouterr().err
        assert f"other.iso: its sha256 is {digest}, and {made.delta.base_sha256} was expected" in message
        assert not target.exists()
        with pytest.raises(Exception, match="xdelta3"):
            apply_by_xdelta3(other, delta, tmp_path / "x.iso")
    (tmp_path / "site.vcdiff.json").unlink()
    assert main(["apply", str(other), str(delta), str(target)]) in (3, 4)
    assert [path.name for path in tmp_path.glob(".cosremaster-*")] == []
    assert not target.exists()


def test_a_recipe_writes_a_delta(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tools.require("xdelta3")
    base, recipe = write_small(tmp_path), tmp_path / "site.toml"
    recipe.write_text(
        'input = "in.iso"\noutput = "site.vcdiff"\ndelta = true\nxz.preset = 0\n'
        '[[add]]\nfile = "/etc/site"\ncontent = "7"\n'
    )
    assert main(["build", str(recipe), "--quiet"]) == 0
    apply_by_xdelta3(base, tmp_path / "site.vcdiff", tmp_path / "x.iso")
    with cosremaster.open(tmp_path / "x.iso") as image:
        assert image.read("@root::etc/site") == b"7"
    recipe.write_text('input = "in.iso"\noutput = "site.tar.gz"\ndelta = true\nmaas.name = "custom/site"\n')
    assert main(["build", str(recipe), "--quiet"]) == 2
    assert "site.toml: MAAS imports no delta, and the recipe has [maas]" in capsys.readouterr().err


def test_a_plain_delta_is_read_by_another_decoder(tmp_path: Path) -> None:
    tools.require_module("vcdiff_decoder")
    import vcdiff_decoder  # noqa: PLC0415 - it may be missing

    base, delta = write_small(tmp_path), tmp_path / "site.vcdiff"
    request = Request(add=[InlineFile("/etc/site", NOISE[:9000])], xz_preset=0)
    with cosremaster.open(base) as image:
        image.remaster(tmp_path / "out.iso", request)
        image.remaster(delta, request, delta=True, plain=True)
    expected = (tmp_path / "out.iso").read_bytes()
    assert vcdiff_decoder.decode(base.read_bytes(), delta.read_bytes()) == expected
    with open_file(delta) as source, open_file(base) as old:
        heads = list(read_heads(source, old.size))
        assert [head.adler for head in heads] == [None] * len(heads)
        pieces = [piece for head in heads for piece in decode_window(source, head, old)]
        assert PieceTable(pieces).read() == expected
    cosremaster.apply(base, delta, tmp_path / "ours.iso")
    assert (tmp_path / "ours.iso").read_bytes() == expected
