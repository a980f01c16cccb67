"""The root file system of any image becomes a tar archive, changed on the way, and a recipe hands it to MAAS."""

from __future__ import annotations

import hashlib
import io
import json
import shlex
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest

import cosremaster
from cosremaster.cli import main
from cosremaster.units import format_size
from tests.fixtures import tools
from tests.fixtures.tools import run
from tests.support.busybox_roots import make_busybox_root
from tests.support.small import write_small

MKE2FS = "/usr/sbin/mke2fs"
RELEASE = 'ID=ubuntu\nVERSION_CODENAME="noble"\n'


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A small root file system with what belongs to one machine alone."""
    tools.require("setfattr")
    root = tmp_path / "tree"
    for folder in ("etc/ssh", "bin", "sbin", "usr/bin", "var/lib/cloud/instance"):
        (root / folder).mkdir(parents=True)
    (root / "etc/hostname").write_text("cloud\n")
    (root / "etc/hard").hardlink_to(root / "etc/hostname")
    (root / "etc/os-release").write_text(RELEASE)
    (root / "etc/machine-id").write_text("0123456789abcdef0123456789abcdef\n")
    (root / "etc/ssh/ssh_host_rsa_key").write_text("secret\n")
    (root / "bin/sh").write_text("sh\n")
    (root / "bin/su").write_text("su\n")
    (root / "bin/su").chmod(0o4755)
    (root / "sbin/init").symlink_to("../usr/bin/init")
    run(["setfattr", "-n", "user.comment", "-v", "kept", root / "etc/os-release"])
    return root


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """What is added: a new file, and one in place of an old."""
    site = tmp_path / "site"
    (site / "etc").mkdir(parents=True)
    (site / "etc/motd").write_text("site\n")
    (site / "etc/hostname").write_text("site-7\n")
    return site


def _make_image(kind: str, tree: Path, folder: Path) -> Path:
    """Make an image of ``kind`` whose root file system is ``tree``."""
    if kind == "squashfs":
        tools.require("mksquashfs")
        run(["mksquashfs", tree, folder / "root.squashfs", "-quiet", "-no-progress"])
        return folder / "root.squashfs"
    if kind == "cpio":
        names = subprocess.run(["find", "."], cwd=tree, capture_output=True, check=True).stdout
        (folder / "initrd").write_bytes(run(["cpio", "-o", "-H", "newc", "--quiet"], stdin=names, cwd=tree))
        return folder / "initrd"
    tools.require(MKE2FS, "sgdisk", "qemu-img")
    root, disk = folder / "root.img", folder / "disk.img"
    run([MKE2FS, "-q", "-F", "-t", "ext4", "-d", tree, root, "8M"])
    if kind == "ext4":
        return root
    with disk.open("wb") as file:
        file.truncate(16 << 20)
    run(["sgdisk", "-n", "1:0:0", disk])
    start = int(run(["sgdisk", "-i", "1", disk]).split(b"First sector: ")[1].split()[0])
    with disk.open("r+b") as file:
        file.seek(start * 512)
        file.write(root.read_bytes())
    if kind == "raw":
        return disk
    run(["qemu-img", "convert", "-O", "qcow2", "-c", disk, folder / "disk.qcow2"])
    return folder / "disk.qcow2"


@pytest.mark.parametrize("kind", ["raw", "qcow2", "ext4", "squashfs", "cpio"])
def test_the_root_of_any_image_becomes_a_tar_archive(
    kind: str, tree: Path, site: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tools.require("tar", "xz")
    image, out = _make_image(kind, tree, tmp_path), tmp_path / "out.tar.xz"
    before = image.read_bytes()
    assert main([str(image), str(out), "--add", str(site), "--remove", "/etc/hard", "--maas-clean"]) == 0
    assert "entries read to the end" in capsys.readouterr().out
    assert image.read_bytes() == before
    names = set(run(["tar", "-tJf", out]).decode().split())
    assert {"etc/motd", "bin/sh", "etc/ssh/", "var/lib/cloud/"} <= names
    assert not names & {"etc/hard", "etc/ssh/ssh_host_rsa_key", "var/lib/cloud/instance/"}
    made = tmp_path / "made"
    made.mkdir()
    run(["tar", "--xattrs", "--xattrs-include=*", "-xpJf", out, "-C", made])
    assert (made / "etc/hostname").read_text() == "site-7\n"
    assert (made / "etc/machine-id").read_text() == ""
    assert (made / "bin/su").stat().st_mode & 0o7777 == 0o4755
    assert (made / "sbin/init").readlink() == Path("../usr/bin/init")
    if kind != "cpio":
        assert b"kept" in run(["getfattr", "-n", "user.comment", made / "etc/os-release"])
    again = tmp_path / "again.tar.xz"
    cosremaster.remaster(image, again, add=[site], remove=["/etc/hard"], maas_clean=True)
    assert again.read_bytes() == out.read_bytes()


def test_without_a_change_it_is_what_export_takes(tree: Path, tmp_path: Path) -> None:
    image = _make_image("raw", tree, tmp_path)
    archive = cosremaster.MaasResource(name="root", clean=True)
    cosremaster.export(str(image), tmp_path / "exported.tar.gz", archive=archive)
    cosremaster.remaster(image, tmp_path / "made.tar.gz", maas_clean=True)
    assert main(["diff", str(tmp_path / "exported.tar.gz"), str(tmp_path / "made.tar.gz")]) == 0


def test_a_new_archive_without_a_change_is_no_copy(
    tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image, out, report = _make_image("ext4", tree, tmp_path), tmp_path / "out.tar", tmp_path / "report.json"
    assert main([str(image), str(out), "--report", str(report)]) == 0
    printed = capsys.readouterr()
    assert f"(was {format_size(image.stat().st_size)})\n" in printed.out
    assert "copy" not in printed.err
    facts = json.loads(report.read_bytes())
    assert (facts["identical"], facts["size"]["before"]) == (False, image.stat().st_size)
    with cosremaster.open(image) as opened:
        plan = opened.plan(target=tmp_path / "new.tar")
    assert not plan.identical and not plan.values["identical"] and "nothing changes" not in plan.lines[0]
    assert main([str(out), str(tmp_path / "out.tar.gz")]) == 0
    assert "copy" not in capsys.readouterr().err


def test_the_root_of_an_iso_becomes_a_tar_archive(site: Path, tmp_path: Path) -> None:
    iso, out = write_small(tmp_path), tmp_path / "root.tgz"
    result = cosremaster.remaster(iso, out, add=[site])
    assert b"etc/motd" in result.added
    with tarfile.open(out, "r:gz") as tar:
        assert "etc/motd" in tar.getnames()
    with cosremaster.open(iso) as image:
        address = image.info(deep=True).root_layer
    named = cosremaster.remaster(iso, tmp_path / "named.tgz", add=[site], layer=address)
    assert named.added == result.added
    assert (tmp_path / "named.tgz").read_bytes() == out.read_bytes()


def test_what_no_tar_archive_holds_is_refused(
    tree: Path, site: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image, out = _make_image("raw", tree, tmp_path), tmp_path / "out.tar"
    refused = {
        ("--add-iso", f"{site}:/x"): "holds the root file system alone: --add-iso",
        ("--as-layer", "site"): "holds the root file system alone: --as-layer",
        ("--repack",): "holds the root file system alone: --repack",
        ("--layer", "all"): "holds one layer: --layer takes the address of that",
        ("--layer", "@gpt1", "--layer", "@gpt2"): "holds one layer",
        ("--kernel-arg", "quiet"): "is no ISO: it has no boot menus",
    }
    for options, said in refused.items():
        assert main([str(image), str(out), *options]) == 2, options
        assert said in capsys.readouterr().err
    assert main([str(image), str(out), "--expect", "sha256:" + "0" * 64]) == 3
    assert "and 0000" in capsys.readouterr().err
    assert main([str(image), str(tmp_path / "out.img"), "--add", str(site)]) == 5
    assert "an output called NAME.tar.gz takes its root file system" in capsys.readouterr().err
    assert not out.exists()
    digest = hashlib.sha256(image.read_bytes()).hexdigest()
    assert main([str(image), str(out), "--layer", "@gpt1", "--add", str(site), "--expect", f"sha256:{digest}"]) == 0


def test_a_file_is_no_root_file_system(
    tree: Path, site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It became an archive with this file alone, for MAAS too."""
    image = _make_image("raw", tree, tmp_path)
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.iterdir())
    for words in (["--maas", "a"], ["--lxd", "a"], ["--docker", "a:1"]):
        assert main(["export", f"{image}::@gpt1::etc/hostname", *words]) == 6
        assert "etc/hostname: is no archive" in capsys.readouterr().err
    assert main([str(image), "out.tar", "--add", str(site), "--layer", "@gpt1::etc/hostname"]) == 6
    assert "etc/hostname: is no archive" in capsys.readouterr().err
    assert sorted(tmp_path.iterdir()) == before


