"""Several layers in one run, as Debian's text and graphical installers and RHEL's two boot folders need them."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

import cosremaster
from cosremaster.cli import main
from cosremaster.errors import LayerError, UsageError
from cosremaster.recipe import build, read_recipe
from tests.fixtures import tools
from tests.fixtures.tools import run
from tests.support.archives_of_trees import pack_tree, unpack, write_tree
from tests.support.small import CGZ, initramfs, write_small

INSTALLER = {"init": "#!/bin/sh\n", "bin/busybox": "busybox\n", "etc/motd": "installer\n"}


@pytest.fixture
def installer(tmp_path: Path) -> Path:
    """A tree like that of Debian's installer: the graphical initrd has more in it than the other."""
    tools.require("genisoimage", "isoinfo", "cpio", "gzip")
    disc = tmp_path / "disc"
    (disc / "install.amd/gtk").mkdir(parents=True)
    text, gtk = write_tree(tmp_path / "text", INSTALLER), write_tree(tmp_path / "gtk", {**INSTALLER, "etc/X": "gtk\n"})
    (disc / "install.amd/initrd.gz").write_bytes(pack_tree(text))
    (disc / "install.amd/gtk/initrd.gz").write_bytes(pack_tree(gtk))
    (disc / "install.amd/vmlinuz").write_bytes(b"MZ" + bytes(5000))
    (tmp_path / "preseed.cfg").write_text("d-i example\n")
    return disc


def _make(disc: Path, *options: str) -> Path:
    run(["genisoimage", "-quiet", "-R", *options, "-o", str(disc.parent / "in.iso"), str(disc)])
    return disc.parent / "in.iso"


def _initrd(iso: Path, path: str, folder: Path) -> dict[str, str]:
    packed = run(["isoinfo", "-R", "-i", str(iso), "-x", path])
    return unpack(run(["gzip", "-dc"], stdin=packed), folder)


NAMES = ("install.amd/initrd.gz", "install.amd/gtk/initrd.gz")


@pytest.mark.parametrize("layers", [NAMES, ["all"], ["**/initrd.gz"], ["install.amd/*", "install.amd/gtk/initrd.gz"]])
def test_both_initrds_of_an_installer(installer: Path, tmp_path: Path, layers: list[str]) -> None:
    image, out = _make(installer), tmp_path / "out.iso"
    options = [word for layer in layers for word in ("--layer", layer)]
    assert main([str(image), str(out), "--add", f"{tmp_path}/preseed.cfg:/", *options]) == 0
    text, gtk = (_initrd(out, f"/{name}", tmp_path / f"got{number}") for number, name in enumerate(NAMES))
    assert text == {**INSTALLER, "preseed.cfg": "d-i example\n"}
    assert gtk == {**INSTALLER, "etc/X": "gtk\n", "preseed.cfg": "d-i example\n"}


def test_without_a_choice_both_are_named(installer: Path, tmp_path: Path) -> None:
    image = _make(installer)
    with pytest.raises(LayerError, match=r"gtk/initrd\.gz, install\.amd/initrd\.gz; choose one with --layer.*all"):
        cosremaster.remaster(image, tmp_path / "out.iso", add=[f"{tmp_path}/preseed.cfg:/"])
    with pytest.raises(LayerError, match=r"no layer that fits \*/initrd\.xz; found: install"):
        cosremaster.remaster(image, tmp_path / "out.iso", add=[f"{tmp_path}/preseed.cfg:/"], layer="*/initrd.xz")
    assert not (tmp_path / "out.iso").exists()


def test_equal_files_are_packed_once(installer: Path, tmp_path: Path) -> None:
    (installer / NAMES[1]).write_bytes((installer / NAMES[0]).read_bytes())
    out = tmp_path / "out.iso"
    result = cosremaster.remaster(_make(installer), out, add=[f"{tmp_path}/preseed.cfg:/"], layer=NAMES)
    assert [layer.name for layer in result.packed] == [NAMES[0]]
    assert [(layer.layer, layer.files) for layer in result.layers] == [(NAMES[0], NAMES)]
    for number, name in enumerate(NAMES):
        assert "preseed.cfg" in _initrd(out, f"/{name}", tmp_path / f"got{number}")


@pytest.mark.parametrize("layer", ["isolinux/*", "images/pxeboot/initrd.img", "all"])
def test_hard_links_on_the_iso_change_together(tmp_path: Path, layer: str) -> None:
    """RHEL has one initrd.img below isolinux/ for BIOS and below images/pxeboot/ for UEFI."""
    tools.require("genisoimage", "isoinfo")
    disc = tmp_path / "disc"
    for folder in ("isolinux", "images/pxeboot"):
        (disc / folder).mkdir(parents=True)
    (disc / "isolinux/initrd.img").write_bytes(pack_tree(write_tree(tmp_path / "tree", INSTALLER)))
    (disc / "images/pxeboot/initrd.img").hardlink_to(disc / "isolinux/initrd.img")
    (tmp_path / "ks.cfg").write_text("text\n")
    out = tmp_path / "out.iso"
    result = cosremaster.remaster(_make(disc, "-cache-inodes"), out, add=[f"{tmp_path}/ks.cfg:/"], layer=layer)
    assert set(result.layers[0].files) == {"isolinux/initrd.img", "images/pxeboot/initrd.img"}
    for number, name in enumerate(result.layers[0].files):
        assert _initrd(out, f"/{name}", tmp_path / f"got{number}")["ks.cfg"] == "text\n"


