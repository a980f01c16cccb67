"""Looking into layers: what GNU cpio, bsdtar and tar say of the same bytes is what we say."""

from __future__ import annotations

import gzip
import json
import os
import stat
import subprocess
import sys
from pathlib import Path
from shlex import quote

import pytest

import cosremaster
from cosremaster.browse.container import NodeRef, enter_if_container, follow, open_container, split_address
from cosremaster.browse.extract import extract_nodes, select_nodes
from cosremaster.browse.tar import build_tar
from cosremaster.cli import main
from cosremaster.demo.image import DemoEntry, build_archive, directory, initramfs, regular, root_items
from cosremaster.io.source import ByteSource, open_source
from tests.fixtures import tools
from tests.fixtures.tools import run
from tests.support.small import CGZ, write_small
from tests.support.user import open_folder, without_root

LAYER = f"in.iso::{CGZ}::rootfs.cxz"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write_small(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _out(capsysbinary: pytest.CaptureFixture[bytes], *words: str, code: int = 0) -> bytes:
    assert main(list(words)) == code
    return capsysbinary.readouterr().out


def test_a_layer_is_listed_as_gnu_cpio_lists_it(here: Path, capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    tools.require("cpio")
    listed = run(["cpio", "-t", "--quiet"], stdin=build_archive(root_items())).splitlines()
    ours = _out(capsysbinary, "ls", "-R", "--json", LAYER)
    paths = [node["path"] for node in json.loads(ours)["nodes"]]
    assert sorted(paths) == sorted(name.decode(errors="backslashreplace") for name in listed if name != b".")


def test_an_image_is_listed_as_bsdtar_lists_it(here: Path, capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    tools.require("bsdtar")
    theirs = sorted(
        line for line in run(["bsdtar", "-tf", "in.iso"], cwd=here).decode().split() if line.strip("/") not in (".", "")
    )
    nodes = json.loads(_out(capsysbinary, "ls", "-R", "--json", "in.iso"))["nodes"]
    assert sorted(node["path"] for node in nodes) == [name.rstrip("/").removeprefix("./") for name in theirs]


def test_ls_cat_stat_find_tree(here: Path, capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    assert _out(capsysbinary, "ls", f"{LAYER}::etc") == b"hostname\nmtab\nos-release\n"
    assert _out(capsysbinary, "ls", f"{LAYER}::etc/hostname") == b"etc/hostname\n"
    assert b"mtab -> /proc/mounts\n" in _out(capsysbinary, "ls", "-l", f"{LAYER}::etc")
    assert _out(capsysbinary, "cat", f"{LAYER}::/etc/hostname") == b"debirf\n"
    assert _out(capsysbinary, "cat", f"{LAYER}::bin/gzip") == _out(capsysbinary, "cat", f"{LAYER}::usr/bin/gzip")
    assert _out(capsysbinary, "cat", f"in.iso::{CGZ}") == initramfs()
    assert b"SHA-256" in _out(capsysbinary, "stat", f"{LAYER}::etc/hostname")
    assert f"in.iso::{CGZ}::rootfs.cxz::etc/hostname\n".encode() in _out(capsysbinary, "find", "in.iso", "**/hostname")
    assert _out(capsysbinary, "find", "in.iso", "hostname") == b""
    assert b"\n      etc/\n        hostname\n" in _out(capsysbinary, "tree", "in.iso")


def test_every_found_address_leads_back(here: Path, capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    for line in _out(capsysbinary, "find", "in.iso", "**").decode().splitlines():
        (node,) = json.loads(_out(capsysbinary, "stat", "--json", line))["nodes"]
        assert node["address"] == line


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["ls", "none.iso"], 3, "cannot be opened"),
        (["ls", "in.iso::nope"], 6, "has no nope"),
        (["ls", "in.iso::vmlinuz::etc"], 6, "in.iso » vmlinuz: is no archive"),
        (["cat", f"{LAYER}::etc"], 6, "is a directory, which has no bytes"),
        (["ls", f"in.iso::{CGZ}::#2"], 6, "has 1 archives, no #2"),
        (["find", "in.iso", "../a"], 2, "a path without .. is wanted"),
        (["ls", "::x"], 2, "names no image"),
        (["ls", "text"], 3, "is neither an ISO 9660 image nor a cpio, squashfs, tar, ext4 or erofs archive"),
        (["extract", LAYER, "full"], 8, "exists already and is no empty folder"),
    ],
)
def test_what_cannot_be_looked_at(
    here: Path, capsys: pytest.CaptureFixture[str], words: list[str], code: int, said: str
) -> None:
    (here / "text").write_text("nothing but text")
    (here / "full").mkdir()
    (here / "full" / "mine").touch()
    assert main(words) == code
    err = capsys.readouterr().err
    assert said in err
    assert "Traceback" not in err


def _facts(folder: Path) -> dict[str, tuple[object, ...]]:
    """What a tree on disk is made of; times to the second."""
    found: dict[str, tuple[object, ...]] = {}
    for path in sorted(folder.rglob("*")):
        status = path.lstat()
        data: object = None
        if stat.S_ISLNK(status.st_mode):
            data = os.readlink(path)
        elif stat.S_ISREG(status.st_mode):
            data = path.read_bytes()
        links = status.st_nlink if stat.S_ISREG(status.st_mode) else 0
        owner = (status.st_uid, status.st_gid)
        when = int(status.st_mtime) if stat.S_ISREG(status.st_mode) else 0  # GNU cpio sets no others
        found[str(path.relative_to(folder))] = (status.st_mode, owner, when, status.st_rdev, links, data)
    return found


def test_extracted_as_gnu_cpio_does(here: Path) -> None:
    tools.require("cpio", "tar")
    if os.geteuid() != 0:
        tools.leave_out("making owners and devices takes root")
    (here / "cpio").mkdir()
    run(["cpio", "-idm", "--quiet", "--no-absolute-filenames"], cwd=here / "cpio", stdin=build_archive(root_items()))
    assert main(["extract", LAYER, "ours", "--quiet"]) == 0
    assert _facts(here / "ours") == _facts(here / "cpio")
    assert main(["extract", LAYER, "ours.tar", "--as", "tar"]) == 0
    (here / "tar").mkdir()
    run(["tar", "-xpf", "../ours.tar"], cwd=here / "tar")
    assert _facts(here / "tar") == _facts(here / "cpio")


def test_an_ordinary_user_gets_the_rest_in_an_mtree_file() -> None:
    tools.require("bsdtar", "tar")
    with open_folder() as folder:
        write_small(folder)
        folder.chmod(0o777)
        with open_source(folder / "in.iso") as source, without_root():
            nodes = select_nodes(_root(source, LAYER))
            made = extract_nodes(nodes, folder / "out", lambda count: None)
            assert made.mtree == folder / "out.mtree"
            theirs = run(["bsdtar", "-cf", "-", "--format=pax", f"@{made.mtree}"], cwd=folder / "out")
            ours = b"".join(build_tar(nodes).table().chunks())
    # What bsdtar makes of folder and mtree file together is the archive with everything in it.
    fields = ["tar", "--numeric-owner", "--utc", "--full-time", "-tvf", "-"]
    assert _no_links(run(fields, stdin=theirs)) == _no_links(run(fields, stdin=ours))


def _root(source: ByteSource, address: str) -> NodeRef:
    return enter_if_container(follow(*open_container(source, split_address(address)[1])))


def _no_links(listing: bytes) -> list[bytes]:
    """Lines of tar -tv but those of hard links, whose first name each program chooses, with one space."""
    return sorted(
        b" ".join(line.replace(b" ./", b" ").split()) for line in listing.splitlines() if b" link to " not in line
    )


def test_a_tar_archive_is_the_same_every_time(here: Path, capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    one = _out(capsysbinary, "extract", LAYER, "-", "--as", "tar")
    assert one == _out(capsysbinary, "extract", LAYER, "-", "--as", "tar")
    tools.require("tar")
    listed = run(["tar", "-tf", "-"], stdin=one)
    assert len(listed.splitlines()) == len({item.path for item in root_items()})


HOSTILE = [
    directory(b"etc"),
    DemoEntry(b"out", 0o120777, b"/tmp"),
    regular(b"out/escaped", b"through an absolute symlink"),
    regular(b"../../escaped", b"through dots"),
    regular(b"/escaped", b"through a slash"),
]


def test_nothing_leaves_the_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    deep = tmp_path / "a" / "b"
    deep.mkdir(parents=True)
    (deep / "evil.cpio").write_bytes(build_archive(HOSTILE))
    assert main(["extract", str(deep / "evil.cpio"), str(deep / "out"), "--quiet"]) == 0
    there = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")}
    assert all(name.startswith("a/b/") for name in there - {"a", "a/b"})
    assert not Path("/tmp/escaped").exists()
    assert (deep / "out/tmp/escaped").read_bytes() == b"through an absolute symlink"


def test_a_file_in_place_of_a_folder_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "x.cpio").write_bytes(build_archive([regular(b"a", b"1"), regular(b"a/b", b"2")]))
    assert main(["extract", str(tmp_path / "x.cpio"), str(tmp_path / "out")]) == 4
    assert "a/b: stands below a file" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.cpio"]


@pytest.mark.parametrize("cut", [0.2, 0.5, 0.9])
def test_a_cut_archive_leaves_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str], cut: float) -> None:
    data = gzip.compress(build_archive(root_items()))
    (tmp_path / "x.cgz").write_bytes(data[: int(len(data) * cut)])
    assert main(["extract", str(tmp_path / "x.cgz"), str(tmp_path / "out")]) == 4
    assert "@0x" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.cgz"]


