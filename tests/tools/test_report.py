"""The report of each path: held against what GNU cpio unpacks before and after; idempotence."""

import hashlib
import json
import os
import stat
from pathlib import Path
from typing import Any
from urllib.parse import unquote_to_bytes

import pytest

import cosremaster
from cosremaster import AddPath, Directory, InlineFile, OverlayItem, Symlink
from cosremaster.cli import main
from cosremaster.errors import CosremasterError, OutputError, UsageError
from tests.fixtures import tools
from tests.fixtures.tools import require
from tests.support import judges
from tests.support.layers import plain_root
from tests.support.model import Tree, by_gnu, described
from tests.support.small import DemoEntry as Entry
from tests.support.small import packed_root, root_without_devices, without_layer

ODD = b"caf\xe9\n%:x"


def image(folder: Path) -> Path:
    """An ISO with one archive: the demo's root filesystem and things to be changed."""
    items = [
        *root_without_devices(),
        Entry(b"data", 0o40755, b""),
        *(Entry(b"data/" + name, 0o100644, b"old " + name) for name in (b"gone", b"kept", b"new", ODD)),
        Entry(b"data/empty", 0o100600, b""),
        Entry(b"data/link", 0o120777, b"kept"),
    ]
    path = folder / "in.iso"
    path.write_bytes(without_layer({"initrd.gz": packed_root(items)}))
    return path


def overlay(folder: Path) -> Path:
    top = folder / "site"
    (top / "data/sub").mkdir(parents=True)
    for name, data in (
        (b"kept", b"old kept"),
        (b"new", b"new new"),
        (b"sub/x", b""),
        (ODD, b"new odd"),
        (b".wh.gone", b""),
    ):
        path = os.fsencode(top) + b"/data/" + name
        with open(path, "wb") as file:
            file.write(data)
        os.chmod(path, 0o644)
    os.symlink("new", top / "data/link")
    return top


ITEMS = (InlineFile("/etc/made/motd", b"hi\n", mode=0o600), Symlink("/data/other", "/x y"), Directory("/var/deep/er"))


def reported(path: Path) -> dict[bytes, dict[str, Any]]:
    report = json.loads(path.read_bytes())
    assert report["schema"] == 1
    names = [unquote_to_bytes(change["path"]) for change in report["paths"]]
    assert names == sorted(names) and len(set(names)) == len(names)
    return dict(zip(names, report["paths"], strict=True))


KINDS = {"file": "-", "directory": "d", "symlink": "l"}


def held(facts: dict[str, Any] | None, tree: Tree, path: bytes) -> None:
    """What the report says of a path before or after is what was unpacked."""
    inode = tree.get(path)
    assert (facts is None) == (inode is None), path
    if facts is None or inode is None:
        return
    assert KINDS[facts["type"]] == inode.kind
    if inode.kind != "l":
        assert facts["mode"] == f"{inode.mode:04o}"
    if inode.kind == "-":
        assert (facts["size"], facts["sha256"]) == (len(inode.data), hashlib.sha256(inode.data).hexdigest())
    if inode.kind == "l":
        assert unquote_to_bytes(facts["target"]) == inode.data
    if os.geteuid() == 0:
        assert (facts["uid"], facts["gid"]) == inode.owner


def test_every_path_with_what_it_was_and_is(tmp_path: Path) -> None:
    require("cpio")
    source, target, report = image(tmp_path), tmp_path / "out.iso", tmp_path / "out.json"
    result = cosremaster.remaster(
        source, target, add=[overlay(tmp_path), *ITEMS], remove=["/usr/share/**"], report=report
    )
    found = reported(report)
    before, after = by_gnu(plain_root(source), tmp_path / "before"), by_gnu(plain_root(target), tmp_path / "after")
    for path, change in found.items():
        held(change.get("before"), before, path)
        if change["action"] == "unchanged":
            assert "after" not in change
        else:
            held(change.get("after"), after, path)
    quiet = {path for path in {*before, *after} if path not in found or found[path]["action"] == "unchanged"}
    one, two = described(before), described(after)
    assert {path: one[path] for path in quiet} == {path: two[path] for path in quiet}, "nothing else changed"
    actions = {path: change["action"] for path, change in found.items() if not path.startswith(b"usr/share/")}
    assert actions == {
        b"data/" + ODD: "replaced",
        b"data/gone": "removed",
        b"data/kept": "unchanged",
        b"data/link": "replaced",
        b"data/new": "replaced",
        b"data/other": "added",
        b"data/sub": "added",
        b"data/sub/x": "added",
        b"etc/made": "parent",
        b"etc/made/motd": "added",
        b"var/deep": "parent",
        b"var/deep/er": "added",
    }
    assert {change["action"] for path, change in found.items() if path.startswith(b"usr/share/")} == {"removed"}
    assert result.removed[0] == b"data/gone"


