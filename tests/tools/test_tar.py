"""Tar archives of many makers, looked into and edited; GNU tar, bsdtar, busybox and Python's tarfile judge."""

from __future__ import annotations

import hashlib
import json
import os
import stat
import tarfile
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import pytest

import cosremaster
from cosremaster.cli import main
from cosremaster.remastering.image import OpenedImage
from tests.fixtures import tools
from tests.fixtures.tools import EPOCH, run
from tests.support.archives_of_trees import PACKERS, pack_tree, write_tree

Facts = dict[str, tuple[object, ...]]
LONG = "long/" + "d" * 90 + "/" + "e" * 90 + "/" + "f" * 120

FORMS: dict[str, tuple[str, ...]] = {
    "gnu": ("tar", "--format=gnu", "-S"),
    "oldgnu": ("tar", "--format=oldgnu"),
    "oldgnu, sparse": ("tar", "--format=oldgnu", "-S"),
    "global header": ("tar", "--format=posix", "--pax-option=globexthdr.name=x,comment=hello"),
    "pax": ("tar", "--format=pax"),
    "pax, all attributes": ("tar", "--format=pax", "-S", "--xattrs", "--xattrs-include=*", "--acls"),
    "sparse 0.0": ("tar", "--format=pax", "-S", "--sparse-version=0.0"),
    "sparse 0.1": ("tar", "--format=pax", "-S", "--sparse-version=0.1"),
    "sparse 1.0": ("tar", "--format=pax", "-S", "--sparse-version=1.0"),
    "ustar": ("tar", "--format=ustar"),
    "v7": ("tar", "--format=v7"),
    "small records": ("tar", "--format=gnu", "-b", "1"),
    "large records": ("tar", "--format=pax", "-b", "200"),
    "bsdtar": ("bsdtar",),
    "bsdtar v7": ("bsdtar", "--format", "v7"),
    "bsdtar ustar": ("bsdtar", "--format", "ustar"),
    "bsdtar gnu": ("bsdtar", "--format", "gnutar"),
    "busybox": ("busybox", "tar"),
}
SHORT = ("ustar", "v7", "bsdtar v7", "bsdtar ustar", "busybox")
"""Forms that do not hold everything of the tree."""


@pytest.fixture(scope="module")
def trees(tmp_path_factory: pytest.TempPathFactory) -> dict[bool, Path]:
    """A tree with what every form holds (True), and one with everything."""
    folder = tmp_path_factory.mktemp("tar")
    made = {}
    for is_short in (True, False):
        root = folder / f"root{is_short}"
        write_tree(
            root, {"etc/hostname": "old\n", "sbin/init": "#!/bin/sh\n", "usr/share/doc/a": "a\n", "usr/b": "b" * 999}
        )
        (root / "etc/passwd").write_text("root:x:0:0::/:/bin/sh\nsite:x:4321:4321::/:\n")
        (root / "etc/group").write_text("wheel:x:0:\n")
        os.link(root / "etc/hostname", root / "etc/other")
        os.link(root / "etc/hostname", root / "usr/third")
        os.symlink("../usr/b", root / "etc/link")
        (root / "usr/empty").mkdir()
        if not is_short:
            write_tree(root, {LONG: "long\n", "etc/ä": "umlaut\n"})
            os.mkfifo(root / "usr/fifo")
            (root / "usr/sparse").write_bytes(b"")
            with (root / "usr/sparse").open("r+b") as file:
                for at in (0, 70_000, 400_000, 900_000):
                    file.seek(at)
                    file.write(b"data")
                file.truncate(1_500_000)
        for path in [root, *root.rglob("*")]:
            os.utime(path, (EPOCH, EPOCH), follow_symlinks=False)
        made[is_short] = root
    return made


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = write_tree(
        tmp_path_factory.mktemp("site") / "site",
        {"etc/hostname": "new\n", "opt/deep/file": "x" * 700, "opt/tool": "#!/bin/sh\n"},
    )
    os.symlink("deep", root / "opt/link")
    for path in [root, *root.rglob("*")]:
        if path.is_dir():
            path.chmod(0o755)  # whatever the umask
        os.utime(path, (EPOCH, EPOCH), follow_symlinks=False)
    return root


def make(form: str, root: Path, target: Path) -> Path:
    command = FORMS[form]
    tools.require(command[0])
    run([*command, "-cf", target, "-C", root, "."])
    return target


def on_disk(root: Path) -> Facts:
    """Type, mode, links, time, device and content of everything below ``root``."""
    facts: Facts = {}
    for path in _below(os.fsencode(root)):
        status = os.lstat(path)
        content = ""
        if stat.S_ISREG(status.st_mode):
            content = hashlib.sha256(Path(os.fsdecode(path)).read_bytes()).hexdigest()
        elif stat.S_ISLNK(status.st_mode):
            content = os.fsdecode(os.readlink(path))
        links = 0 if stat.S_ISDIR(status.st_mode) else status.st_nlink
        name = os.fsdecode(os.path.relpath(path, os.fsencode(root)))
        facts[name] = (status.st_mode, links, int(status.st_mtime), status.st_rdev, content)
    return facts


def _below(root: bytes) -> Iterator[bytes]:
    for directory, directories, files in os.walk(root):
        for name in (*directories, *files):
            yield os.path.join(directory, name)


