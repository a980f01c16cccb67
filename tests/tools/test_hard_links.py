"""A hard link that gets other bytes is a file of its own, by serial number and link counts (PX, RRIP 1.12, 4.1.1)."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import pytest

import cosremaster
from cosremaster import InlineFile, remaster
from tests.fixtures import tools
from tests.fixtures.tools import run
from tests.support import judges

MAKERS = {
    "xorriso-new": ["xorriso", "-compliance", "new_rr", "-hardlinks", "on"],
    "xorriso-old": ["xorriso", "-compliance", "old_rr", "-hardlinks", "on"],
    "bsdtar": ["bsdtar"],
    "genisoimage": ["genisoimage", "-cache-inodes"],
}


@pytest.fixture(params=MAKERS)
def linked(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """An image on which a, b and c are one file, empty and void another, and alone a third."""
    tools.require("genisoimage", *judges.TOOLS)
    folder, iso = tmp_path / "tree", tmp_path / "in.iso"
    folder.mkdir()
    for name, text in (("a", "shared"), ("alone", "alone"), ("empty", "")):
        (folder / name).write_text(text)
    for name, target in (("b", "a"), ("c", "a"), ("void", "empty")):
        (folder / name).hardlink_to(folder / target)
    match MAKERS[request.param]:
        case ["bsdtar"]:
            run(["bsdtar", "-cf", iso, "--format=iso9660", "--options=!joliet", "-C", folder, "."])
        case ["genisoimage", *options]:
            run(["genisoimage", "-quiet", "-R", *options, "-o", iso, folder])
        case command:
            run([*command, "-outdev", iso, "-map", folder, "/"])
    return iso


def links(iso: Path) -> dict[str, int]:
    """The link counts that isoinfo reads."""
    listed = run(["isoinfo", "-R", "-l", "-i", iso]).decode()
    return {name: int(count) for count, name in re.findall(r"^-\S+ +(\d+) .*\] +(\S+)", listed, re.MULTILINE)}


def unpacked(iso: Path, folder: Path) -> dict[str, bytes]:
    folder.mkdir()
    run(["bsdtar", "-xf", iso, "-C", folder])
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def check(out: Path, expected: dict[str, bytes], folder: Path) -> None:
    assert unpacked(out, folder) == expected
    for name, data in expected.items():
        assert run(["isoinfo", "-R", "-i", out, "-x", f"/{name}"]) == data
    assert cosremaster.verify(out).ok


OLD = {"a": b"shared", "b": b"shared", "c": b"shared", "alone": b"alone", "empty": b"", "void": b""}


def test_one_of_three_names_gets_other_bytes(linked: Path, tmp_path: Path) -> None:
    before = links(linked)
    assert unpacked(linked, tmp_path / "before") == OLD
    out = tmp_path / "out.iso"
    remaster(linked, out, add_iso=[InlineFile("/b", b"new" * 2000)])
    check(out, OLD | {"b": b"new" * 2000}, tmp_path / "out")
    if before["a"] == 3:
        assert links(out) == before | {"a": 2, "b": 1, "c": 2}
    new = (tmp_path / "out" / "b").stat()
    assert new.st_nlink == 1


def test_names_get_other_bytes_each(linked: Path, tmp_path: Path) -> None:
    """Beside new files, which get serial numbers as well; in a directory that moves."""
    out, again = tmp_path / "out.iso", tmp_path / "again.iso"
    new = {f"new{number}": b"%d" % number for number in range(50)}
    items = [InlineFile(f"/{name}", data) for name, data in new.items()]
    changed = {"a": b"A", "c": b"C" * 3000, "void": b"no more"}
    items += [InlineFile(f"/{name}", data) for name, data in changed.items()]
    remaster(linked, out, add_iso=items)
    check(out, OLD | changed | new, tmp_path / "out")
    assert all(count == 1 for name, count in links(out).items() if name not in ("alone", "empty"))
    remaster(out, again, add_iso=[InlineFile("/b", b"last")])
    check(again, OLD | changed | new | {"b": b"last"}, tmp_path / "again")


def test_a_name_leaves(linked: Path, tmp_path: Path) -> None:
    before, out = links(linked), tmp_path / "out.iso"
    remaster(linked, out, remove_iso=["/a"])
    check(out, {name: data for name, data in OLD.items() if name != "a"}, tmp_path / "out")
    if before["a"] == 3:
        assert links(out) == {name: count for name, count in before.items() if name != "a"} | {"b": 2, "c": 2}


@pytest.mark.parametrize(
    "options", [["-J"], ["-J", "-R"], ["-J", "-hide-joliet", "bbb"], ["-J", "-R", "-hide-joliet", "aaa"]]
)
def test_joliet_has_the_name_in_other_letters_or_not_at_all(options: list[str], tmp_path: Path) -> None:
    """Without Rock Ridge the primary tree has capitals; a name may also be hidden from Joliet, or cut there."""
    tools.require("genisoimage", *judges.TOOLS)
    folder, iso, out = tmp_path / "tree", tmp_path / "in.iso", tmp_path / "out.iso"
    folder.mkdir()
    long = [letter * 90 for letter in "lm"] if "-R" in options else []
    (folder / "aaa").write_text("shared")
    for name in ("bbb", "ccc", *long):
        (folder / name).hardlink_to(folder / "aaa")
    run(["genisoimage", "-quiet", *options, "-o", iso, folder])
    before = judges.joliet(iso)
    new = {"bbb": b"b", **{name: name.encode() for name in long}}
    remaster(iso, out, add_iso=[InlineFile(f"/{name}", data) for name, data in new.items()])
    after = judges.joliet(out)
    assert after.keys() == before.keys()
    changed = {name for name in before if after[name] != before[name]}
    expected = {f"/{name[:64]}": hashlib.sha256(data).hexdigest() for name, data in new.items()}
    expected = {name: digest for name, digest in expected.items() if name in before}
    assert changed == expected.keys() and {name: after[name] for name in changed} == expected
    ridge = ["-R"] if "-R" in options else []
    for name in ("aaa", "bbb", "ccc", *long):
        path = f"/{name}" if ridge else f"/{name.upper()}.;1"
        assert run(["isoinfo", *ridge, "-i", out, "-x", path]) == new.get(name, b"shared")
    assert cosremaster.verify(out).ok
