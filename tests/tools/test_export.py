"""Exports: GNU tar and sha256sum read the archive, the MAAS line says what they say; the PXE files boot elsewhere."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import random
import shlex
import shutil
import socket
import stat
import struct
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from cosremaster.cli import main
from cosremaster.codecs.gzip.deflate import DEFLATE_BLOCK
from cosremaster.demo.image import build_archive, initramfs, regular, root_items
from cosremaster.io.spool import Spool
from cosremaster.layers import kept_plain
from tests.fixtures import tools
from tests.fixtures.tools import leave_out, run
from tests.support.decoders import note_xz_decoders
from tests.support.small import CGZ, write_small

LAYER = f"in.iso::{CGZ}::rootfs.cxz"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write_small(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_maas(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tools.require("tar", "gzip", "fakeroot", "sha256sum")
    assert main(["export", LAYER, "--maas", "apollo", "--title", "Apollo 5", "--threads", "1"]) == 0
    line = capsys.readouterr().out.splitlines()[-1]
    words = shlex.split(line)
    assert words[:4] == ["maas", "admin", "boot-resources", "create"]
    values = dict(word.split("=", 1) for word in words[4:])
    file = here / "apollo.tar.gz"
    assert values == {
        "name": "custom/apollo",
        "title": "Apollo 5",
        "architecture": "amd64/generic",
        "filetype": "tgz",
        "sha256": run(["sha256sum", str(file)]).split()[0].decode(),
        "size": str(file.stat().st_size),
        "content@": "apollo.tar.gz",
    }
    run(["gzip", "-t", str(file)])
    (here / "unpacked").mkdir()
    run(["fakeroot", "tar", "-xpzf", str(file), "-C", "unpacked"], cwd=here)
    for item in root_items():
        there = here / "unpacked" / os.fsdecode(item.path)
        assert os.path.lexists(there)
        if stat.S_ISREG(item.mode) and item.data:
            assert there.read_bytes() == item.data
    listed = {line.strip(b"/") for line in run(["tar", "--quoting-style=literal", "-tzf", str(file)]).splitlines()}
    assert listed == {item.path for item in root_items()}
    # Elsewhere, later, on other threads: the same bytes.
    assert main(["export", LAYER, "--maas", "apollo", "--output", "again.tgz", "--threads", "2"]) == 0
    assert (here / "again.tgz").read_bytes() == file.read_bytes()


def test_an_archive_that_may_be_cut_off_is_warned_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One that was cut between two entries cannot be told from a whole one without its end."""
    tools.require("tar")
    (tmp_path / "root/etc").mkdir(parents=True)
    (tmp_path / "root/etc/hostname").write_bytes(b"x")
    archive, words = tmp_path / "root.tar", ["--maas", "x", "--output", str(tmp_path / "x.tar.gz"), "--force"]
    run(["tar", "-cf", archive, "-C", tmp_path / "root", "etc"])
    assert main(["export", str(archive), *words]) == 0
    assert "cut off" not in capsys.readouterr().err
    archive.write_bytes(archive.read_bytes()[: 3 * 512])
    assert main(["export", str(archive), *words, "--quiet"]) == 0
    assert "root.tar has no blocks of zeros at its end, so it may be cut off" in capsys.readouterr().err


def test_maas_of_more_than_one_deflate_block(here: Path) -> None:
    """What is packed in blocks is read in ranges: the archive is that of ``extract --as tar``, whole and in order."""
    tools.require("tar", "gzip", "xz")
    chance = random.Random(3)
    files = [regular(b"etc/%d" % number, chance.randbytes(700_001) * 2) for number in range(5)]
    small = [regular(b"etc/s%d" % number, b"%d" % number) for number in range(3000)]
    plain = build_archive([*root_items(), *files, *small])
    assert len(plain) > 4 * DEFLATE_BLOCK
    write_small(here, cgz=gzip.compress(build_archive([regular(b"rootfs.cxz", run(["xz", "-1"], stdin=plain))])))
    for threads in ("1", "2"):
        assert main(["export", LAYER, "--maas", "big", "--output", f"{threads}.tgz", "--threads", threads]) == 0
    assert (here / "1.tgz").read_bytes() == (here / "2.tgz").read_bytes()
    assert main(["extract", LAYER, "big.tar", "--as", "tar"]) == 0
    assert run(["gzip", "-dc", "1.tgz"], cwd=here) == (here / "big.tar").read_bytes()
    for item in (*files, small[-1]):
        assert run(["tar", "-xzOf", "1.tgz", os.fsdecode(item.path)], cwd=here) == item.data
    assert len(run(["tar", "-tzf", "1.tgz"], cwd=here).splitlines()) == len(root_items()) + 3005


