"""Several archives in a row, as the kernel reads an initramfs: Debian's own unpacker judges what an edit made."""

from __future__ import annotations

import gzip
import lzma
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import cosremaster
from cosremaster.cli import main
from cosremaster.demo.image import build_archive, directory, initramfs, regular, root_items
from cosremaster.errors import OverlayError, Place
from cosremaster.io.pieces import Literal, PieceTable
from cosremaster.layers.model import build_layers, index_file
from cosremaster.remastering.image import OpenedImage
from tests.fixtures import tools
from tests.support.archives_of_trees import pack_tree, unpack, unpack_row, write_tree
from tests.support.initramfs import TOOLS as INITRAMFS_TOOLS
from tests.support.initramfs import unpack_initramfs
from tests.support.small import CGZ, write_overlay, write_small

UCODE = build_archive([directory(b"kernel"), directory(b"kernel/x86"), regular(b"kernel/x86/ucode.bin", b"u" * 1001)])
MODULES = build_archive([directory(b"lib"), directory(b"lib/modules"), regular(b"lib/modules/one.ko", b"k" * 700)])


def _xz(data: bytes) -> bytes:
    return lzma.compress(data, check=lzma.CHECK_CRC32)


def _gz(data: bytes) -> bytes:
    return gzip.compress(data, mtime=0)


def _row(*parts: bytes, gap: int = 0) -> bytes:
    """The parts with zeros between them that bring each to a multiple of 4."""
    out = b""
    for part in parts:
        out += bytes((-len(out) % 4) + gap if out else 0) + part
    return out


