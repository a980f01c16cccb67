"""Addresses as people type them: the root file system by a name of its own, and an answer where a path is not there."""

from __future__ import annotations

from pathlib import Path

import pytest

import cosremaster
from cosremaster.cli import main
from cosremaster.errors import LayerError
from tests.support.archives_of_trees import pack_tree, write_tree
from tests.support.small import CGZ, initramfs, write_small


def test_the_root_has_a_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image, bare = write_small(tmp_path), tmp_path / "live.cgz"
    bare.write_bytes(initramfs())
    for source in (image, bare):
        assert main(["cat", f"{source}::@root::etc/hostname"]) == 0
        assert capsys.readouterr().out == "debirf\n"
        assert main(["ls", f"{source}::@root::etc"]) == 0
        assert capsys.readouterr().out.split() == ["hostname", "mtab", "os-release"]
    assert main(["extract", f"{image}::@root::etc", str(tmp_path / "etc")]) == 0
    assert (tmp_path / "etc/hostname").read_text() == "debirf\n"
    assert list(cosremaster.diff(f"{image}::@root", f"{bare}::@root")) == []


def test_a_file_of_that_name(tmp_path: Path) -> None:
    image = write_small(tmp_path, extra={"@root": b"mine\n"})
    assert cosremaster.read(f"{image}::%40root") == b"mine\n"
    assert [entry.name for entry in cosremaster.ls(f"{image}::@root::root")] == []


def test_the_root_of_an_initramfs_of_several_archives(tmp_path: Path) -> None:
    early = pack_tree(write_tree(tmp_path / "early", {"kernel/x86/microcode/a.bin": "a\n"}), "plain")
    system = pack_tree(write_tree(tmp_path / "system", {"init": "i\n", "etc/x": "x\n", "bin/sh": "s\n"}))
    (tmp_path / "initrd").write_bytes(early + system)
    assert cosremaster.read(f"{tmp_path}/initrd::@root::etc/x") == b"x\n"
    assert cosremaster.read(f"{write_small(tmp_path, cgz=early + system)}::@root::etc/x") == b"x\n"


def test_several_roots_are_named(tmp_path: Path) -> None:
    image = write_small(tmp_path, extra={"other.cgz": initramfs()})
    with pytest.raises(LayerError, match=rf"several layers .*{CGZ}::rootfs\.cxz, other\.cgz::rootfs\.cxz"):
        cosremaster.read(f"{image}::@root::etc/hostname")


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("etc", f"{CGZ}::rootfs.cxz::etc"),
        ("etc/hostname", f"{CGZ}::rootfs.cxz::etc/hostname"),
        ("bin/run-init", f"{CGZ}::bin/run-init"),
        ("VMLINUZ", "vmlinuz"),
        ("vmlinux", "vmlinuz"),
        ("boot/grbu/grub.cfg", "boot/grub/grub.cfg"),
        ("BOOT/GRUB/GRUB.CFG", "boot/grub/grub.cfg"),
        ("grub.cfg", "boot/grub/grub.cfg"),
        (f"{CGZ}::rootfs.xz", f"{CGZ}::rootfs.cxz"),
        (f"{CGZ}::rootfs.cxz::etc/hostnam", f"{CGZ}::rootfs.cxz::etc/hostname"),
    ],
)
def test_did_you_mean(tmp_path: Path, capsys: pytest.CaptureFixture[str], typed: str, meant: str) -> None:
    image = write_small(tmp_path)
    for command in ("ls", "cat", "stat"):
        assert main([command, f"{image}::{typed}"]) == 6
        assert capsys.readouterr().err.endswith(f"; did you mean {image}::{meant}?\n")
    assert main(["stat", f"{image}::{meant}"]) == 0


def test_nothing_like_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ls", f"{write_small(tmp_path)}::qqqq/wwww"]) == 6
    assert capsys.readouterr().err.endswith("has no qqqq/wwww\n")


@pytest.mark.parametrize("typed", ["initrd.gz", "INSTALL/INITRD.GZ", "install/initrd.gx"])
def test_did_you_mean_another_layer(tmp_path: Path, capsys: pytest.CaptureFixture[str], typed: str) -> None:
    image = write_small(tmp_path, extra={"install/initrd.gz": initramfs()})
    assert main([str(image), str(tmp_path / "out.iso"), "--layer", typed]) == 6
    assert f"has no file {typed}; did you mean install/initrd.gz?" in capsys.readouterr().err
