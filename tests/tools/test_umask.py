"""Modes and extended attributes of what is added: the builder's umask shows nowhere, and what is lost is told."""

import os
import shutil
import stat
import subprocess
from pathlib import Path

import pytest

from cosremaster.cli import main
from cosremaster.demo.image import build_archive, regular
from tests.fixtures.tools import leave_out, require, run

BUILD = """
umask {umask}; mkdir -p site/etc/sudoers.d site/usr/bin && echo a > site/etc/sudoers.d/a
printf '#!/bin/sh\n' > site/usr/bin/tool; chmod +x site/usr/bin/tool; mkfifo site/etc/pipe
find site -exec touch -h -d @1000000000 {{}} +
"""


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in.cpio").write_bytes(build_archive([regular(b"init", b"#!/bin/sh\n", 0o755)]))
    return tmp_path


def listed(image: str) -> dict[str, str]:
    """The modes that GNU cpio lists, by name."""
    lines = run(["cpio", "-itv", "--quiet"], stdin=Path(image).read_bytes()).decode().splitlines()
    return {line.split()[-1]: line.split()[0] for line in lines}


def added(*words: str) -> dict[str, str]:
    Path("out.cpio").unlink(missing_ok=True)
    assert main(["in.cpio", "out.cpio", "--layer", "in.cpio", "--quiet", *words]) == 0
    return listed("out.cpio")


@pytest.mark.parametrize("umask", ["000", "002", "007", "022", "027", "077"])
def test_the_umask_of_the_builder_shows_nowhere(work: Path, umask: str, capfd: pytest.CaptureFixture[str]) -> None:
    require("cpio")
    run(["sh", "-ec", BUILD.format(umask=umask)])
    assert added("--add", "site") == {
        "init": "-rwxr-xr-x", "etc": "drwxr-xr-x", "etc/sudoers.d": "drwxr-xr-x", "etc/sudoers.d/a": "-rw-r--r--",
        "etc/pipe": "prw-r--r--", "usr": "drwxr-xr-x", "usr/bin": "drwxr-xr-x", "usr/bin/tool": "-rwxr-xr-x",
    }  # fmt: skip
    closed = {"007": "others", "027": "others", "077": "group and others"}.get(umask)
    said = capfd.readouterr().err
    assert (f"warning: site: nothing in it is open to {closed}, as under umask" in said) is (closed is not None)
    before = Path("out.cpio").read_bytes()
    mask = os.umask(0o077)
    try:
        added("--add", "site")
    finally:
        os.umask(mask)
    assert Path("out.cpio").read_bytes() == before
    run(["sh", "-ec", "rm -r site; " + BUILD.format(umask="022")])
    added("--add", "site")
    assert Path("out.cpio").read_bytes() == before


def test_what_no_umask_made_stays(work: Path) -> None:
    require("cpio")
    run(["sh", "-ec", BUILD.format(umask="002")])
    modes = {"key": 0o600, "shadow": 0o640, "sudoers": 0o440, "old": 0o444, "half": 0o744}
    for name, mode in modes.items():
        (work / "site" / name).write_text(name)
        (work / "site" / name).chmod(mode)
    for name, mode in {"root": 0o700, "tmp": 0o1777, "spool": 0o777}.items():
        (work / "site" / name).mkdir()
        (work / "site" / name).chmod(mode)
    found = added("--add", "site")
    assert {name: found[name] for name in (*modes, "root", "tmp", "spool")} == {
        "key": "-rw-------", "shadow": "-rw-r-----", "sudoers": "-r--r-----", "old": "-r--r--r--",
        "half": "-rwxr-xr-x", "root": "drwx------", "tmp": "drwxrwxrwt", "spool": "drwxr-xr-x",
    }  # fmt: skip
    assert added("--add", "site/key:/a/", "--add", "site/half:/a/")["a/key"] == "-rw-------"


@pytest.mark.parametrize("umask", ["027", "007"])
def test_what_is_closed_to_the_group_is_not_opened_to_others(work: Path, umask: str) -> None:
    """Under umask 027 a key of mode 0600 became 0604: nothing in the folder was open to others, so all was opened."""
    require("cpio")
    run(["sh", "-ec", BUILD.format(umask=umask)])
    for name, mode in {"key": 0o600, "pass": 0o710, "tool": 0o700}.items():
        (work / "site" / name).write_text(name)
        (work / "site" / name).chmod(mode)
    found = added("--add", "site")
    assert [found[name] for name in ("key", "pass", "tool")] == ["-rw-------", "-rwx--x---", "-rwx------"]
    assert (found["etc/sudoers.d/a"], found["usr/bin/tool"]) == ("-rw-r--r--", "-rwxr-xr-x")


