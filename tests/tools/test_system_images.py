"""Live images whose root is a file system of its own: no file is put into their initramfs without a word."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import cosremaster
from cosremaster.cli import main
from cosremaster.errors import LayerError
from tests.fixtures import tools
from tests.fixtures.tools import run
from tests.support.archives_of_trees import pack_tree, write_tree
from tests.support.small import initramfs

ROOT = {"sbin/init": "#!/bin/sh\n", "etc/hostname": "live\n", "usr/bin/true": "true\n"}
INITRAMFS = {"init": "#!/bin/sh\n", "bin/busybox": "busybox\n", "etc/motd": "initramfs\n"}


def _file_system(kind: str, tree: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if kind == "ext4":
        tools.require("/usr/sbin/mke2fs")
        run(["/usr/sbin/mke2fs", "-q", "-t", "ext4", "-d", str(tree), str(target), "1M"])
    elif kind == "erofs":
        tools.require("mkfs.erofs")
        run(["mkfs.erofs", str(target), str(tree)])
    else:
        tools.require("mksquashfs")
        run(["mksquashfs", str(tree), str(target), "-quiet", "-no-progress", "-comp", kind])


def _image(tmp_path: Path, kind: str, path: str, initrd: str, extra: dict[str, str] | None = None) -> Path:
    """An ISO with a file system of ``kind`` at ``path``, and an initramfs at ``initrd``."""
    tools.require("genisoimage")
    disc = write_tree(tmp_path / "disc", extra or {})
    _file_system(kind, write_tree(tmp_path / "root", ROOT), disc / path)
    (disc / initrd).parent.mkdir(parents=True, exist_ok=True)
    (disc / initrd).write_bytes(pack_tree(write_tree(tmp_path / "initramfs", INITRAMFS)))
    run(["genisoimage", "-quiet", "-R", "-J", "-joliet-long", "-o", str(tmp_path / "in.iso"), str(disc)])
    return tmp_path / "in.iso"


SQUASHFS_ROOTS = {
    "live-boot": ("xz", "live/filesystem.squashfs", "live/initrd.img"),
    "casper": ("zstd", "casper/minimal.standard.live.squashfs", "casper/initrd"),
    "dracut": ("gzip", "LiveOS/squashfs.img", "images/pxeboot/initrd.img"),
    "archiso": ("gzip", "arch/x86_64/airootfs.sfs", "arch/boot/x86_64/initramfs-linux.img"),
    "gentoo": ("gzip", "image.squashfs", "boot/gentoo.igz"),
    "slax": ("xz", "slax/01-core.sb", "slax/boot/initrfs.img"),
    "antix": ("gzip", "antiX/linuxfs", "antiX/initrd.gz"),
}

ROOTS = {
    "dracut flat": ("ext4", "LiveOS/rootfs.img", "isolinux/initrd0.img"),
}

EROFS_ROOTS = {
    "dracut": ("LiveOS/squashfs.img", "boot/x86_64/loader/initrd"),
    "archiso": ("arch/x86_64/airootfs.erofs", "arch/boot/x86_64/initramfs-linux.img"),
}


@pytest.mark.parametrize("family", SQUASHFS_ROOTS)
def test_the_squashfs_root_is_changed(tmp_path: Path, family: str, capsys: pytest.CaptureFixture[str]) -> None:
    tools.require("unsquashfs", "bsdtar")
    kind, path, initrd = SQUASHFS_ROOTS[family]
    image, out = _image(tmp_path, kind, path, initrd), tmp_path / "out.iso"
    site = write_tree(tmp_path / "site", {"etc/site": "7\n"})
    for _ in range(2):  # the second time by the remembered index
        result = cosremaster.remaster(image, out, add=[site], force=True)
        assert (result.layer, result.added, result.warnings) == (path, (b"etc/site",), ())
    run(["bsdtar", "-xf", str(out), "-C", str(tmp_path), path, initrd])
    assert run(["unsquashfs", "-cat", str(tmp_path / path), "etc/site"]) == b"7\n"
    assert (tmp_path / initrd).read_bytes() == (tmp_path / "disc" / initrd).read_bytes()
    assert main(["inspect", str(image)]) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("file system ")]
    assert line.startswith(f"file system {path}: a squashfs file system, ")
    assert line.endswith("root of the running system")
    info = cosremaster.inspect(image, deep=True)
    assert (info.root_layer, info.root_problem) == (path, "")
    assert path not in info.memory
    assert json.loads(json.dumps(info.values))["filesystems"][0]["is_layer"]


@pytest.mark.parametrize("family", EROFS_ROOTS)
def test_the_erofs_root_is_changed(tmp_path: Path, family: str, capsys: pytest.CaptureFixture[str]) -> None:
    tools.require("fsck.erofs", "bsdtar")
    path, initrd = EROFS_ROOTS[family]
    extra = {f"{path.rpartition('/')[0]}/airootfs.sha512": "", f"{path}.sig": "signed\n"} if family == "archiso" else {}
    image, out = _image(tmp_path, "erofs", path, initrd, extra), tmp_path / "out.iso"
    site = write_tree(tmp_path / "site", {"etc/site": "7\n"})
    for _ in range(2):  # the second time by the remembered index
        result = cosremaster.remaster(image, out, add=[site], force=True)
        assert (result.layer, result.added) == (path, (b"etc/site",))
        assert bool(result.warnings) == (family == "archiso"), "its signature does not fit any more"
    run(["bsdtar", "-xf", str(out), "-C", str(tmp_path), path, initrd])
    run(["fsck.erofs", f"--extract={tmp_path / 'extracted'}", str(tmp_path / path)])
    assert (tmp_path / "extracted/etc/site").read_text() == "7\n"
    assert (tmp_path / initrd).read_bytes() == (tmp_path / "disc" / initrd).read_bytes()
    assert main(["inspect", str(image)]) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("file system ")]
    assert line.startswith(f"file system {path}: an EROFS file system, ")
    assert line.endswith("root of the running system")
    info = cosremaster.inspect(image, deep=True)
    assert (info.root_layer, info.root_problem) == (path, "")
    assert json.loads(json.dumps(info.values))["filesystems"][0]["is_layer"]


@pytest.mark.parametrize("family", ROOTS)
def test_the_root_is_named_and_nothing_written(
    tmp_path: Path, family: str, capsys: pytest.CaptureFixture[str]
) -> None:  # fmt: skip
    kind, path, initrd = ROOTS[family]
    image, out, site = _image(tmp_path, kind, path, initrd), tmp_path / "out.iso", tmp_path / "site"
    write_tree(site, {"etc/site": "7\n"})
    for _ in range(2):  # the second time by the remembered index
        with pytest.raises(LayerError, match=rf"root .* is {path} \(an? .* file system\).*--layer {initrd} "):
            cosremaster.remaster(image, out, add=[site])
    assert not out.exists()
    with pytest.raises(LayerError, match="which cannot be changed"):
        cosremaster.remaster(image, out, remove=["/etc/motd"])
    result = cosremaster.remaster(image, out, add=[site], layer=initrd)
    assert (result.added, result.warnings) == ((b"etc/site",), ())
    assert cosremaster.read(f"{out}::{initrd}::etc/site") == b"7\n"
    assert main(["inspect", str(image)]) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("file system ")]
    assert path in line
    assert "root of the running system" in line
    info = cosremaster.inspect(image, deep=True)
    assert info.root_layer is None
    assert path in info.root_problem
    assert json.loads(json.dumps(info.values))["filesystems"][0]["path"] == path


@pytest.mark.parametrize(
    ("kind", "path", "extra"),
    [
        ("xz", "images/install.img", {}),
        ("xz", "LiveOS/squashfs.img", {".treeinfo": "[stage2]\nmainimage = LiveOS/squashfs.img\n"}),
        ("gzip", "boot/x86_64/root", {}),
    ],
)
def test_an_installer_gets_files_by_its_initramfs(
    tmp_path: Path, kind: str, path: str, extra: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    image, out = _image(tmp_path, kind, path, "isolinux/initrd.img", extra), tmp_path / "out.iso"
    (tmp_path / "ks.cfg").write_text("text\n")
    assert main([str(image), str(out), "--add", f"{tmp_path}/ks.cfg:/ks.cfg"]) == 0
    (warning,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning")]
    assert f"runs from {path}" in warning
    assert cosremaster.read(f"{out}::isolinux/initrd.img::ks.cfg") == b"text\n"
    result = cosremaster.remaster(
        image, out, add=[f"{tmp_path}/ks.cfg:/ks.cfg"], layer="isolinux/initrd.img", force=True
    )
    assert result.warnings == ()


@pytest.mark.parametrize(
    ("kind", "path"),
    [
        ("gzip", "cde/optional/nano.tcz"), ("gzip", "seed/core.snap"), ("ext4", "casper-rw"), ("ext4", "vm/disk.img"),
        ("gzip", "boot/modloop-lts"),
    ],
)  # fmt: skip
def test_what_is_no_root_disturbs_nothing(tmp_path: Path, kind: str, path: str) -> None:
    image, out = _image(tmp_path, kind, path, "boot/core.gz"), tmp_path / "out.iso"
    result = cosremaster.remaster(image, out, add=[write_tree(tmp_path / "site", {"etc/site": "7\n"})])
    assert (result.layer, result.warnings) == ("boot/core.gz", ())


def test_alpine_takes_an_overlay_beside_its_packages(tmp_path: Path) -> None:
    packages = {"apks/x86_64/APKINDEX.tar.gz": "index\n", ".alpine-release": "3.20\n"}
    image, out = _image(tmp_path, "gzip", "boot/modloop-lts", "boot/initramfs-lts", packages), tmp_path / "out.iso"
    site = write_tree(tmp_path / "site", {"etc/site": "7\n"})
    with pytest.raises(LayerError, match=r"packages in apks/.*apkovl.*--layer boot/initramfs-lts changes"):
        cosremaster.remaster(image, out, add=[site])
    cosremaster.remaster(image, out, add=[site], layer="boot/initramfs-lts")


def test_a_layer_inside_an_initramfs_is_the_root(tmp_path: Path) -> None:
    """debirf's system is in its initramfs, whatever squashfs lies beside it."""
    image, out = _image(tmp_path, "gzip", "data/docs.squashfs", "boot/tool.gz"), tmp_path / "out.iso"
    (tmp_path / "disc/boot/tool.gz").write_bytes(initramfs())
    run(["genisoimage", "-quiet", "-R", "-o", str(image), str(tmp_path / "disc")])
    result = cosremaster.remaster(image, out, add=[write_tree(tmp_path / "site", {"etc/site": "7\n"})])
    assert result.layer == "boot/tool.gz::rootfs.cxz"


