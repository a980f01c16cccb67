"""A remastered debirf image boots in all four ways with the overlay in its tree."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest

from cosremaster import remaster
from tests.fixtures import debirf, tools
from tests.fixtures.debirf import DebirfImage, ListedFile, Recipe, listed_tree
from tests.support import qemu
from tests.support.debirf_site import ADDED, SITE_LINE, Remastered, write_overlay


def expected_tree(before: dict[bytes, ListedFile]) -> dict[bytes, ListedFile]:
    """``before`` with the overlay's files in it, written down by hand."""
    after = dict(before)
    for name, (mode, data) in ADDED.items():
        regular = mode & 0o170000 == 0o100000
        after[name] = ListedFile(
            mode=mode,
            uid=0,
            gid=0,
            nlink=0 if data is None else 1,
            size=len(data or b""),
            rdev=(0, 0),
            md5=hashlib.md5(data or b"").hexdigest() if regular else None,
            target=data if not regular else None,
        )
    for name in (b"usr/share/zoneinfo/UTC", b"usr/share/zoneinfo/Etc/UTC"):
        after[name] = replace(after[name], nlink=2)
    return after


@pytest.fixture(scope="module")
def tree_before(base: DebirfImage) -> dict[bytes, ListedFile]:
    """What the kernel and busybox make of the original, as the booted system lists it."""
    tools.require(*qemu.TOOLS)
    return listed_tree(qemu.boot(base.iso, firmware="bios", medium="disc"))


@pytest.mark.parametrize("medium", ["disc", "disk"])
@pytest.mark.parametrize("firmware", ["bios", "uefi"])
def test_boots_with_the_overlay_in_its_tree(
    remastered: Remastered,
    tree_before: dict[bytes, ListedFile],
    firmware: Literal["bios", "uefi"],
    medium: Literal["disc", "disk"],
) -> None:
    said = qemu.boot(remastered.iso, firmware=firmware, medium=medium)
    assert debirf.MARKER in said
    assert SITE_LINE in said
    assert "SITE-TOOL-FOUND-IN-USR-BIN" in said
    assert listed_tree(said) == expected_tree(tree_before)


VARIANTS = {
    "rootfs.cgz": (Recipe(layer="rootfs.cgz"), f"{debirf.CGZ}::rootfs.cgz"),
    "roots.cxz, names with ./": (Recipe(layer="roots.cxz", dot_slash=True), f"{debirf.CGZ}::roots.cxz"),
    "not nested": (Recipe(layer=None), debirf.CGZ),
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_other_shapes_boot(tmp_path: Path, variant: str) -> None:
    tools.require(*debirf.TOOLS, *qemu.TOOLS)
    recipe, address = VARIANTS[variant]
    overlay = tmp_path / "overlay"
    write_overlay(overlay)
    result = remaster(debirf.build(recipe=recipe).iso, tmp_path / "out.iso", add=[overlay])
    assert result.layer == address
    said = qemu.boot(tmp_path / "out.iso", firmware="bios", medium="disc")
    assert debirf.MARKER in said
    assert SITE_LINE in said
    assert "SITE-TOOL-FOUND-IN-USR-BIN" in said


@pytest.mark.parametrize("layer", ["rootfs.cxz", None], ids=["cpio in /init", "the kernel"])
def test_superseded_files_are_the_new_ones(tmp_path: Path, layer: str | None) -> None:
    """What unpacks the layer takes the later of two entries: also of a symlink, and once more of a file."""
    tools.require(*debirf.TOOLS, *qemu.TOOLS)
    new = {"etc/hostname": b"first\n", "usr/lib/suid-helper": b"new\n" * 9, "root/site.sh": b"#!/bin/sh\n"}
    for folder, files in (("a", new), ("b", {"etc/hostname": b"second, and longer\n"})):
        for name, data in files.items():
            path = tmp_path / folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
    (tmp_path / "a/usr/bin").mkdir()
    (tmp_path / "a/usr/bin/yes").symlink_to("true")
    base = debirf.build(recipe=Recipe(layer=layer, list_tree=True))
    first = remaster(base.iso, tmp_path / "one.iso", add=[tmp_path / "a"])
    assert first.layers[0].superseded == (b"etc/hostname", b"usr/bin/yes", b"usr/lib/suid-helper")
    second = remaster(tmp_path / "one.iso", tmp_path / "two.iso", add=[tmp_path / "b"])
    assert second.layers[0].superseded == (b"etc/hostname",)
    tree = listed_tree(qemu.boot(tmp_path / "two.iso", firmware="bios", medium="disc"))
    expected = {b"etc/hostname": b"second, and longer\n", b"usr/lib/suid-helper": new["usr/lib/suid-helper"]}
    assert {name: tree[name].md5 for name in expected} == {
        name: hashlib.md5(data).hexdigest() for name, data in expected.items()
    }
    assert tree[b"usr/bin/yes"].target == b"true"