def test_who_says_a_mode_gets_it(work: Path) -> None:
    require("cpio", "tar")
    run(["sh", "-ec", BUILD.format(umask="002")])
    name = "etc/sudoers.d/a"
    assert (added("--add", "site", "--keep-modes")[name], listed("out.cpio")["etc"]) == ("-rw-rw-r--", "drwxrwxr-x")
    assert added("--add", "site", "--mode", "0664")[name] == "-rw-rw-r--"
    assert added("--add", "site", "--mode", "g+w")[name] == "-rw-rw-r--"
    (work / "m.mtree").write_text("./etc type=dir mode=0775\n./etc/sudoers.d/a type=file mode=0660\n")
    assert added("--add", "site", "--mtree", "m.mtree")[name] == "-rw-rw----"
    assert listed("out.cpio")["etc"] == "drwxrwxr-x"
    run(["tar", "-cf", "site.tar", "-C", "site", "."])
    assert added("--add", "site.tar")[name] == "-rw-rw-r--"
    recipe = 'input = "in.cpio"\noutput = "out.cpio"\nlayer = "in.cpio"\n[[add]]\nsource = "site"\nkeep_modes = true\n'
    (work / "site.toml").write_text(recipe)
    assert main(["build", "site.toml", "--force", "--quiet"]) == 0
    assert listed("out.cpio")[name] == "-rw-rw-r--"


def test_an_mtree_file_or_a_rule_that_keeps_the_set_user_id_bit_is_no_loss(
    work: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    require("cpio")
    (work / "site").mkdir()
    (work / "site/su").write_text("x")
    (work / "site/su").chmod(0o4755)
    (work / "m.mtree").write_text("./su type=file mode=4755\n")
    assert added("--add", "site", "--mtree", "m.mtree")["su"] == "-rwsr-xr-x"
    assert not capfd.readouterr().err
    assert added("--add", "site")["su"] == "-rwxr-xr-x"
    assert capfd.readouterr().err == "warning: site » su: its set-user-ID or set-group-ID bit is not taken over\n"


def set_attributes(folder: Path) -> None:
    """Give files of ``folder`` a capability, an ACL and a user attribute; skip where that cannot be done."""
    require("setfacl", "setcap")
    for name in ("ping", "acl", "user", "plain"):
        (folder / name).write_text(name)
    try:
        os.setxattr(folder / "user", "user.site", b"7")
        run(["setfacl", "-m", "u:1234:r", folder / "acl"])
        run(["setcap", "cap_net_raw+ep", folder / "ping"])
    except (OSError, subprocess.CalledProcessError, AssertionError):
        leave_out("This file system, or an ordinary user, cannot set these attributes.")


@pytest.mark.parametrize("packed", [False, True])
def test_attributes_that_a_layer_cannot_hold_are_told(
    work: Path, packed: bool, capfd: pytest.CaptureFixture[str]
) -> None:
    (work / "site").mkdir()
    set_attributes(work / "site")
    source = "site"
    if packed:
        source = "site.tar"
        run(["tar", "--acls", "--xattrs", "--xattrs-include=*", "-cf", source, "-C", "site", "."])
    added("--add", source)
    assert capfd.readouterr().err.splitlines() == [
        f"warning: {source} » ping: its file capabilities are not taken over: a cpio archive holds none",
        f"warning: {source}: ACLs are not taken over: a cpio archive holds none: acl",
        f"warning: {source}: extended attributes are not taken over: a cpio archive holds none: user",
    ]
    if not packed:
        added("--add", "site/ping:/bin/")
        assert "warning: site/ping: its file capabilities are not taken over" in capfd.readouterr().err
        assert "user.site" in os.listxattr("site/user"), "the source stays as it is"
        shutil.rmtree("site")


def test_many_scripts_share_a_line_and_those_of_archives_have_none(
    work: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (work / "site").mkdir()
    for name in "abcde":
        (work / "site" / name).write_text("#!/bin/sh\n")
        assert not (work / "site" / name).stat().st_mode & stat.S_IXUSR
    added("--add", "site")
    assert capfd.readouterr().err == ("warning: 5 files begin with #! but are not executable: a, b, c and 2 more\n")
    added("--add", "site/a:/x/")
    assert capfd.readouterr().err == "warning: x/a begins with #! but is not executable\n"
    run(["tar", "-cf", "site.tar", "-C", "site", "."])
    added("--add", "site.tar")
    assert not capfd.readouterr().err
