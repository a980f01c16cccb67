"""The root of each file system has its own mode, owner, time and attributes; where it has none, none are told."""

from __future__ import annotations

import json
import os
import tarfile
from pathlib import Path

import pytest

import cosremaster
from cosremaster.cli import main
from tests.fixtures import tools
from tests.fixtures.tools import run
from tests.support.user import open_folder, without_root

MADE = {
    "tar": "tar -C tree --numeric-owner --owner=7 --group=8 -cf root.tar .",
    "cpio": "cd tree && find . | cpio -o -H newc --quiet -R 7:8 > ../root.cpio",
    "squashfs": "mksquashfs tree root.squashfs -quiet -no-progress -force-uid 7 -force-gid 8",
    "erofs": "mkfs.erofs --force-uid=7 --force-gid=8 root.erofs tree",
    "iso": "xorriso -as mkisofs -quiet -R -uid 7 -gid 8 -o root.iso tree",
}


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of mode 0710 and of a time of its own, and the current one above it."""
    monkeypatch.chdir(tmp_path)
    tree = tmp_path / "tree"
    (tree / "d").mkdir(parents=True)
    (tree / "d/f").write_text("f\n")
    tree.chmod(0o710)
    os.utime(tree, (981158400, 981158400))
    return tree


def make(kind: str) -> str:
    """Make the file system of this kind, and return its name."""
    tools.require(MADE[kind].split(" && ")[-1].split()[0] if kind != "cpio" else "cpio")
    run(["sh", "-c", MADE[kind]])
    return f"root.{kind}"


@pytest.mark.parametrize("kind", MADE)
def test_stat_tells_of_the_root(kind: str, tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = make(kind)
    with cosremaster.open(name, remember=False) as image:
        root = image.stat()
    assert (root.mode & 0o700, root.uid, root.gid, root.is_implied) == (
        0o700 if kind != "iso" else root.mode & 0o700,
        7,
        8,
        False,
    )
    assert root.mode == 0o710 or kind == "iso"
    assert root.mtime == 981158400 or kind == "iso"  # xorriso takes its own time for a root
    assert main(["stat", name]) == 0
    printed = capsys.readouterr().out
    assert f"mode {root.mode:04o}" in printed and "owner 7:8" in printed
    assert main(["stat", "--json", name]) == 0
    assert json.loads(capsys.readouterr().out)["nodes"][0]["implied"] is False


@pytest.mark.parametrize("kind", ["tar", "cpio"])
def test_a_directory_without_an_entry_has_no_mode(kind: str, tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pack = {
        "tar": "tar -C tree -cf root.tar d/f",
        "cpio": "cd tree && echo d/f | cpio -o -H newc --quiet > ../root.cpio",
    }
    run(["sh", "-c", pack[kind]])
    for address in (f"root.{kind}", f"root.{kind}::d"):
        assert main(["stat", address]) == 0
        printed = capsys.readouterr().out
        assert "mode" not in printed.replace("without mode", "") and "1970" not in printed
        assert main(["stat", "--json", address]) == 0
        assert json.loads(capsys.readouterr().out)["nodes"][0]["implied"] is True
    assert main(["stat", f"root.{kind}::d/f"]) == 0
    assert "  mode 0" in capsys.readouterr().out


@pytest.mark.parametrize("kind", ["tar", "cpio", "squashfs", "erofs"])
def test_another_mode_of_the_root_is_a_difference(kind: str, tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = make(kind)
    os.rename(name, "old")
    os.utime(tree, (0, 0))  # when something was last put into a root is none
    os.rename(make(kind), "touched")
    tree.chmod(0o700)
    os.rename(make(kind), "new")
    assert main(["diff", "old", "touched"]) == 0
    assert main(["diff", "old", "new"]) == 1
    assert capsys.readouterr().out == "m .: mode 0710 -> 0700\n"


@pytest.mark.parametrize("kind", ["tar", "squashfs", "erofs"])
def test_archives_of_a_root_have_it_last(kind: str, tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = make(kind)
    for words in (["export", name, "--maas", "site"], ["export", name, "--lxd", "lxd"], [name, "new.tar"]):
        assert main([*words]) == 0
    for archive, root in (("site.tar.gz", "."), ("lxd.tar.gz", "rootfs")) + (
        (("new.tar", "."),) if kind != "tar" else ()
    ):
        with tarfile.open(archive) as file:
            entry = file.getmember(root)
            assert (entry.mode, entry.uid, entry.gid, entry.mtime) == (0o710, 7, 8, 981158400)
            assert file.getnames()[-1] == root or root == "rootfs" or (kind, archive) == ("tar", "new.tar")
    unpacked = Path("unpacked")
    for program in ("tar", "bsdtar"):
        unpacked.mkdir()
        run([program, "--no-same-owner", "-xpf", "site.tar.gz", "-C", "unpacked"])
        assert unpacked.stat().st_mode & 0o7777 == 0o710 and unpacked.stat().st_mtime == 981158400
        run(["rm", "-r", "unpacked"])


@pytest.mark.parametrize("kind", ["tar", "cpio", "squashfs", "erofs"])
def test_what_is_taken_out_has_its_root(kind: str, tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = make(kind)
    assert main(["extract", name, "x.tar", "--as", "tar"]) == 0
    assert main(["extract", f"{name}::d", "d.tar", "--as", "tar"]) == 0
    with tarfile.open("x.tar") as file:
        entry = file.getmember(".")
        assert (entry.mode, entry.uid, entry.gid, entry.mtime) == (0o710, 7, 8, 981158400)
    with tarfile.open("d.tar") as file:
        assert sorted(file.getnames()) == [".", "f"]
    if os.geteuid() == 0:
        assert main(["extract", name, "taken"]) == 0
        status = os.stat("taken")
        assert (status.st_mode & 0o7777, status.st_uid, status.st_gid, status.st_mtime) == (0o710, 7, 8, 981158400)
    with open_folder() as folder:
        folder.chmod(0o777)
        source = folder / name
        source.write_bytes(Path(name).read_bytes())
        source.chmod(0o644)
        with without_root():
            assert main(["extract", str(source), str(folder / "out")]) == 0
        lines = (folder / "out.mtree").read_text().splitlines()
        assert lines[1] == ". type=dir mode=0710 uid=7 gid=8 time=981158400.0"
        assert main(["pack", str(folder / "out"), "again.tar", "--mtree", str(folder / "out.mtree")]) == 0
        tools.require("bsdtar")
        run(["bsdtar", "-cf", Path("bsd.tar").absolute(), "@../out.mtree"], cwd=folder / "out")
    assert main(["diff", "x.tar", "again.tar"]) == 0
    assert main(["diff", "x.tar", "bsd.tar"]) == 0
