"""Images with structures that may name any block: what is there stays. Limine's stage 2 is understood."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import cosremaster
from cosremaster import InlineFile, UnsupportedError, remaster
from tests.fixtures import tools
from tests.fixtures.tools import run
from tests.support import judges
from tests.support.limine import install_limine, read_stage2


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tools.require("genisoimage", "mformat", *judges.TOOLS)
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "kernel").write_bytes(os.urandom(9000))
    (tree / "limine.conf").write_text("/kernel")
    (tree / "last").write_bytes(os.urandom(5000))
    return tree


def check(out: Path, iso: Path, changed: list[bytes]) -> None:
    report = cosremaster.verify(out, against=iso, changed=changed)
    assert report.ok, [(finding.check, finding.message) for finding in report.findings if finding.is_counted]


@pytest.mark.parametrize("kind", ["gpt", "mbr"])
def test_limine(kind: str, folder: Path, tmp_path: Path) -> None:
    """As its documentation makes images; files come, go, grow and shrink, and the MBR leads to the same stage 2."""
    iso, out, esp = tmp_path / "in.iso", tmp_path / "out.iso", folder / "efi.img"
    esp.write_bytes(bytes(1 << 20))
    run(["mformat", "-i", esp, "::"])
    efi = ["--efi-boot", "efi.img", "-efi-boot-part", "--efi-boot-image", "--protective-msdos-label"]
    run(["xorriso", "-as", "mkisofs", "-quiet", "-r", "-J", *(efi if kind == "gpt" else []), "-o", iso, folder])
    iso.write_bytes(install_limine(iso.read_bytes(), gpt=kind == "gpt"))
    stage2 = read_stage2(iso.read_bytes())
    before = judges.complaints(iso)
    add = [InlineFile("/new", os.urandom(300_000)), InlineFile("/limine.conf", b"x" * 5000)]
    remaster(iso, out, add_iso=add, remove_iso=["kernel"])
    raw = out.read_bytes()
    assert read_stage2(raw) == stage2
    if kind == "gpt":
        assert raw[:440] != iso.read_bytes()[:440], "the second half moved with the end of the image"
        assert judges.complaints(out) <= before
    check(out, iso, [b"new", b"limine.conf", b"kernel"])
    smaller = tmp_path / "smaller.iso"
    remaster(out, smaller, remove_iso=["new"])
    assert read_stage2(smaller.read_bytes()) == stage2
    check(smaller, out, [b"new"])


@pytest.mark.parametrize("maker", ["hfs", "unknown"])
def test_additions_beside_what_may_name_any_block(maker: str, folder: Path, tmp_path: Path) -> None:
    iso, out = tmp_path / "in.iso", tmp_path / "out.iso"
    run(["genisoimage", "-quiet", "-R", "-J", *(["-hfs"] if maker == "hfs" else []), "-o", iso, folder])
    if maker == "unknown":
        raw = bytearray(iso.read_bytes())
        raw[5000:5008] = b"who am I"
        iso.write_bytes(raw)
    what = {"hfs": "an HFS file system over the whole image", "unknown": "unknown boot data in the system area"}[maker]
    conf = (folder / "limine.conf").read_bytes()
    many = [InlineFile(f"/many/file{number}", b"m") for number in range(60)]
    same = InlineFile("/limine.conf", b"y" * len(conf))
    remaster(iso, out, add_iso=[InlineFile("/new", b"bytes of the new file"), *many, same], rename_iso=["last:/first"])
    old, new = iso.read_bytes(), out.read_bytes()
    for name in ("kernel", "last"):
        data = (folder / name).read_bytes()
        assert old.index(data) == new.index(data)
    assert old.index(conf) == new.index(b"y" * len(conf))
    assert old[:0x8000] == new[:0x8000]
    if maker == "hfs":
        start = old.rindex(b"BD")  # the alternate master directory block ends the file system
        first = new.index(b"bytes of the new file")
        assert new[start : start + 512] == old[start : start + 512] and first > start
    assert judges.tree(out).keys() >= {"first", "many/file59", "new", "kernel", "limine.conf"}
    check(out, iso, [b"new", b"many", b"limine.conf", b"last", b"first"])
    for keywords in (
        {"remove_iso": ["kernel"]},
        {"add_iso": [InlineFile("/limine.conf", b"longer than it was")]},
        {"add_iso": [InlineFile("/kernel", b"")]},
    ):
        with pytest.raises(UnsupportedError, match=f"has {what}.*files can be added, and none can be") as refusal:
            remaster(iso, tmp_path / "none.iso", **keywords)
        assert refusal.value.exit_code == 5
    assert not (tmp_path / "none.iso").exists()


def test_data_at_the_end_do_not_move_either(folder: Path, tmp_path: Path) -> None:
    """Boot data that nobody knows may lead to an appended partition."""
    iso, esp = tmp_path / "in.iso", tmp_path / "esp.img"
    esp.write_bytes(bytes(1 << 20))
    run(["mformat", "-i", esp, "::"])
    run(["xorriso", "-as", "mkisofs", "-quiet", "-r", "-append_partition", "2", "0xef", esp, "-o", iso, folder])
    raw = bytearray(iso.read_bytes())
    raw[5000:5008] = b"who am I"
    iso.write_bytes(raw)
    with pytest.raises(UnsupportedError, match="none can be changed in such a way that others move"):
        remaster(iso, tmp_path / "out.iso", add_iso=[InlineFile("/new", b"new")])
