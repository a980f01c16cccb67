"""A base that is prepared for many remasters: the same inside, in parts of which a change compresses few again."""

from __future__ import annotations

import json
import random
import tempfile
from functools import cache
from pathlib import Path

import pytest

import cosremaster
from cosremaster.cli import main
from cosremaster.errors import UsageError
from tests.fixtures import tools
from tests.fixtures.tools import Tree, run

BLOCK = 1 << 18
PACKERS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "xz": (("xz", "-T1", "-0", "--check=crc32"), ("xz", "-dc", "-T0")),
    "xz BCJ": (("xz", "-T1", "--check=crc64", "--x86", "--lzma2=preset=0"), ("xz", "-dc")),
    "xz sha256": (("xz", "-T1", "-0", "--check=sha256"), ("xz", "-dc")),
    "zstd": (("zstd", "-q", "-3", "-c"), ("zstd", "-dc")),
    "bzip2": (("bzip2", "-c"), ("bzip2", "-dc")),
    "lz4": (("lz4", "-q", "-c"), ("lz4", "-dc")),
    "lz4-legacy": (("lz4", "-q", "-l", "-c"), ("lz4", "-dc")),
    "gzip": (("gzip", "-n"), ("gzip", "-dc")),
    "lzma": (("xz", "--format=lzma", "-0"), ("xz", "--format=lzma", "-dc")),
    "plain": (("cat",), ("cat",)),
}
STAYING = {"gzip": "gzip, which kernels read", "lzma": "packed with lzma", "plain": "not compressed"}
KERNEL_READS_A_SINGLE_FRAME = ("zstd", "bzip2")


