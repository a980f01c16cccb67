"""Hostile input in every codec: bombs, archives cut off or mutated. Located errors in bounded time and memory."""

from __future__ import annotations

import gzip
import lzma
import random
import re
import subprocess
import sys
from pathlib import Path

import pytest

from cosremaster.cli import main
from cosremaster.codecs.xz import codec as xz
from cosremaster.demo.image import DemoEntry, build_archive, directory, regular, root_items
from cosremaster.errors import CorruptError, Place
from cosremaster.io.parallel import prefetch_batches
from cosremaster.io.streams import CHUNK, ByteReader
from cosremaster.layers import scan
from cosremaster.layers.cpio.newc import HeaderFields, encode_head
from cosremaster.remastering.image import OpenedImage
from tests.fixtures import tools
from tests.fixtures.tools import run
from tests.support.layers import cpio_entries
from tests.support.small import write_small

PACKERS = {
    "none": ["cat"],
    "gzip": ["gzip", "-n"],
    "xz": ["xz", "-1", "--check=crc32"],
    "zstd": ["zstd", "-q"],
    "bzip2": ["bzip2"],
    "lzma": ["xz", "--format=lzma", "-1"],
    "lz4": ["lz4", "-q", "-c"],
    "lz4-legacy": ["lz4", "-q", "-l", "-c"],
    "lzop": ["lzop", "-q", "-c"],
}
ZEROS = build_archive([directory(b"a"), regular(b"a/zeros", bytes(40_000_000))])


