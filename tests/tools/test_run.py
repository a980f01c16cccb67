"""Scripts inside root file systems, by the command: what they see, what becomes of it, how they end."""

from __future__ import annotations

import json
import os
import pty
import re
import shutil
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

import cosremaster
from cosremaster import RunScript, ScriptError
from cosremaster.cli import main
from tests.fixtures import tools
from tests.fixtures.tools import EPOCH, run
from tests.support.archives_of_trees import write_tree
from tests.support.busybox_roots import make_busybox_root, pack_tar
from tests.support.live_discs import CASPER, initramfs
from tests.support.user import ordinary_user

CUSTOMIZE = """#!/bin/sh
set -e
[ "$(cat /run/cosremaster/note)" = "for $SITE" ]
[ "$(id -u)" = 0 ]
echo "$SITE" > /etc/hostname
echo more >> /etc/one
chown 33:33 /srv; chmod 2750 /srv; cp /etc/hostname /srv/tool; chown 33:0 /srv/tool; chmod 4755 /srv/tool
mknod /srv/null c 1 3; mknod /srv/pipe p
mv /usr/share/doc /usr/share/documents
rm -r /var/log; mkdir /var/log; touch /var/log/empty; echo line > /var/log/new.log
ln -s ../srv /etc/link; ln /srv/tool /srv/again
echo lost > /tmp/x; echo lost > /run/x; echo lost > /dev/shm/x
echo done with $SITE
"""
EXPECTED = {
    "./etc/hostname": "-rw-r--r-- 0/0 6", "./etc/one": "-rw-r--r-- 0/0 9", "./srv/": "drwxr-s--- 33/33 0",
    "./srv/again": "-rwsr-xr-x 33/0 6", "./srv/null": "crw-r--r-- 0/33 1,3", "./srv/pipe": "prw-r--r-- 0/33 0",
    "./var/log/empty": "-rw-r--r-- 0/0 0", "./var/log/new.log": "-rw-r--r-- 0/0 5",
    "./usr/share/documents/a": "-rw-r--r-- 0/0 2",
}  # fmt: skip


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_busybox_root(tmp_path_factory.mktemp("busybox") / "root")


@pytest.fixture(scope="module")
def source(root: Path) -> Path:
    return pack_tar(root, root.parent / "root.tar")


def list_tar(path: Path) -> dict[str, str]:
    """Mode, owner and size (or device) of each name, as GNU tar sees them; links with what they lead to."""
    listed = {}
    for line in run(["tar", "--numeric-owner", "-tvf", str(path)]).decode().splitlines():
        mode, owner, size, _, _, name = line.split(maxsplit=5)
        listed[name] = f"{mode} {owner} {size}"
    return listed


def script_in(folder: Path) -> list[str]:
    (folder / "customize.sh").write_text(CUSTOMIZE)
    (folder / "files").mkdir()
    (folder / "files/note").write_text("for north")
    return ["--run", f"{folder}/customize.sh", "--run-files", f"{folder}/files", "--run-env", "SITE=north"]


def check_customized(target: Path) -> None:
    listed = list_tar(target)
    assert {name: listed.get(name) for name in EXPECTED} == EXPECTED
    assert listed["./etc/link -> ../srv"].startswith("lrwxrwxrwx 0/0")
    assert "./srv/tool link to ./srv/again" in listed
    assert not [name for name in listed if name.startswith(("./usr/share/doc/", "./tmp/x", "./run/x", "./dev/shm"))]
    assert "./etc/two link to ./etc/one" in listed  # both names have the new bytes
    with cosremaster.open(target) as image:
        assert image.read("etc/two") == b"one\nmore\n"


def test_a_user_without_ids_changes_what_root_would(source: Path) -> None:
    with ordinary_user() as user:
        options = script_in(user.home)
        shutil.copy(source, user.home / "root.tar")
        user.own(user.home)
        done = user.run(user.home / "root.tar", user.home / "out.tar", *options, "--run-ids", "single", umask=0o077)
        assert done.returncode == 0, done.stderr
        assert "customize.sh | done with north\n" in done.stderr
        assert "s, owners by a supervisor)" in done.stdout
        check_customized(user.home / "out.tar")
        assert not list(user.home.glob(".cosremaster*"))


