"""Tar archives that are made have an order by which all programs give directories their modes and times.

GNU tar does so as soon as an entry outside of a directory follows; bsdtar gives an ordinary user no modes of
directories that it made before their entries.
"""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
from pathlib import Path

import pytest

import cosremaster
from tests.fixtures import tools
from tests.fixtures.tools import run
from tests.support.archives_of_trees import write_tree
from tests.support.erofs_trees import EPOCH, make_erofs
from tests.support.tree_paths import list_paths
from tests.support.user import NOBODY, open_folder

FILES = {"lib/python3/pkg/a": "a\n", "lib/python3.11/b": "b\n", "etc/hostname": "old\n", "lib/python3/z": "z\n"}
CLOSED = ("lib/python3/pkg", "lib/python3", "etc")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = write_tree(tmp_path / "root", FILES)
    for path in [*list_paths(root), root]:
        os.utime(path, (EPOCH, EPOCH))
    for name in CLOSED:
        (root / name).chmod(0o555)
    return root


def make_tar(kind: str, root: Path, folder: Path) -> Path:
    """The archive that comes from an image of ``kind`` of ``root``, or from the folder itself."""
    target = folder / "out.tar"
    if kind == "folder":
        cosremaster.pack(root, target)
        return target
    image = folder / f"in.{kind}"
    if kind == "erofs":
        make_erofs(root, image, "-zlz4hc")
    elif kind == "squashfs":
        tools.require("mksquashfs")
        run(["mksquashfs", str(root), str(image), "-quiet", "-no-progress"])
    else:
        cosremaster.pack(root, image)
    cosremaster.remaster(image, target)
    return target


@pytest.mark.parametrize("unpacker", ["tar", "bsdtar"])
@pytest.mark.parametrize("kind", ["erofs", "squashfs", "cpio.gz", "folder"])
def test_an_ordinary_user_unpacks_read_only_directories(kind: str, unpacker: str, root: Path, tmp_path: Path) -> None:
    tools.require(unpacker)
    if os.geteuid() != 0:
        tools.leave_out("This test becomes another user, for which it needs root.")
    archive = make_tar(kind, root, tmp_path)
    with open_folder() as folder:
        os.chown(folder, NOBODY, NOBODY)
        (folder / "out.tar").write_bytes(archive.read_bytes())
        command = [unpacker, "-xf", "out.tar"]
        subprocess.run(command, cwd=folder, user=NOBODY, group=NOBODY, extra_groups=[], check=True)
        for path in list_paths(root):
            unpacked = folder / path.relative_to(root)
            assert (unpacked.stat().st_mode, int(unpacked.stat().st_mtime)) == (path.stat().st_mode, EPOCH)
            assert not path.is_file() or unpacked.read_bytes() == path.read_bytes()


def list_names(image: Path) -> list[str]:
    """The names in the archive that is made of ``image``, in its order."""
    with cosremaster.open(image) as opened:
        chunks = b"".join(opened.tar_chunks())
    with tarfile.open(fileobj=io.BytesIO(chunks)) as tar:
        return tar.getnames()


def test_a_stream_is_not_decoded_again_and_again(tmp_path: Path) -> None:
    """Files of directories by turns: their data count then, and directories come last."""
    tools.require("gzip")
    archive = tmp_path / "in.tar"
    with tarfile.open(archive, "w", format=tarfile.GNU_FORMAT) as tar:
        for name in ("a", "b", "c", "d"):
            info = tarfile.TarInfo(name)
            info.type, info.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(info)
        for number in range(40):
            info = tarfile.TarInfo(f"{'abcd'[number % 4]}/{number}")
            info.size = 1024
            tar.addfile(info, io.BytesIO(bytes(1024)))
    (tmp_path / "in.tar.gz").write_bytes(run(["gzip", "-c", str(archive)]))
    names = list_names(tmp_path / "in.tar.gz")
    assert names[-4:] == ["d", "c", "b", "a"]
    assert [int(name[2:]) for name in names[:-4]] == list(range(40))
    assert [name[0] for name in list_names(archive)] == [letter for letter in "abcd" for _ in range(11)]