@pytest.mark.parametrize(
    ("name", "kind"),
    [("squash/root.img", "gzip"), ("squash-root.img", "xz"), ("squashfs-root.img", "xz"), ("erofs-root.img", "erofs")],
)
def test_a_file_system_with_the_rest_of_the_initramfs_is_not_the_root(tmp_path: Path, name: str, kind: str) -> None:
    """dracut's module squash: an init that mounts such a file, in which systemd of the initramfs is."""
    image, out = _image(tmp_path, "gzip", "LiveOS/squashfs.img", "images/pxeboot/initrd.img"), tmp_path / "out.iso"
    inner, disc = write_tree(tmp_path / "inner", {"init": "#!/bin/sh\n", "bin/busybox": "b\n"}), tmp_path / "disc"
    rest = {"etc/initrd-release": "dracut\n", "usr/lib/systemd/systemd": "s\n", "init": "-> usr/lib/systemd/systemd"}
    _file_system(kind, write_tree(tmp_path / "rest", rest), inner / name)
    early = pack_tree(write_tree(tmp_path / "early", {"kernel/x86/microcode/AuthenticAMD.bin": "m\n"}), "plain")
    initrd = disc / "images/pxeboot/initrd.img"
    initrd.write_bytes(early + pack_tree(inner))
    run(["genisoimage", "-quiet", "-R", "-o", str(image), str(disc)])
    site = write_tree(tmp_path / "site", {"etc/site": "7\n"})
    assert cosremaster.remaster(image, out, add=[site]).layer == "LiveOS/squashfs.img"
    alone = cosremaster.remaster(initrd, tmp_path / "initrd", add=[site])
    assert alone.layer == f"initrd.img::#2::{name}"
    (disc / "LiveOS/squashfs.img").unlink()
    _file_system("ext4", write_tree(tmp_path / "ext", ROOT), disc / "LiveOS/rootfs.img")
    run(["genisoimage", "-quiet", "-R", "-o", str(image), str(disc)])
    with pytest.raises(LayerError, match=r"is LiveOS/rootfs\.img .*, which cannot be changed"):
        cosremaster.remaster(image, out, add=[site], force=True)


