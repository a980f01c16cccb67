"""What an edit of a squashfs leaves behind is told as it is: data that another file has are not dead."""

from __future__ import annotations

import os
import tarfile
from io import BytesIO
from pathlib import Path

import pytest

import cosremaster
from cosremaster.cli import main
from cosremaster.layers.squashfs import losses
from tests.fixtures import tools
from tests.fixtures.tools import run
from tests.support.esp import write_tree

NOISE = os.urandom(300_000)
FILES = {
    "big/copy": NOISE, "big/one": NOISE, "small/copy": NOISE[:700], "small/one": NOISE[:700], "z/own": NOISE[::2],
}  # fmt: skip


def make_image(folder: Path, maker: str) -> Path:
    """A squashfs of :data:`FILES`, each equal pair stored once, with a hard link to the last."""
    tools.require(maker, "bsdtar")
    root, image = write_tree(folder / "root", FILES), folder / "in.sqfs"
    os.link(root / "z/own", root / "z/link")
    if maker == "mksquashfs":
        run(["mksquashfs", str(root), str(image), "-quiet", "-no-progress"])
    else:
        run(["tar2sqfs", "-q", str(image)], stdin=run(["bsdtar", "-cf", "-", "-C", str(root), "."]))
    return image


@pytest.mark.parametrize("maker", ["mksquashfs", "tar2sqfs"])
@pytest.mark.parametrize(
    ("removed", "told", "lost"),
    [
        (["big/copy", "small/one", "z/own"], "", 0),
        (["big/copy", "big/one", "small/one"], "old data of big/copy and 1 more, at most 293.0 KiB, stay", 300_000),
        (["z/own", "z/link", "big/one"], "old data of z/link, at most 146.5 KiB, stay", 150_000),
        (["small/one", "small/copy"], "old data of small/copy and 1 more, at most 700 B, stay", 700),
    ],
)
def test_data_that_another_file_has_are_not_dead(
    tmp_path: Path, maker: str, removed: list[str], told: str, lost: int
) -> None:
    image = make_image(tmp_path, maker)
    patterns = [f"/{path}" for path in removed]
    warnings = cosremaster.remaster(image, tmp_path / "out.sqfs", remove=patterns).warnings
    assert (told in warnings[0]) if told else not warnings
    repacked = cosremaster.remaster(image, tmp_path / "small.sqfs", remove=patterns, repack=True)
    assert abs(image.stat().st_size - repacked.output_size - lost) <= 2 * 4096, "a repack takes that out"


def test_of_very_many_inodes_that_is_not_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(losses, "MAX_COMPARED", 3)
    image = make_image(tmp_path, "mksquashfs")
    (warning,) = cosremaster.remaster(image, tmp_path / "out.sqfs", remove=["/big/one"]).warnings
    assert "though nothing names them any more unless other files have the same; --repack" in warning


def test_more_levels_than_python_can_call(tmp_path: Path) -> None:
    tools.require("mksquashfs", "unsquashfs")
    deep, out, small = "/".join(["d"] * 1300), tmp_path / "out.sqfs", tmp_path / "small.sqfs"
    run(["mksquashfs", str(write_tree(tmp_path / "root", {"etc/a": b"a\n"})), str(tmp_path / "in.sqfs"), "-quiet"])
    with tarfile.open(tmp_path / "deep.tar", "w") as archive:
        entry = tarfile.TarInfo(f"{deep}/file")
        entry.size = 5
        archive.addfile(entry, BytesIO(b"deep\n"))
    cosremaster.remaster(tmp_path / "in.sqfs", out, add=[tmp_path / "deep.tar"])
    cosremaster.remaster(out, small, remove=["/etc/a"], repack=True)
    for result in (out, small):
        assert f"/{deep}/file".encode() in run(["unsquashfs", "-l", "-d", "", str(result)]).splitlines()
        assert main(["verify", "--deep", str(result)]) == 0
        with cosremaster.open(result) as opened:
            assert opened.read(deep + "/file") == b"deep\n"
