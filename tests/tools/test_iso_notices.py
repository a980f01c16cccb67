"""What people are told of changes on the ISO's own tree that not every reader sees as they asked for."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

import cosremaster
from cosremaster import InlineFile, remaster
from cosremaster.io.source import open_source
from cosremaster.iso.ecma119 import sections
from cosremaster.iso.read import read_image
from tests.fixtures import families, tools
from tests.fixtures.tools import run
from tests.support import judges
from tests.support.small import write_small


def image(name: str) -> Path:
    tools.require(*families.TOOLS, *judges.TOOLS)
    return families.build(name)


@pytest.mark.parametrize("path", ["/large.img", "/README.txt"])
def test_a_file_of_several_extents_is_told(path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A new one, and one that is exchanged; with smaller numbers."""
    monkeypatch.setattr(sections, "MAX_EXTENT", 1 << 20)
    monkeypatch.setattr(sections, "MAX_SECTION", 1 << 20)
    told = remaster(image("data-both"), tmp_path / "out.iso", add_iso=[InlineFile(path, bytes((1 << 20) + 1))]).warnings
    assert [line.split(" than")[0] for line in told] == [f"{path[1:]} has more"]
    smaller = remaster(image("data-both"), tmp_path / "small.iso", add_iso=[InlineFile(path, bytes(1 << 20))])
    assert smaller.warnings == ()


def test_names_that_become_others_are_told(tmp_path: Path) -> None:
    asked = [
        InlineFile("/site/platform-image.iso", b"1"),
        InlineFile("/site/ok.txt", b"2"),
        InlineFile("/site/a.b.c", b"3"),
    ]
    out = tmp_path / "out.iso"
    (told,) = remaster(image("data-bare"), out, add_iso=asked, rename_iso=["readme.txt:/Read Me.txt"]).warnings
    assert told == (
        "the image has no Rock Ridge: Read Me.txt is called READ_ME.TXT on it, and 2 more have other names too"
    )
    assert {"READ_ME.TXT", "SITE/OK.TXT"} <= judges.tree(out).keys()
    for name in ("data-joliet", "data-both"):  # these tell the names as they were asked for
        assert remaster(image(name), tmp_path / f"{name}.iso", add_iso=asked).warnings == ()


def test_menus_that_name_what_left_are_told(tmp_path: Path) -> None:
    iso, menu = (
        write_small(tmp_path),
        InlineFile("/boot/grub/grub.cfg", b"linux (hd0)/vmlinuz quiet\n# initrd /initrd.img\n"),
    )
    moved = "vmlinuz:/boot/linux"
    (told,) = remaster(iso, tmp_path / "1.iso", add_iso=[menu], rename_iso=[moved]).warnings
    assert told == "the boot menu boot/grub/grub.cfg names vmlinuz in line 1, which is boot/linux now"
    (told,) = remaster(iso, tmp_path / "2.iso", remove_iso=["vmlinuz"]).warnings
    assert re.fullmatch(r"the boot menu boot/grub/grub\.cfg names vmlinuz in line \d+, which is no longer there", told)
    again = [InlineFile("/vmlinuz", b"another")]
    assert remaster(iso, tmp_path / "3.iso", add_iso=again, rename_iso=[moved]).warnings == (), "something is there"
    new = InlineFile("/boot/grub/grub.cfg", b"linux /boot/linux\n# linux /vmlinuz\n")
    assert remaster(iso, tmp_path / "4.iso", add_iso=[new], rename_iso=[moved]).warnings == ()


@pytest.mark.parametrize("name", ["data-both", "data-joliet", "data-bare"])
@pytest.mark.parametrize("size", [9_000, 0, (2 << 20) + 1])
@pytest.mark.parametrize("moves", [False, True])
def test_a_file_of_several_extents_that_becomes_small_has_one(
    name: str, size: int, moves: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """isoinfo reads the last extent alone; sections of a MiB make a file of four. It shrinks to one, or to three."""
    large, out, data = tmp_path / "large.iso", tmp_path / "out.iso", os.urandom(size)
    with monkeypatch.context() as small:
        small.setattr(sections, "MAX_EXTENT", 1 << 20)
        small.setattr(sections, "MAX_SECTION", 1 << 20)
        remaster(image(name), large, add_iso=[InlineFile("/several.img", os.urandom((3 << 20) + 5))])
        if size > 1 << 20:
            remaster(large, out, add_iso=[InlineFile("/several.img", data)])
    more = [InlineFile(f"/n{number}", b"n") for number in range(60 * moves)]
    if size <= 1 << 20:
        remaster(large, out, add_iso=[InlineFile("/several.img", data), *more])
    path = next(path for path in judges.tree(out) if path.lower() == "several.img")
    assert run(["bsdtar", "-xOf", out, path]) == data
    with open_source(out) as source:
        records = [file.records for file in read_image(source).files if file.path.lower() == b"several.img"]
    assert [len(record) for record in records] == [3 if size > 1 << 20 else 1]
    if size <= 1 << 20:
        option = {"data-both": ["-R"], "data-joliet": ["-J"], "data-bare": []}[name]
        inside = "/SEVERAL.IMG;1" if name == "data-bare" else "/several.img"
        assert run(["isoinfo", *option, "-i", out, "-x", inside]) == data
    assert cosremaster.verify(out).ok
