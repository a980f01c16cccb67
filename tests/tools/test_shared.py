"""Indexing a layer beside the one it was made from: the same result as reading all of it, without reading all of it."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import cosremaster
from cosremaster.cli import main
from cosremaster.codecs import frames
from cosremaster.codecs.xz import codec as xz
from cosremaster.codecs.xz import read_block as xz_read
from cosremaster.demo.image import DemoEntry, build_archive, directory, regular
from cosremaster.errors import CosremasterError, Place
from cosremaster.io.pieces import Literal, PieceTable
from cosremaster.layers.cpio.read import CpioIndex
from cosremaster.layers.model import IndexedFile, Layer, build_layers, index_file
from cosremaster.layers.scan import ScanOptions
from cosremaster.layers.shared import index_beside
from tests.fixtures import tools
from tests.fixtures.tools import run
from tests.support.layers import identify_bytes

EFFORT = ScanOptions(digests=True, nesting=0, edits=False)
WORDS = random.Random(5)
FILES = [
    regular(b"usr/%03d" % number, b" ".join(b"%d" % WORDS.randrange(1 << 20) for _ in range(WORDS.randrange(6000))))
    for number in range(60)
]
ITEMS = [directory(b"etc"), directory(b"usr"), *FILES, DemoEntry(b"link", 0o120777, b"usr/000")]

PACKERS = {
    "one block": ["xz", "-T1", "-0", "--check=crc64"],
    "crc32": ["xz", "-T1", "-0", "--check=crc32"],
    "sha256": ["xz", "-T1", "-0", "--check=sha256"],
    "no check": ["xz", "-T1", "-0", "--check=none"],
    "blocks": ["xz", "-T2", "-0", "--block-size=256KiB"],
    "zstd": ["split", "-b", "128K", "--filter", "zstd -q -1"],
    "bzip2": ["split", "-b", "128K", "--filter", "bzip2 -1"],
    "lz4": ["split", "-b", "128K", "--filter", "lz4 -q -c"],
    "gzip": ["gzip", "-n"],
    "plain": ["cat"],
}


def indexed(data: bytes) -> IndexedFile:
    return index_file(b"x", PieceTable([Literal(data)]), Place(), EFFORT)


def layer(data: bytes) -> Layer:
    return build_layers(indexed(data), PieceTable([Literal(data)]), Place())[-1]


def beside(old: bytes, new: bytes) -> IndexedFile | None:
    found = index_beside(b"x", PieceTable([Literal(new)]), identify_bytes(new), Place(), EFFORT, layer(old))
    return None if found is None else found.file


def facts(found: IndexedFile) -> tuple[object, ...]:
    one = found.archive
    contents = one.contents
    assert isinstance(contents, CpioIndex)
    return (one.size, contents.members, contents.trailer, one.span, one.parameters.describe(), found.streams)


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Gets the length of each chunk that a block yields."""
    counts: list[int] = []
    real = xz_read.read_block

    def counting(*words: object, on_threads: bool) -> Iterator[bytes]:
        for chunk in real(*words, on_threads=on_threads):  # type: ignore[arg-type]
            counts.append(len(chunk))
            yield chunk

    monkeypatch.setattr(xz, "read_block", counting)
    monkeypatch.setattr(xz, "cpu_count", lambda: 1)
    return counts


def remastered(tmp_path: Path, old: bytes, **overlay: bytes) -> bytes:
    (tmp_path / "old").write_bytes(old)
    new = [cosremaster.InlineFile(f"/{path.replace('__', '/')}", data) for path, data in overlay.items()]
    cosremaster.remaster(tmp_path / "old", tmp_path / "new", add=new, force=True)
    return (tmp_path / "new").read_bytes()


