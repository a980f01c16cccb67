"""Entries that meet each other in the kernel: what is shown of them, and edits of what depends on others."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

import cosremaster
from cosremaster.cli import main
from cosremaster.demo.image import build_archive, directory, regular, symlink
from cosremaster.errors import OverlayError
from cosremaster.records import replace
from cosremaster.remastering.image import OpenedImage
from cosremaster.tree.nodes import Node, NodeKind
from tests.fixtures import tools
from tests.fixtures.tools import run
from tests.support.archives_of_trees import texts_in, unpack_row
from tests.support.met_entries import CASES, PAIR, build_case, describe, linked

LETTERS = {NodeKind.FILE: "-", NodeKind.DIRECTORY: "d", NodeKind.SYMLINK: "l", NodeKind.CHAR: "c"}


def shown(image: Path, base: str = "") -> dict[str, str]:
    """What our reader shows below `base`, as `Case.expected` says it."""

    def fact(node: Node) -> tuple[str, str, int, tuple[int, int], str, object]:
        content = node.target.decode()
        if node.content is not None:
            content = node.content.table().read(0).decode()
        if node.kind is NodeKind.CHAR:
            content = "{},{}".format(*node.rdev)
        key = node.path if node.link is None else node.link
        path = node.path.decode().removeprefix(base)
        return path, LETTERS[node.kind], node.mode, (node.uid, node.gid), content, key

    with OpenedImage(image, remember=False) as opened:
        tree = opened.layers().layers[-1].tree()
        return describe(fact(node) for path, node in tree.items() if path.startswith(base.encode()))


@pytest.mark.parametrize("packer", ["plain", "gzip"])
@pytest.mark.parametrize("name", CASES)
def test_shown_is_what_the_kernel_unpacks(tmp_path: Path, name: str, packer: str) -> None:
    """`EXPECTED` is the kernel's: tests/boot/test_met_entries_boot.py."""
    plain = build_case(name)
    (tmp_path / "initramfs").write_bytes(plain if packer == "plain" else gzip.compress(plain, mtime=0))
    assert shown(tmp_path / "initramfs", f"{name}/") == CASES[name].expected


def write_row(folder: Path, *archives: bytes) -> Path:
    (folder / "initramfs").write_bytes(b"".join(archives))
    return folder / "initramfs"


# A file under several names, into which a later entry is written


@pytest.fixture
def written_into(tmp_path: Path) -> Path:
    return write_row(tmp_path, build_archive(PAIR), build_archive([regular(b"a", b"new")]))


