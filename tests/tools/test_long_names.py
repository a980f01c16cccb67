"""Directories that move with names too long for their records: libarchive reads them, and so do all others.

It wants a directory before its continuation areas, and these before the data of the files that continue there.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

import cosremaster
from cosremaster import InlineFile, remaster
from tests.fixtures import families, tools
from tests.fixtures.tools import run
from tests.support import judges
from tests.support.makers import make_rock_ridge

MAKERS = ("R", "RJ", "bsdtar", "pycdlib", "xorriso")
MANY = [InlineFile(f"/new-{number}", b"%d" % number) for number in range(40)]


def long_name(start: str, length: int) -> str:
    return start.ljust(length, "n")


def make(maker: str, folder: Path, iso: Path) -> None:
    """Makes an image with names of 60 to 240 letters, in the root and two levels below."""
    tools.require("genisoimage", *judges.TOOLS)
    places = [folder] if maker == "pycdlib" else [folder, folder / "d", folder / "d" / "e"]
    for place in places:
        place.mkdir()
        for number, length in enumerate((60, 100, 120, 150, 240)):
            (place / long_name(f"{place.name}{number}", length)).write_bytes(bytes((number,)) * (1 + 3000 * number))
        (place / "short").write_text(place.name)
        (place / long_name("link", 200)).symlink_to("short")
    make_rock_ridge(maker, folder, iso)


def contents(iso: Path) -> dict[str, str]:
    """The digest of each file and the target of each symlink, as libarchive reads them."""
    return {
        path.removeprefix("./"): digest or target
        for path, (_, _, _, target, digest) in judges.tree(iso).items()
        if digest or target
    }


def check(out: Path, expected: dict[str, str]) -> None:
    assert contents(out) == expected
    listed = run(["isoinfo", "-R", "-f", "-i", out]).decode().split("\n")
    assert {line.removeprefix("/") for line in listed} >= expected.keys()
    assert cosremaster.verify(out).ok


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize("maker", MAKERS)
def test_a_moved_directory_with_long_names(maker: str, tmp_path: Path) -> None:
    """One file more, many more, and many more in a second run over the output."""
    iso, out, again = tmp_path / "in.iso", tmp_path / "out.iso", tmp_path / "again.iso"
    make(maker, tmp_path / "tree", iso)
    expected = contents(iso)
    assert len(expected) >= 7
    name = long_name("added", 180)
    remaster(iso, out, add_iso=[InlineFile(f"/{name}", b"one"), InlineFile("/x", b"")])
    expected |= {name: digest(b"one"), "x": digest(b"")}
    check(out, expected)
    remaster(out, again, add_iso=[*MANY, InlineFile(f"/{name}", b"o" * 5000)])
    expected |= {item.dest[1:]: digest(item.content) for item in MANY} | {name: digest(b"o" * 5000)}
    check(again, expected)


@pytest.mark.parametrize("maker", ["R", "bsdtar", "xorriso"])
def test_exchanged_while_the_directory_moves(maker: str, tmp_path: Path) -> None:
    """A file with a long name grows, shrinks, gets a new name, or is one of two hard links."""
    iso, out, folder = tmp_path / "in.iso", tmp_path / "out.iso", tmp_path / "tree"
    folder.mkdir()
    names = [long_name(letter, 220) for letter in "abcd"]
    for name in names[:3]:
        (folder / name).write_bytes(name.encode())
    (folder / names[3]).hardlink_to(folder / names[2])
    make_rock_ridge(maker, folder, iso)
    expected = contents(iso)
    new = {names[0]: b"g" * 9000, names[1]: b"s", names[3]: b"linked no more"}
    items = [InlineFile(f"/{name}", data) for name, data in new.items()]
    remaster(iso, out, add_iso=[*MANY, *items], rename_iso=[f"/{names[2]}:/{names[2]}-renamed"])
    expected[f"{names[2]}-renamed"] = expected.pop(names[2])
    expected |= {name: digest(data) for name, data in new.items()}
    expected |= {item.dest[1:]: digest(item.content) for item in MANY}
    check(out, expected)


@pytest.mark.parametrize("maker", ["R", "xorriso"])
def test_a_directory_leaves_from_before_areas(maker: str, tmp_path: Path) -> None:
    """libarchive comes by an area only right behind a directory or another area."""
    iso, folder = tmp_path / "in.iso", tmp_path / "tree"
    for name in ("a", "b", "c"):
        (folder / name).mkdir(parents=True)
        (folder / name / long_name(name, 200)).write_text(name)
    make_rock_ridge(maker, folder, iso)
    before = contents(iso)
    for name in ("a", "b", "c"):
        out = tmp_path / f"{name}.iso"
        remaster(iso, out, remove_iso=[name])
        check(out, {path: value for path, value in before.items() if not path.startswith(name)})
        moved = tmp_path / f"{name}-moved.iso"
        items = [InlineFile(f"/{name}{item.dest}", item.content) for item in MANY]
        remaster(iso, moved, add_iso=items)
        check(moved, before | {item.dest[1:]: digest(item.content) for item in items})


def test_data_that_cannot_move_are_told(tmp_path: Path) -> None:
    """An HFS+ file system names the file as well."""
    iso, out, folder = tmp_path / "in.iso", tmp_path / "out.iso", tmp_path / "tree"
    tools.require(*families.TOOLS, *judges.TOOLS)
    folder.mkdir()
    name = long_name("a", 200)
    (folder / name).write_text("a")
    run(["xorriso", "-as", "mkisofs", "-quiet", "-r", "-hfsplus", "-o", iso, folder])
    (warning,) = remaster(iso, out, add_iso=MANY).warnings
    assert warning.startswith(
        f"{name} has a long name or is in a relocated directory, and its data cannot move: bsdtar"
    )
    assert cosremaster.verify(out).ok
    dropped = remaster(iso, tmp_path / "dropped.iso", add_iso=MANY, drop_hfsplus=True)
    assert dropped.warnings == ()
    assert contents(tmp_path / "dropped.iso").keys() == {name, *(item.dest[1:] for item in MANY)}


@pytest.mark.parametrize("maker", ["R", "RJ", "xorriso"])
def test_relocated_directories_follow_the_one_that_records_them(maker: str, tmp_path: Path) -> None:
    """Directories below the eighth level move with the root, names in them are long."""
    iso, out = tmp_path / "in.iso", tmp_path / "out.iso"
    tools.require("genisoimage", *judges.TOOLS)
    for branch in ("g/1/x/y", "h/1"):
        folder = tmp_path / "tree" / "a/b/c/d/e/f" / branch
        folder.mkdir(parents=True)
        for name in ("short", long_name("long", 180)):
            (folder / name).write_text(f"{branch} {name}")
    make_rock_ridge(maker, tmp_path / "tree", iso)
    before = contents(iso)
    assert len(before) == 4
    remaster(iso, out, add_iso=MANY)
    assert contents(out) == before | {item.dest[1:]: digest(item.content) for item in MANY}
    assert cosremaster.verify(out).ok