MAIN = build_archive(root_items())
SHAPES = {
    "microcode, gzip": _row(UCODE, _gz(MAIN)),
    "three kinds": _row(UCODE, MODULES, _xz(MAIN), gap=8),
    "gzip, gzip": _row(_gz(MODULES), _gz(MAIN)),
    "two in one stream": _row(UCODE, _gz(MODULES + bytes(12) + MAIN)),
    "split members": _gz(MAIN[:3000]) + _gz(MAIN[3000:]),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_only_the_last_archive_changes(tmp_path: Path, shape: str) -> None:
    initrd = SHAPES[shape]
    image = write_small(tmp_path, cgz=initrd)
    (tmp_path / "motd").write_text("hello from the last\n")
    result = cosremaster.remaster(image, tmp_path / "out.iso", add=[f"{tmp_path}/motd:/etc/motd"])
    assert result.added == (b"etc/motd",)
    made = cosremaster.read(f"{tmp_path}/out.iso::{CGZ}")
    with OpenedImage(tmp_path / "out.iso") as opened:
        layers = opened.layers().layers
    if layers[-1].concatenation is not None:
        start, _ = layers[-1].concatenation.streams[layers[-1].stream]
        assert made[:start] == initrd[:start]
        assert all(begin % 4 == 0 for begin, _ in layers[-1].concatenation.streams)
    before = {"three kinds": 2, "two in one stream": 2, "split members": 0}.get(shape, 1)
    assert [layer.entry_count for layer in layers[:-1]] == [3] * before
    if shape in ("microcode, gzip", "three kinds"):  # Debian's tool knows plain archives and then one stream
        tools.require(*INITRAMFS_TOOLS, "xz", "gzip")
        (tmp_path / "initrd").write_bytes(made)
        early, unpacked = unpack_initramfs(tmp_path / "initrd", tmp_path / "tree")
        assert (unpacked / "etc/motd").read_text() == "hello from the last\n"
        assert (early / "kernel/x86/ucode.bin").read_bytes() == b"u" * 1001


def test_an_earlier_archive_when_it_is_named(tmp_path: Path) -> None:
    image = write_small(tmp_path, cgz=_row(UCODE, _gz(MAIN)))
    (tmp_path / "ucode").write_bytes(b"new" * 1000)
    add = [f"{tmp_path}/ucode:/kernel/x86/ucode.bin"]
    result = cosremaster.remaster(image, tmp_path / "out.iso", add=add, layer=f"{CGZ}::#1")
    assert result.replaced == (b"kernel/x86/ucode.bin",)
    made = cosremaster.read(f"{tmp_path}/out.iso::{CGZ}")
    assert made.endswith(_gz(MAIN))
    assert (len(made) - len(_gz(MAIN))) % 4 == 0
    (tmp_path / "initrd").write_bytes(made)
    tools.require("cpio")
    listed = tools.run(["cpio", "-i", "--to-stdout", "--quiet", "kernel/x86/ucode.bin"], stdin=made)
    assert listed == b"new" * 1000


def test_what_stands_in_another_archive(tmp_path: Path) -> None:
    image = write_small(tmp_path, cgz=_row(MODULES, _gz(MAIN)))
    with pytest.raises(OverlayError, match=r"one\.ko: stands in .*::#1, not in .*::#2; --layer .* removes it"):
        cosremaster.remaster(image, tmp_path / "out.iso", remove=["lib/modules/one.ko"], layer=f"{CGZ}::#2")
    with pytest.raises(OverlayError, match=r"hostname: stands in .*::#2, not in .*::#1; --layer .* removes it"):
        cosremaster.remaster(image, tmp_path / "out.iso", remove=["etc/hostname"], layer=f"{CGZ}::#1")
    # Its folder is in the first archive; the second needs no entry for it.
    (tmp_path / "two.ko").write_bytes(b"2")
    result = cosremaster.remaster(image, tmp_path / "out.iso", add=[f"{tmp_path}/two.ko:/lib/modules/"])
    assert (result.added, result.parents) == ((b"lib/modules/two.ko",), ())
    (tmp_path / "hostname").write_bytes(b"early")
    result = cosremaster.remaster(
        image, tmp_path / "out2.iso", add=[f"{tmp_path}/hostname:/etc/hostname"], layer=f"{CGZ}::#1"
    )
    assert any("is unpacked later and counts" in warning for warning in result.warnings)


MKOSI = (
    ("plain", {"kernel/x86/microcode/ucode.bin": "u\n"}),
    ("zstd", {"init": "#!/bin/sh\n", "etc/site": "main\n", "etc/only": "main\n", "bin/sh": "sh\n"}),
    ("plain", {"etc/site": "late\n", "lib/modules/x.ko": "x\n"}),
)
"""What mkosi makes: something early, the system, and the kernel's modules, which are unpacked over it."""


def _write_row(tmp_path: Path, parts: tuple[tuple[str, dict[str, str]], ...]) -> Path:
    trees = (write_tree(tmp_path / f"tree{number}", files) for number, (_, files) in enumerate(parts))
    row = _row(*(pack_tree(tree, packer) for tree, (packer, _) in zip(trees, parts, strict=True)))
    (tmp_path / "initrd").write_bytes(row)
    return tmp_path / "initrd"


@pytest.mark.parametrize("packers", [("plain", "zstd", "plain"), ("plain", "plain", "gzip"), ("xz", "zstd", "gzip")])
def test_an_edit_goes_where_it_takes_effect(tmp_path: Path, packers: tuple[str, str, str]) -> None:
    initrd = _write_row(tmp_path, tuple((packer, files) for packer, (_, files) in zip(packers, MKOSI, strict=True)))
    before = unpack_row(initrd, tmp_path / "before")
    site = write_tree(tmp_path / "site", {"etc/site": "site\n", "etc/only": "site\n", "opt/new": "site\n"})
    result = cosremaster.remaster(initrd, tmp_path / "out", add=[site], remove=["/lib/modules/x.ko"])
    assert (result.layer, result.replaced) == ("initrd", (b"etc/only", b"etc/site"))
    assert result.warnings == ()
    del before["lib/modules/x.ko"]
    assert unpack_row(tmp_path / "out", tmp_path / "after") == {
        **before, "etc/site": "site\n", "etc/only": "site\n", "opt/new": "site\n",
    }  # fmt: skip
    assert cosremaster.read(f"{tmp_path}/out::#2::etc/only") == b"site\n"  # where it was
    assert b"etc/site" not in [entry.path for entry in cosremaster.ls(f"{tmp_path}/out::#2::etc")]
    assert (
        (tmp_path / "out")
        .read_bytes()
        .startswith(initrd.read_bytes()[: len(pack_tree(tmp_path / "tree0", packers[0]))])
    )


def test_removal_takes_it_from_each_archive_that_has_it(tmp_path: Path) -> None:
    initrd = _write_row(tmp_path, MKOSI)
    cosremaster.remaster(initrd, tmp_path / "out", remove=["/etc/site", "/kernel"])
    assert unpack_row(tmp_path / "out", tmp_path / "after") == {
        "init": "#!/bin/sh\n", "etc/only": "main\n", "bin/sh": "sh\n", "lib/modules/x.ko": "x\n",
    }  # fmt: skip


def test_several_archives_in_one_stream_change_together(tmp_path: Path) -> None:
    parts = [pack_tree(write_tree(tmp_path / f"tree{n}", files), "plain") for n, (_, files) in enumerate(MKOSI)]
    (tmp_path / "initrd").write_bytes(_gz(parts[0] + bytes(8) + parts[1] + parts[2]))
    site = write_tree(tmp_path / "site", {"etc/only": "site\n"})
    result = cosremaster.remaster(tmp_path / "initrd", tmp_path / "out", add=[site], remove=["/etc/site", "/kernel"])
    assert [layer.codec for layer in result.packed] == ["gzip"]
    with OpenedImage(tmp_path / "out", remember=False) as opened:
        archives = opened.layers().layers
    plain, texts = gzip.decompress((tmp_path / "out").read_bytes()), {}
    for archive in archives:
        assert archive.span[0] % 4 == 0
        texts = unpack(plain[slice(*archive.span)], tmp_path / "after")
    assert texts == {"init": "#!/bin/sh\n", "etc/only": "site\n", "bin/sh": "sh\n", "lib/modules/x.ko": "x\n"}


def test_microcode_goes_into_the_first_archive(tmp_path: Path) -> None:
    """The kernel looks for it there alone, before it unpacks anything, and in a plain archive alone."""
    microcode = write_tree(tmp_path / "site", {"kernel/x86/microcode/AuthenticAMD.bin": "amd\n", "etc/new": "n\n"})
    initrd = _write_row(tmp_path, (MKOSI[0], ("gzip", MKOSI[1][1])))
    result = cosremaster.remaster(initrd, tmp_path / "out", add=[microcode])
    assert result.warnings == ()
    early = [entry.path for entry in cosremaster.ls(f"{tmp_path}/out::#1", recursive=True)]
    assert b"kernel/x86/microcode/AuthenticAMD.bin" in early
    assert b"etc/new" not in early
    assert unpack_row(tmp_path / "out", tmp_path / "after")["etc/new"] == "n\n"
    (tmp_path / "packed").mkdir()
    packed = _write_row(tmp_path / "packed", (("gzip", MKOSI[0][1]), MKOSI[1]))
    result = cosremaster.remaster(packed, tmp_path / "out2", add=[microcode])
    assert any("before it decompresses anything" in warning for warning in result.warnings)


def test_hard_links_and_other_types_stay_together(tmp_path: Path) -> None:
    """A link does not reach into another archive, and a directory that replaces a file has its contents beside it."""
    initrd = _write_row(tmp_path, MKOSI)
    site = write_tree(tmp_path / "site", {"etc/only": "linked\n", "etc/site/below": "deep\n"})
    (site / "etc/again").hardlink_to(site / "etc/only")
    cosremaster.remaster(initrd, tmp_path / "out", add=[site], force_type=True)
    texts = unpack_row(tmp_path / "out", tmp_path / "after")
    assert (texts["etc/only"], texts["etc/again"], texts["etc/site/below"]) == ("linked\n", "linked\n", "deep\n")
    assert (tmp_path / "after/etc/only").stat().st_nlink == 2


@pytest.mark.parametrize("shape", SHAPES)
def test_an_initramfs_needs_no_iso(tmp_path: Path, shape: str, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "initrd.img"
    source.write_bytes(SHAPES[shape])
    write_overlay(tmp_path)
    command = [str(source), str(tmp_path / "out.img"), "--add", str(tmp_path / "overlay")]
    assert main(command) == 0
    assert "read to the end" in capsys.readouterr().out
    assert main(["cat", f"{tmp_path}/out.img::etc/motd"]) == 0
    assert capsys.readouterr().out == "welcome\n"
    if shape == "microcode, gzip":
        tools.require(*INITRAMFS_TOOLS)
        _, unpacked = unpack_initramfs(tmp_path / "out.img", tmp_path / "tree")
        assert (unpacked / "etc/motd").read_text() == "welcome\n"
    assert main(["inspect", str(source)]) == 0
    assert main([str(source), str(tmp_path / "same.img")]) == 0
    assert (tmp_path / "same.img").read_bytes() == SHAPES[shape]


@pytest.mark.parametrize("block", ["0", "200KiB"])
def test_compressed_bytes_are_kept_behind_another_archive(tmp_path: Path, block: str) -> None:
    tools.require("xz", "cpio")
    chance = random.Random(3)
    words = [bytes(chance.choices(b"abcdefgh", k=6)) for _ in range(300)]
    bulk = [regular(b"w%02d" % number, b" ".join(chance.choices(words, k=20_000))) for number in range(15)]
    plain = build_archive([*root_items(), *bulk])
    packed = tools.run(["xz", "-T1", "-1", "--check=crc32", f"--block-size={block}"], stdin=plain)
    (tmp_path / "row").write_bytes(_row(UCODE, MODULES, packed))
    (tmp_path / "motd").write_text("kept\n")
    for name in ("out", "again"):
        result = cosremaster.remaster(tmp_path / "row", tmp_path / name, add=[f"{tmp_path}/motd:/etc/motd"])
        assert result.packed[0].reused > len(packed) / 3
    with OpenedImage(tmp_path / "out") as opened:
        row = opened.layers().layers[-1].concatenation
    assert row is not None
    start, end = row.streams[-1]
    made = tools.run(["xz", "-dc"], stdin=(tmp_path / "out").read_bytes()[start:end])
    assert tools.run(["cpio", "-i", "--quiet", "--to-stdout", "etc/motd"], stdin=made) == b"kept\n"
    assert tools.run(["cpio", "-i", "--quiet", "--to-stdout", "w14"], stdin=made) == bulk[14].data


def test_a_layer_of_a_bare_initramfs(tmp_path: Path) -> None:
    source = tmp_path / "live.cgz"
    source.write_bytes(initramfs())
    write_overlay(tmp_path)
    result = cosremaster.remaster(source, tmp_path / "one.cgz", add=[tmp_path / "overlay"])
    assert result.layer == "live.cgz::rootfs.cxz"
    for layer in ("rootfs.cxz", "live.cgz::rootfs.cxz"):
        cosremaster.remaster(source, tmp_path / "two.cgz", add=[tmp_path / "overlay"], layer=layer, force=True)
        assert (tmp_path / "two.cgz").read_bytes() == (tmp_path / "one.cgz").read_bytes()
    (tmp_path / "row").write_bytes(SHAPES["microcode, gzip"])
    result = cosremaster.remaster(tmp_path / "row", tmp_path / "row2", add=[f"{source}:/x"], layer="#1")
    assert result.layer == "row::#1"


@given(
    st.lists(st.sampled_from([UCODE, MODULES, _gz(MODULES), _xz(UCODE)]), min_size=2, max_size=4),
    st.integers(0, 3),
    st.integers(0, 40),
    st.integers(0, 30),
)
def test_any_row_keeps_its_other_streams(parts: list[bytes], which: int, gap: int, size: int) -> None:
    data = _row(*parts, gap=gap)
    table = PieceTable([Literal(data)])
    indexed = index_file(b"initrd", table, Place(("x",)))
    layers = build_layers(indexed, table, Place(("x",)))
    assert len(layers) == len(parts)
    chosen = layers[which % len(layers)]
    assert chosen.concatenation is not None
    made = b"".join(chosen.replace_stream(PieceTable([Literal(b"n" * size)])).chunks())
    at = 0
    for number, part in enumerate(parts):
        wanted = b"n" * size if number == chosen.stream else part
        at = made.index(wanted, at) if wanted else at + -at % 4
        assert at % 4 == 0
        at += len(wanted)