def words(size: int, seed: int) -> bytes:
    """Text that compresses, and differs everywhere."""
    chance = random.Random(seed)
    return b"".join(b"%x some text of line %d\n" % (chance.getrandbits(40), number) for number in range(size // 32))


def fill(root: Tree) -> None:
    """A root file system of more than a MiB: configuration near the front, and all else behind it."""
    root.file("bin/tool", words(300_000, 1), 0o755)
    root.file("etc/hostname", b"vendor\n")
    root.file("etc/hosts", b"127.0.0.1 localhost\n")
    root.file("etc/mime.types", words(100_000, 2))
    root.file("etc/shadow", b"root:*:\n", 0o640)
    root.file("root/.ssh/authorized_keys", b"key\n", 0o600)
    root.file("sbin/init", b"#!/bin/sh\n", 0o755)
    for number in range(12):
        root.file(f"usr/data/{number:02}", words(120_000, number + 3))
    root.symlink("var", "usr")


@cache
def root_archive() -> bytes:
    """The root file system as GNU cpio packs it."""
    tools.require("cpio", "fakeroot")
    with tempfile.TemporaryDirectory() as name:
        root = Tree(Path(name) / "root")
        fill(root)
        return root.pack(Path(name) / "root.cpio", dot_slash=False)


def make_image(folder: Path, packer: str = "xz", *, outer: str = "gzip") -> tuple[Path, bytes]:
    """An initramfs that holds a root file system, as debirf makes it, and the plain archive of that."""
    tools.require(PACKERS[packer][0][0], PACKERS[outer][0][0])
    plain = root_archive()
    holder = Tree(folder / "holder")
    holder.file("init", b"#!/bin/sh\nunxz < /rootfs.img | cpio -i\nexec run-init /newroot\n", 0o755)
    holder.file("rootfs.img", run(PACKERS[packer][0], stdin=plain))
    image = folder / "in.img"
    image.write_bytes(run(PACKERS[outer][0], stdin=holder.pack(folder / "holder.cpio", dot_slash=False)))
    return image, plain


def nested(image: Path, outer: str = "gzip") -> bytes:
    """The packed root file system in an initramfs, by its own program and GNU cpio."""
    return run(
        ["cpio", "-i", "--quiet", "--to-stdout", "rootfs.img"], stdin=run(PACKERS[outer][1], stdin=image.read_bytes())
    )


def blocks_of(packed: bytes, folder: Path) -> list[tuple[int, int]]:
    """Where the blocks of an .xz stream begin in its plain bytes, and how many they have, by xz."""
    (folder / "a.xz").write_bytes(packed)
    rows = run(["xz", "--robot", "-lvv", str(folder / "a.xz")]).decode().splitlines()
    columns = [row.split("\t") for row in rows if row.startswith("block\t")]
    assert all(row[12] == "cu" for row in columns), "sizes in each header"
    return [(int(row[5]), int(row[7])) for row in columns]


@pytest.mark.parametrize("packer", PACKERS)
def test_the_same_inside_under_every_codec(tmp_path: Path, packer: str) -> None:
    image, plain = make_image(tmp_path, packer)
    base = tmp_path / "base.img"
    with cosremaster.open(image, remember=False) as opened:
        prepared = opened.write_base(base, block_size=BLOCK)
    inner = next(layer for layer in prepared.layers if "::" in layer.layer)
    assert run(PACKERS[packer][1], stdin=nested(base)) == plain
    assert run(["gzip", "-t"], stdin=base.read_bytes()) == b""
    if packer in STAYING:
        assert inner.reason is not None
        assert STAYING[packer] in inner.reason
        assert prepared.identical
        assert base.read_bytes() == image.read_bytes()
        return
    assert inner.reason is None
    assert inner.parts[1] > max(len(plain) // BLOCK, inner.parts[0])
    assert inner.largest_part[1] <= BLOCK
    assert inner.packed == (len(nested(image)), len(nested(base)))
    with cosremaster.open(image, remember=False) as old, cosremaster.open(base, remember=False) as new:
        assert {difference.what for difference in old.diff(new)} <= {"packing"}
        again = new.write_base(tmp_path / "again.img", block_size=BLOCK, threads=1)
    assert again.identical
    assert (tmp_path / "again.img").read_bytes() == base.read_bytes()


@pytest.mark.parametrize("packer", ["xz", "xz BCJ", "xz sha256"])
def test_blocks_of_xz(tmp_path: Path, packer: str) -> None:
    tools.require("busybox")
    image, plain = make_image(tmp_path, packer)
    outputs = []
    for threads in (1, 3):
        base = tmp_path / f"{threads}.img"
        with cosremaster.open(image, remember=False) as opened:
            opened.write_base(base, block_size=BLOCK, threads=threads)
        outputs.append(base.read_bytes())
    assert outputs[0] == outputs[1]
    old, new = nested(image), nested(base)
    blocks = blocks_of(new, tmp_path)
    assert max(size for _, size in blocks) <= BLOCK
    borders = {start for start, _ in blocks}
    with cosremaster.open(image, remember=False) as opened:
        layer = next(layer for layer in opened._session.opened.layers().layers if layer.parent is not None)
        spans = {path: (start, end) for path, start, end in layer.index.entry_spans()}
    for first, last in (("etc/hostname", "etc/hosts"), ("etc/shadow", "root/.ssh/authorized_keys")):
        assert spans[first.encode()][0] in borders
        assert spans[last.encode()][1] in borders
    assert new[6:8] == old[6:8], "the kind of check"
    assert (b"\x04\x00\x21\x01" in old) == (packer == "xz BCJ")
    if packer != "xz sha256":  # busybox compares no such check
        assert run(["busybox", "unxz", "-c"], stdin=new) == plain


def test_a_removal_in_a_base_encodes_its_part_alone(tmp_path: Path) -> None:
    image, _ = make_image(tmp_path)
    base = tmp_path / "base.img"
    with cosremaster.open(image, remember=False) as opened:
        opened.write_base(base, block_size=BLOCK)
    results = {}
    for source in (image, base):
        out = tmp_path / f"out-{source.name}"
        results[source.name] = cosremaster.remaster(source, out, remove=["/etc/hostname"], remember=False)
        names = run(["cpio", "-it", "--quiet"], stdin=run(["xz", "-dc"], stdin=nested(out))).decode().splitlines()
        assert "etc/hosts" in names
        assert "etc/hostname" not in names
    first, second = (results[name].packed[0] for name in ("in.img", "base.img"))
    assert first.encoded > 900_000
    assert second.encoded < 1000
    assert second.reused > 0.99 * second.size - 1000


def test_an_edited_base_is_prepared_again_by_its_new_parts_alone(tmp_path: Path) -> None:
    image, _ = make_image(tmp_path)
    base, edited, again = (tmp_path / f"{name}.img" for name in ("base", "edited", "again"))
    with cosremaster.open(image, remember=False) as opened:
        opened.write_base(base, block_size=BLOCK)
    new = tmp_path / "new"
    new.mkdir()
    (new / "large").write_bytes(words(1_000_000, 40))
    cosremaster.remaster(base, edited, add=[new], remove=["/etc/shadow"], remember=False)
    with cosremaster.open(edited, remember=False) as opened:
        prepared = opened.write_base(again, block_size=BLOCK)
    (cut,) = (layer for layer in prepared.layers if layer.reason is None)
    assert cut.largest_part[0] > BLOCK >= cut.largest_part[1]
    old = blocks_of(nested(base), tmp_path)
    packed, ready = nested(again), nested(base)
    kept = [size for (_, size), (_, other) in zip(blocks_of(packed, tmp_path), old, strict=False) if size == other]
    assert len(kept) > 2
    assert ready[12:5000] in packed
    assert run(["xz", "-dc"], stdin=packed) == run(["xz", "-dc"], stdin=nested(edited))


@pytest.mark.parametrize("packer", ["xz", "zstd", "bzip2", "lz4-legacy"])
def test_what_a_kernel_unpacks(tmp_path: Path, packer: str) -> None:
    tools.require(PACKERS[packer][0][0])
    plain = root_archive()
    image, base = tmp_path / "initrd.img", tmp_path / "base.img"
    image.write_bytes(run(PACKERS[packer][0], stdin=plain))
    with cosremaster.open(image, remember=False) as opened:
        prepared = opened.write_base(base, block_size=BLOCK)
    assert run(PACKERS[packer][1], stdin=base.read_bytes()) == plain
    (layer,) = prepared.layers
    if packer in KERNEL_READS_A_SINGLE_FRAME:
        assert layer.reason is not None
        assert "of which kernels read a single" in layer.reason
        assert base.read_bytes() == image.read_bytes()
    else:
        assert layer.parts[1] > len(plain) // BLOCK


def test_a_tar_archive_of_its_own(tmp_path: Path) -> None:
    tools.require("bsdtar", "xz")
    fill(Tree(tmp_path / "root"))
    image, base = tmp_path / "root.tar.xz", tmp_path / "base.tar.xz"
    plain = run(["bsdtar", "-c", "-f", "-", "--format", "ustar", "-C", str(tmp_path / "root"), "."])
    image.write_bytes(run(["xz", "-T1", "-0"], stdin=plain))
    with cosremaster.open(image, remember=False) as opened:
        (layer,) = opened.write_base(base, block_size="256K").layers
        with pytest.raises(UsageError, match="keeps the compression"):
            opened.write_base(tmp_path / "base.tar.gz")
    assert layer.reason is None
    assert run(["xz", "-dc"], stdin=base.read_bytes()) == plain
    starts = {start for start, _ in blocks_of(base.read_bytes(), tmp_path)}
    early = ("etc/hostname", "etc/hosts", "etc/shadow", "root/.ssh/authorized_keys")
    assert min(plain.index(f"./{name}\0".encode()) for name in early) in starts


def test_several_archives_and_roots_in_a_file(tmp_path: Path) -> None:
    tools.require("xz", "gzip")
    plain = root_archive()
    early, holder = Tree(tmp_path / "early"), Tree(tmp_path / "holder")
    early.file("kernel/x86/microcode/Intel.bin", b"microcode")
    holder.file("a.img", run(PACKERS["xz"][0], stdin=plain))
    holder.file("b.img", run(PACKERS["xz BCJ"][0], stdin=plain))
    holder.file("c", words(400_000, 9))
    outer = run(["xz", "-0", "--check=crc32"], stdin=holder.pack(tmp_path / "holder.cpio", dot_slash=False))
    image, base = tmp_path / "in.img", tmp_path / "base.img"
    front = early.pack(tmp_path / "early.cpio", dot_slash=False)
    image.write_bytes(front + outer)
    with cosremaster.open(image, remember=False) as opened:
        prepared = opened.write_base(base, block_size=BLOCK)
    assert sorted(layer.layer.rpartition("::")[2] for layer in prepared.layers if layer.reason is None) == [
        "#2", "a.img", "b.img",
    ]  # fmt: skip
    assert base.read_bytes().startswith(front)
    cpio = run(["xz", "-dc"], stdin=base.read_bytes()[len(front) :])
    for name in ("a.img", "b.img"):
        inner = run(["cpio", "-i", "--quiet", "--to-stdout", name], stdin=cpio)
        assert run(["xz", "-dc"], stdin=inner) == plain
    assert run(["cpio", "-i", "--quiet", "--to-stdout", "c"], stdin=cpio) == words(400_000, 9)
    assert run(["cpio", "-it", "--quiet"], stdin=cpio) == b"a.img\nb.img\nc\n"
    with cosremaster.open(base, remember=False) as opened:
        assert opened.write_base(tmp_path / "again.img", block_size=BLOCK).identical
        named = opened.write_base(tmp_path / "b.img", block_size=BLOCK >> 1, layer="base.img::#2::b.img")
    assert [layer.layer.rpartition("::")[2] for layer in named.layers] == ["b.img"]


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image, _ = make_image(tmp_path)
    base = tmp_path / "base.img"
    assert main(["prepare", str(image), str(base), "--block-size", "256K", "--quiet", "--digest", "sha256"]) == 0
    assert (tmp_path / "base.img.sha256").exists()
    assert not capsys.readouterr().out
    assert main(["prepare", str(image), str(base), "--block-size", "256K"]) == 8  # it is there
    assert main(["prepare", str(image), str(base), "--block-size", "256K", "--force", "--json"]) == 0
    values = json.loads(capsys.readouterr().out)
    assert values["identical"] is False
    assert [layer["parts"]["before"] for layer in values["layers"]] == [0, 1]
    assert values["size"] == {"before": image.stat().st_size, "after": base.stat().st_size}
    assert main(["prepare", str(base), str(tmp_path / "again.img"), "--block-size", "256K"]) == 0
    said = capsys.readouterr().out
    assert "a copy: there is nothing to do" in said
    assert "rootfs.img is cut so already" in said


@pytest.mark.parametrize(
    ("words", "code"),
    [(("--block-size", "1K"), 2), (("--block-size", "4X"), 2), (("--layer", "nothing"), 6), (("--threads", "0"), 2)],
)
def test_refusals(tmp_path: Path, words: tuple[str, ...], code: int) -> None:
    image, _ = make_image(tmp_path)
    assert main(["prepare", str(image), str(tmp_path / "out.img"), *words]) == code
    assert not (tmp_path / "out.img").exists()
    assert main(["prepare", str(image), "-"]) == 2


def run_command(capsys: pytest.CaptureFixture[str], *argv: str | Path) -> str:
    """What the command prints."""
    assert main([*map(str, argv)]) == 0
    return capsys.readouterr().out


def test_an_early_removal_tells_that_the_next_is_cheap(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    image, _ = make_image(tmp_path)  # of xz -0, so that a block of ours has a MiB
    first, second, report = tmp_path / "first.img", tmp_path / "second.img", tmp_path / "report.json"
    said = run_command(capsys, image, first, "--remove", "/bin/tool", "--report", report)
    assert "the next early change is cheap: rootfs.img was one block, now it has " in said
    plan = run_command(capsys, "plan", image, "--remove", "/bin/tool")
    assert "the next early change is cheap" in plan
    values = json.loads(report.read_text())["packed"][0]["parts"]
    assert values["before"]["count"] == 1 < values["after"]["count"]
    assert values["after"]["largest"] <= 1 << 20
    said = run_command(capsys, first, second, "--remove", "/etc/hostname")
    assert "cheap" not in said
    again = cosremaster.remaster(first, tmp_path / "third.img", remove=["/etc/hostname"])
    assert again.packed[0].encoded < 1000, "early files have a block of their own"
    assert run(["xz", "-dc"], stdin=nested(second))
