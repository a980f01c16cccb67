"""Extended attributes: from overlays and layers into layers; getfattr, getcap, the kernel and other unpackers judge."""

from __future__ import annotations

import json
import os
import struct
from pathlib import Path

import pytest

import cosremaster
from cosremaster.cli import main
from cosremaster.errors import CorruptError
from tests.fixtures import tools
from tests.fixtures.tools import run
from tests.support.archives_of_trees import write_tree

Attributes = dict[str, dict[str, bytes]]


def set_attributes(root: Path, attributes: Attributes) -> None:
    """Give the files below ``root`` attributes; skips where that is impossible."""
    for path, values in attributes.items():
        for name, value in values.items():
            try:
                os.setxattr(root / path, name, value, follow_symlinks=False)
            except OSError as error:
                tools.leave_out(f"This test needs a file system with {name}: {error.strerror}.")


def make(tree: Path, target: Path, *options: str) -> Path:
    tools.require("mksquashfs")
    run(["mksquashfs", str(tree), str(target), "-quiet", "-no-progress", *options])
    return target


def attributes_in(image: Path) -> Attributes:
    """The attributes of all files in ``image`` that have some."""
    with cosremaster.open(image, remember=False) as opened:
        return {
            os.fsdecode(entry.path): {os.fsdecode(name): value for name, value in entry.xattrs}
            for entry in opened.walk()
            if entry.xattrs
        }


LONG = b"long" * 100
OLD: Attributes = {
    "etc": {"user.note": b"directory"},
    "etc/a": {"user.note": b"kept", "user.binary": b"\0\xff\n"},
    "etc/b": {"user.note": b"kept", "user.binary": b"\0\xff\n"},
    "etc/c": {"user.empty": b"", "user.long": LONG},
    "etc/d": {"user.long": LONG},
}


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """A squashfs image with attributes, some of them in line and one, which two files share, out of line."""
    files = {f"etc/{name}": f"{name}\n" for name in "abcdefgh"}
    root = write_tree(tmp_path / "root", files | {"sbin/init": "i\n", "opt/x": "x\n"})
    os.link(root / "etc/a", root / "etc/a-2")
    set_attributes(root, OLD)
    return make(root, tmp_path / "in.sqfs", "-comp", "xz")


def test_nodes_of_squashfs_have_their_attributes(image: Path) -> None:
    assert attributes_in(image) == OLD | {"etc/a-2": OLD["etc/a"]}


def test_commands_show_attributes(image: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ls", "-l", f"{image}::etc"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line[10] for line in lines] == ["@", "@", "@", "@", "@", " ", " ", " ", " "]
    assert len({line.index(" 2 ") for line in lines}) == 1
    assert main(["stat", f"{image}::etc/a"]) == 0
    assert '  attribute user.binary=0x00ff0a\n  attribute user.note="kept"\n' in capsys.readouterr().out
    assert main(["stat", "--json", f"{image}::etc/a"]) == 0
    (node,) = json.loads(capsys.readouterr().out)["nodes"]
    assert node["xattrs"] == {"user.binary": "0x00ff0a", "user.note": "0x6b657074"}
    set_attributes(tmp_path / "root", {"etc/a": {"user.note": b"new"}, "etc/h": {"user.note": b"h"}})
    os.removexattr(tmp_path / "root/etc", "user.note")
    assert main(["diff", str(image), str(make(tmp_path / "root", tmp_path / "other.sqfs"))]) == 1
    shown = capsys.readouterr().out
    for line in ('user.note "kept" -> "new"', 'user.note none -> "h"', 'user.note "directory" -> none'):
        assert f"attribute {line}" in shown


@pytest.mark.parametrize(("place", "data"), [(0, b"\xff" * 6), (8, b"\0\0\0\0"), (16, b"\xff" * 8)])
def test_a_damaged_table_ends_in_a_sentence(place: int, data: bytes, image: Path) -> None:
    table = struct.unpack_from("<Q", image.read_bytes(), 56)[0]
    with image.open("r+b") as file:
        file.seek(table + place)
        file.write(data)
    with pytest.raises(CorruptError):
        attributes_in(image)