def unpacked(archive: Path, folder: Path, unpacker: Sequence[str] = ("tar",)) -> Facts:
    folder.mkdir()
    run([*unpacker, "-xpf", archive, "-C", folder], env={"LC_ALL": "C.UTF-8"})
    return on_disk(folder)


def without_times(facts: Facts) -> Facts:
    """``facts`` without the times of what is no file: programs set them at different moments, or not at all."""
    return {
        name: (mode, links, *(rest if stat.S_ISREG(int(str(mode))) else rest[1:]))
        for name, (mode, links, *rest) in facts.items()
    }


def expected(root: Path, site: Path) -> Facts:
    """The tree ``root`` with ``site`` over it, without usr/share."""
    after = {name: facts for name, facts in on_disk(root).items() if not name.startswith("usr/share")}
    for name in ("etc/other", "usr/third"):
        mode, _, *rest = after[name]
        after[name] = (mode, 2, *rest)
    return after | {name: facts for name, facts in on_disk(site).items() if name not in after or name == "etc/hostname"}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_read(
    form: str, trees: dict[bool, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = trees[form in SHORT]
    archive = make(form, root, tmp_path / "a.tar")
    assert main(["extract", str(archive), str(tmp_path / "out")]) == 0
    assert on_disk(tmp_path / "out") == on_disk(root)
    run(["tar", "--compare", "-f", archive, "-C", tmp_path / "out"])
    capsys.readouterr()
    assert main(["ls", "-R", str(archive)]) == 0
    assert len(capsys.readouterr().out.splitlines()) == len(on_disk(root))
    assert main(["verify", "--deep", str(archive)]) == 0
    assert main(["diff", str(archive), str(make("pax", root, tmp_path / "b.tar"))]) == 0


@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_edited(form: str, trees: dict[bool, Path], site: Path, tmp_path: Path) -> None:
    root = trees[form in SHORT]
    archive, out = make(form, root, tmp_path / "a.tar"), tmp_path / "out.tar"
    cosremaster.remaster(archive, out, add=[site], remove=["usr/share"])
    after = expected(root, site)
    if "bsdtar" in form or form == "busybox":
        assert without_times(unpacked(out, tmp_path / "gnu")) == without_times(after)
    else:
        assert unpacked(out, tmp_path / "gnu") == after
    tools.require("bsdtar", "busybox")
    assert without_times(unpacked(out, tmp_path / "bsd", ["bsdtar"])) == without_times(after)
    if form in ("ustar", "busybox"):  # it knows no v7
        assert without_times(unpacked(out, tmp_path / "busybox", ["busybox", "tar"])) == without_times(after)
    with tarfile.open(out) as opened:
        assert {member.name.removeprefix("./") for member in opened.getmembers()} - {"."} == set(after)
    # What stays keeps its bytes: everything behind the entries that went, too.
    old, new = archive.read_bytes(), out.read_bytes()
    with tarfile.open(archive) as opened:
        members = opened.getmembers()
    for member, following in pairwise(members):
        name = member.name.removeprefix("./")
        if not member.islnk() and name != "etc/hostname" and not name.startswith("usr/share"):
            assert old[member.offset : following.offset] in new
    if len(old) % 10240 == 0:
        assert len(new) % 10240 == 0
    else:
        assert len(new) - len(new.rstrip(b"\0")) < 10240
    # A second run with the same changes nothing.
    cosremaster.remaster(out, tmp_path / "again.tar", add=[site])
    assert (tmp_path / "again.tar").read_bytes() == new


@pytest.mark.parametrize("packer", ["gzip", "xz", "zstd", "lz4", "bzip2"])
def test_compression_is_kept_and_so_is_the_front(
    packer: str, trees: dict[bool, Path], site: Path, tmp_path: Path
) -> None:
    tools.require(PACKERS[packer][0])
    noise = tmp_path / "root"
    write_tree(noise, {"a": "a"})
    (noise / "noise").write_bytes(hashlib.shake_256(b"noise").digest(300_000))
    (noise / "text").write_bytes(b"".join(b"%d\n" % number for number in range(200_000)))
    plain = make("gnu", noise, tmp_path / "a.tar").read_bytes()
    source, out = tmp_path / f"a.tar.{packer}", tmp_path / f"out.tar.{packer}"
    source.write_bytes(run(list(PACKERS[packer]), stdin=plain))
    cosremaster.remaster(source, out, add=[site])
    after = run([PACKERS[packer][0], "-dc"], stdin=out.read_bytes())
    end = len(plain.rstrip(b"\0")) // 512 * 512
    assert after.startswith(plain[:end])
    (tmp_path / "plain.tar").write_bytes(after)
    assert unpacked(tmp_path / "plain.tar", tmp_path / "x") == on_disk(noise) | on_disk(site)
    if packer == "xz":  # all chunks up to the first change
        assert source.read_bytes()[1000:250_000] in out.read_bytes()


MAKERS = {
    "cpio": "find . -depth | cpio -o -H ustar --quiet > {0}",
    "git": "git init -q . && git add -A && git -c user.name=a -c user.email=a@b commit -qm x"
    " && git archive --format=tar -o {0} HEAD && rm -r .git",
    "dpkg-deb": "mkdir DEBIAN && printf '%s\\n' 'Package: a' 'Version: 1' 'Architecture: all' 'Maintainer: a <a@b>'"
    " 'Description: a' > DEBIAN/control && dpkg-deb -Znone -b . {0}.deb && rm -r DEBIAN && ar p {0}.deb data.tar > {0}",
}


@pytest.mark.parametrize("maker", MAKERS)
def test_archives_of_programs_that_are_no_tar(maker: str, trees: dict[bool, Path], site: Path, tmp_path: Path) -> None:
    tools.require(maker, *(["ar"] if maker == "dpkg-deb" else []))
    root, archive = tmp_path / "root", tmp_path / "a.tar"
    run(["cp", "-a", trees[True], root])
    run(["sh", "-c", MAKERS[maker].format(archive)], cwd=root)
    before = unpacked(archive, tmp_path / "before")
    assert main(["extract", str(archive), str(tmp_path / "x")]) == 0
    assert without_times(on_disk(tmp_path / "x")) == without_times(before)
    assert "usr/b" in before
    cosremaster.remaster(archive, tmp_path / "out.tar", add=[site], remove=["usr/share"])
    for name, unpacker in {"gnu": ["tar"], "bsd": ["bsdtar"]}.items():
        after = unpacked(tmp_path / "out.tar", tmp_path / name, unpacker)
        stays = before.keys() - {"etc/hostname", "etc/other", "usr/third"}
        same = {path for path in stays if without_times(before)[path] == without_times(after).get(path)}
        assert {path for path in stays - same if not path.startswith("usr/share")} == set()
        assert after["etc/hostname"][-1] == on_disk(site)["etc/hostname"][-1]
        assert after["etc/other"][-1] == before["etc/other"][-1]


def test_dumps_of_gnu_tar_are_read_and_edited(trees: dict[bool, Path], site: Path, tmp_path: Path) -> None:
    """Directories of ``tar --listed-incremental`` have data: the names in them, one zero where there are none."""
    root, archive, out = trees[True], tmp_path / "a.tar", tmp_path / "out.tar"
    run(["tar", "--listed-incremental", tmp_path / "snapshot", "-cf", archive, "-C", root, "."])
    assert main(["extract", str(archive), str(tmp_path / "x")]) == 0
    assert on_disk(tmp_path / "x") == on_disk(root)
    cosremaster.remaster(archive, out, add=[site], remove=["usr/share"])
    assert unpacked(out, tmp_path / "gnu") == expected(root, site)


def test_hard_links_of_what_is_no_file(trees: dict[bool, Path], site: Path, tmp_path: Path) -> None:
    """Symlinks may have several names, too, and pipes and devices by some programs."""
    root = tmp_path / "root"
    run(["cp", "-a", trees[False], root])
    kinds = ["etc/link", "usr/fifo"]
    if os.geteuid() == 0:
        os.mknod(root / "usr/null", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
        kinds.append("usr/null")
    for path in kinds:
        os.link(root / path, root / f"{path}-2", follow_symlinks=False)
    archive = make("gnu", root, tmp_path / "a.tar")
    assert main(["extract", str(archive), str(tmp_path / "x")]) == 0
    assert (tmp_path / "x/etc/link").lstat().st_nlink == 2
    assert unpacked(archive, tmp_path / "gnu") == on_disk(tmp_path / "x")
    of_bsdtar = make("bsdtar", root, tmp_path / "b.tar")
    assert main(["extract", str(of_bsdtar), str(tmp_path / "b")]) == 0
    assert without_times(unpacked(of_bsdtar, tmp_path / "bsd", ["bsdtar"])) == without_times(on_disk(tmp_path / "b"))
    cosremaster.remaster(archive, tmp_path / "out.tar", add=[site], remove=kinds)
    assert (unpacked(tmp_path / "out.tar", tmp_path / "y")["etc/link-2"][-1]) == "../usr/b"
    assert main(["extract", str(tmp_path / "out.tar"), str(tmp_path / "z")]) == 0


@pytest.fixture(scope="module")
def layered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An archive to which files below lib/ were appended, where lib is a symlink; GNU tar unpacks them to usr/lib/."""
    folder = tmp_path_factory.mktemp("layered")
    base = write_tree(
        folder / "base", {"usr/lib/x": "old\n", "usr/lib/z": "z\n", "sbin/init": "i", "etc/hostname": "h\n"}
    )
    os.symlink("usr/lib", base / "lib")
    vendor = write_tree(folder / "vendor", {"lib/x": "vendor\n", "lib/y": "y\n", "lib/d/deep": "deep\n"})
    os.link(vendor / "lib/y", vendor / "lib/d/y2")
    for root in (base, vendor):
        for path in [root, *root.rglob("*")]:
            os.utime(path, (EPOCH, EPOCH), follow_symlinks=False)
    archive = folder / "a.tar"
    run(["tar", "--format=gnu", "-cf", archive, "-C", base, "."])
    run(["tar", "--format=gnu", "-rf", archive, "-C", vendor, "./lib/x", "./lib/y", "./lib/d"])
    return archive


def test_entries_below_a_symlink_are_where_they_unpack_to(
    layered: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = unpacked(layered, tmp_path / "gnu")
    assert "usr/lib/d/y2" in expected
    assert main(["extract", str(layered), str(tmp_path / "x")]) == 0
    assert without_times(on_disk(tmp_path / "x")) == without_times(expected)
    capsys.readouterr()
    for path in ("usr/lib/x", "lib/x"):
        assert main(["cat", f"{layered}::{path}"]) == 0
        assert capsys.readouterr().out == "vendor\n"
    assert main(["ls", f"{layered}::usr/lib"]) == 0
    assert capsys.readouterr().out.split() == ["d", "x", "y", "z"]


IN_LIB = {f"usr/lib/{name}" for name in ("x", "y", "z", "d", "d/deep", "d/y2")}
EDITS_BELOW_A_SYMLINK: dict[str, tuple[list[str], dict[str, str], set[str]]] = {
    "the same as the older": ([], {"usr/lib/x": "old\n"}, set()),
    "the directory is cleared": (["usr/lib/**"], {}, IN_LIB),
    "by the symlink": (["lib/x"], {}, {"usr/lib/x"}),
    "without the symlink": (["lib"], {}, {"lib"}),
    "without the symlink and the data of a link": (["lib", "usr/lib/y"], {}, {"lib", "usr/lib/y"}),
    "another thing in its place": (["lib"], {"lib/new": "new\n"}, set()),
}  # fmt: skip


@pytest.mark.parametrize("case", EDITS_BELOW_A_SYMLINK)
def test_entries_below_a_symlink_are_edited_where_they_unpack_to(case: str, layered: Path, tmp_path: Path) -> None:
    removed, added, gone = EDITS_BELOW_A_SYMLINK[case]
    before = unpacked(layered, tmp_path / "before")
    site = write_tree(tmp_path / "site", added)
    cosremaster.remaster(layered, tmp_path / "out.tar", add=[site] if added else [], remove=removed)
    for unpacker in ("tar", "bsdtar"):
        after = unpacked(
            tmp_path / "out.tar", tmp_path / unpacker, [unpacker, *(["-P"] if unpacker == "bsdtar" else [])]
        )
        assert after.keys() == (before.keys() - gone) | added.keys()
        for path in after.keys() & before.keys() - added.keys() - {"lib"}:
            assert after[path][-1] == before[path][-1], path
        for path, text in added.items():
            assert (tmp_path / unpacker / path).read_text() == text
        if "y2" not in "".join(gone) and "usr/lib/y" not in gone:
            assert os.path.samefile(tmp_path / unpacker / "usr/lib/y", tmp_path / unpacker / "usr/lib/d/y2")
    if "x" in "".join(gone):
        assert b"vendor\n" not in (tmp_path / "out.tar").read_bytes()


FILES_ALONE = ("etc/hostname", "etc/machine-id", "opt/z", "usr/lib/d/y", "usr/lib/x", "var/lib/cloud/seed/a")
"""An archive of files alone, as many builders of containers write them."""

EDITS_OF_FILES: dict[str, tuple[list[str], set[str], dict[str, str]]] = {
    "removed": (["--remove", "/usr/lib"], {"usr/lib/d/y", "usr/lib/x"}, {}),
    "removed by a pattern": (["--remove", "/usr/*"], {"usr/lib/d/y", "usr/lib/x"}, {}),
    "one of several": (["--remove", "/usr/lib/*"], {"usr/lib/d/y", "usr/lib/x"}, {}),
    "hidden": (["--add", "{hiding}"], {"usr/lib/d/y", "usr/lib/x"}, {}),
    "a file goes into it": (["--add", "{new}:/usr/lib"], set(), {"usr/lib/new": "new\n"}),
    "cleaned": (["--maas-clean"], {"var/lib/cloud/seed/a"}, {"etc/machine-id": ""}),
    "by force": (["--add", "{new}:/usr/lib/", "--add", "{file}", "--force-type"], {"opt/z"}, {
        "usr/lib/new": "new\n", "opt": "file\n"
    }),
}  # fmt: skip


@pytest.mark.parametrize("case", EDITS_OF_FILES)
def test_directories_need_no_entries(case: str, tmp_path: Path) -> None:
    words, gone, added = EDITS_OF_FILES[case]
    root = write_tree(tmp_path / "root", dict.fromkeys(FILES_ALONE, "old\n"))
    archive, out = tmp_path / "a.tar", tmp_path / "out.tar"
    run(["tar", "-cf", archive, "-C", root, *FILES_ALONE])
    places = {"hiding": write_tree(tmp_path / "hiding", {"usr/.wh.lib": ""}), "file": tmp_path / "file"}
    write_tree(places["file"], {"opt": "file\n"})
    (tmp_path / "new").write_text("new\n")
    places["new"] = tmp_path / "new"
    assert main([str(archive), str(out), *(word.format(**places) for word in words)]) == 0
    expected = dict.fromkeys(set(FILES_ALONE) - gone, "old\n") | added
    for unpacker in ("tar", "bsdtar", "busybox tar"):
        folder = tmp_path / unpacker
        tools.require(unpacker.split()[0])
        unpacked(out, folder, unpacker.split())
        files = (path for path in folder.rglob("*") if path.is_file())
        assert {str(path.relative_to(folder)): path.read_text() for path in files} == expected


def test_an_archive_without_entries_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = write_tree(tmp_path / "root", dict.fromkeys(FILES_ALONE, "old\n"))
    run(["tar", "-cf", tmp_path / "a.tar", "-C", root, *FILES_ALONE])
    run(["tar", "-czf", tmp_path / "a.tar.gz", "-C", root, *FILES_ALONE])
    for name in ("a.tar", "a.tar.gz"):
        assert main([str(tmp_path / name), str(tmp_path / "out.tar.gz"), "--remove", "/**"]) == 7
        assert f"{name}: nothing would be in it any more" in capsys.readouterr().err
        assert not (tmp_path / "out.tar.gz").exists()


def test_nothing_goes_over_a_directory_without_an_entry(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = write_tree(tmp_path / "root", dict.fromkeys(FILES_ALONE, "old\n"))
    run(["tar", "-cf", tmp_path / "a.tar", "-C", root, *FILES_ALONE])
    for name, text in (("opt", "file\n"), ("usr/lib", "-> ../etc")):
        site = write_tree(tmp_path / f"site-{name.partition('/')[0]}", {name: text})
        assert main([str(tmp_path / "a.tar"), str(tmp_path / "out.tar"), "--add", str(site)]) == 7
        assert "cannot go over this directory, which is not empty" in capsys.readouterr().err
        assert not (tmp_path / "out.tar").exists()


def test_empty_attributes_of_either_keyword(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tools.require("bsdtar", "setfattr")
    write_tree(tmp_path / "root", {"a": "a"})
    run(["setfattr", "-n", "user.empty", tmp_path / "root/a"])
    for keyword in ("SCHILY", "LIBARCHIVE"):
        archive = tmp_path / f"{keyword}.tar"
        run(["bsdtar", "--xattrs", "--options", f"xattrheader={keyword}", "-cf", archive, "-C", tmp_path / "root", "."])
        assert main(["stat", f"{archive}::a"]) == 0
        assert "user.empty" in capsys.readouterr().out


def test_several_streams_are_one_archive(trees: dict[bool, Path], site: Path, tmp_path: Path) -> None:
    plain = make("gnu", trees[False], tmp_path / "a.tar").read_bytes()
    for packer in ("gzip", "xz", "zstd", "bzip2", "lz4"):
        tools.require(PACKERS[packer][0])
        parts = [run(list(PACKERS[packer]), stdin=plain[at : at + 3333]) for at in range(0, len(plain), 3333)]
        source, out = tmp_path / f"a.tar.{packer}", tmp_path / f"out.tar.{packer}"
        source.write_bytes(b"".join(parts))
        result = cosremaster.remaster(source, out, add=[site], remove=["usr/share"])
        assert result.warnings == ()
        (tmp_path / "plain.tar").write_bytes(run([PACKERS[packer][0], "-dc"], stdin=out.read_bytes()))
        assert unpacked(tmp_path / "plain.tar", tmp_path / f"x{packer}") == expected(trees[False], site)


@pytest.mark.parametrize("packer", ["gzip", "xz", "zstd", "bzip2", "lz4"])
def test_streams_without_a_byte_may_come_first(
    packer: str, trees: dict[bool, Path], site: Path, tmp_path: Path
) -> None:
    """pzstd's files begin with a frame that is skipped; `cat` of parts may begin with one that is empty."""
    tools.require(PACKERS[packer][0])
    empty, archive = (
        run(list(PACKERS[packer]), stdin=data)
        for data in (b"", make("gnu", trees[False], tmp_path / "a.tar").read_bytes())
    )
    fronts = {"empty": empty, "several": empty * 3}
    if packer == "zstd":
        fronts["skipped"] = b"\x50\x2a\x4d\x18\4\0\0\0abcd"
    if packer == "xz":
        fronts["padded"] = empty + bytes(8)
    for name, front in fronts.items():
        source, out = tmp_path / f"{name}.tar.{packer}", tmp_path / f"out-{name}.tar.{packer}"
        source.write_bytes(front + archive)
        cosremaster.remaster(source, out, add=[site], remove=["usr/share"])
        (tmp_path / "plain.tar").write_bytes(run([PACKERS[packer][0], "-dc"], stdin=out.read_bytes()))
        assert unpacked(tmp_path / "plain.tar", tmp_path / f"x{name}") == expected(trees[False], site)


def test_what_is_behind_the_end_stays_and_is_told(trees: dict[bool, Path], site: Path, tmp_path: Path) -> None:
    first = make("gnu", trees[True], tmp_path / "a.tar").read_bytes()
    second = make("gnu", site, tmp_path / "b.tar").read_bytes()
    for name, pack in (("c.tar", bytes), ("c.tar.gz", lambda data: run(["gzip", "-n"], stdin=data))):
        source = tmp_path / name
        source.write_bytes(pack(first + second))
        assert main(["ls", f"{source}::opt"]) == 6  # as for GNU tar without --ignore-zeros
        result = cosremaster.remaster(source, tmp_path / f"out-{name}", remove=["usr/share"])
        assert "that programs that unpack it do not read; they stay" in str(result.warnings)
        data = (tmp_path / f"out-{name}").read_bytes()
        assert (run(["gzip", "-dc"], stdin=data) if name.endswith("gz") else data).endswith(
            second.rstrip(b"\0") + bytes(len(second) - len(second.rstrip(b"\0")))
        )


def test_attributes_and_acls_stay(tmp_path: Path, site: Path) -> None:
    tools.require("setfattr", "setfacl", "setcap")
    root = write_tree(tmp_path / "root", {"bin/ping": "ping", "etc/hostname": "old", "etc/acl": "acl", "etc/z": "z"})
    if os.geteuid() != 0:
        tools.leave_out("This test needs root, for file capabilities.")
    run(["setcap", "cap_net_raw+ep", root / "bin/ping"])
    run(["setfacl", "-m", "u:4321:rw", root / "etc/acl"])
    run(["setfattr", "-n", "user.note", "-v", "a=b%", root / "etc/z"])
    archive = make("pax, all attributes", root, tmp_path / "a.tar")
    os.link(root / "bin/ping", root / "bin/ping6")
    linked = make("pax, all attributes", root, tmp_path / "linked.tar")
    cosremaster.remaster(archive, tmp_path / "out.tar", add=[site], remove=["etc/z"])
    cosremaster.remaster(linked, tmp_path / "out-linked.tar", remove=["bin/ping"])
    options = ["--xattrs", "--xattrs-include=*", "--acls", "-xpf"]
    for name, ping in (("out", "ping"), ("out-linked", "ping6")):
        folder = tmp_path / f"x-{name}"
        folder.mkdir()
        run(["tar", *options, tmp_path / f"{name}.tar", "-C", folder])
        assert b"cap_net_raw=ep" in run(["getcap", folder / f"bin/{ping}"])
        assert b"user:4321:rw-" in run(["getfacl", "-n", folder / "etc/acl"])
    with cosremaster.open(archive) as image:
        assert "user.note" in str(image.stat("etc/z").xattrs)


def test_names_in_acls_are_those_of_the_system_in_it(
    tmp_path: Path, site: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """GNU tar without --numeric-owner writes names, and resolves them by the system that it extracts in."""
    tools.require("setfacl", "getfacl")
    users = "root:x:0:0::/:/bin/sh\noperator:x:4321:0::/:/bin/sh\n"
    root = write_tree(
        tmp_path / "root", {"etc/passwd": users, "etc/group": "root:x:0:\ncrew:x:77:\n", "etc/acl": "a", "srv/x": "x"}
    )
    run(["setfacl", "-m", "u:4321:rw,g:77:r", root / "etc/acl"])
    run(["setfacl", "-d", "-m", "u:4321:rwx", root / "srv"])
    os.link(root / "etc/acl", root / "etc/linked")
    archive, named = make("pax, all attributes", root, tmp_path / "a.tar"), tmp_path / "named.tar"
    with tarfile.open(archive) as source, tarfile.open(named, "w", format=tarfile.PAX_FORMAT) as target:
        for member in source:
            member.pax_headers = {
                keyword: text.replace("user:4321", "user:operator").replace("group:77", "group:crew")
                for keyword, text in member.pax_headers.items()
                if "posix_acl" not in keyword  # by numbers
            }
            target.addfile(member, source.extractfile(member) if member.isreg() else None)
    assert b"user:operator:rw" in named.read_bytes()
    assert list(cosremaster.diff(archive, named)) == []
    cosremaster.remaster(named, tmp_path / "out.tar", add=[site], remove=["etc/passwd"])
    assert b"user:operator:rw" in (tmp_path / "out.tar").read_bytes(), "headers stay"
    for address in (named, archive):
        folder = tmp_path / f"x-{address.name}"
        assert main(["extract", str(address), str(folder), "--quiet"]) == 0
        assert b"user:4321:rw-" in run(["getfacl", "-n", folder / "etc/acl"])
        assert b"default:user:4321:rwx" in run(["getfacl", "-n", folder / "srv"])
    (other := tmp_path / "other").mkdir()
    bare = make("pax, all attributes", other, tmp_path / "bare.tar")
    for added in (archive, named):  # as an overlay, too
        out, folder = tmp_path / f"over-{added.name}", tmp_path / f"n-{added.name}"
        result = cosremaster.remaster(bare, out, add=[cosremaster.AddPath(added, xattrs="all")])
        assert not result.warnings
        folder.mkdir()
        run(["tar", "--acls", "-xpf", out, "-C", folder])
        assert b"user:4321:rw-" in run(["getfacl", "-n", folder / "etc/acl"])
        assert b"group:77:r--" in run(["getfacl", "-n", folder / "etc/linked"])
        assert b"default:user:4321:rwx" in run(["getfacl", "-n", folder / "srv"])
    with tarfile.open(named) as source, tarfile.open(tmp_path / "lost.tar", "w", format=tarfile.PAX_FORMAT) as target:
        for member in source:
            if not member.name.endswith("etc/group"):  # and then nobody knows crew
                target.addfile(member, source.extractfile(member) if member.isreg() else None)
    item = cosremaster.AddPath(tmp_path / "lost.tar", xattrs="all")
    (warning,) = cosremaster.remaster(bare, tmp_path / "without.tar", add=[item]).warnings
    assert warning.endswith("its own /etc/passwd and /etc/group lack, and are not taken over: etc/acl")
    capsys.readouterr()
    lost, told = str(tmp_path / "lost.tar"), "its own /etc/passwd and /etc/group lack, and are left out: etc/acl"
    for number, words in enumerate(
        (["export", lost, "--maas", "lost"], ["extract", lost], ["extract", f"{lost}::etc", "--as", "tar"])
    ):
        taken = str(tmp_path / f"lost-{number}")
        assert main([*words, *(["--output"] if words[0] == "export" else []), taken]) == 0
        assert told in capsys.readouterr().err
    assert main(["extract", f"{lost}::srv", str(tmp_path / "srv")]) == 0
    assert told not in capsys.readouterr().err
    (warning,) = cosremaster.remaster(bare, tmp_path / "default.tar", add=[named]).warnings
    assert "ACLs are not taken over unless --xattrs names them: etc/acl, srv" in warning


def test_owner_names_are_those_of_the_system_in_it(trees: dict[bool, Path], site: Path, tmp_path: Path) -> None:
    archive = make("gnu", trees[True], tmp_path / "a.tar")
    cosremaster.remaster(archive, tmp_path / "out.tar", add=[cosremaster.AddPath(site, owner="4321:0")])
    with tarfile.open(tmp_path / "out.tar") as opened:
        member = opened.getmember("./opt/tool")
        assert (member.uid, member.gid, member.uname, member.gname) == (4321, 0, "site", "wheel")
    run(["tar", "--numeric-owner", "--format=gnu", "-cf", tmp_path / "n.tar", "-C", trees[True], "."])
    cosremaster.remaster(tmp_path / "n.tar", tmp_path / "n-out.tar", add=[cosremaster.AddPath(site, owner="4321:0")])
    with tarfile.open(tmp_path / "n-out.tar") as opened:
        assert opened.getmember("./opt/tool").uname == ""


def test_names_keep_their_style(trees: dict[bool, Path], site: Path, tmp_path: Path) -> None:
    for number, (options, prefix) in enumerate(
        ((["-P", str(trees[True])], "/"), (["-C", str(trees[True]), "etc", "usr"], ""))
    ):
        run(["tar", "-cf", tmp_path / f"{number}.tar", *options])
        cosremaster.remaster(tmp_path / f"{number}.tar", tmp_path / f"{number}-out.tar", add=[site])
        names = run(["tar", "-P", "-tf", tmp_path / f"{number}-out.tar"]).decode().splitlines()
        assert f"{prefix}opt/" in names
        assert f"{prefix}opt/tool" in names


def test_large_numbers_are_written_in_the_form_of_the_archive(trees: dict[bool, Path], tmp_path: Path) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / ("n" * 150)).write_text("x")
    for form in ("gnu", "pax", "ustar"):
        archive = make(form, trees[True], tmp_path / f"{form}.tar")
        cosremaster.remaster(
            archive,
            tmp_path / f"out-{form}.tar",
            add=[cosremaster.AddPath(tmp_path / "site", owner="3000000000:4000000000")],
        )
        with tarfile.open(tmp_path / f"out-{form}.tar") as opened:
            member = opened.getmember("./" + "n" * 150)
        assert (member.uid, member.gid) == (3_000_000_000, 4_000_000_000)
        listed = run(["tar", "--numeric-owner", "-tvf", tmp_path / f"out-{form}.tar"]).decode()
        assert "3000000000/4000000000" in listed
        assert run(["bsdtar", "-tvf", tmp_path / f"out-{form}.tar"]).decode().count("3000000000") == 1


def test_an_iso_with_archives_means_its_initramfs(
    trees: dict[bool, Path], site: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tools.require("xorriso", "cpio", "gzip")
    disc = write_tree(tmp_path / "disc", {"readme": "x"})
    (disc / "initrd.img").write_bytes(pack_tree(trees[True]))
    make("gnu", trees[True], disc / "root.tar")
    for number in range(5):
        (disc / f"p{number}.tgz").write_bytes(run(["gzip", "-nc", disc / "root.tar"]))
    image, out = tmp_path / "in.iso", tmp_path / "out.iso"
    run(["xorriso", "-as", "genisoimage", "-quiet", "-R", "-o", image, disc])
    result = cosremaster.remaster(image, out, add=[site])
    assert result.layer == "initrd.img"
    assert main(["inspect", str(image)]) == 0
    shown = capsys.readouterr().out
    assert "archive p0.tgz: tar gzip" in shown
    assert "and 3 more archives that are no initramfs" in shown
    assert main(["inspect", "--deep", str(image)]) == 0
    assert "layer root.tar" not in capsys.readouterr().out
    assert (
        main([str(image), str(out), "--force", "--layer", "root.tar", "--add", str(site), "--remove", "usr/share"]) == 0
    )
    capsys.readouterr()
    assert main(["extract", f"{out}::root.tar", str(tmp_path / "x")]) == 0
    assert on_disk(tmp_path / "x") == expected(trees[True], site)
    capsys.readouterr()
    assert main(["inspect", "--json", "--layer", "p1.tgz", str(image)]) == 0
    text = capsys.readouterr().out
    (layer,) = json.loads(text)["layers"]
    assert (layer["format"], layer["codec"], layer["looks_like"], layer["chosen"]) == ("gnu", "gzip", "system", True)


def test_an_iso_with_nothing_but_archives_says_how_they_are_meant(
    trees: dict[bool, Path], site: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tools.require("xorriso")
    disc = write_tree(tmp_path / "disc", {"readme": "x"})
    make("gnu", trees[True], disc / "root.tar")
    run(["xorriso", "-as", "genisoimage", "-quiet", "-R", "-o", tmp_path / "in.iso", disc])
    assert main([str(tmp_path / "in.iso"), str(tmp_path / "out.iso"), "--add", str(site)]) == 6
    assert "; root.tar can be changed with --layer" in capsys.readouterr().err


def test_an_archive_in_an_initramfs_is_meant_by_its_address(
    trees: dict[bool, Path], site: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tools.require("xz", "cpio")
    inner = write_tree(tmp_path / "initramfs", {"init": "#!/bin/sh\n", "bin/x": "x\n", "dev/y": "y"})
    make("gnu", trees[True], inner / "root.tar")
    run(["xz", inner / "root.tar"])
    source, out = tmp_path / "initrd", tmp_path / "out"
    source.write_bytes(pack_tree(inner))
    assert cosremaster.remaster(source, out, add=[site], force=True).layer == "initrd"
    result = cosremaster.remaster(
        source, out, layer="initrd::root.tar.xz", add=[site], remove=["usr/share"], force=True
    )
    assert result.layer == "initrd::root.tar.xz"
    capsys.readouterr()
    assert main(["extract", f"{out}::root.tar.xz", str(tmp_path / "x")]) == 0
    assert on_disk(tmp_path / "x") == expected(trees[True], site)


def test_the_index_is_remembered(trees: dict[bool, Path], site: Path, tmp_path: Path) -> None:
    archive = make("pax, all attributes", trees[False], tmp_path / "a.tar")
    outs = []
    for number in range(2):
        outs.append(tmp_path / f"out{number}.tar")
        with OpenedImage(archive) as image:
            assert (image.remembered_at is not None) == bool(number)
            image.remaster(outs[-1], cosremaster.Request(add=[site], remove=["usr/share"]))
    assert outs[0].read_bytes() == outs[1].read_bytes()


def test_a_container_for_export_and_html(
    trees: dict[bool, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    archive = make("gnu", trees[False], tmp_path / "a.tar")
    assert main(["inspect", "--html", str(tmp_path / "page.html"), str(archive)]) == 0
    assert "tar gnu" in (tmp_path / "page.html").read_text()
    assert main(["export", str(archive), "--maas", "demo", "--output", str(tmp_path / "demo.tar.gz")]) == 0


@pytest.mark.parametrize("kind", ["tar", "cpio"])
def test_the_name_of_the_output_says_its_codec(
    kind: str, trees: dict[bool, Path], site: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / f"in.{kind}"
    source.write_bytes(
        make("gnu", trees[True], source).read_bytes() if kind == "tar" else pack_tree(trees[True], "plain")
    )
    cosremaster.remaster(source, tmp_path / f"plain.{kind}", add=[site])
    plain = (tmp_path / f"plain.{kind}").read_bytes()
    before = source
    for end, packer in (("gz", "gzip"), ("xz", "xz"), ("zst", "zstd"), ("bz2", "bzip2"), ("lz4", "lz4")):
        tools.require(packer)
        out = tmp_path / f"out.{kind}.{end}"
        assert main([str(before), str(out), "--add", str(site)]) == 0
        assert run([packer, "-dc"], stdin=out.read_bytes()) == plain
        before = out
    assert main([str(before), str(tmp_path / f"back.{kind}")]) == 0  # without any other change
    assert (tmp_path / f"back.{kind}").read_bytes() == plain
    # A name that stays, or that says nothing, changes nothing.
    (tmp_path / "lies.gz").write_bytes(before.read_bytes())
    for name in ("other.gz", "image"):
        assert main([str(tmp_path / "lies.gz"), str(tmp_path / name)]) == 0
        assert (tmp_path / name).read_bytes() == before.read_bytes()


def test_a_name_that_says_another_kind_is_refused(
    trees: dict[bool, Path],
    site: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A tar archive was written under each such name, with exit code 0."""
    monkeypatch.chdir(tmp_path)
    Path("in.tar.xz").write_bytes(run(["xz"], stdin=make("gnu", trees[True], tmp_path / "a.tar").read_bytes()))
    before = sorted(tmp_path.iterdir())
    kinds = {
        "out.squashfs": "squashfs", "out.sfs": "squashfs", "out.erofs": "erofs", "out.cpio": "cpio", "out.cgz": "cpio",
        "out.cpio.xz": "cpio", "out.zip": "zip", "out.QCOW2": "qcow2",
    }  # fmt: skip
    for name, kind in kinds.items():
        assert main(["in.tar.xz", name, "--add", str(site)]) == 2
        assert f"{name}: the name says {kind}, and in.tar.xz stays tar" in capsys.readouterr().err
    for end, codec in {"lzma": "lzma", "tlz": "lzma", "lz": "lzip", "Z": "compress", "br": "brotli"}.items():
        assert main(["in.tar.xz", f"out.tar.{end}", "--add", str(site)]) == 2
        assert f"nothing new is written under {codec}" in capsys.readouterr().err
    assert sorted(tmp_path.iterdir()) == before
    Path("in.tar.lzma").write_bytes(run(["xz", "--format=lzma"], stdin=Path("a.tar").read_bytes()))
    for name in ("out.tar.lzma", "out.bak"):  # which say the same, or nothing
        assert main(["in.tar.lzma", name, "--add", str(site)]) == 0
        assert run(["xz", "--format=lzma", "-dc"], stdin=Path(name).read_bytes())[:2] == b"./"