def test_a_row_is_one_tree_or_one_archive(tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    early = build_archive([regular(b"early", b"1")])
    row = tmp_path / "initrd"
    row.write_bytes(early + gzip.compress(build_archive([regular(b"late", b"2")])))
    assert _out(capsysbinary, "ls", str(row)) == b"early\nlate\n"
    assert json.loads(_out(capsysbinary, "ls", "--json", str(row)))["nodes"][0]["path"] == "early"


def test_a_closed_pipe_ends_quietly(here: Path) -> None:
    done = subprocess.run(
        f"{quote(sys.executable)} -m cosremaster cat in.iso::vmlinuz | head -c 1 > /dev/null; echo ${{PIPESTATUS[0]}}",
        shell=True, executable="/bin/bash", capture_output=True, cwd=here, check=True,
    )  # fmt: skip
    assert b"Traceback" not in done.stderr


@pytest.mark.parametrize("flags", [[], ["-l"], ["-R"], ["-lR"], ["--json", "--recursive"]])
def test_a_listing_loads_no_parser_of_arguments_and_no_other_codec(tmp_path: Path, flags: list[str]) -> None:
    (tmp_path / "x.cgz").write_bytes(gzip.compress(build_archive(root_items())))
    program = (
        "import sys; from cosremaster.cli import main; main(sys.argv[1:]);"
        "print(sorted({'click', 'rich', 'pydantic', 'lzma', 'zstandard', 'libarchive'} & set(sys.modules)))"
    )
    plain = subprocess.run(
        [sys.executable, "-c", program, "ls", *flags, "x.cgz"], cwd=tmp_path, capture_output=True, text=True, check=True
    ).stdout
    assert plain.endswith("[]\n")
    # The command's own parser, which an option of its own brings in, comes to the same.
    parsed = subprocess.run(
        [sys.executable, "-m", "cosremaster", "ls", *flags, "x.cgz", "--max-expand", "1000"],
        cwd=tmp_path, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert plain.removesuffix("[]\n") == parsed


def test_names_alone_load_no_nodes(tmp_path: Path) -> None:
    (tmp_path / "x.cgz").write_bytes(gzip.compress(build_archive(root_items())))
    program = (
        "import sys; from cosremaster.cli import main; main(sys.argv[1:]);"
        "print(sorted({'dataclasses', 'msgspec', 'hashlib', 'cosremaster.tree.nodes', 'cosremaster.layers.model'}"
        " & set(sys.modules)))"
    )
    for words in (["ls", "x.cgz"], ["ls", "-R", "x.cgz"]):
        done = subprocess.run([sys.executable, "-c", program, *words], cwd=tmp_path, capture_output=True, check=True)
        assert done.stdout.endswith(b"[]\n")


@pytest.mark.parametrize(
    ("command", "address"),
    [("ls", "live.iso"), ("cat", "live.iso::boot/grub/grub.cfg"), ("inspect", "live.iso"), ("inspect", "x.cgz")],
)
def test_commands_that_look_load_no_parser_and_nothing_that_writes(tmp_path: Path, command: str, address: str) -> None:
    write_small(tmp_path).rename(tmp_path / "live.iso")
    (tmp_path / "x.cgz").write_bytes(gzip.compress(build_archive(root_items())))
    rare = {
        "click",
        "rich", "pydantic", "platformdirs", "tempfile", "shutil", "json", "hashlib", "lzma", "bz2", "zstandard",
        "isal", "libarchive", "cosremaster.api.results", "cosremaster.api.keywords", "cosremaster.api.views",
        "cosremaster.overlay", "cosremaster.remastering.request", "cosremaster.remastering.plan",
        "cosremaster.remastering.write", "cosremaster.codecs.gzip.repack", "cosremaster.codecs.xz",
        "cosremaster.iso.encode", "cosremaster.iso.prove", "cosremaster.iso.tree_edit",
        "cosremaster.layers.squashfs.filesystem", "cosremaster.layers.ext4.filesystem", "cosremaster.layers.cpio.edit",
        "cosremaster.verification", "cosremaster.recipe",
        "cosremaster.demo", "cosremaster.sandbox", "cosremaster.io.output", "cosremaster.boot.fat_edit",
        "dataclasses", "inspect", "ast", "dis", "tokenize", "datetime", "pathlib", "urllib", "ipaddress",
        "msgspec", "typing_extensions", "decimal", "uuid", "platform",
    }  # fmt: skip
    rare |= {f"cosremaster.layers.{name}" for name in ("squashfs", "ext4", "erofs")}
    if command != "inspect":
        rare |= {"cosremaster.layers.cpio", "cosremaster.layers.tar"}
        rare |= {"cosremaster.api.info", "cosremaster.remastering", "cosremaster.boot_config", "fastcrc"}
        rare |= {"cosremaster.boot_memory", "cosremaster.reports", "cosremaster.checksums"}
    program = (
        "import sys; from cosremaster.cli import main; code = main(sys.argv[1:]); sys.stdout.flush();"
        f"print(code, sorted({rare!r} & set(sys.modules)), file=sys.stderr)"
    )
    plain = subprocess.run(
        [sys.executable, "-c", program, command, address], cwd=tmp_path, capture_output=True, check=False
    )
    assert plain.stderr == b"0 []\n"
    parsed = subprocess.run(
        [sys.executable, "-m", "cosremaster", command, address, "--max-expand", "1000"],
        cwd=tmp_path, capture_output=True, check=True,
    )  # fmt: skip
    assert plain.stdout == parsed.stdout
    assert plain.stdout


def test_a_file_inside_a_layer_is_read_without_what_hashes_writes_or_parses(tmp_path: Path) -> None:
    write_small(tmp_path)
    address = "in.iso::debirf-live-demo.cgz::rootfs.cxz::etc/hostname"
    rare = {
        "click", "rich", "pydantic", "msgspec", "json", "tempfile", "shutil", "logging", "hashlib", "_hashlib",
        "dataclasses", "inspect", "datetime", "pathlib", "urllib", "ipaddress",
        "cosremaster.api.info", "cosremaster.remastering", "cosremaster.boot_config", "cosremaster.boot_memory",
        "cosremaster.reports", "cosremaster.overlay", "cosremaster.io.output", "cosremaster.layers.cpio.edit",
        "cosremaster.codecs.gzip.repack", "cosremaster.layers.cache",
    }  # fmt: skip
    program = (
        "import sys; from cosremaster.cli import main; code = main(sys.argv[1:]); sys.stdout.flush();"
        f"print(code, sorted({rare!r} & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, "cat", address],
        cwd=tmp_path,
        capture_output=True,
        check=True,
    )
    assert done.stderr == b"0 []\n" and done.stdout


def test_the_version_needs_no_parser() -> None:
    program = (
        "import sys; from cosremaster.cli import main; code = main(['--version']);"
        "print(code, sorted({'click', 'msgspec', 'pathlib', 'dataclasses'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == f"cosremaster {cosremaster.__version__}\n0 []\n"


def test_a_remaster_loads_nothing_that_writes_before_it_reads(tmp_path: Path) -> None:
    rare = {
        "rich", "pydantic", "platformdirs", "tempfile", "json", "lzma", "bz2", "zstandard", "isal", "libarchive",
        "cosremaster.api.results", "cosremaster.browse", "cosremaster.codecs.gzip.repack", "cosremaster.codecs.xz",
        "cosremaster.iso.prove", "cosremaster.iso.tree_edit",
        "cosremaster.layers.squashfs.filesystem", "cosremaster.layers.ext4.filesystem",
        "cosremaster.layers.cpio.edit", "cosremaster.verification", "cosremaster.recipe", "cosremaster.sandbox",
        "cosremaster.remastering.write", "cosremaster.remastering.plan",
    }  # fmt: skip
    program = (
        "import sys; from cosremaster.cli import main; code = main(sys.argv[1:]);"
        f"print(code, sorted({rare!r} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, "none.iso", "out.iso", "--add", "site:/opt", "--kernel-arg", "quiet"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "none.iso" in done.stderr
    assert done.stdout.endswith(" []\n") and not done.stdout.startswith("0 "), done.stdout


STRANGE = [
    [DemoEntry(b".", 0o040755, b""), regular(b"./a/b", b"1"), regular(b"a/b", b"2"), regular(b"z//y/", b"3")],
    [DemoEntry(b"d", 0o120777, b"e"), regular(b"d/f", b"1"), regular(b"../up", b"2"), regular(b"/abs", b"3")],
    [regular(b"", b"no name"), regular(b"b\xff\n", b"1"), regular(b"a-b", b"1"), regular(b"a/c", b"1")],
]


@pytest.mark.parametrize("items", STRANGE)
@pytest.mark.parametrize("flags", [[], ["-R"]])
def test_names_alone_are_those_of_the_tree(
    tmp_path: Path, items: list[DemoEntry], flags: list[str], capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    image = tmp_path / "x"
    image.write_bytes(build_archive(items) + gzip.compress(build_archive([regular(b"a/later", b"4")])))
    alone = _out(capsysbinary, "ls", *flags, str(image))
    assert alone == _out(capsysbinary, "ls", *flags, f"{image}", "--max-expand", "1000")
    assert alone
