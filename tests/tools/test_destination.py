"""Where contents of a folder or an archive go, and with which owners and modes, as GNU tar lists them."""

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
    over = listed("--add", "home.tar:/etc/motd", "--force-type")  # in place of a file
    assert (over["etc/motd"], "etc/motd/doc/a" in over) == ("drwxr-x--- 1000/1001", True)


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


def test_an_archive_keeps_its_set_user_id_bits(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A root archive laid over another, or packed as a squashfs, had a sudo and a mount that could do nothing."""
    for name, mode in {"sudo": 0o4755, "wall": 0o2755, "ls": 0o755}.items():
        Path("home", name).write_text(name)
        Path("home", name).chmod(mode)
    Path("home/mail").mkdir()
    Path("home/mail").chmod(0o2775)
    run(["tar", "--owner=0", "--group=0", "--numeric-owner", "-C", "home", "-cf", "own.tar", "."])
    told = "warning: own.tar: set-user-ID and set-group-ID bits are kept (--no-setuid drops them): sudo, wall\n"
    found = listed("--add", "own.tar")
    assert capsys.readouterr().err == told
    assert [found[name][:10] for name in ("sudo", "wall", "ls", "mail")] == [
        "-rwsr-xr-x", "-rwxr-sr-x", "-rwxr-xr-x", "drwxrwsr-x",
    ]  # fmt: skip
    assert main(["pack", "own.tar", "root.tar", "--quiet"]) == 0
    assert b"-rwsr-xr-x" in run(["tar", "-tvf", "root.tar", "sudo"])
    assert capsys.readouterr().err == told
    assert listed("--add", "own.tar", "--setuid")["sudo"][:10] == "-rwsr-xr-x"
    assert not capsys.readouterr().err
    assert listed("--add", "own.tar", "--mode", "ug-s")["sudo"][:10] == "-rwxr-xr-x"


def test_set_user_id_bits_go_where_owners_do_or_are_not_wanted(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("home/sudo").write_text("x")
    Path("home/sudo").chmod(0o4755)
    run(["tar", "--owner=1000", "--group=1000", "--numeric-owner", "-C", "home", "-cf", "user.tar", "."])
    for words in (["--owner", "root"], ["--no-setuid"]):
        assert listed("--add", "user.tar", *words)["sudo"][:10] == "-rwxr-xr-x"
        assert "user.tar » sudo: its set-user-ID or set-group-ID bit is not taken over" in capsys.readouterr().err
    assert listed("--add", "user.tar", "--owner", "root", "--setuid")["sudo"] == "-rwsr-xr-x 0/0"
    recipe = 'input = "in.tar"\noutput = "out.tar"\n[[add]]\nsource = "user.tar"\nsetuid = false\n'
    Path("r.toml").write_text(recipe)
    assert main(["build", "r.toml", "--force", "--quiet"]) == 0
    assert b"-rwxr-xr-x" in run(["tar", "-tvf", "out.tar", "./sudo"])
    assert listed("--add", "home")["sudo"][:10] == "-rwxr-xr-x"