def test_root_changes_the_same(source: Path, tmp_path: Path) -> None:
    assert main([str(source), f"{tmp_path}/out.tar", *script_in(tmp_path)]) == 0
    check_customized(tmp_path / "out.tar")
    before = list_tar(source)
    after = list_tar(tmp_path / "out.tar")
    untouched = [name for name in before if name.startswith(("./bin/", "./sbin/", "./etc/passwd"))]
    assert untouched and {name: after[name] for name in untouched} == {name: before[name] for name in untouched}


def test_without_effect_the_output_is_the_input(source: Path, tmp_path: Path) -> None:
    commands = ["true", "echo base > /etc/hostname; touch /etc/passwd; mkdir /srv/x; rmdir /srv/x", "echo x > /tmp/x"]
    for command in commands:
        result = cosremaster.remaster(source, tmp_path / "out.tar", run=[command], force=True)
        assert result.identical and not result.runs[0].changed, command
        assert (tmp_path / "out.tar").read_bytes() == source.read_bytes()


def test_a_plan_runs_the_script_and_writes_nothing(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = script_in(tmp_path)
    before = sorted(os.listdir(tmp_path))
    assert main(["plan", str(source), *options, "--json", "--clean"]) == 0
    plan = json.loads(capsys.readouterr().out)
    (run_facts,) = plan["runs"]
    assert run_facts["exit_code"] == 0 and run_facts["seconds"] > 0
    assert {"etc/link", "srv/tool", "var/log/empty"} <= {*run_facts["added"]}
    assert run_facts["leftovers"][0]["paths"] == ["var/log/new.log"]
    assert "var/log/new.log" not in plan["edits"]["added"]
    assert {"etc/hostname", "etc/one", "etc/two", "srv"} <= {*plan["edits"]["replaced"]}
    assert "var/log/old.log" in plan["edits"]["removed"]
    assert sorted(os.listdir(tmp_path)) == before


@pytest.mark.parametrize(
    ("command", "options", "said"),
    [
        (
            "echo it broke; exit 3",
            {},
            r"exit 3: it ended with exit code 3, .*; its last line: it broke$",
        ),
        (
            "sleep 100",
            {"timeout": 0.5},
            r"^sleep 100: it took longer than 0\.5 seconds and was ended, so nothing is written$",
        ),
        ("kill -9 $$", {}, r"^kill -9 \$\$: it was ended by signal 9, so nothing is written$"),
        ("no-such-program", {}, r"it ended with exit code 127, .*not found$"),
    ],
)
def test_a_script_that_fails_leaves_nothing(
    source: Path, tmp_path: Path, command: str, options: Mapping[str, float], said: str
) -> None:
    started = time.monotonic()
    with pytest.raises(ScriptError, match=said):
        cosremaster.remaster(source, tmp_path / "out.tar", run=[RunScript(command=command, **options)])  # type: ignore[arg-type]
    assert time.monotonic() - started < 30
    assert not os.listdir(tmp_path)


def test_a_remembered_run_gives_the_same_bytes(source: Path, tmp_path: Path) -> None:
    script_in(tmp_path)
    item = RunScript(
        tmp_path / "customize.sh", files=tmp_path / "files", environment={"SITE": "north"}, reuse=True, clean=True
    )
    first = cosremaster.remaster(source, tmp_path / "first.tar", add=[item], source_date_epoch=EPOCH)
    again = cosremaster.remaster(source, tmp_path / "again.tar", add=[item], source_date_epoch=EPOCH)
    assert (first.runs[0].is_remembered, again.runs[0].is_remembered) == (False, True)
    assert (tmp_path / "first.tar").read_bytes() == (tmp_path / "again.tar").read_bytes()
    fresh = RunScript(item.script, files=item.files, environment=item.environment, clean=True)
    cosremaster.remaster(source, tmp_path / "fresh.tar", add=[fresh], source_date_epoch=EPOCH)
    assert (tmp_path / "fresh.tar").read_bytes() == (tmp_path / "first.tar").read_bytes()


def test_a_script_sees_the_chain_of_squashfs_files_as_one_root(root: Path, tmp_path: Path) -> None:
    tools.require("mksquashfs", "genisoimage")
    disc = tmp_path / "disc"
    (disc / "casper").mkdir(parents=True)
    upper = write_tree(tmp_path / "upper", {"etc/live": "live\n", "etc/hostname": "upper\n"})
    for folder, name in ((root, "minimal"), (upper, "minimal.live")):
        run(["mksquashfs", str(folder), f"{disc}/casper/{name}.squashfs", "-quiet", "-no-progress", "-all-root"])
    initrd = initramfs(tmp_path, CASPER | {"conf/conf.d/l": "LAYERFS_PATH=minimal.live.squashfs\n"})
    (disc / "casper/initrd").write_bytes(initrd)
    (disc / "casper/vmlinuz").write_text("k")
    (disc / "boot/grub").mkdir(parents=True)
    (disc / "boot/grub/grub.cfg").write_text(
        "menuentry x { linux /casper/vmlinuz layerfs-path=minimal.live.squashfs\ninitrd /casper/initrd }\n"
    )
    run(["genisoimage", "-quiet", "-R", "-o", f"{tmp_path}/in.iso", str(disc)])
    command = "set -e; cat /etc/hostname /etc/live /etc/one > /etc/all; rm /etc/passwd; chmod 700 /usr/share/doc"
    result = cosremaster.remaster(tmp_path / "in.iso", tmp_path / "out.iso", run=[command])
    assert result.layer == "casper/minimal.live.squashfs"
    with cosremaster.open(tmp_path / "out.iso") as image:
        assert image.read("casper/minimal.live.squashfs::etc/all") == b"upper\nlive\none\n"
        assert image.stat("casper/minimal.live.squashfs::etc/passwd").type == "char"  # a whiteout
        assert image.stat("casper/minimal.live.squashfs::usr/share/doc").mode == 0o700
        assert [entry.name for entry in image.ls("casper/minimal.live.squashfs::usr/share/doc")] == []
        assert image.read("casper/minimal.squashfs::etc/passwd").startswith(b"root:")
    result = cosremaster.remaster(tmp_path / "in.iso", tmp_path / "new.iso", run=[command], as_layer="site")
    new = "casper/minimal.live.site.squashfs"
    assert (result.layer, result.runs[0].layer) == (new, new)
    with cosremaster.open(tmp_path / "new.iso") as image:
        assert image.read(f"{new}::etc/all") == b"upper\nlive\none\n"
        assert image.stat(f"{new}::etc/passwd").type == "char"


def type_into_shell(source: Path, target: Path, *lines: str) -> tuple[int, str]:
    """The exit code of ``cosremaster shell`` on a terminal where somebody types ``lines``, and what stood there."""
    pid, fd = pty.fork()
    if not pid:
        os.execv(sys.executable, [sys.executable, "-m", "cosremaster", "shell", str(source), str(target)])
    seen = b""
    waiting = [line.encode() + b"\n" for line in lines]
    try:
        while True:
            if waiting and re.sub(rb"\x1b\[[0-9;?]*[A-Za-z]", b"", seen).endswith(b"# "):  # the prompt
                os.write(fd, waiting.pop(0))
                seen += b"\n"
            seen += os.read(fd, 4096)
    except OSError:  # the terminal's other end is closed
        pass
    finally:
        os.close(fd)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), seen.decode()


def test_what_is_typed_into_a_shell_becomes_the_edit(source: Path, tmp_path: Path) -> None:
    code, seen = type_into_shell(source, tmp_path / "out.tar", "echo typed > /etc/hostname", "exit")
    assert code == 0, seen
    assert "run shell: 1 changed (" in seen
    with cosremaster.open(tmp_path / "out.tar") as image:
        assert image.read("etc/hostname") == b"typed\n"
    code, seen = type_into_shell(source, tmp_path / "no.tar", "rm -r /etc", "exit 4")
    assert code == 11 and "shell: it ended with exit code 4, so nothing is written" in seen
    assert not (tmp_path / "no.tar").exists()


def test_a_shell_keeps_standard_input_and_output(source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["shell", str(source), "-"]) == 2
    assert "a shell needs standard input and output for itself" in capsys.readouterr().err
