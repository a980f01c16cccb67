"""The directory that a folder's or an archive's contents go to, where it is not there, as GNU tar lists it."""

import os
from pathlib import Path

import pytest

import cosremaster
from cosremaster import AddPath, OwnershipRule
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
    assert listed("--add", "bare.tar:/srv", "--owner", "8:9")["srv"] == "drwxr-xr-x 8/9"


def test_it_has_the_owner_of_a_folder_and_its_mode_where_that_is_kept(work: Path) -> None:
    dest = ("--add", "home:/home/bob")
    own = Path("home").stat()
    assert listed(*dest)["home/bob"] == "drwxr-xr-x 0/0"
    assert listed(*dest, "--owner", "1000:1001")["home/bob"] == "drwxr-xr-x 1000/1001"
    assert listed(*dest, "--keep-modes")["home/bob"] == "drwxr-x--- 0/0"
    assert listed(*dest, "--owner", "source")["home/bob"] == f"drwxr-xr-x {own.st_uid}/{own.st_gid}"
    Path("m.mtree").write_text(". type=dir mode=0700 uid=5 gid=6\n")
    assert listed(*dest, "--mtree", "m.mtree")["home/bob"] == "drwx------ 5/6"
    rule = OwnershipRule("/home/bob", owner="3:4", directory_mode="0711")
    cosremaster.remaster("in.tar", "rule.tar", add=[AddPath("home", "/home/bob", rules=(rule,))])
    assert b"drwx--x--x 3/4" in run(["tar", "--numeric-owner", "-tvf", "rule.tar", "./home/bob/"])


def test_it_is_made_for_nothing(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An empty folder was no change, with exit code 0."""
    found = listed("--add", "empty:/srv/spool/")
    assert (found["srv"], found["srv/spool"]) == ("drwxr-xr-x 0/0", "drwxr-xr-x 0/0")
    assert "srv" not in listed("--add", "empty")
    Path("empty/.wh.x").touch()
    assert "srv" not in listed("--add", "empty:/srv")
    Path("empty/.wh.x").unlink()
    assert main(["in.tar", "other.tar", "--add", "empty:/etc/motd"]) == 7
    assert "in.tar » etc/motd: empty cannot be added as etc/motd: this is a file" in capsys.readouterr().err