@pytest.mark.parametrize("codec", [name for name in PACKERS if name != "none"])
def test_a_bomb_is_told(
    tmp_path: Path, codec: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tools.require(PACKERS[codec][0])
    monkeypatch.setattr(scan, "FREE_EXPANSION", 1 << 20)
    bomb = run(PACKERS[codec], stdin=ZEROS)
    (tmp_path / "bomb").write_bytes(bomb)
    assert main(["ls", str(tmp_path / "bomb"), "--max-expand", "20"]) == 4
    assert re.search(
        r"bomb(?: » a/zeros)? @0x[0-9A-F]+: expands to more than 20 times its size", capsys.readouterr().err
    )
    assert main(["ls", str(tmp_path / "bomb"), "--max-expand", "10000000"]) == 0
    # The same as a layer inside an image, in the main job: nothing is written.
    write_small(tmp_path, cgz=build_archive([directory(b"x"), regular(b"rootfs", bomb)]))
    words = [str(tmp_path / "in.iso"), str(tmp_path / "out.iso"), "--add", f"{tmp_path}/bomb:/x/", "--max-expand", "20"]
    assert main(words) == 4
    assert "rootfs" in capsys.readouterr().err
    assert not (tmp_path / "out.iso").exists()


@pytest.mark.parametrize("form", ["odc", "bin"])
def test_a_bomb_in_an_old_form_of_cpio(
    tmp_path: Path, form: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tools.require("cpio")
    tools.require_libarchive()
    monkeypatch.setattr(scan, "FREE_EXPANSION", 1 << 20)
    (tmp_path / "zeros").write_bytes(bytes(20_000_000))
    plain = run(["cpio", "-o", "--quiet", "-H", form], cwd=tmp_path, stdin=b"zeros\n")
    bomb = tmp_path / "bomb"
    bomb.write_bytes(gzip.compress(plain))
    assert main(["ls", str(bomb), "--max-expand", "20"]) == 4
    assert re.search(r"bomb(?: » zeros)? @0x[0-9A-F]+: expands to more than 20 times its size", capsys.readouterr().err)


def test_a_size_that_newc_cannot_hold_in_an_old_form(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tools.require("cpio")
    tools.require_libarchive()
    (tmp_path / "file").write_text("small\n")
    plain = bytearray(run(["cpio", "-o", "--quiet", "-H", "odc"], cwd=tmp_path, stdin=b"file\n"))
    plain[65:76] = b"7" * 11  # c_filesize (cpio(5), "Portable ASCII Format")
    (tmp_path / "lie").write_bytes(plain)
    assert main(["ls", str(tmp_path / "lie")]) == 9
    assert "file: a size of 8,589,934,591 does not fit a newc archive" in capsys.readouterr().err


@pytest.mark.parametrize("codec", ["none", "gzip", "xz", "lzop"])
def test_damaged_streams(tmp_path: Path, codec: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Cut off or with a flipped bit, as test_codecs.py does to the others."""
    tools.require(PACKERS[codec][0])
    sound, chance, told = run(PACKERS[codec], stdin=build_archive(root_items())), random.Random(codec), 0
    for turn in range(40):
        at = chance.randrange(len(sound))
        flipped = bytearray(sound)
        flipped[at] ^= 1 << chance.randrange(8)
        (tmp_path / "bad").write_bytes(sound[:at] if turn % 2 else flipped)
        code = main(["find", str(tmp_path / "bad"), "**"])
        said = capsys.readouterr().err
        assert code in (0, 3, 4, 5), said
        assert not code or "bad" in said
        told += bool(code)
    assert told >= 10


def test_a_real_bomb_in_bounded_memory(tmp_path: Path) -> None:
    tools.require("zstd")
    size = (4 << 30) - 4
    header = HeaderFields(ino=1, mode=0o100644, size=size, name_size=2).encode()
    (tmp_path / "head").write_bytes(encode_head(header, b"z"))
    bomb = tmp_path / "bomb"
    with bomb.open("wb") as out:
        pack = f"(cat '{tmp_path}/head'; head -c {size} /dev/zero) | zstd -q -1 --long=20"
        subprocess.run(pack, shell=True, stdout=out, check=True)
    program = (
        "import sys; from cosremaster.cli import main; code = main(['ls', sys.argv[1]]);"
        "print(next(line for line in open('/proc/self/status') if line.startswith('VmHWM')).split()[1], code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(bomb)], capture_output=True, text=True, timeout=120, check=True
    )
    kib, code = done.stdout.split()[-2:]
    assert code == "4", done.stderr
    assert int(kib) < 250_000
    assert "expands to more than 1,000 times" in done.stderr


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("packer", [*PACKERS.values(), ["xz", "-T2", "--block-size=1MiB"]], ids=" ".join)
@pytest.mark.parametrize("form", ["newc", "odc"])
def test_a_large_layer_is_no_bomb(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, form: str, packer: list[str], count: int
) -> None:
    """However many plain bytes there are: at any time they are beside what they were decoded from."""
    tools.require(packer[0], "cpio")
    if form != "newc":
        tools.require_libarchive()
    (tmp_path / "noise").write_bytes(random.Random(2).randbytes(3 << 20))
    plain = run(["cpio", "-o", "-H", form, "--quiet"], cwd=tmp_path, stdin=b"noise\n")
    (tmp_path / "in").write_bytes(run(packer, stdin=plain))
    monkeypatch.setattr(scan, "FREE_EXPANSION", 1 << 20)
    monkeypatch.setattr(xz, "cpu_count", lambda: count)
    with OpenedImage(tmp_path / "in", remember=False) as image:
        (layer,) = image.layers().layers
        assert cpio_entries(layer.index)[0].header.size == 3 << 20


@pytest.mark.parametrize("count", [1, 2])
def test_a_bomb_is_told_whatever_was_read_ahead(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    """Zeros first, then bytes that do not shrink, which a reading thread gets long before they are decoded."""
    packed = lzma.compress(bytes(40 << 20) + random.Random(1).randbytes(5 << 20), preset=0)
    monkeypatch.setattr(scan, "FREE_EXPANSION", 1 << 20)
    monkeypatch.setattr(xz, "cpu_count", lambda: count)
    reader = ByteReader((packed[at : at + CHUNK] for at in range(0, len(packed), CHUNK)), Place(("bomb.xz",)))
    decoding = xz.XzDecoding(reader)
    chunks = scan.bounded(prefetch_batches(decoding.next_stream()), reader, decoding, 1000)
    with pytest.raises(CorruptError, match=r"^bomb.xz @0x\w+: expands to more than 1,000 times"):
        assert sum(map(len, chunks)) < 20 << 20


@pytest.mark.parametrize("codec", PACKERS)
def test_mutated_archives(tmp_path: Path, codec: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever stands in the plain bytes, properly packed: an error with a place, or an answer."""
    tools.require(PACKERS[codec][0])
    chance = random.Random(codec)
    sound = build_archive(root_items())
    for turn in range(25):
        data = bytearray(sound)
        for _ in range(chance.randrange(1, 4)):
            at = chance.randrange(min(len(data), 4000))
            data[at : at + 1] = bytes((chance.choice(b"0F\x00/.:\xff"),))
        if turn % 3 == 0:
            del data[chance.randrange(len(data)) :]
        (tmp_path / "bad").write_bytes(run(PACKERS[codec], stdin=bytes(data)))
        code = main(["tree", str(tmp_path / "bad")])
        said = capsys.readouterr().err
        assert code in (0, 3, 4, 5)
        assert "Traceback" not in said
        if code:
            assert str(tmp_path / "bad") in said


@pytest.mark.parametrize(
    ("items", "code"),
    [
        ([DemoEntry(b"l", 0o120777, b"l"), regular(b"l/f", b"1")], 6),
        ([DemoEntry(b"a", 0o120777, b"b"), DemoEntry(b"b", 0o120777, b"a")], 0),
        ([regular(b"/".join([b"d"] * 200), b"deep")], 0),
        ([regular(b"/".join([b"d"] * 1000), b"deep")], 5),
        ([DemoEntry(b"x", 0o100644, b"", nlink=2, ino=5), DemoEntry(b"y", 0o100644, b"", nlink=2, ino=5)], 0),
        ([regular(b"", b"no name"), regular(b"..", b"dots"), regular(b"./.", b"dot")], 0),
        ([DemoEntry(b"w", 0o170000, b"")], 4),
    ],
)
def test_strange_archives(
    tmp_path: Path, items: list[DemoEntry], code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "strange").write_bytes(build_archive(items))
    for words in (["tree"], ["find", "**"], ["ls", "-l", "-R"], ["extract", str(tmp_path / "out")]):
        done = main([words[0], str(tmp_path / "strange"), *words[1:]])
        assert done in (0, code), words
        assert "Traceback" not in capsys.readouterr().err
    # Whoever is not root gets the owners in a file beside what is extracted.
    assert {path.name for path in tmp_path.iterdir()} <= {"strange", "out", "out.mtree"}