@pytest.mark.parametrize("kind", ["gzip", "erofs"])
def test_a_root_in_an_archive_behind_the_initramfs(tmp_path: Path, kind: str) -> None:
    """CoreOS: images/pxeboot/rootfs.img is a cpio archive with root.squashfs (or root.erofs) in it."""
    tools.require("genisoimage", "cpio")
    name = "root.erofs" if kind == "erofs" else "root.squashfs"
    disc, inner = tmp_path / "disc/images/pxeboot", write_tree(tmp_path / "inner", {"etc/coreos-live-rootfs": "40\n"})
    _file_system(kind, write_tree(tmp_path / "root", ROOT), inner / name)
    disc.mkdir(parents=True)
    (disc / "rootfs.img").write_bytes(pack_tree(inner, "plain"))
    (disc / "initrd.img").write_bytes(pack_tree(write_tree(tmp_path / "initramfs", INITRAMFS)))
    image, out = tmp_path / "in.iso", tmp_path / "out.iso"
    run(["genisoimage", "-quiet", "-R", "-o", str(image), str(tmp_path / "disc")])
    site = write_tree(tmp_path / "site", {"etc/site": "7\n"})
    result = cosremaster.remaster(image, out, add=[site])
    assert result.layer == f"images/pxeboot/rootfs.img::{name}"
    assert cosremaster.read(f"{out}::{result.layer}::etc/site") == b"7\n"
    assert cosremaster.remaster(disc / "rootfs.img", tmp_path / "out.img", add=[site]).layer == f"rootfs.img::{name}"


def test_all_layers_are_those_of_systems(tmp_path: Path) -> None:
    """The root and the initramfs, and no snap, however much it looks like a system."""
    disc = tmp_path / "disc"
    _file_system("gzip", write_tree(tmp_path / "snap", ROOT), disc / "seed/core.snap")
    image, out = _image(tmp_path, "xz", "live/filesystem.squashfs", "live/initrd.img"), tmp_path / "out.iso"
    site = write_tree(tmp_path / "site", {"etc/site": "7\n"})
    result = cosremaster.remaster(image, out, add=[site], layer="all")
    assert [layer.layer for layer in result.layers] == ["live/filesystem.squashfs", "live/initrd.img"]
    for name in ("live/filesystem.squashfs", "live/initrd.img"):
        assert cosremaster.read(f"{out}::{name}::etc/site") == b"7\n"