@pytest.mark.parametrize("packer", PACKERS)
@pytest.mark.parametrize("change", ["added", "early", "middle", "nothing"])
def test_what_is_found_is_what_reading_all_finds(tmp_path: Path, packer: str, change: str, decoded: list[int]) -> None:
    tools.require(PACKERS[packer][-1].split()[0] if PACKERS[packer][0] == "split" else PACKERS[packer][0])
    plain = build_archive(ITEMS)
    old = run(PACKERS[packer], stdin=plain)
    overlay = {"added": {"etc__new": b"1"}, "early": {"usr__001": b"2"}, "middle": {"usr__030": b"3"}, "nothing": {}}
    new = remastered(tmp_path, old, **overlay[change])
    whole = indexed(new)
    layer(old)
    decoded.clear()
    found = beside(old, new)
    spared = len(plain) - (sum(decoded) - len(plain))  # the old one is read here too
    if found is None:
        assert change == "early" or packer in ("gzip", "plain", "sha256"), "nothing is shared"
        return
    assert facts(found) == facts(whole)
    assert found.archive.parameters.dump() == whole.archive.parameters.dump()
    if packer in ("one block", "crc32", "no check") and change == "added":
        assert spared > 0.7 * len(plain), (spared, len(plain))


@pytest.mark.parametrize("packer", ["zstd", "bzip2", "lz4"])
def test_frames_that_both_have_are_not_decoded_again(
    tmp_path: Path, packer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tools.require(packer)
    old = run(PACKERS[packer], stdin=build_archive(ITEMS))
    new = remastered(tmp_path, old, etc__new=b"1")
    known = layer(old)
    begun: list[int] = []
    real = frames.FrameDecoding.next_stream

    def counting(decoding: frames.FrameDecoding) -> Iterator[bytes]:
        begun.append(decoding.reader.position)
        return real(decoding)

    monkeypatch.setattr(frames.FrameDecoding, "next_stream", counting)
    found = index_beside(b"x", PieceTable([Literal(new)]), identify_bytes(new), Place(), EFFORT, known)
    assert found is not None
    assert found.entries > 0.7 * len(ITEMS)
    assert begun[0] > len(new) // 2
    assert len(begun) < 4


@pytest.mark.parametrize("packer", ["one block", "blocks", "zstd", "bzip2", "lz4"])
def test_damage_is_told_as_reading_all_tells_it(tmp_path: Path, packer: str) -> None:
    tools.require("xz", "zstd", "bzip2", "lz4")
    chance = random.Random(packer)
    old = run(PACKERS[packer], stdin=build_archive(ITEMS))
    new = remastered(tmp_path, old, etc__new=b"1" * 5000)
    for turn in range(16):
        first = 0 if PACKERS[packer][0] == "xz" else len(new) // 8  # of other codecs the first bytes say what it is
        at = chance.randrange(len(new) * 9 // 10, len(new)) if turn % 4 else chance.randrange(first, len(new))
        damaged = bytearray(new)
        damaged[at] ^= 1 << chance.randrange(8)
        data = bytes(damaged) if turn % 3 else new[:at]
        outcomes: list[object] = []
        for read in (indexed, lambda data: beside(old, data) or indexed(data)):
            try:
                outcomes.append(facts(read(data)))
            except CosremasterError as error:
                outcomes.append((type(error), error.place))
        assert outcomes[0] == outcomes[1]


def test_diff_says_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tools.require("xz")
    old = run(PACKERS["one block"], stdin=build_archive(ITEMS))
    remastered(tmp_path, old, etc__new=b"1", usr__045=b"2")
    assert main(["diff", f"{tmp_path}/old", f"{tmp_path}/new"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == ["+ etc/new", "~ usr/045"]
    assert " bytes; " in lines[1] and re.search(r"; mtime [0-9: -]{19} -> [0-9: -]{19} UTC", lines[1])
    assert main(["diff", f"{tmp_path}/old", f"{tmp_path}/old"]) == 0
    assert main(["diff", f"{tmp_path}/new", f"{tmp_path}/old"]) == 1
