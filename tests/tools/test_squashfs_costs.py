"""What an edit of a squashfs reads: what changes, and no data that stay."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import pytest

import cosremaster
from cosremaster.cli import main
from cosremaster.io.files import FileSource
from tests.fixtures import tools
from tests.fixtures.tools import run

SIZE = 4_000_000


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """A squashfs of a file of 4 MB that does not shrink, and a small one."""
    tools.require("mksquashfs", "unsquashfs", "xorriso")
    tree = tmp_path / "tree"
    (tree / "etc").mkdir(parents=True)
    (tree / "etc" / "hostname").write_text("old\n")
    (tree / "noise").write_bytes(os.urandom(SIZE))
    run(["mksquashfs", str(tree), str(tmp_path / "in.squashfs"), "-quiet", "-no-progress"])
    (tmp_path / "site" / "etc").mkdir(parents=True)
    (tmp_path / "site" / "etc" / "hostname").write_text("new\n")
    return tmp_path / "in.squashfs"


@pytest.fixture
def bytes_read(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many bytes each read of a file had, from now on."""
    counts: list[int] = []
    read, read_into = FileSource.read, FileSource.read_into

    def count_read(source: FileSource, offset: int, length: int) -> bytes:
        data = read(source, offset, length)
        counts.append(len(data))
        return data

    def count_read_into(source: FileSource, offset: int, views: Sequence[memoryview]) -> None:
        counts.append(sum(map(len, views)))
        read_into(source, offset, views)

    monkeypatch.setattr(FileSource, "read", count_read)
    monkeypatch.setattr(FileSource, "read_into", count_read_into)
    return counts


def test_data_that_stay_are_not_read(image: Path, tmp_path: Path, bytes_read: list[int]) -> None:
    if not hasattr(os, "copy_file_range"):
        tools.leave_out("this Python knows no copy_file_range")
    with cosremaster.open(image) as opened:
        opened.plan(cosremaster.Request(add=[tmp_path / "site"]))
    assert sum(bytes_read) < SIZE // 10
    assert main([str(image), str(tmp_path / "out.squashfs"), "--quiet", "--add", str(tmp_path / "site")]) == 0
    assert run(["unsquashfs", "-cat", str(tmp_path / "out.squashfs"), "etc/hostname"]) == b"new\n"
    assert (
        run(["unsquashfs", "-cat", str(tmp_path / "out.squashfs"), "noise"])
        == (tmp_path / "tree" / "noise").read_bytes()
    )


def test_a_squashfs_alone_needs_no_index(image: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with cosremaster.open(image) as opened:
        opened.remaster(tmp_path / "out.squashfs", cosremaster.Request(add=[tmp_path / "site"]))
        assert opened.index_file is None
    assert main(["index", str(image)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "needs no index: it is read when it is needed"


def make_iso(folder: Path, image: Path) -> Path:
    """An ISO with two files of the bytes of ``image`` that are not one."""
    disc = folder / "disc" / "live"
    disc.mkdir(parents=True)
    for name in ("one.squashfs", "two.squashfs"):
        (disc / name).write_bytes(image.read_bytes())
    run(["xorriso", "-as", "mkisofs", "-quiet", "-R", "-o", str(folder / "in.iso"), str(folder / "disc")])
    return folder / "in.iso"


def test_an_index_of_an_iso_stands_for_no_bytes_of_a_squashfs(
    image: Path, tmp_path: Path, bytes_read: list[int]
) -> None:
    iso = make_iso(tmp_path, image)
    request = cosremaster.Request(add=[tmp_path / "site"], layer=["live/one.squashfs"])
    for number in range(2):
        bytes_read.clear()
        with cosremaster.open(iso, check_index=bool(number)) as opened:
            assert len(opened.layers()) == 2
            opened.plan(request)
            index = opened.index_file
            assert index is not None
            assert index.stat().st_size < 3_000
        assert sum(bytes_read) < SIZE // 4


def test_equal_squashfs_files_are_changed_together(image: Path, tmp_path: Path) -> None:
    iso = make_iso(tmp_path, image)
    request = cosremaster.Request(add=[tmp_path / "site"], layer=["live/one.squashfs", "live/two.squashfs"])
    for _ in range(2):  # without an index, and with one
        with cosremaster.open(iso) as opened:
            opened.layers()
            (layer,) = opened.plan(request).layers
        assert set(layer.files) == {"live/one.squashfs", "live/two.squashfs"}
