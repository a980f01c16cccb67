"""What scripts change, in every format of layers: as unpackers see it, the tree is that of a chroot by hand."""

import os
import shutil
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

import cosremaster
from cosremaster import RunScript
from cosremaster.overlay import run_script
from tests.fixtures import tools
from tests.fixtures.tools import EPOCH, run
from tests.support.archives_of_trees import write_tree

CHANGES = (
    ("chmod 0711 /", "chmod 0711 ."),
    ("chmod 0700 /etc", "chmod 0700 etc"),
    ("chown 7 /usr/share", "chown 7 usr/share"),
    ("chmod 1777 /usr/share/doc", "chmod 1777 usr/share/doc"),
    ("write /etc/one changed", "echo changed > etc/one"),  # both names
    ("rm /usr/b", "rm usr/b"),
    ("mkdir /usr/b", "mkdir usr/b"),
    ("write /usr/b/new 1", "echo 1 > usr/b/new"),
    ("rm /srv", "rm -r srv"),
    ("symlink usr/share /srv", "ln -s usr/share srv"),
    ("link /usr/alone /usr/second", "ln usr/alone usr/second"),
    ("rm /etc/three", "rm etc/three"),
    ("write /etc/three own", "echo own > etc/three"),
    ("chmod 0755 /sbin/tool", "chmod 0755 sbin/tool"),  # loses its set-user-ID bit
)
FAKE = "\n".join(line for line, _ in CHANGES)
# An ordinary user gives nothing away, and owns all that is unpacked.
BY_HAND = "umask 022; " + "; ".join(line for _, line in CHANGES if os.geteuid() == 0 or not line.startswith("chown "))


@pytest.fixture(autouse=True)
def session(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(run_script._RUNNERS, "namespace", ("tests.support.fake_session", "run_script", "check_run"))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    files = {name: name for name in ("etc/one", "etc/three", "usr/b", "usr/alone", "usr/share/doc/a", "srv/x/y")}
    root = write_tree(
        tmp_path_factory.mktemp("run") / "root", {**files, "sbin/tool": "tool", "sbin/init": "#!/bin/sh\n"}
    )
    os.link(root / "etc/one", root / "etc/two")
    os.link(root / "etc/three", root / "etc/four")
    (root / "sbin/tool").chmod(0o4755)
    root.chmod(0o755)
    for path in [root, *root.rglob("*")]:
        os.utime(path, (EPOCH, EPOCH), follow_symlinks=False)
    return root


def describe(root: Path) -> dict[str, tuple[object, ...]]:
    """Type, mode, owner, contents and the other names of everything in ``root``."""
    names: dict[int, list[str]] = {}
    facts: dict[str, tuple[object, ...]] = {}
    paths = sorted([root, *root.rglob("*")])
    for path in paths:
        names.setdefault(path.lstat().st_ino, []).append(str(path.relative_to(root)))
    for path in paths:
        status = path.lstat()
        content = os.readlink(path) if path.is_symlink() else path.read_bytes() if path.is_file() else b""
        mode = stat.S_IFMT(status.st_mode) if path.is_symlink() else status.st_mode
        facts[str(path.relative_to(root))] = (mode, status.st_uid, content, tuple(names[status.st_ino]))
    return facts


def find_names(root: Path) -> str:
    return "".join(
        f"./{path.relative_to(root)}\n" if path != root else ".\n" for path in sorted([root, *root.rglob("*")])
    )


def make_cpio(root: Path, target: Path) -> None:
    target.write_bytes(run(["cpio", "-o", "-H", "newc", "--quiet"], cwd=root, stdin=find_names(root).encode()))


def make_tar(root: Path, target: Path) -> None:
    run(["tar", "-C", str(root), "--sort=name", "-cf", str(target), "."])


def make_squashfs(root: Path, target: Path) -> None:
    run(["mksquashfs", str(root), str(target), "-quiet", "-no-progress"])


def unpack_cpio(image: Path, folder: Path) -> None:
    run(["cpio", "-idm", "--quiet", "--no-absolute-filenames", "-F", str(image)], cwd=folder)
    lines = run(["cpio", "-tv", "--quiet", "-F", str(image)]).splitlines()
    assert lines[0].startswith(b"drwx--x--x ") and lines[0].endswith(b" .")
    folder.chmod(0o711)  # which GNU cpio leaves as it is


def unpack_tar(image: Path, folder: Path) -> None:
    run(["tar", "-C", str(folder), "-xpf", str(image)])


def unpack_squashfs(image: Path, folder: Path) -> None:
    run(["unsquashfs", "-q", "-n", "-f", "-d", str(folder), str(image)])


FORMATS: dict[str, tuple[str, Callable[[Path, Path], None], Callable[[Path, Path], None]]] = {
    "cpio": ("root.cpio", make_cpio, unpack_cpio),
    "tar": ("root.tar", make_tar, unpack_tar),
    "squashfs": ("root.squashfs", make_squashfs, unpack_squashfs),
}


@pytest.mark.parametrize("name", FORMATS)
def test_the_tree_is_that_of_a_chroot_by_hand(name: str, root: Path, tmp_path: Path) -> None:
    tools.require("cpio", "tar", "mksquashfs", "unsquashfs")
    file_name, make, unpack = FORMATS[name]
    make(root, tmp_path / file_name)
    target = tmp_path / f"new-{file_name}"
    result = cosremaster.remaster(tmp_path / file_name, target, run=[RunScript(command=FAKE)])
    by_hand, unpacked = tmp_path / "by-hand", tmp_path / "unpacked"
    shutil.copytree(root, by_hand, symlinks=True)
    run(["cp", "-a", "--remove-destination", f"{root}/.", str(by_hand)])
    run(["sh", "-ec", BY_HAND], cwd=by_hand)
    unpacked.mkdir()
    unpack(target, unpacked)
    assert describe(unpacked) == describe(by_hand)
    # What the script did not touch is not packed again.
    assert b"usr/share/doc/a" not in (*result.replaced, *result.added)
    again = cosremaster.remaster(target, tmp_path / f"again-{file_name}", run=[RunScript(command="chmod 0700 /etc")])
    assert again.identical


def test_a_directory_of_several_archives_changes_in_each(tmp_path: Path) -> None:
    tools.require("cpio")
    first = write_tree(tmp_path / "first", {"etc/one": "1\n", "init": "#!/bin/sh\n"})
    second = write_tree(tmp_path / "second", {"etc/two": "2\n", "usr/x": "x\n"})
    for folder in (first, second):
        make_cpio(folder, tmp_path / f"{folder.name}.cpio")
    image = tmp_path / "initrd.img"
    image.write_bytes((tmp_path / "first.cpio").read_bytes() + (tmp_path / "second.cpio").read_bytes())
    command = RunScript(command="chmod 0700 /etc\nwrite /etc/three 3\nchmod 0711 /usr")
    cosremaster.remaster(image, tmp_path / "new.img", run=[command], layer="initrd.img")
    with cosremaster.open(tmp_path / "new.img") as opened:
        assert [opened.stat(f"{number}::etc").mode for number in ("#1", "#2")] == [0o700, 0o700]
        assert opened.stat("#2::usr").mode == 0o711
        assert opened.read("#2::etc/three") == b"3\n"
    assert cosremaster.verify(tmp_path / "new.img", deep=True).ok
