"""Extended attributes: from overlays and layers into layers; getfattr, getcap, the kernel and other unpackers judge."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import struct
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import cosremaster
from cosremaster.archives.reader import Archive, open_archive_file
from cosremaster.cli import main
from cosremaster.errors import CorruptError, Place
from tests.fixtures import tools
from tests.fixtures.tools import run
from tests.support.archives_of_trees import write_tree
from tests.support.user import open_folder, without_root

Attributes = dict[str, dict[str, bytes]]


def set_attributes(root: Path, attributes: Attributes) -> None:
    """Give the files below ``root`` attributes; skips where that is impossible."""
    for path, values in attributes.items():
        for name, value in values.items():
            try:
                os.setxattr(root / path, name, value, follow_symlinks=False)
            except OSError as error:
                tools.leave_out(f"This test needs a file system with {name}: {error.strerror}.")


def make(tree: Path, target: Path, *options: str) -> Path:
    tools.require("mksquashfs")
    run(["mksquashfs", str(tree), str(target), "-quiet", "-no-progress", *options])
    return target


def attributes_in(image: Path) -> Attributes:
    """The attributes of all files in ``image`` that have some."""
    with cosremaster.open(image, remember=False) as opened:
        return {
            os.fsdecode(entry.path): {os.fsdecode(name): value for name, value in entry.xattrs}
            for entry in opened.walk()
            if entry.xattrs
        }


LONG = b"long" * 100
OLD: Attributes = {
    "etc": {"user.note": b"directory"},
    "etc/a": {"user.note": b"kept", "user.binary": b"\0\xff\n"},
    "etc/b": {"user.note": b"kept", "user.binary": b"\0\xff\n"},
    "etc/c": {"user.empty": b"", "user.long": LONG},
    "etc/d": {"user.long": LONG},
}


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """A squashfs image with attributes, some of them in line and one, which two files share, out of line."""
    files = {f"etc/{name}": f"{name}\n" for name in "abcdefgh"}
    root = write_tree(tmp_path / "root", files | {"sbin/init": "i\n", "opt/x": "x\n"})
    os.link(root / "etc/a", root / "etc/a-2")
    set_attributes(root, OLD)
    return make(root, tmp_path / "in.sqfs", "-comp", "xz")


def test_nodes_of_squashfs_have_their_attributes(image: Path) -> None:
    assert attributes_in(image) == OLD | {"etc/a-2": OLD["etc/a"]}


def test_commands_show_attributes(image: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ls", "-l", f"{image}::etc"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line[10] for line in lines] == ["@", "@", "@", "@", "@", " ", " ", " ", " "]
    assert len({line.index(" 2 ") for line in lines}) == 1
    assert main(["stat", f"{image}::etc/a"]) == 0
    assert '  attribute user.binary=0x00ff0a\n  attribute user.note="kept"\n' in capsys.readouterr().out
    assert main(["stat", "--json", f"{image}::etc/a"]) == 0
    (node,) = json.loads(capsys.readouterr().out)["nodes"]
    assert node["xattrs"] == {"user.binary": "0x00ff0a", "user.note": "0x6b657074"}
    set_attributes(tmp_path / "root", {"etc/a": {"user.note": b"new"}, "etc/h": {"user.note": b"h"}})
    os.removexattr(tmp_path / "root/etc", "user.note")
    assert main(["diff", str(image), str(make(tmp_path / "root", tmp_path / "other.sqfs"))]) == 1
    shown = capsys.readouterr().out
    for line in ('user.note "kept" -> "new"', 'user.note none -> "h"', 'user.note "directory" -> none'):
        assert f"attribute {line}" in shown


@pytest.mark.parametrize(("place", "data"), [(0, b"\xff" * 6), (8, b"\0\0\0\0"), (16, b"\xff" * 8)])
def test_a_damaged_table_ends_in_a_sentence(place: int, data: bytes, image: Path) -> None:
    table = struct.unpack_from("<Q", image.read_bytes(), 56)[0]
    with image.open("r+b") as file:
        file.seek(table + place)
        file.write(data)
    with pytest.raises(CorruptError):
        attributes_in(image)


def getfattr(root: Path) -> Attributes:
    """The attributes below ``root`` as the kernel tells them."""
    return {
        str(path.relative_to(root)): {name: os.getxattr(path, name, follow_symlinks=False) for name in names}
        for path in sorted(root.rglob("*"))
        if (names := os.listxattr(path, follow_symlinks=False))
    }


@contextmanager
def mounted(image: Path, folder: Path) -> Iterator[Path]:
    """The tree as the kernel shows it."""
    if os.geteuid() != 0 or "\tsquashfs" not in Path("/proc/filesystems").read_text(encoding="ascii"):
        tools.leave_out("This test needs root and a kernel with squashfs.")
    folder.mkdir()
    run(["mount", "-t", "squashfs", "-o", "loop,ro", str(image), str(folder)])
    try:
        yield folder
    finally:
        run(["umount", str(folder)])


NEW: Attributes = {
    "opt/site": {"user.note": b"new directory"},
    "opt/site/shared": {"user.note": b"kept", "user.binary": b"\0\xff\n"},
    "opt/site/big": {f"user.big{number}": bytes([65 + number]) * 3000 for number in range(1)},
    "etc/c": {"user.empty": b"", "user.note": b"replaced"},
    "etc": {"user.note": b"of a directory that is there"},
}
MATRIX = {
    "gzip": ("-comp", "gzip"),
    "xz": ("-comp", "xz"),
    "zstd": ("-comp", "zstd", "-b", "4096"),
    "stored attributes": ("-noX",),
    "all stored": ("-noI", "-noD", "-noF", "-noX"),
    "no attributes": ("-no-xattrs",),
    "not exportable": ("-no-exports",),
}


def make_site(folder: Path) -> tuple[Path, Attributes]:
    """An overlay with attributes, some equal to those of the image, many others, and values that are the same."""
    files = {f"opt/many/{number:03}": f"{number}\n" for number in range(300)}
    site = write_tree(
        folder, files | {"opt/site/shared": "s\n", "opt/site/big": "b\n", "etc/c": "new\n", "etc/h": "h\n"}
    )
    many: Attributes = {
        f"opt/many/{number:03}": {"user.number": b"%d" % number, "user.text": hashlib.shake_256(b"").digest(600)}
        for number in range(300)
    }
    set_attributes(site, NEW | many)
    return site, {path: values for path, values in (NEW | many).items() if path != "etc"}


@pytest.mark.parametrize("name", MATRIX)
def test_attributes_of_an_overlay_go_into_squashfs(name: str, image: Path, tmp_path: Path) -> None:
    tools.require("unsquashfs", "rdsquashfs", "7z", "mksquashfs")
    base = make(tmp_path / "root", tmp_path / "base.sqfs", *MATRIX[name])
    site, new = make_site(tmp_path / "site")
    old = {} if name == "no attributes" else OLD | {"etc/a-2": OLD["etc/a"]}
    out = tmp_path / "out.sqfs"
    result = cosremaster.remaster(base, out, add=[site])
    lost = [warning for warning in result.warnings if "had extended attributes" in warning]
    assert bool(lost) == (name != "no attributes"), "etc/c had user.long"
    want = old | new
    assert attributes_in(out) == want
    with mounted(out, tmp_path / "mounted") as root:
        assert getfattr(root) == want
    run(["unsquashfs", "-xattrs", "-quiet", "-no-progress", "-d", str(tmp_path / "after"), str(out)])
    assert getfattr(tmp_path / "after") == want
    assert b"user.number=299" in run(["rdsquashfs", "-x", "opt/many/299", str(out)])
    run(["7z", "t", str(out)])
    again = tmp_path / "again.sqfs"
    assert cosremaster.remaster(out, again, add=[site]).added == (), "an overlay that is there changes nothing"
    run(["mksquashfs", str(site), str(out), "-quiet", "-no-progress"])
    appended = attributes_in(out)
    assert want.items() <= appended.items()


def test_attributes_that_are_there_share_their_number(image: Path, tmp_path: Path) -> None:
    site = write_tree(tmp_path / "site", {"opt/new": "n\n"})
    set_attributes(site, {"opt/new": OLD["etc/a"]})
    out = tmp_path / "out.sqfs"
    cosremaster.remaster(image, out, add=[site])
    header = [read_xattr_header(path.read_bytes()) for path in (image, out)]
    assert header[0] == header[1]
    assert attributes_in(out) == OLD | {"etc/a-2": OLD["etc/a"], "opt/new": OLD["etc/a"]}


def read_xattr_header(data: bytes) -> int:
    """How many numbers a table of attributes has."""
    (table,) = struct.unpack_from("<Q", data, 56)
    return int(struct.unpack_from("<I", data, table + 8)[0])


def test_ids_tell_sizes_as_mksquashfs_does(tmp_path: Path) -> None:
    site, _ = make_site(tmp_path / "site")
    theirs = make(site, tmp_path / "theirs.sqfs", "-noX")
    empty = make(write_tree(tmp_path / "empty", {"sbin/init": "i\n"}), tmp_path / "empty.sqfs", "-noX", "-all-root")
    ours = tmp_path / "ours.sqfs"
    cosremaster.remaster(empty, ours, add=[site])
    assert sorted(ids_of(ours)) == sorted(ids_of(theirs))


def ids_of(image: Path) -> list[tuple[int, int]]:
    """How many attributes each number has, and their bytes, of an image with a stored table."""
    data = image.read_bytes()
    (table,) = struct.unpack_from("<Q", data, 56)
    (block,) = struct.unpack_from("<Q", data, table + 16)
    ids = [struct.unpack_from("<QII", data, block + 2 + 16 * number) for number in range(read_xattr_header(data))]
    return [(count, size) for _, count, size in ids]


@pytest.mark.parametrize(
    ("which", "taken"),
    [
        ("default", ["security.capability", "user.a", "user.b.c"]),
        ("none", []),
        ("all", ["security.capability", "security.site", "trusted.site", "user.a", "user.b.c"]),
        ("USER.A, user.b*", ["user.b.c"]),
        ("all,-security.site,-user.[ab]", ["security.capability", "trusted.site", "user.b.c"]),
        ("-user.a", ["security.capability", "user.b.c"]),
    ],
)
@pytest.mark.parametrize("form", ["folder", "tar", "bsdtar"])
def test_which_attributes_are_taken(which: str, taken: list[str], form: str, image: Path, tmp_path: Path) -> None:
    tools.require("tar", "bsdtar")
    names = ("security.site", "trusted.site", "user.a", "user.b.c")
    site = write_tree(tmp_path / "site", {"opt/new": "n\n"})
    set_attributes(site, {"opt/new": dict.fromkeys(names, b"\x00value") | {"security.capability": CAPABILITY}})
    source = site
    if form != "folder":
        source = tmp_path / "site.tar"
        program = ["tar", "--xattrs", "--xattrs-include=*"] if form == "tar" else ["bsdtar", "--xattrs"]
        run([*program, "-cf", str(source), "-C", str(site), "."])
    out = tmp_path / "out.sqfs"
    result = cosremaster.remaster(image, out, add=[cosremaster.AddPath(source, xattrs=which)])
    assert list(attributes_in(out).get("opt/new", {})) == taken
    with mounted(out, tmp_path / "mounted") as root:
        assert sorted(os.listxattr(root / "opt/new")) == taken
    told = [f"{source}: extended attributes are not taken over unless --xattrs names them: opt/new"]
    assert list(result.warnings) == (told if which == "default" else [])


CAPABILITY = struct.pack("<5I", 0x02000001, 1 << 13, 0, 0, 0)
"""cap_net_raw=ep."""


def test_the_option_and_the_recipe_say_which(image: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    site = write_tree(tmp_path / "site", {"opt/new": "n\n"})
    set_attributes(site, {"opt/new": {"user.a": b"1", "user.b": b"2"}})
    out = tmp_path / "out.sqfs"
    assert main([str(image), str(out), "--add", str(site), "--xattrs", "user.b", "--quiet"]) == 0
    assert attributes_in(out)["opt/new"] == {"user.b": b"2"}
    assert main([str(image), str(out), "--add", str(site), "--xattrs", "non", "--force"]) == 2
    assert "xattrs 'non': none, default, all or names as in user.*,security.capability" in capsys.readouterr().err
    recipe = tmp_path / "site.toml"
    recipe.write_text('input = "in.sqfs"\noutput = "out.sqfs"\n[[add]]\nsource = "site"\nxattrs = "user.a"\n')
    assert main(["build", str(recipe), "--force", "--quiet"]) == 0
    assert attributes_in(out)["opt/new"] == {"user.a": b"1"}
    recipe.write_text(recipe.read_text().replace("user.a", "non"))
    assert main(["build", str(recipe), "--force", "--quiet"]) == 2
    assert "none, default, all or names" in capsys.readouterr().err


def test_capabilities_of_a_container_are_those_of_root_in_the_image(image: Path, tmp_path: Path) -> None:
    tools.require("getcap")
    in_container = struct.pack("<6I", 0x03000001, 1 << 13, 0, 0, 0, 100_000)
    site = write_tree(tmp_path / "site", {"opt/new": "n\n"})
    set_attributes(site, {"opt/new": {"security.capability": in_container}})
    for owner, value in ((None, CAPABILITY), ("source", in_container), ("5:5", CAPABILITY)):
        out = tmp_path / f"{owner}.sqfs"
        cosremaster.remaster(image, out, add=[cosremaster.AddPath(site, owner=owner)])
        assert attributes_in(out)["opt/new"] == {"security.capability": value}
    with mounted(tmp_path / "None.sqfs", tmp_path / "mounted") as root:
        assert run(["getcap", "-n", str(root / "opt/new")]).split() == [
            b"%s" % bytes(root / "opt/new"),
            b"cap_net_raw=ep",
        ]


def test_attributes_stay_where_the_bytes_do(image: Path, tmp_path: Path) -> None:
    site = write_tree(tmp_path / "site", {"etc/a": "a\n", "etc/b": "b\n", "etc/c": "new\n", "etc/g": "g\n"})
    set_attributes(site, {"etc/b": {"user.note": b"newer"}})
    out = tmp_path / "out.sqfs"
    result = cosremaster.remaster(image, out, add=[cosremaster.AddPath(site, mode="0600")])
    (warning,) = [warning for warning in result.warnings if "had extended attributes" in warning]
    assert "etc/c had" in warning
    want = OLD | {"etc/a-2": OLD["etc/a"], "etc/b": OLD["etc/b"] | {"user.note": b"newer"}}
    del want["etc/c"]
    assert attributes_in(out) == want
    assert cosremaster.remaster(out, tmp_path / "2.sqfs", add=[cosremaster.AddPath(site, mode="0600")]).replaced == ()


def test_lists_for_access_do_not_fit(image: Path, tmp_path: Path) -> None:
    tools.require("setfacl", "genisoimage")
    site = write_tree(tmp_path / "site", {f"opt/{number}": "n\n" for number in range(9)})
    for number in range(9):
        run(["setfacl", "-m", "u:1234:r", str(site / f"opt/{number}")])
    run(["tar", "--acls", "-cf", str(tmp_path / "site.tar"), "-C", str(site), "."])
    for source, which in ((site, "default"), (site, "all"), (tmp_path / "site.tar", "all")):
        result = cosremaster.remaster(
            image, tmp_path / "out.sqfs", add=[cosremaster.AddPath(source, xattrs=which)], force=True
        )
        (warning,) = result.warnings
        assert warning == (
            f"{source}: ACLs are not taken over: a squashfs file system holds none: opt/0, opt/1, opt/2 and 6 more"
        )
    assert attributes_in(tmp_path / "out.sqfs") == attributes_in(image)
    write_tree(tmp_path / "disc", {"x": "x\n"})
    run(["genisoimage", "-quiet", "-R", "-o", str(tmp_path / "in.iso"), str(tmp_path / "disc")])
    (warning,) = cosremaster.remaster(tmp_path / "in.iso", tmp_path / "out.iso", add_iso=[f"{site}:/site"]).warnings
    assert warning.endswith("ACLs are not taken over: the ISO's own tree holds none: opt/0, opt/1, opt/2 and 6 more")


def test_lists_of_archives_are_read_as_linux_has_them(tmp_path: Path) -> None:
    tools.require("setfacl", "bsdtar")
    tools.require_libarchive()
    (tmp_path / "site").mkdir()
    for arguments in (("u:1234:r,g:77:rwx",), ("u:1234:r", "-d"), ("o::x",)):
        path = tmp_path / "site" / arguments[0].replace(":", "-")
        path.mkdir()
        run(["setfacl", *arguments[1:], "-m", arguments[0], str(path)])
    want = getfattr(tmp_path / "site")
    assert want
    for program in (["tar", "--acls"], ["bsdtar", "--acls"]):
        archive = tmp_path / "site.tar"
        run([*program, "-cf", str(archive), "-C", str(tmp_path / "site"), "."])
        with open_archive_file(bytes(archive), Place()) as fd, Archive(("tar",), Place()).open_fd(fd) as entries:
            read = {
                os.fsdecode(entry.name).strip("./"): dict(entry.xattrs) for entry in entries.entries() if entry.xattrs
            }
        assert read == want


FULL: Attributes = {
    "bin/ping": {"security.capability": CAPABILITY, "user.note": b"a"},
    "bin/\N{LATIN SMALL LETTER E WITH ACUTE}": {"user.binary": b"\0\n=\xff"},
    "srv": {"user.dir": b"d", "trusted.site": b"t"},
    "srv/" + "long" * 40: {"user.long": LONG},
    "srv/read-only": {"user.note": b"r"},
}


@pytest.fixture
def full(tmp_path: Path) -> Path:
    """A squashfs image with attributes of all classes."""
    root = write_tree(tmp_path / "full", dict.fromkeys((path for path in FULL if path != "srv"), "x\n"))
    (root / "srv/read-only").chmod(0o444)
    set_attributes(root, FULL)
    return make(root, tmp_path / "full.sqfs")


def test_extraction_sets_attributes(full: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["extract", str(full), str(tmp_path / "out"), "--quiet"]) == 0
    assert getfattr(tmp_path / "out") == FULL
    assert not capsys.readouterr().err


def test_an_ordinary_user_extracts_attributes_of_users(full: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with open_folder() as folder:
        shutil.copy(full, folder / "full.sqfs")
        folder.chmod(0o777)
        with without_root():
            assert main(["extract", str(folder / "full.sqfs"), str(folder / "out"), "--quiet"]) == 0
        warning = (
            f"warning: {folder}/out: extended attributes could not be set: bin/ping and 1 more (--as tar keeps all)"
        )
        assert capsys.readouterr().err.splitlines() == [warning]
        want = {
            path: {name: value for name, value in values.items() if name.startswith("user.")}
            for path, values in FULL.items()
        }
        assert getfattr(folder / "out") == want


@pytest.mark.parametrize("program", ["tar", "bsdtar"])
def test_tar_archives_have_attributes(program: str, full: Path, tmp_path: Path) -> None:
    tools.require(program)
    archive = tmp_path / "out.tar"
    assert main(["extract", str(full), str(archive), "--as", "tar", "--quiet"]) == 0
    (tmp_path / "after").mkdir()
    options = ["--xattrs", "--xattrs-include=*"] if program == "tar" else ["--xattrs"]
    run([program, *options, "-xpf", str(archive), "-C", str(tmp_path / "after")], env={"LC_ALL": "C.UTF-8"})
    assert getfattr(tmp_path / "after") == FULL
    with tarfile.open(archive) as entries:
        keyword = "SCHILY.xattr.security.capability"
        assert entries.getmember("bin/ping").pax_headers[keyword].encode("utf-8", "surrogateescape") == CAPABILITY
    assert attributes_in(archive) == FULL
    again = tmp_path / "again.sqfs"
    cosremaster.remaster(make(write_tree(tmp_path / "e", {"sbin/init": "i\n"}), tmp_path / "e.sqfs"), again,
                         add=[cosremaster.AddPath(archive, xattrs="all")])  # fmt: skip
    assert {path: names for path, names in attributes_in(again).items() if path in FULL} == FULL


def test_an_export_for_maas_has_attributes(full: Path, tmp_path: Path) -> None:
    assert (
        main(["export", str(full), "--maas", "custom/site", "--output", str(tmp_path / "out.tar.gz"), "--quiet"]) == 0
    )
    (tmp_path / "after").mkdir()
    curtin = ["tar", "--xattrs", "--xattrs-include=*", "--selinux", "--acls", "-xpzf", str(tmp_path / "out.tar.gz")]
    run([*curtin, "-C", str(tmp_path / "after")])
    assert getfattr(tmp_path / "after") == FULL


def test_a_tar_archive_takes_lists_for_access_too(full: Path, tmp_path: Path) -> None:
    tools.require("setfacl", "tar")
    base, out = tmp_path / "base.tar", tmp_path / "out.tar"
    base.write_bytes(run(["tar", "-C", str(write_tree(tmp_path / "base", {"sbin/init": "i\n"})), "-cf", "-", "."]))
    site = write_tree(tmp_path / "site", {"opt/new": "n\n", "opt/plain": "p\n"})
    set_attributes(site, {"opt/new": {"security.capability": CAPABILITY, "user.note": b"n"}})
    run(["setfacl", "-m", "u:1234:rw", str(site / "opt/new")])
    (warning,) = cosremaster.remaster(base, out, add=[site]).warnings
    assert warning == f"{site}: ACLs are not taken over unless --xattrs names them: opt/new"
    assert attributes_in(out) == {"opt/new": {"security.capability": CAPABILITY, "user.note": b"n"}}
    assert cosremaster.remaster(base, out, add=[cosremaster.AddPath(site, xattrs="all")], force=True).warnings == ()
    for name, unpack in (("tar", ["tar", "--acls", "--xattrs", "--xattrs-include=*"]), ("bsdtar", ["bsdtar"])):
        (tmp_path / name).mkdir()
        run([*unpack, "-xpf", str(out), "-C", str(tmp_path / name)])
        assert getfattr(tmp_path / name) == getfattr(site)
    assert main(["extract", str(out), str(tmp_path / "ours"), "--quiet"]) == 0
    assert getfattr(tmp_path / "ours") == getfattr(site)
