"""Overlays as the world has them: odd names, long names, deep directories, very many files."""

import os
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

import cosremaster
from cosremaster.browse.tar import build_tar
from cosremaster.demo.image import DemoEntry, build_archive, root_items
from cosremaster.errors import OverlayError
from cosremaster.io.pieces import Literal, Zeros
from cosremaster.tree.content import BytesContent, PieceContent
from cosremaster.tree.nodes import Node, NodeKind
from tests.fixtures.tools import EPOCH, require, run
from tests.support.layers import plain_root
from tests.support.small import packed_root, root_without_devices, write_small

LONG = b"/".join([b"p" * 255] * 15 + [b"q" * 250, b"n" * 4])
"""4,095 bytes: with the NUL behind it all that a path may have."""


def in_deep(folder: bytes, parts: list[bytes]) -> int:
    """The directory that ``parts`` lead to, made on the way, open."""
    at = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    for part in parts:
        with suppress(FileExistsError):
            os.mkdir(part, dir_fd=at)
        below = os.open(part, os.O_RDONLY | os.O_DIRECTORY, dir_fd=at)
        os.close(at)
        at = below
    return at


def write_deep(folder: Path, path: bytes, data: bytes) -> None:
    """A file whose absolute path is longer than the system takes at once."""
    *parts, name = path.split(b"/")
    at = in_deep(os.fsencode(folder), parts)
    fd = os.open(name, os.O_WRONLY | os.O_CREAT, 0o644, dir_fd=at)
    os.write(fd, data)
    os.close(fd)
    os.close(at)


def read_deep(folder: Path, path: bytes) -> bytes:
    *parts, name = path.split(b"/")
    at = in_deep(os.fsencode(folder), parts)
    fd = os.open(name, os.O_RDONLY, dir_fd=at)
    data = os.read(fd, 100)
    os.close(fd)
    os.close(at)
    return data


@pytest.fixture
def overlay(tmp_path: Path) -> Iterator[Path]:
    """A folder that rm removes: its paths may be longer than Python's rmtree takes."""
    folder = tmp_path / "overlay"
    folder.mkdir()
    yield folder
    subprocess.run(["rm", "-rf", folder, tmp_path / "busybox", tmp_path / "gnu"], check=True)


@pytest.mark.parametrize(
    "path", [LONG, b"/".join([b"ddd"] * 1022) + b"/at/ends"], ids=["long parts", "1,023 directories"]
)
def test_the_longest_names_there_are(overlay: Path, tmp_path: Path, path: bytes) -> None:
    require("busybox", "cpio", "tar", "rm")
    assert len(path) == 4095
    write_deep(overlay, path, b"at the end\n")
    source, target = write_small(tmp_path, packed_root(root_without_devices())), tmp_path / "out.iso"
    result = cosremaster.remaster(source, target, add=[overlay])
    assert path in result.added
    plain = plain_root(target)
    for name, words in (("busybox", ["busybox", "cpio", "-i"]), ("gnu", ["cpio", "-idm", "--quiet"])):
        (tmp_path / name).mkdir()
        run(words, cwd=tmp_path / name, stdin=plain)
        assert read_deep(tmp_path / name, path) == b"at the end\n"
    run(["tar", "--format=gnu", "-cf", tmp_path / "a.tar", "-C", overlay, "."])
    again = cosremaster.remaster(
        target, tmp_path / "again.iso", add=[cosremaster.AddPath(tmp_path / "a.tar", owner="root")]
    )
    assert again.identical


def test_longer_names_are_refused_by_name(overlay: Path, tmp_path: Path) -> None:
    write_deep(overlay, LONG + b"n", b"x")
    with pytest.raises(OverlayError, match=r"q/n{5}: cannot be added: the name is longer than 4095 bytes$"):
        cosremaster.remaster(write_small(tmp_path), tmp_path / "out.iso", add=[overlay])
    assert not (tmp_path / "out.iso").exists()


NAMES = (
    b"caf\xe9",
    b"\xff\xfe",
    b"new\nline",
    b"tab\t",
    b" space ",
    b"-rf",
    b"*",
    b"TRAILER!!! ",
    b"\xe2\x80\xae",
    b"%41",
    b":::",
)