def test_all_commands_show_what_was_written_into_it(
    tmp_path: Path, written_into: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in "ab":
        assert main(["cat", f"{written_into}::{name}"]) == 0
        assert capsys.readouterr().out == "new"
    assert main(["extract", str(written_into), str(tmp_path / "out")]) == 0
    assert texts_in(tmp_path / "out") == {"a": "new", "b": "new"}
    assert (tmp_path / "out/a").samefile(tmp_path / "out/b")
    (tmp_path / "same").write_bytes(build_archive([linked(b"a"), linked(b"b", b"new")]))
    assert main(["diff", str(written_into), str(tmp_path / "same")]) == 0


@pytest.mark.parametrize("name", "ab")
@pytest.mark.parametrize("is_removed", [True, False])
def test_no_name_of_it_is_changed_alone(tmp_path: Path, written_into: Path, name: str, *, is_removed: bool) -> None:
    """The other would be what it was before the later entry."""
    other = "b" if name == "a" else "a"
    out = tmp_path / "out"
    change = {"remove": [f"/{name}"]} if is_removed else {"add": [cosremaster.InlineFile(f"/{name}", b"mine")]}
    try:
        cosremaster.remaster(written_into, out, **change)
    except OverlayError as error:
        assert f"{other}: is one file with {name}" in str(error)
        assert not out.exists()
    else:
        expected = {other: "new"} if is_removed else {other: "new", name: "mine"}
        assert {path: line.split()[-1] for path, line in shown(out).items()} == expected


def test_all_names_of_it_are_changed_together(tmp_path: Path, written_into: Path) -> None:
    both = [cosremaster.InlineFile(f"/{name}", b"mine %s" % name.encode()) for name in "ab"]
    cosremaster.remaster(written_into, tmp_path / "out", add=both)
    assert unpack_row(tmp_path / "out", tmp_path / "unpacked") == {"a": "mine a", "b": "mine b"}
    cosremaster.remaster(written_into, tmp_path / "gone", remove=["/a", "/b"])
    assert unpack_row(tmp_path / "gone", tmp_path / "nothing") == {}
    cosremaster.remaster(written_into, tmp_path / "more", add=[cosremaster.InlineFile("/c", b"c")])
    contents = {path: line.split()[3] for path, line in shown(tmp_path / "more").items()}
    assert contents == {"a": "new", "b": "new", "c": "c"}


# Names that lead through a symlink that goes


def _merged(*, slash: str = "", magic: bytes = b"070701") -> bytes:
    items = [
        directory(b"usr"), directory(b"usr/lib"), symlink(b"lib", b"usr/lib"), regular(b"lib/x", b"1"),
        directory(b"lib/deep"), regular(b"lib/deep/y", b"2"),
    ]  # fmt: skip
    if slash:
        items = [replace(item, path=slash.encode() + item.path) for item in items]
    return build_archive(items, magic)


@pytest.mark.parametrize("slash", ["", "./", "/"])
@pytest.mark.parametrize("magic", [b"070701", b"070702"])
def test_a_symlink_goes_and_what_was_named_through_it_stays(tmp_path: Path, slash: str, magic: bytes) -> None:
    tools.require("cpio")
    image = write_row(tmp_path, _merged(slash=slash, magic=magic))
    rest = {"usr/lib/x": "1", "usr/lib/deep/y": "2"}
    cosremaster.remaster(image, tmp_path / "out", remove=["/lib"])
    made = (tmp_path / "out").read_bytes()
    names = [name.strip("./") for name in run(["cpio", "-it", "--quiet"], stdin=made).decode().split()]
    assert names == ["usr", "usr/lib", "usr/lib/x", "usr/lib/deep", "usr/lib/deep/y"]
    (tmp_path / "unpacked").mkdir()
    run(["cpio", "-i", "--quiet", "--no-absolute-filenames"], stdin=made, cwd=tmp_path / "unpacked")
    assert texts_in(tmp_path / "unpacked") == rest
    site = tmp_path / "site"
    (site / "usr/lib64").mkdir(parents=True)
    (site / "lib").symlink_to("usr/lib64")
    cosremaster.remaster(image, tmp_path / "other", add=[site])
    (tmp_path / "again").mkdir()
    made = (tmp_path / "other").read_bytes()
    run(["cpio", "-i", "--quiet", "--no-absolute-filenames"], stdin=made, cwd=tmp_path / "again")
    assert (tmp_path / "again/lib").readlink() == Path("usr/lib64")
    assert texts_in(tmp_path / "again") == rest


def test_a_symlink_goes_from_a_nested_archive(tmp_path: Path) -> None:
    tools.require("busybox", "gzip")
    outer = [directory(b"bin"), regular(b"init", b"#!/bin/sh\n"), regular(b"rootfs.cgz", gzip.compress(_merged()))]
    image = write_row(tmp_path, build_archive(outer))
    cosremaster.remaster(image, tmp_path / "out", remove=["/lib"], layer="initramfs::rootfs.cgz")
    packed = run(["cpio", "-i", "--quiet", "--to-stdout", "rootfs.cgz"], stdin=(tmp_path / "out").read_bytes())
    (tmp_path / "unpacked").mkdir()
    run(["busybox", "cpio", "-i"], stdin=gzip.decompress(packed), cwd=tmp_path / "unpacked")
    assert texts_in(tmp_path / "unpacked") == {"usr/lib/x": "1", "usr/lib/deep/y": "2"}


def test_a_symlink_that_another_archive_goes_through_stays(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without it the kernel could not make the file of the second archive, and would go on without a word."""
    first = build_archive([directory(b"usr"), directory(b"usr/lib"), symlink(b"lib", b"usr/lib"), regular(b"x", b"x")])
    image, out = write_row(tmp_path, first, build_archive([regular(b"lib/x", b"1")])), tmp_path / "out"
    site = tmp_path / "site"
    site.mkdir()
    (site / "lib").symlink_to("usr/lib64")
    for change in (["--remove", "/lib"], ["--add", f"{site}/"], ["--remove", "/lib", "--layer", "initramfs::#1"]):
        assert main([str(image), str(out), *change]) == 7
        error = capsys.readouterr().err
        assert "usr/lib/x: cannot stay as it is: an entry for it needs lib, which is to be removed" in error
        assert not out.exists()
    cosremaster.remaster(image, out, remove=["/lib", "/usr/lib/x"])
    assert unpack_row(out, tmp_path / "unpacked") == {"x": "x"}


def test_a_directory_that_another_archive_needs_stays(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = build_archive([directory(b"etc"), regular(b"etc/a", b"a"), directory(b"opt"), regular(b"opt/o", b"o")])
    image, out = write_row(tmp_path, first, build_archive([regular(b"etc/b", b"b")])), tmp_path / "out"
    assert main([str(image), str(out), "--remove", "/etc", "--layer", "initramfs::#1"]) == 7
    assert "etc/b: cannot stay as it is: an entry for it needs etc" in capsys.readouterr().err
    cosremaster.remaster(image, out, remove=["/etc"])
    assert unpack_row(out, tmp_path / "unpacked") == {"opt/o": "o"}
    cosremaster.remaster(image, out, remove=["/opt"], layer="initramfs::#1", force=True)
    assert unpack_row(out, tmp_path / "rest") == {"etc/a": "a", "etc/b": "b"}


def test_a_directory_does_not_come_before_a_symlink(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The kernel would leave it there: a system without its `lib`."""
    first = build_archive([directory(b"etc"), regular(b"etc/a", b"a")])
    main_archive = build_archive([
        directory(b"usr"), directory(b"usr/lib"), symlink(b"lib", b"usr/lib"), regular(b"lib/ld.so", b"ld"),
    ])  # fmt: skip
    image, out = write_row(tmp_path, first, main_archive), tmp_path / "out"
    new = tmp_path / "new"
    new.write_text("new")
    add = ["--add", f"{new}:/lib/firmware/new"]
    assert main([str(image), str(out), *add, "--layer", "initramfs::#1"]) == 7
    assert "lib: is a symlink in a later archive" in capsys.readouterr().err
    assert main([str(image), str(out), *add]) == 0
    files = {"etc/a": "a", "usr/lib/firmware/new": "new", "usr/lib/ld.so": "ld"}
    assert unpack_row(out, tmp_path / "unpacked") == files


def test_names_of_one_file_do_not_come_before_another_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:  # fmt: skip
    """The kernel would write the later file into it, and change it under its other name."""
    first, later = build_archive([regular(b"x", b"x")]), build_archive([regular(b"a", b"a")])
    image, out, site = write_row(tmp_path, first, later), tmp_path / "out", tmp_path / "site"
    site.mkdir()
    (site / "a").write_text("mine")
    (site / "b").hardlink_to(site / "a")
    assert main([str(image), str(out), "--add", f"{site}/", "--layer", "initramfs::#1"]) == 7
    assert "b: cannot be added: other entries of the archives stand in its way" in capsys.readouterr().err
    assert main([str(image), str(out), "--add", f"{site}/"]) == 0
    assert unpack_row(out, tmp_path / "unpacked") == {"x": "x", "a": "mine", "b": "mine"}


# A directory that a symlink does not replace


def test_additions_go_into_the_directory_that_stays(tmp_path: Path) -> None:
    name = "symlink-over-full-directory"
    image, out = write_row(tmp_path, build_case(name)), tmp_path / "out"
    cosremaster.remaster(image, out, add=[cosremaster.InlineFile(f"/{name}/d/z", b"3")])
    assert shown(out, f"{name}/") == {**CASES[name].expected, "d/z": "- 644 0:0 3"}
    with pytest.raises(OverlayError, match="d: cannot stay as it is"):  # else the symlink would come
        cosremaster.remaster(image, out, remove=[f"/{name}/d/x", f"/{name}/d/y"], force=True)
    cosremaster.remaster(image, out, remove=[f"/{name}/d"], force=True)
    assert shown(out, f"{name}/") == {"u": "d 755 0:0 "}


# Microcode


def test_microcode_has_the_name_that_the_kernel_looks_for(tmp_path: Path) -> None:
    """It compares names with a text without `./` (lib/earlycpio.c), whatever the other names begin with."""
    tools.require("cpio")
    path = b"kernel/x86/microcode/GenuineIntel.bin"
    folders = [b"./kernel", b"./kernel/x86", b"./kernel/x86/microcode"]
    early = build_archive([directory(b"."), *map(directory, folders), regular(b"./" + path, b"old")])
    image = write_row(tmp_path, early, build_archive([directory(b"./etc"), regular(b"./etc/x", b"x")]))
    cosremaster.remaster(image, tmp_path / "out", add=[cosremaster.InlineFile(f"/{path.decode()}", b"new")])
    names = run(["cpio", "-it", "--quiet"], stdin=(tmp_path / "out").read_bytes()).split()
    assert path in names
    assert (tmp_path / "out").read_bytes().count(path) == 1
    assert b"./" + path not in (tmp_path / "out").read_bytes()
    assert unpack_row(tmp_path / "out", tmp_path / "unpacked") == {path.decode(): "new", "etc/x": "x"}