def test_a_symlink_on_the_iso_leads_to_the_layer(tmp_path: Path) -> None:
    disc = write_tree(tmp_path / "disc", {"images/": "", "isolinux/initrd.img": "-> ../images/initrd.img"})
    (disc / "images/initrd.img").write_bytes(pack_tree(write_tree(tmp_path / "tree", INSTALLER)))
    (tmp_path / "ks.cfg").write_text("text\n")
    out = tmp_path / "out.iso"
    argv = [str(_make(disc)), str(out), "--add", f"{tmp_path}/ks.cfg:/", "--layer", "isolinux/initrd.img"]
    assert main([*argv, "--layer", "images/initrd.img"]) == 0
    assert _initrd(out, "/images/initrd.img", tmp_path / "got")["ks.cfg"] == "text\n"


def test_a_layer_and_the_one_around_it(tmp_path: Path) -> None:
    """Both change in one run: the outer archive gets the file, and the inner archive with the file in it."""
    tools.require("cpio", "gzip", "xz")
    image, out = write_small(tmp_path, cgz=initramfs()), tmp_path / "out.iso"
    (tmp_path / "site").write_text("7\n")
    layers = [CGZ, f"{CGZ}::rootfs.cxz"]
    result = cosremaster.remaster(image, out, add=[f"{tmp_path}/site:/site"], layer=layers)
    assert [layer.layer for layer in result.layers] == layers
    plain = run(["gzip", "-dc"], stdin=cosremaster.read(f"{out}::{CGZ}"))
    listed = run(["cpio", "-t", "--quiet"], stdin=plain).decode().splitlines()
    assert sorted(listed) == ["bin", "bin/run-init", "init", "rootfs.cxz", "site"]
    inner = run(["xz", "-dc"], stdin=run(["cpio", "-i", "--quiet", "--to-stdout", "rootfs.cxz"], stdin=plain))
    assert run(["cpio", "-i", "--quiet", "--to-stdout", "site"], stdin=inner) == b"7\n"
    with pytest.raises(UsageError, match=r"rootfs\.cxz cannot be changed inside and be replaced or removed"):
        cosremaster.remaster(image, out, add=[f"{tmp_path}/site:/rootfs.cxz"], layer=layers, force=True)


def test_the_report_and_the_plan_have_every_layer(installer: Path, tmp_path: Path) -> None:
    image, out, report = _make(installer), tmp_path / "out.iso", tmp_path / "report.json"
    add = [f"{tmp_path}/preseed.cfg:/"]
    cosremaster.remaster(image, out, report=report, add=add, layer=NAMES)
    values = json.loads(report.read_text())
    sides = [values, *values["further_layers"]]
    assert [side["layer"] for side in sides] == list(NAMES)
    assert [side["paths"][0]["path"] for side in sides] == ["preseed.cfg"] * 2
    plan = cosremaster.plan(image, cosremaster.Request(add=add, layer=NAMES))
    assert [layer["layer"] for layer in (plan.values, *plan.values["further_layers"])] == list(NAMES)
    assert plan.output_size == out.stat().st_size


def test_a_layer_in_the_second_archive_of_an_initramfs_leaves_the_first(tmp_path: Path) -> None:
    early = pack_tree(write_tree(tmp_path / "early", {"kernel/x86/microcode": "microcode\n"}), "plain")
    main_tree = write_tree(tmp_path / "main", {"init": "#!/bin/sh\n"})
    (main_tree / "rootfs.cxz").write_bytes(pack_tree(write_tree(tmp_path / "root", INSTALLER), "xz"))
    initrd, out = tmp_path / "initrd", tmp_path / "new"
    initrd.write_bytes(early + pack_tree(main_tree))
    add = [cosremaster.InlineFile("/etc/new", b"new\n")]
    cosremaster.remaster(initrd, out, add=add, layer="initrd::#2::rootfs.cxz", remember=False)
    assert out.read_bytes().startswith(early)
    run(["cpio", "-i", "--quiet"], cwd=tmp_path, stdin=gzip.decompress(out.read_bytes()[len(early) :]))
    files = unpack(run(["xz", "-dc", str(tmp_path / "rootfs.cxz")]), tmp_path / "unpacked")
    assert files == {**INSTALLER, "etc/new": "new\n"}


def test_a_recipe_names_several_layers(installer: Path, tmp_path: Path) -> None:
    _make(installer)
    recipe = tmp_path / "site.toml"
    recipe.write_text(
        'input = "in.iso"\noutput = "out.iso"\nlayer = ["install.amd/initrd.gz", "install.amd/gtk/*"]\n'
        '[[add]]\nsource = "preseed.cfg"\ndest = "/"\n'
    )
    result = build(read_recipe(recipe))
    assert [layer.layer for layer in result.layers] == list(NAMES)
    recipe.write_text('input = "in.iso"\nlayer = ["a", "b::", 3]\n')
    with pytest.raises(UsageError) as caught:
        read_recipe(recipe)
    assert [line.partition(" » ")[2] for line in str(caught.value).splitlines()[1:]] == [
        "layer[1]: address 'b::' has an empty part",
        "layer[2]: must be text in quotes",
    ]


@pytest.mark.parametrize(
    "words",
    [
        ["--volume-id", "A", "--volume-id", "B"],
        ["--xz-preset", "1", "--xz-preset", "1"],
        ["--owner", "root", "--owner=1:1"],
        ["--digest", "md5", "--digest", "sha256"],
        ["--report", "a", "--report", "b"],
    ],
)
def test_a_second_value_is_no_silent_loss(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["in.iso", "out.iso", *words]) == 2
    assert f"{words[0]} is given twice" in capsys.readouterr().err


def test_what_may_stand_twice_still_does(installer: Path, tmp_path: Path) -> None:
    argv = [str(_make(installer)), str(tmp_path / "out.iso"), "--layer", "all", "--force", "--force", "--quiet"]
    assert main([*argv, "--add", f"{tmp_path}/preseed.cfg:/a", "--add", f"{tmp_path}/preseed.cfg:/b"]) == 0
