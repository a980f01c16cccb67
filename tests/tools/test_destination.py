"""Where contents of a folder or an archive go, and with which owners and modes, as GNU tar lists them."""

import os
import tarfile
from pathlib import Path

import pytest

from cosremaster.cli import main
from tests.fixtures.tools import require, run


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder with an image, and the home of a user as a folder and as an archive."""
    require("tar")
    monkeypatch.chdir(tmp_path)
    Path("root/etc").mkdir(parents=True)
    Path("root/etc/motd").write_text("x")
    run(["tar", "--owner=0", "--group=0", "--numeric-owner", "-C", "root", "-cf", "in.tar", "."])
    Path("home/doc").mkdir(parents=True)
    Path("home/doc/a").write_text("a")
    Path("home").chmod(0o750)
    os.utime("home", (1_600_000_000, 1_600_000_000))
    run(["tar", "--owner=1000", "--group=1001", "--numeric-owner", "-C", "home", "-cf", "home.tar", "."])
    Path("empty").mkdir()
    return tmp_path


def listed(*words: str) -> dict[str, str]:
    """The modes and owners that GNU tar lists of the image that ``main`` makes, by path."""
    Path("out.tar").unlink(missing_ok=True)
    assert main(["in.tar", "out.tar", "--quiet", *words]) == 0
    lines = run(["tar", "--numeric-owner", "-tvf", "out.tar"]).decode().splitlines()
    return {line.split()[-1].strip("./"): " ".join(line.split()[:2]) for line in lines}


def test_it_is_that_of_the_archive(work: Path) -> None:
    """It was 0755 and root's: a user could not write in a home that came as an archive."""
    found = listed("--add", "home.tar:/home/bob")
    assert found["home/bob"] == "drwxr-x--- 1000/1001"
    assert (found["home"], found["home/bob/doc"]) == ("drwxr-xr-x 0/0", "drwxr-xr-x 1000/1001")
    times = run(["tar", "--full-time", "--utc", "-tvf", "out.tar", "./home/bob/"]).decode().splitlines()[0]
    assert "2020-09-13 12:26:40" in times
    assert listed("--add", "home.tar:/home/bob", "--owner", "root")["home/bob"] == "drwxr-x--- 0/0"
    assert listed("--add", "home.tar:/etc")["etc"] == "drwxr-xr-x 0/0"  # one that is there keeps its own
    run(["tar", "--owner=7", "--group=7", "--numeric-owner", "-C", "home", "-cf", "bare.tar", "doc"])
    assert listed("--add", "bare.tar:/srv")["srv"] == "drwxr-xr-x 0/0"  # no entry says otherwise
    assert listed("--add", "bare.tar:/srv", "--owner", "8:9")["srv"] == "drwxr-xr-x 0/0"
    over = listed("--add", "home.tar:/etc/motd", "--force-type")  # in place of a file
    assert (over["etc/motd"], "etc/motd/doc/a" in over) == ("drwxr-x--- 1000/1001", True)


def test_it_is_a_missing_parent_of_what_a_folder_holds(work: Path) -> None:
    """Whatever the folder itself is: mktemp makes closed ones."""
    dest = ("--add", "home:/home/bob")
    for options in ([], ["--owner", "1000:1001"], ["--keep-modes"], ["--owner", "source"]):
        assert listed(*dest, *options)["home/bob"] == "drwxr-xr-x 0/0"


def test_an_empty_folder_is_warned_of(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It adds nothing, wherever it was to go; one in it does."""
    for dest in ("", ":/srv/spool/"):
        assert listed("--add", f"empty{dest}") == listed()
        assert "warning: empty: holds nothing, so nothing is added (a folder with an empty one in it adds that)" in (
            capsys.readouterr().err
        )
    Path("empty/spool").mkdir()
    assert listed("--add", "empty:/srv")["srv/spool"] == "drwxr-xr-x 0/0"
    assert "holds nothing" not in capsys.readouterr().err


def test_a_slash_or_a_dot_at_the_end_means_a_directory(work: Path) -> None:
    """With /. a file got the name of the directory that was not there."""
    for end in ("/", "/."):
        found = listed("--add", f"home/doc/a:/usr/lib/hooks{end}")
        assert "usr/lib/hooks/a" in found and found["usr/lib/hooks"].startswith("d")
    assert listed("--add", "home/doc/a:/usr/lib/hooks")["usr/lib/hooks"].startswith("-")


def test_it_is_what_an_mtree_file_says(work: Path) -> None:
    dest = ("--add", "home:/home/bob", "--mtree", "m.mtree")
    Path("m.mtree").write_text(". type=dir mode=0700 uid=5 gid=6\n")
    assert listed(*dest)["home/bob"] == "drwx------ 5/6"
    Path("m.mtree").write_text("./doc type=dir mode=0700 uid=5 gid=6\n")
    found = listed(*dest)
    assert (found["home/bob"], found["home/bob/doc"]) == ("drwxr-xr-x 0/0", "drwx------ 5/6")


@pytest.mark.parametrize("packer", ["cat", "gzip"])
def test_an_archive_that_may_be_cut_off_is_warned_of(
    work: Path, packer: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Half of an archive was added, or packed, without a word, where it was cut between two entries."""
    require(packer)
    with tarfile.open("home.tar") as archive:
        end = archive.getmember("./doc/a").offset
    Path("cut.tar").write_bytes(run([packer], stdin=Path("home.tar").read_bytes()[:end]))
    told = "warning: cut.tar has no blocks of zeros at its end, so it may be cut off\n"
    assert "home/bob/doc" in listed("--add", "cut.tar:/home/bob")
    assert capsys.readouterr().err == told
    assert main(["pack", "cut.tar", "packed.cpio", "--quiet"]) == 0
    assert capsys.readouterr().err == told
    listed("--add", "home.tar:/home/bob")
    assert not capsys.readouterr().err