def test_names_are_bytes_whatever_the_locale(overlay: Path, tmp_path: Path) -> None:
    require("busybox", "cpio")
    top = os.fsencode(overlay)
    for name in NAMES:
        os.mkdir(top + b"/" + name)
        with open(top + b"/" + name + b"/" + name, "wb") as file:
            file.write(name)
        os.utime(file.name, (EPOCH, EPOCH))
    source, written = write_small(tmp_path, packed_root(root_without_devices())), []
    for locale in ("C", "C.UTF-8"):
        target, report = tmp_path / f"{locale}.iso", tmp_path / f"{locale}.json"
        words = ["--add", os.fspath(overlay), "--report", os.fspath(report)]
        environment = {"LC_ALL": locale, "SOURCE_DATE_EPOCH": str(EPOCH)}
        run([sys.executable, "-m", "cosremaster", source, target, *words], env=environment)
        written.append((target.read_bytes(), report.read_bytes()))
    assert written[0] == written[1]
    (tmp_path / "busybox").mkdir()
    run(["busybox", "cpio", "-i"], cwd=tmp_path / "busybox", stdin=plain_root(target))
    for name in NAMES:
        assert Path(os.fsdecode(os.fsencode(tmp_path) + b"/busybox/" + name + b"/" + name)).read_bytes() == name


def test_names_in_new_tar_archives_are_bytes_whatever_the_locale(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Python reads names by the locale: of ISO 8859-1 each byte is a character."""
    require("tar")
    names = [name for name in NAMES if b"/" not in name]
    with_hole = PieceContent((Literal(b"x"), Zeros(1 << 20)))
    nodes = [
        *(Node(path=name, kind=NodeKind.FILE, mode=0o644, content=BytesContent(name)) for name in names),
        *(Node(path=name + b"-link", kind=NodeKind.SYMLINK, mode=0o777, target=name) for name in names),
        *(Node(path=name + b"-hole", kind=NodeKind.FILE, mode=0o644, content=with_hole) for name in names),
    ]
    monkeypatch.setattr(os, "fsdecode", lambda name: name.decode("latin-1"))
    monkeypatch.setattr(os, "fsencode", lambda name: name.encode("latin-1"))
    archive = build_tar(nodes, sparse=True).table().read()
    monkeypatch.undo()
    run(["tar", "-xf", "-"], cwd=tmp_path, stdin=archive)
    top = os.fsencode(tmp_path)
    assert sorted(os.listdir(top)) == sorted(node.path for node in nodes)
    for name in names:
        assert Path(os.fsdecode(top + b"/" + name)).read_bytes() == name
        assert os.readlink(top + b"/" + name + b"-link") == name
        assert Path(os.fsdecode(top + b"/" + name + b"-hole")).read_bytes() == b"x" + bytes(1 << 20)


def test_a_name_that_would_end_the_archive_is_refused(overlay: Path, tmp_path: Path) -> None:
    (overlay / "TRAILER!!!").write_text("x")
    with pytest.raises(OverlayError, match=r"TRAILER!!!: cannot be added: the name ends the archive"):
        cosremaster.remaster(write_small(tmp_path), tmp_path / "out.iso", add=[overlay])


PEAK = """
import sys
import cosremaster
result = cosremaster.remaster(sys.argv[1], sys.argv[2], add=[sys.argv[3]], report=sys.argv[2] + ".json", remember=False)
print(len(result.added), next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


def test_a_hundred_thousand_files(tmp_path: Path) -> None:
    """They come, and each costs a few kilobytes of memory; the file contents none."""
    require("tar", "cpio")
    source = write_small(tmp_path)
    peaks = {}
    for count in (1_000, 100_000):
        path = tmp_path / f"{count}.tar"
        with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
            for number in range(count):
                info = tarfile.TarInfo(f"data/{number // 1000:03}/file-{number:06}")
                info.mtime = EPOCH
                tar.addfile(info)
        target = tmp_path / f"{count}.iso"
        added, peak = run([sys.executable, "-c", PEAK, source, target, path]).split()
        assert int(added) == count
        peaks[count] = int(peak) << 10
    assert (peaks[100_000] - peaks[1_000]) / 99_000 < 4_000, peaks
    listed = run(["cpio", "-t", "--quiet"], stdin=plain_root(target)).splitlines()
    assert sum(1 for name in listed if name.startswith(b"data/") and name.count(b"/") == 2) == 100_000
    again = cosremaster.remaster(target, tmp_path / "again.iso", add=[path])
    assert again.identical and len(again.unchanged) == 100_000


def test_whiteouts_and_removes_of_many_files_take_no_time_for_each_other(tmp_path: Path) -> None:
    """20,000 whiteouts over 20,000 files: quadratic work would take minutes."""
    items = [
        *root_items(),
        DemoEntry(b"many", 0o40755, b""),
        *(DemoEntry(b"many/%05d" % i, 0o100644, b"x") for i in range(20_000)),
    ]
    source = write_small(tmp_path, build_archive(items))
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as tar:
        for number in range(0, 20_000, 2):
            tar.addfile(tarfile.TarInfo(f"many/.wh.{number:05}"))
    result = cosremaster.remaster(source, tmp_path / "out.iso", add=[path], remove=["many/*1"])
    assert len(result.removed) == 12_000