@pytest.mark.parametrize("address", ["in.iso", "in.iso::@root", LAYER])
def test_a_root_under_xz_is_decoded_once(here: Path, monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    """Its plain bytes are read again from a file; without that file the archive is the same."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(here / "cache"))
    noise = regular(b"etc/noise", random.Random(4).randbytes(5_000_000))  # more than the end that stays in memory
    write_small(here, cgz=initramfs(items=[*root_items(), noise]))
    with monkeypatch.context() as patch:
        patch.setattr(kept_plain, "SLOW_CODECS", frozenset())
        assert main(["export", address, "--maas", "apollo", "--output", "plain.tgz"]) == 0
    shutil.rmtree(here / "cache", ignore_errors=True)
    begun = note_xz_decoders(monkeypatch)
    assert main(["export", address, "--maas", "apollo"]) == 0
    assert begun == ["decode"]
    assert (here / "apollo.tar.gz").read_bytes() == (here / "plain.tgz").read_bytes()


def test_what_was_packed_is_read_once(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its sum is that of the bytes on their way to the file."""
    tools.require("xz")
    noise = regular(b"etc/noise", random.Random(4).randbytes(3_000_000))
    write_small(here, cgz=initramfs(items=[*root_items(), noise]))
    monkeypatch.setattr(kept_plain, "SLOW_CODECS", frozenset())
    size, chunks, fill = 0, Spool.chunks, Spool.fill

    def count_chunks(spool: Spool, offset: int, length: int) -> Iterator[bytes]:
        nonlocal size
        size += length
        return chunks(spool, offset, length)

    def count_views(spool: Spool, offset: int, views: Sequence[memoryview]) -> None:
        nonlocal size
        size += sum(map(len, views))
        fill(spool, offset, views)

    monkeypatch.setattr(Spool, "chunks", count_chunks)
    monkeypatch.setattr(Spool, "fill", count_views)
    assert main(["export", LAYER, "--maas", "apollo"]) == 0
    packed = (here / "apollo.tar.gz").read_bytes()
    assert 3_000_000 < size <= len(packed)
    assert f"sha256={hashlib.sha256(packed).hexdigest()}" in capsys.readouterr().out


@pytest.mark.parametrize("source", ["in.iso", "live.cgz", "in.iso::@root"])
def test_maas_takes_the_root_of_an_image(here: Path, capsys: pytest.CaptureFixture[str], source: str) -> None:
    tools.require("tar", "sha256sum")
    (here / "live.cgz").write_bytes(initramfs())
    assert main(["export", source, "--maas", "apollo", "--profile", "me", "--base-image", "ubuntu/noble"]) == 0
    layer, _, command = capsys.readouterr().out.splitlines()
    assert layer == f"layer {'live.cgz' if source == 'live.cgz' else f'in.iso::{CGZ}'}::rootfs.cxz"
    assert shlex.split(command)[:2] == ["maas", "me"]
    assert "base_image=ubuntu/noble" in shlex.split(command)
    assert b"etc/hostname" in run(["tar", "-tzf", "apollo.tar.gz"], cwd=here).split()
    assert run(["sha256sum", "-c", "apollo.tar.gz.sha256"], cwd=here) == b"apollo.tar.gz: OK\n"


def test_maas_knows_the_base_of_an_ubuntu_system(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    release = regular(b"etc/os-release", b'NAME="Ubuntu"\nID=ubuntu\nVERSION_CODENAME=jammy\n')
    items = [release if item.path == b"etc/os-release" else item for item in root_items()]
    write_small(here, cgz=initramfs(items=items))
    assert main(["export", "in.iso", "--maas", "jammy"]) == 0
    assert "base_image=ubuntu/jammy" in shlex.split(capsys.readouterr().out)


def test_maas_finds_no_root(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_small(here, cgz=b"no archive", extra={"live/filesystem.squashfs": b"hsqs" + bytes(5000)})
    assert main(["export", "in.iso", "--maas", "x"]) == 5
    assert "live/filesystem.squashfs" in capsys.readouterr().err
    assert sorted(path.name for path in here.iterdir()) == ["in.iso"]


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ([LAYER], 2, "--docker NAME or --pxe DIR"),
        ([LAYER, "--maas", "a/b/c"], 2, "MAAS takes no name"),
        ([LAYER, "--maas", "a", "--base-image", "a b"], 2, "MAAS takes no base image"),
        ([LAYER, "--maas", "a", "--profile", "-x"], 2, "MAAS takes no profile"),
        ([LAYER, "--maas", "x", "--output", "in.iso"], 8, "is the input itself"),
        ([LAYER, "--pxe", "out"], 6, "has no Linux kernel"),
        ([LAYER, "--pxe", "out", "--exclude", "/srv"], 2, "--exclude goes with an archive: --maas, --lxd or --docker"),
        ([LAYER, "--pxe", "out", "--output", "x"], 2, "--output goes with an archive"),
        ([LAYER, "--lxd", "a", "--title", "A"], 2, "--title goes with --maas"),
        ([LAYER, "--docker", "a", "--profile", "admin"], 2, "--profile goes with --maas"),
    ],
)
def test_what_cannot_be_exported(
    here: Path, capsys: pytest.CaptureFixture[str], words: list[str], code: int, said: str
) -> None:
    assert main(["export", *words]) == code
    assert said in capsys.readouterr().err
    assert sorted(path.name for path in here.iterdir()) == ["in.iso"]


def test_pxe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    kernel = b"MZ" + bytes(0x200) + b"HdrS" + bytes(3000)
    write_small(tmp_path, extra={"linux": kernel})
    monkeypatch.chdir(tmp_path)
    assert main(["export", "in.iso", "--pxe", "json", "--json", "--quiet"]) == 0
    values = json.loads(capsys.readouterr().out)
    assert (values["size"], values["sha256"], len(values["files"])) == (None, None, 3), "there is no archive"
    assert main(["export", "in.iso", "--pxe", "tftp", "--quiet"]) == 0
    assert (tmp_path / "tftp" / CGZ).read_bytes() == initramfs()
    assert (tmp_path / "tftp" / "linux").read_bytes() == kernel
    script = (tmp_path / "tftp" / "boot.ipxe").read_text().splitlines()
    assert script[0] == "#!ipxe"
    assert script[1].startswith(f"kernel linux initrd={CGZ}")
    assert script[2:] == [f"initrd {CGZ}", "boot"]
    assert not (tmp_path / "tftp.mtree").exists()


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A root file system as a tarball, with what belongs to one machine, a hard link and a sparse file."""
    tools.require("tar")
    tree = tmp_path / "tree"
    files = {
        "etc/machine-id": "abc\n", "etc/ssh/ssh_host_rsa_key": "k", "etc/ssh/ssh_host_rsa_key.pub": "p",
        "etc/ssh/sshd_config": "c", "var/lib/cloud/instances/a": "1", "srv/x/y": "2", "etc/a.dpkg-old": "o",
        "var/cache/apt/archives/z.deb": "d", "var/lib/apt/lists/l": "l", "sbin/init": "i",
        "etc/os-release": 'ID=ubuntu\nVERSION_CODENAME="noble"\nPRETTY_NAME="Ubuntu 24.04"\n',
    }  # fmt: skip
    for name, text in files.items():
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text(text)
    (tree / "sbin/second").hardlink_to(tree / "sbin/init")
    with (tree / "srv/sparse").open("wb") as file:
        file.write(b"start")
        file.seek(2_000_000)
        file.write(b"end")
        file.truncate(3_000_000)
    run(["tar", "-C", str(tree), "-Scf", str(tmp_path / "root.tar"), "."])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    return tree


CLEAN = {
    b"etc", b"etc/machine-id", b"etc/ssh", b"etc/ssh/sshd_config", b"etc/os-release", b"sbin", b"sbin/init",
    b"sbin/second", b"srv", b"srv/sparse", b"var", b"var/lib", b"var/lib/cloud", b"var/lib/apt",
    b"var/lib/apt/lists", b"var/cache", b"var/cache/apt", b"var/cache/apt/archives",
}  # fmt: skip


@pytest.mark.parametrize("unpacker", ["tar", "bsdtar"])
def test_a_clean_root_without_excluded_paths(root: Path, unpacker: str, capsys: pytest.CaptureFixture[str]) -> None:
    tools.require(unpacker)
    words = ["--maas-clean", "--sparse", "--exclude", "/srv/x", "--exclude", "no"]
    assert main(["export", "root.tar", "--maas", "noble", *words]) == 0
    said = capsys.readouterr()
    assert "nothing is called no, which was to be excluded" in said.err
    assert "base_image=ubuntu/noble" in said.out
    new = root.with_name("new")
    new.mkdir()
    run([unpacker, "-xpf", "noble.tar.gz", "-C", str(new)])
    assert {os.fsencode(path.relative_to(new)) for path in new.rglob("*")} == CLEAN
    assert (new / "etc/machine-id").read_bytes() == b""
    assert (new / "sbin/second").samefile(new / "sbin/init")
    assert (new / "srv/sparse").read_bytes() == (root / "srv/sparse").read_bytes()
    plain = gzip.decompress(Path("noble.tar.gz").read_bytes())
    assert len(plain) < 1_000_000, "holes take no place"
    assert main(["export", "root.tar", "--maas", "whole"]) == 0
    assert run(["tar", "-tzf", "whole.tar.gz"]).count(b"\n") == len([root, *root.rglob("*")])


@pytest.mark.parametrize("unpacker", ["tar", "bsdtar"])
def test_directories_keep_their_times(root: Path, unpacker: str) -> None:
    """GNU tar sets the time of a directory when it leaves it: a file that came later changed that."""
    tools.require(unpacker)
    for folder in [path for path in root.rglob("*") if path.is_dir()]:
        os.utime(folder, (1_500_000_000, 1_500_000_000))
    run(["tar", "-C", str(root), "-Scf", "root.tar", "."])
    assert main(["export", "root.tar", "--maas", "a"]) == 0
    assert main(["extract", "root.tar", "b.tar", "--as", "tar"]) == 0
    for archive in ("a.tar.gz", "b.tar"):
        new = root.with_name(f"new-{archive}")
        new.mkdir()
        run([unpacker, "-xpf", archive, "-C", str(new)])
        assert {path.stat().st_mtime for path in new.rglob("*") if path.is_dir()} == {1_500_000_000}
        for path in (path for path in new.rglob("*") if not path.is_symlink()):
            assert path.stat().st_mode == (root / path.relative_to(new)).stat().st_mode


def test_labels_go_where_either_option_of_gnu_tar_looks(root: Path) -> None:
    """GNU tar writes a label of SELinux among the other attributes with --xattrs, and restores it with the same."""
    if os.geteuid() != 0:
        leave_out("Only root sets labels.")
    tools.require("setfattr")
    run(["setfattr", "-n", "security.selinux", "-v", "system_u:object_r:etc_t:s0", root / "etc/os-release"])
    run(["tar", "--xattrs", "--xattrs-include=*", "-C", root, "-cf", "root.tar", "."])
    assert main(["export", "root.tar", "--maas", "a"]) == 0
    new = root.with_name("new")
    new.mkdir()
    run(["tar", "--xattrs", "--xattrs-include=*", "-xpf", "a.tar.gz", "-C", new])
    path, name = "etc/os-release", "security.selinux"
    assert os.getxattr(new / path, name) == os.getxattr(root / path, name)
    assert b"RHT.security.selinux=system_u:object_r:etc_t:s0\n" in gzip.decompress(Path("a.tar.gz").read_bytes())


def test_symlinks_in_names_of_what_is_left_out_are_followed(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Patterns are those of --remove; and a clean root has no keys, wherever /etc/ssh leads."""
    (root / "usr/lib/firmware").mkdir(parents=True)
    (root / "usr/lib/firmware/a.bin").write_bytes(b"a")
    (root / "lib").symlink_to("usr/lib")
    (root / "etc/ssh").rename(root / "usr/ssh")
    (root / "etc/ssh").symlink_to("/usr/ssh")
    run(["tar", "-C", root, "-cf", "root.tar", "."])
    before = {path for path in root.rglob("*") if "ssh_host" in path.name}
    assert before
    for pattern in ("/lib/firmware", "lib/firmware/**", "lib/*/*.bin"):
        assert main(["export", "root.tar", "--maas", "a", "--force", "--maas-clean", "--exclude", pattern]) == 0
        assert "nothing is called" not in capsys.readouterr().err
        names = run(["tar", "-tzf", "a.tar.gz"]).decode()
        assert "a.bin" not in names
        assert "ssh_host" not in names
        assert "lib" in names.splitlines()
    assert main(["export", "root.tar", "--maas", "b", "--exclude", "lib"]) == 0
    names = run(["tar", "-tzf", "b.tar.gz"]).decode()
    assert "a.bin" in names
    assert "lib" not in names.splitlines()
    assert main(["root.tar", "c.tar.gz", "--maas-clean"]) == 0
    assert "ssh_host" not in run(["tar", "-tzf", "c.tar.gz"]).decode()


def test_images_of_container_managers(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tools.require("skopeo", "tar")
    assert main(["export", "root.tar", "--docker", "site/noble:24.04", "--exclude", "/srv"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "docker load --input noble.tar"
    for transport in ("docker-archive", "oci-archive"):
        facts = json.loads(run(["skopeo", "inspect", f"{transport}:noble.tar"]))
        assert (facts["Architecture"], facts["Os"], facts["Created"]) == ("amd64", "linux", "2023-11-14T22:13:20Z")
    assert b"site/noble:24.04" in run(["skopeo", "list-tags", "docker-archive:noble.tar"])
    run(["skopeo", "copy", "-q", "docker-archive:noble.tar", "dir:unpacked"])  # it compares every checksum
    manifest = json.loads(Path("unpacked/manifest.json").read_text())
    (layer,) = [Path("unpacked", entry["digest"].partition(":")[2]) for entry in manifest["layers"]]
    names = {line.strip(b"/") for line in run(["tar", "-tf", str(layer)]).splitlines()}
    kept = (path for path in (root, *root.rglob("*")) if "srv" not in path.parts)
    assert names == {os.fsencode(path.relative_to(root)) for path in kept}
    first = Path("noble.tar").read_bytes()
    assert (
        main(["export", "root.tar", "--docker", "site/noble:24.04", "--exclude", "/srv", "--force", "--threads", "1"])
        == 0
    )
    assert Path("noble.tar").read_bytes() == first

    assert main(["export", "root.tar", "--lxd", "noble"]) == 0
    metadata = run(["tar", "-xzOf", "noble.tar.gz", "metadata.yaml"]).decode()
    assert metadata.startswith("architecture: x86_64\ncreation_date: 1700000000\nproperties:\n")
    assert '  release: "noble"\n' in metadata
    listed = {line.strip(b"/") for line in run(["tar", "-tzf", "noble.tar.gz"]).splitlines()}
    assert listed == {
        b"metadata.yaml",
        b"rootfs",
        *(b"rootfs/" + os.fsencode(p.relative_to(root)) for p in root.rglob("*")),
    }


@pytest.mark.parametrize(
    ("epoch", "mtime", "created"),
    [
        (None, 400_000_000_000, "9999-12-31T23:59:59Z"),
        (None, -70_000_000_000, "0001-01-01T00:00:00Z"),
        ("", 1_700_000_000, "2023-11-14T22:13:20Z"),
        ("99999999999999", 0, "2106-02-07T06:28:15Z"),
    ],
    ids=["late", "early", "empty", "large"],
)
def test_times_that_no_calendar_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, epoch: str | None, mtime: int, created: str
) -> None:
    """A container image names the next time that has a year of four digits, as RFC 3339 wants."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SOURCE_DATE_EPOCH", raising=False)
    if epoch is not None:
        monkeypatch.setenv("SOURCE_DATE_EPOCH", epoch)
    with tarfile.open("root.tar", "w", format=tarfile.PAX_FORMAT) as archive:
        member = tarfile.TarInfo("file")
        member.mtime = mtime
        archive.addfile(member)
    assert main(["export", "root.tar", "--docker", "site"]) == 0
    with tarfile.open("site.tar") as archive:

        def read(name: str) -> Any:
            return json.load(archive.extractfile(name))  # type: ignore[arg-type]  # it is a file

        assert read(read("manifest.json")[0]["Config"])["created"] == created
    assert main(["export", "root.tar", "--lxd", "site"]) == 0


@pytest.mark.parametrize("epoch", ["\uff11\uff12", "2e5", "-1"], ids=["wide", "float", "negative"])
def test_an_epoch_that_is_no_number(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], epoch: str
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", epoch)
    assert main(["export", "root.tar", "--docker", "site"]) == 2
    assert f"SOURCE_DATE_EPOCH is {epoch!r}, not a number of seconds" in capsys.readouterr().err
    assert not Path("site.tar").exists()


@pytest.mark.parametrize(
    "words", [["--docker", "Site/Noble"], ["--lxd", "a/b"], ["--maas", "a b"], ["--lxd", "a", "--maas", "b"]]
)
def test_names_that_no_manager_takes(root: Path, words: list[str]) -> None:
    before = sorted(Path().iterdir())
    assert main(["export", "root.tar", *words]) == 2
    assert sorted(Path().iterdir()) == before


@pytest.fixture
def odd_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a squashfs with a socket, with names that are whiteouts elsewhere, and a file that they would remove."""
    tools.require("mksquashfs", "tar")
    monkeypatch.chdir(tmp_path)
    for name in ("bin", "etc/.wh.d", "usr", "lib", "run"):
        Path("root", name).mkdir(parents=True)
    for name in ("etc/.wh.motd", "etc/motd", "etc/.wh.d/inside", "etc/a.wh.b"):
        Path("root", name).write_text(name)
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind("root/run/s")
    pseudo = ["-p", "etc/gone c 0644 0 0 0 0", "-p", "etc/null c 0666 0 0 1 3"]
    run(["mksquashfs", "root", "root.squashfs", "-quiet", "-no-progress", "-all-root", *pseudo])
    return tmp_path


def test_a_container_image_has_no_whiteouts(odd_root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file etc/.wh.motd of the root became a whiteout, which removed etc/motd where the image was loaded."""
    assert main(["export", "root.squashfs", "--docker", "site"]) == 0
    told = "left out, as in a container image they would remove something: "
    assert f"warning: {told}etc/.wh.d, etc/.wh.d/inside, etc/.wh.motd and 1 more" in capsys.readouterr().err
    run(["tar", "-xf", "site.tar"])
    (layer,) = json.loads(Path("manifest.json").read_text())[0]["Layers"]
    names = run(["tar", "-tf", layer]).decode().splitlines()
    assert sorted(name for name in names if name.startswith("etc/")) == ["etc/", "etc/a.wh.b", "etc/motd", "etc/null"]
    assert main(["export", "root.squashfs", "--lxd", "site"]) == 0  # which knows no whiteouts
    assert "left out, as in a container" not in capsys.readouterr().err
    assert b"rootfs/etc/.wh.motd\n" in run(["tar", "-tf", "site.tar.gz"])


@pytest.mark.parametrize(
    "words",
    [
        ["export", "root.squashfs", "--maas", "x"], ["root.squashfs", "x.tar"],
        ["extract", "root.squashfs", "x.tar", "--as", "tar"], ["extract", "root.squashfs", "-", "--as", "tar"],
    ],
)  # fmt: skip
def test_sockets_that_an_archive_lacks_are_told(
    odd_root: Path, words: list[str], capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    """They were left out without a word."""
    assert main(words) == 0
    told = capfdbinary.readouterr().err
    assert told.count(b"warning: sockets are left out, as a tar archive holds none: run/s\n") == 1


def write_program(path: Path, machine: int, *, bits: int = 64, order: str = "little", flags: int = 0) -> None:
    """Write the head of an ELF program (gABI), as long as that of a 64-bit one."""
    end = "<" if order == "little" else ">"
    head = struct.pack(end + "HHI", 2, machine, 1)
    head += struct.pack(end + ("IIII" if bits == 32 else "QQQI"), 0, 0, 0, flags)
    path.parent.mkdir(parents=True, exist_ok=True)
    ident = b"\x7fELF" + bytes([bits // 32, 1 if order == "little" else 2, 1])
    path.write_bytes((ident.ljust(16, b"\0") + head).ljust(64, b"\0"))


@pytest.mark.parametrize(
    ("program", "name", "machine", "told"),
    [
        ({"machine": 183}, "arm64", "aarch64", b"ARM aarch64"), ({"machine": 243}, "riscv64", "riscv64", b"RISC-V"),
        ({"machine": 22, "order": "big"}, "s390x", "s390x", b"IBM S/390"),
        ({"machine": 21}, "ppc64el", "ppc64le", b"64-bit PowerPC"),
        ({"machine": 40, "bits": 32, "flags": 0x5000400}, "armhf", "armv7l", b"ARM, EABI5"),
        ({"machine": 40, "bits": 32, "flags": 0x5000200}, "armel", "armel", b"ARM, EABI5"),
        ({"machine": 3, "bits": 32}, "i386", "i686", b"Intel 80386"), ({"machine": 62}, "amd64", "x86_64", b"x86-64"),
        ({"machine": 4711}, "amd64", "x86_64", b"unknown arch"),
    ],
    ids=str,
)  # fmt: skip
def test_an_archive_has_the_architecture_of_its_programs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    program: dict[str, Any], name: str, machine: str, told: bytes,
) -> None:  # fmt: skip
    """A root for arm64 was handed over as amd64."""
    tools.require("tar", "file")
    monkeypatch.chdir(tmp_path)
    write_program(tmp_path / "root/usr/bin/dash", **program)
    assert told in run(["file", "-b", "root/usr/bin/dash"])
    Path("root/usr/bin/sh").symlink_to("dash")
    Path("root/bin").symlink_to("usr/bin")
    run(["tar", "-C", "root", "-cf", "root.tar", "."])
    assert main(["export", "root.tar", "--maas", "site"]) == 0
    assert f" architecture={name}/generic " in capsys.readouterr().out
    assert main(["export", "root.tar", "--lxd", "site", "--force"]) == 0
    assert run(["tar", "-xzOf", "site.tar.gz", "metadata.yaml"]).startswith(b"architecture: %s\n" % machine.encode())
    assert "warning" not in capsys.readouterr().err
    Path("r.toml").write_text('input = "root.tar"\noutput = "made.tar.gz"\n[maas]\nname = "site"\n')
    assert main(["build", "r.toml"]) == 0
    assert f" architecture={name}/generic " in capsys.readouterr().out
    other = "arm64/generic" if name == "amd64" else "amd64/generic"
    assert main(["export", "root.tar", "--docker", "site", "--arch", other]) == 0
    warning = f"warning: root.tar: programs in it are for {name}, and not for {other}\n"
    assert (warning in capsys.readouterr().err) == (b"unknown" not in told)