def test_what_happened_on_the_iso(tmp_path: Path) -> None:
    require("xorriso", "bsdtar")
    tree = tools.Tree(tmp_path / "tree")
    for name in ("docs/a.txt", "docs/b/c.txt", "kernel", "menu.cfg", "same", ODD.decode("latin-1")):
        tree.file(name, name.encode() * 100)
    source, one, two = (tmp_path / name for name in ("in.iso", "one.iso", "two.iso"))
    tools.run(["xorriso", "-as", "mkisofs", "-quiet", "-R", "-o", source, tree.root])
    (tmp_path / "same").write_bytes(b"same" * 100)
    (tmp_path / "same").chmod(0o644)
    result = cosremaster.remaster(
        source, one, remove_iso=["docs"], rename_iso=["kernel:/boot/linux", "menu.cfg:/boot/menu.cfg"],
        add_iso=[InlineFile("/boot/menu.cfg", b"new"), Symlink("/docs", "/boot"), f"{tmp_path}/same:/"],
        report=tmp_path / "r.json",
    )  # fmt: skip
    told = json.loads((tmp_path / "r.json").read_bytes())
    assert told["paths"] == [] and told["layer"] is None
    assert [(one["path"], one["action"], one.get("to")) for one in told["iso"]] == [
        ("boot", "added", None), ("docs", "removed", None), ("docs", "added", None), ("docs/a.txt", "removed", None),
        ("docs/b", "removed", None), ("docs/b/c.txt", "removed", None), ("kernel", "renamed", "boot/linux"),
        ("menu.cfg", "exchanged", "boot/menu.cfg"), ("same", "unchanged", None),
    ]  # fmt: skip
    before, after = judges.tree(source), judges.tree(one)
    for change in told["iso"]:
        for key, found in (("before", before), ("after", after)):
            if key in change and change[key]["type"] == "file":
                path = change.get("to", change["path"]) if key == "after" else change["path"]
                assert (change[key]["sha256"], int(change[key]["mode"], 8)) == (found[path][4], found[path][1])
        assert ("before" in change) == (change["action"] != "added")
        assert ("after" in change) == (change["action"] in ("added", "exchanged"))
    assert result.iso_removed == (b"docs",)
    assert cosremaster.remaster(one, two, report=tmp_path / "none.json").identical
    assert json.loads((tmp_path / "none.json").read_bytes())["iso"] == []


def test_a_second_run_changes_nothing_and_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, one, two, report = image(tmp_path), tmp_path / "one.iso", tmp_path / "two.iso", tmp_path / "two.json"
    adds: list[Path | OverlayItem] = [overlay(tmp_path), *ITEMS, AddPath(tmp_path / "site", "/again", owner="5:6")]
    cosremaster.remaster(source, one, add=adds)
    for path in (tmp_path / "site").rglob("*"):  # times of what is added make no difference
        os.utime(path, (77, 77), follow_symlinks=False)
    result = cosremaster.remaster(one, two, add=adds, report=report)
    assert result.identical and not (result.added or result.replaced or result.removed or result.parents)
    assert one.read_bytes() == two.read_bytes()
    assert {change["action"] for change in reported(report).values()} == {"unchanged"}
    assert json.loads(report.read_bytes())["identical"] is True
    words = ["--add", str(tmp_path / "site"), "--remove", "data/gone", "--allow-missing"]
    assert main([str(one), str(tmp_path / "three.iso"), *words]) == 0
    said = capsys.readouterr().out
    assert "(identical to the input)" in said and "initrd.gz: 5 unchanged" in said


def test_the_same_report_for_the_same_work(tmp_path: Path) -> None:
    source = image(tmp_path)
    reports = []
    for name in ("a", "b"):
        report = tmp_path / f"{name}.json"
        cosremaster.remaster(source, tmp_path / f"{name}.iso", add=[overlay(tmp_path / name)], report=report, threads=1)
        reports.append({path: change["action"] for path, change in reported(report).items()})
    assert reports[0] == reports[1]


def test_a_copy_has_a_report_too(tmp_path: Path) -> None:
    source, report = image(tmp_path), tmp_path / "out.json"
    cosremaster.remaster(source, tmp_path / "out.iso", report=report)
    found = json.loads(report.read_bytes())
    assert (found["layer"], found["identical"], found["paths"]) == (None, True, [])
    assert found["size"] == {"before": source.stat().st_size, "after": source.stat().st_size}


def test_a_report_appears_only_with_its_image(tmp_path: Path) -> None:
    source, target, report = image(tmp_path), tmp_path / "out.iso", tmp_path / "out.json"
    with pytest.raises(CosremasterError):
        cosremaster.remaster(source, target, add=[tmp_path / "none"], report=report)
    report.write_text("mine")
    with pytest.raises(OutputError, match=r"out\.json: exists already"):
        cosremaster.remaster(source, target, add=[*ITEMS], report=report)
    assert report.read_text() == "mine" and not target.exists()
    cosremaster.remaster(source, target, add=[*ITEMS], report=report, force=True)
    assert reported(report)
    with pytest.raises(OutputError, match=r"is the input itself"):
        cosremaster.remaster(source, tmp_path / "x.iso", report=source, force=True)
    for name in ("x.iso", "x.iso.sha256"):
        with pytest.raises(UsageError, match=r"cannot be the report too"):
            cosremaster.remaster(source, tmp_path / "x.iso", report=tmp_path / name, digest="sha256")
    with pytest.raises(OutputError, match=r"there is no folder"):
        cosremaster.remaster(source, tmp_path / "x.iso", report=tmp_path / "none" / "x.json")
    assert not (tmp_path / "x.iso").exists()
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".cosremaster")]


def test_modes_of_the_report_file_follow_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        cosremaster.remaster(image(tmp_path), tmp_path / "out.iso", report=tmp_path / "out.json")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "out.json").stat().st_mode) == 0o640