def test_a_disk_image_has_a_plan(tree: Path, site: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = _make_image("raw", tree, tmp_path)
    assert main(["plan", str(image), "--add", str(site)]) == 0
    assert "+ etc/motd" in capsys.readouterr().out


def test_a_script_runs_in_the_root_of_a_disk_image(tmp_path: Path) -> None:
    image, out = _make_image("ext4", make_busybox_root(tmp_path / "root"), tmp_path), tmp_path / "out.tar"
    cosremaster.remaster(image, out, run=["echo site > /etc/site; chown 33:33 /etc/site; rm -r /usr/share/doc"])
    with tarfile.open(out) as tar:
        assert (tar.getmember("etc/site").uid, tar.getmember("etc/site").size) == (33, 5)
        assert "usr/share/doc" not in tar.getnames()


def test_an_archive_around_a_disk_image_is_no_root(
    tree: Path, site: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Debian publishes its cloud images as disk.raw in a tar.xz."""
    image, around = _make_image("raw", tree, tmp_path), tmp_path / "debian.tar.xz"
    run(["tar", "-cJf", around, "-C", tmp_path, image.name])
    out = tmp_path / "out.tar.gz"
    said = f"holds nothing but the disk image {image.name}: unpack that, and take it as the input"
    for arguments in ([str(around), str(out), "--add", str(site)], ["export", str(around), "--maas", "x"]):
        assert main(arguments) == 6
        assert said in capsys.readouterr().err
    assert not out.exists()
    assert main([str(around), str(out), "--add", str(site), "--layer", around.name]) == 0


RECIPE = """\
input = "{}"
output = "site.tar.gz"
maas_clean = true

[maas]
name = "site-7"
title = "Site 7"

[[add]]
source = "site"
"""


def test_a_recipe_writes_the_command_of_the_import(
    tree: Path, site: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tools.require("tar", "xz", "sha256sum")
    run(["tar", "-cJf", tmp_path / "root.tar.xz", "-C", tree, "."])
    recipe = tmp_path / "site.toml"
    recipe.write_text(RECIPE.format("root.tar.xz"))
    assert main(["build", str(recipe)]) == 0
    made = tmp_path / "site.tar.gz"
    words = shlex.split(capsys.readouterr().out.splitlines()[-1])
    assert words == [
        "maas", "admin", "boot-resources", "create", "name=custom/site-7", "title=Site 7", "architecture=amd64/generic",
        "base_image=ubuntu/noble", "filetype=tgz", f"sha256={hashlib.sha256(made.read_bytes()).hexdigest()}",
        f"size={made.stat().st_size}", f"content@={made}",
    ]  # fmt: skip
    assert run(["sha256sum", "-c", "site.tar.gz.sha256"], cwd=tmp_path) == b"site.tar.gz: OK\n"
    with tarfile.open(made) as tar:
        assert tar.getmember("./etc/machine-id").size == 0
        assert "./etc/ssh/ssh_host_rsa_key" not in tar.getnames()
        assert "./etc/motd" in tar.getnames()
    image = _make_image("raw", tree, tmp_path)
    recipe.write_text(RECIPE.format(image.name) + '\n[expect]\nmd5 = "' + "0" * 32 + '"\n')
    assert main(["build", str(recipe), "--force"]) == 3
    capsys.readouterr()
    recipe.write_text(RECIPE.format(image.name))
    assert main(["build", str(recipe), "--plan"]) == 0
    assert "gzip" in capsys.readouterr().out
    assert main(["build", str(recipe), "--force"]) == 0
    assert "base_image=ubuntu/noble" in capsys.readouterr().out


def test_what_maas_does_not_take_is_told_before_any_work(
    tree: Path, site: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(["tar", "-cf", tmp_path / "root.tar", "-C", tree, "."])
    recipe, text = tmp_path / "site.toml", RECIPE.format("root.tar")
    recipe.write_text(text.replace("site.tar.gz", "site.tar.xz").replace('"site-7"', '"a/b/c"'))
    assert main(["build", str(recipe)]) == 2
    said = capsys.readouterr().err
    assert "site.toml:2 » output: MAAS takes a .tar.gz" in said
    assert "maas: MAAS takes no name 'a/b/c'" in said
    recipe.write_text(text)
    for more in ([], ["--plan"]):
        assert main(["build", str(recipe), "--output", str(tmp_path / "other.tar.xz"), *more]) == 2
        assert "MAAS takes a .tar.gz" in capsys.readouterr().err
    assert main(["build", str(recipe), "--digest", "md5"]) == 2
    assert "gets no md5" in capsys.readouterr().err
    assert not list(tmp_path.glob("*.gz*"))


def test_a_name_that_says_the_same_changes_nothing(site: Path, tmp_path: Path) -> None:
    """An ISO's name may end in anything; a file that is called .tar and is none stays what it is."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as tar:
        tar.add(site, "etc")
    (tmp_path / "really.tar").write_bytes(data.getvalue())
    cosremaster.remaster(tmp_path / "really.tar", tmp_path / "same.tar")
    assert (tmp_path / "same.tar").read_bytes() == data.getvalue()
    tools.require("mksquashfs")
    shutil.copy(_make_image("squashfs", site, tmp_path), tmp_path / "odd.tar")
    cosremaster.remaster(tmp_path / "odd.tar", tmp_path / "odd2.tar")
    assert (tmp_path / "odd2.tar").read_bytes() == (tmp_path / "odd.tar").read_bytes()
