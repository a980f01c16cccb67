"""Exports: GNU tar and sha256sum read the archive, the MAAS line says what they say; the PXE files boot elsewhere."""

from __future__ import annotations

import gzip
import os
import random
import shlex
import stat
from pathlib import Path

import pytest

from cosremaster.cli import main
from cosremaster.codecs.gzip.repack import DEFLATE_BLOCK
from cosremaster.demo.image import build_archive, initramfs, regular, root_items
from tests.fixtures import tools
from tests.fixtures.tools import run
from tests.support.small import CGZ, write_small

LAYER = f"in.iso::{CGZ}::rootfs.cxz"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write_small(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_maas(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tools.require("tar", "gzip", "fakeroot", "sha256sum")
    assert main(["export", LAYER, "--maas", "apollo", "--title", "Apollo 5", "--threads", "1"]) == 0
    line = capsys.readouterr().out.splitlines()[-1]
    words = shlex.split(line)
    assert words[:4] == ["maas", "admin", "boot-resources", "create"]
    values = dict(word.split("=", 1) for word in words[4:])
    file = here / "apollo.tar.gz"
    assert values == {
        "name": "custom/apollo",
        "title": "Apollo 5",
        "architecture": "amd64/generic",
        "filetype": "tgz",
        "sha256": run(["sha256sum", str(file)]).split()[0].decode(),
        "size": str(file.stat().st_size),
        "content@": "apollo.tar.gz",
    }
    run(["gzip", "-t", str(file)])
    (here / "unpacked").mkdir()
    run(["fakeroot", "tar", "-xpzf", str(file), "-C", "unpacked"], cwd=here)
    for item in root_items():
        there = here / "unpacked" / os.fsdecode(item.path)
        assert os.path.lexists(there)
        if stat.S_ISREG(item.mode) and item.data:
            assert there.read_bytes() == item.data
    listed = {line.strip(b"/") for line in run(["tar", "--quoting-style=literal", "-tzf", str(file)]).splitlines()}
    assert listed == {item.path for item in root_items()}
    # Elsewhere, later, on other threads: the same bytes.
    assert main(["export", LAYER, "--maas", "apollo", "--output", "again.tgz", "--threads", "2"]) == 0
    assert (here / "again.tgz").read_bytes() == file.read_bytes()


def test_maas_of_more_than_one_deflate_block(here: Path) -> None:
    """What is packed in blocks is read in ranges: the archive is that of ``extract --as tar``, whole and in order."""
    tools.require("tar", "gzip", "xz")
    chance = random.Random(3)
    files = [regular(b"etc/%d" % number, chance.randbytes(700_001) * 2) for number in range(5)]
    small = [regular(b"etc/s%d" % number, b"%d" % number) for number in range(3000)]
    plain = build_archive([*root_items(), *files, *small])
    assert len(plain) > 4 * DEFLATE_BLOCK
    write_small(here, cgz=gzip.compress(build_archive([regular(b"rootfs.cxz", run(["xz", "-1"], stdin=plain))])))
    for threads in ("1", "2"):
        assert main(["export", LAYER, "--maas", "big", "--output", f"{threads}.tgz", "--threads", threads]) == 0
    assert (here / "1.tgz").read_bytes() == (here / "2.tgz").read_bytes()
    assert main(["extract", LAYER, "big.tar", "--as", "tar"]) == 0
    assert run(["gzip", "-dc", "1.tgz"], cwd=here) == (here / "big.tar").read_bytes()
    for item in (*files, small[-1]):
        assert run(["tar", "-xzOf", "1.tgz", os.fsdecode(item.path)], cwd=here) == item.data
    assert len(run(["tar", "-tzf", "1.tgz"], cwd=here).splitlines()) == len(root_items()) + 3005


@pytest.mark.parametrize("source", ["in.iso", "live.cgz", "in.iso::@root"])
def test_maas_takes_the_root_of_an_image(here: Path, capsys: pytest.CaptureFixture[str], source: str) -> None:
    tools.require("tar", "sha256sum")
    (here / "live.cgz").write_bytes(initramfs())
    assert main(["export", source, "--maas", "apollo", "--profile", "me", "--base-image", "ubuntu/noble"]) == 0
    layer, _, command = capsys.readouterr().out.splitlines()
    assert layer == f"layer {'live.cgz' if source == 'live.cgz' else f'in.iso::{CGZ}'}::rootfs.cxz"
    assert shlex.split(command)[:2] == ["maas", "me"]
    assert "base_image=ubuntu/noble" in shlex.split(command)
    assert b"etc/hostname" in run(["tar", "-tzf", "apollo.tar.gz"], cwd=here).split()
    assert run(["sha256sum", "-c", "apollo.tar.gz.sha256"], cwd=here) == b"apollo.tar.gz: OK\n"


def test_maas_knows_the_base_of_an_ubuntu_system(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    release = regular(b"etc/os-release", b'NAME="Ubuntu"\nID=ubuntu\nVERSION_CODENAME=jammy\n')
    items = [release if item.path == b"etc/os-release" else item for item in root_items()]
    write_small(here, cgz=initramfs(items=items))
    assert main(["export", "in.iso", "--maas", "jammy"]) == 0
    assert "base_image=ubuntu/jammy" in shlex.split(capsys.readouterr().out)


def test_maas_finds_no_root(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_small(here, cgz=b"no archive", extra={"live/filesystem.squashfs": b"hsqs" + bytes(5000)})
    assert main(["export", "in.iso", "--maas", "x"]) == 5
    assert "live/filesystem.squashfs" in capsys.readouterr().err
    assert sorted(path.name for path in here.iterdir()) == ["in.iso"]


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ([LAYER], 2, "--maas NAME or --pxe DIR"),
        ([LAYER, "--maas", "a/b/c"], 2, "MAAS takes no name"),
        ([LAYER, "--maas", "a", "--base-image", "a b"], 2, "MAAS takes no base image"),
        ([LAYER, "--maas", "a", "--profile", "-x"], 2, "MAAS takes no profile"),
        ([LAYER, "--maas", "x", "--output", "in.iso"], 8, "is the input itself"),
        ([LAYER, "--pxe", "out"], 6, "has no Linux kernel"),
    ],
)
def test_what_cannot_be_exported(
    here: Path, capsys: pytest.CaptureFixture[str], words: list[str], code: int, said: str
) -> None:
    assert main(["export", *words]) == code
    assert said in capsys.readouterr().err
    assert sorted(path.name for path in here.iterdir()) == ["in.iso"]


def test_pxe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = b"MZ" + bytes(0x200) + b"HdrS" + bytes(3000)
    write_small(tmp_path, extra={"linux": kernel})
    monkeypatch.chdir(tmp_path)
    assert main(["export", "in.iso", "--pxe", "tftp", "--quiet"]) == 0
    assert (tmp_path / "tftp" / CGZ).read_bytes() == initramfs()
    assert (tmp_path / "tftp" / "linux").read_bytes() == kernel
    script = (tmp_path / "tftp" / "boot.ipxe").read_text().splitlines()
    assert script[0] == "#!ipxe"
    assert script[1].startswith(f"kernel linux initrd={CGZ}")
    assert script[2:] == [f"initrd {CGZ}", "boot"]
    assert not (tmp_path / "tftp.mtree").exists()
