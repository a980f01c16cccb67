"""Disk images: partitions, ext2 to ext4 and qcow2, judged by the kernel, e2fsck and qemu-img."""

from __future__ import annotations

import hashlib
import os
import random
import re
import stat
import struct
import subprocess
import tarfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

import cosremaster
from cosremaster.cli import main
from cosremaster.errors import CorruptError, CosremasterError, ImageError, Place, UnsupportedError
from cosremaster.io.pieces import PieceTable, Range
from cosremaster.io.source import open_source
from cosremaster.layers.ext4.directories import Ext4Entry
from cosremaster.layers.ext4.filesystem import Ext4Filesystem
from cosremaster.layers.ext4.inodes import Ext4Inode
from cosremaster.layers.ext4.tree import Ext4Tree
from cosremaster.tree.nodes import Node
from tests.fixtures import tools
from tests.fixtures.tools import leave_out, run

MKE2FS = "/usr/sbin/mke2fs"
FILE_SYSTEMS = {
    "ext4": ["-t", "ext4"],
    "1 KiB blocks": ["-t", "ext4", "-b", "1024"],
    "inline data": ["-t", "ext4", "-O", "inline_data", "-I", "256"],
    "without checksums": ["-t", "ext4", "-O", "^64bit,^metadata_csum,^flex_bg"],
    "meta groups": ["-t", "ext4", "-b", "1024", "-O", "meta_bg,^resize_inode"],
    "clusters": ["-t", "ext4", "-b", "1024", "-O", "bigalloc", "-C", "16384"],
    "attribute inodes": ["-t", "ext4", "-O", "ea_inode,large_dir,metadata_csum_seed"],
    "ext3": ["-t", "ext3", "-b", "1024", "-I", "256"],
    "ext2": ["-t", "ext2", "-b", "1024", "-I", "128"],
}

Facts = tuple[int, int, int, int, bytes, tuple[tuple[bytes, bytes], ...], tuple[int, int]]


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tree with every kind of file that an ordinary user can make, and some that only root can."""
    tools.require("setfattr", "setfacl", "setcap")
    root = tmp_path_factory.mktemp("disk") / "tree"
    for folder in ("etc", "sbin", "usr/bin", "many", "small"):
        (root / folder).mkdir(parents=True)
    (root / "etc/hostname").write_bytes(b"disk\n")
    (root / "etc/link").symlink_to("hostname")
    (root / "etc/long-link").symlink_to("x" * 100)
    (root / "etc/hard").hardlink_to(root / "etc/hostname")
    (root / "sbin/init").write_bytes(b"init\n")
    (root / "sbin/init").chmod(0o4755)
    (root / "usr/bin/noise").write_bytes(random.Random(1).randbytes(1_500_000))
    with (root / "usr/bin/sparse").open("wb") as file:
        file.write(b"start")
        file.seek(3_000_000)
        file.write(b"end")
        file.truncate(5_000_000)
    for number in range(600):
        (root / f"many/a-file-with-a-rather-long-name-{number}").write_bytes(b"%d\n" % number)
    (root / "tiny").write_bytes(b"tiny")
    (root / "small/a").touch()
    os.mkfifo(root / "small/fifo")
    run(["setfattr", "-n", "user.comment", "-v", "hello", root / "etc/hostname"])
    run(["setfattr", "-n", "user.large", "-v", "a" * 200, root / "tiny"])
    run(["setfacl", "-m", "u:1000:r-x,g:33:r", root / "etc/hostname"])
    run(["setfacl", "-d", "-m", "u:5:rwx", root / "small"])
    if os.geteuid() == 0:
        run(["setcap", "cap_net_raw+ep", root / "usr/bin/noise"])
        os.mknod(root / "small/console", 0o600 | stat.S_IFCHR, os.makedev(5, 1))
        os.mknod(root / "small/disk", 0o660 | stat.S_IFBLK, os.makedev(259, 700))
        os.chown(root / "small/a", 70_000, 100_000)
    return root


def _make(tree: Path, target: Path, options: list[str], size: str = "24M") -> Path:
    """Make a file system of ``tree``."""
    tools.require(MKE2FS)
    run([MKE2FS, "-q", "-F", "-d", tree, *options, target, size])
    return target


def _nodes(image: Path) -> Mapping[bytes, Node]:
    """Return the nodes that we read of a file system alone."""
    source = open_source(image)
    return Ext4Tree(PieceTable([Range(source, 0, source.size)]), Place((image.name,)))


def test_a_directory_is_listed_without_a_look_at_the_others(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = _make(tree, tmp_path / "in.img", FILE_SYSTEMS["ext4"])
    listed: list[int] = []
    listing = Ext4Filesystem.listing

    def count(filesystem: Ext4Filesystem, inode: Ext4Inode) -> list[Ext4Entry]:
        listed.append(inode.number)
        return listing(filesystem, inode)

    monkeypatch.setattr(Ext4Filesystem, "listing", count)
    with cosremaster.open(image) as opened:
        assert opened.names("etc") == [b"hard", b"hostname", b"link", b"long-link"]
    assert len(set(listed)) == 2, "the root and the directory"
    assert sorted(_nodes(image)) == list(_nodes(image))


def _facts(node: Node) -> Facts:
    """Return what is compared of ``node``."""
    data = node.target if node.content is None else node.content.digest()
    return node.kind | node.mode, node.uid, node.gid, node.mtime, data, node.xattrs, node.rdev


def _facts_of(path: bytes) -> Facts:
    """Return what is compared of the file ``path`` of this machine."""
    status, data = os.lstat(path), b""
    if stat.S_ISREG(status.st_mode):
        data = hashlib.sha256(Path(os.fsdecode(path)).read_bytes()).digest()
    elif stat.S_ISLNK(status.st_mode):
        data = os.readlink(path)
    names = os.listxattr(path, follow_symlinks=False)
    xattrs = sorted((os.fsencode(name), os.getxattr(path, name, follow_symlinks=False)) for name in names)
    is_device = stat.S_ISCHR(status.st_mode) or stat.S_ISBLK(status.st_mode)
    rdev = (os.major(status.st_rdev), os.minor(status.st_rdev)) if is_device else (0, 0)
    return status.st_mode, status.st_uid, status.st_gid, int(status.st_mtime), data, tuple(xattrs), rdev


def _read_folder(folder: Path) -> dict[bytes, Facts]:
    """Return what is compared of everything below ``folder``."""
    top = os.fsencode(folder)
    return {
        os.path.relpath(path, top): _facts_of(path)
        for parent, folders, files in os.walk(top)
        for path in (os.path.join(parent, name) for name in folders + files)
    }


@contextmanager
def _mounted(image: Path, folder: Path, options: str) -> Iterator[Path]:
    """Mount ``image``; leaves the test out where nothing may be mounted."""
    if os.geteuid() != 0:
        leave_out("Only root mounts a file system.")
    folder.mkdir()
    run(["mount", "-o", options, image, folder])
    try:
        yield folder
    finally:
        run(["umount", folder])


@pytest.mark.parametrize("kind", FILE_SYSTEMS)
def test_every_kind_of_ext_file_system_is_read(kind: str, tree: Path, tmp_path: Path) -> None:
    image = _make(tree, tmp_path / "disk.img", FILE_SYSTEMS[kind])
    expected = _read_folder(tree)
    found = {path: _facts(node) for path, node in _nodes(image).items() if not path.startswith(b"lost+found")}
    if kind == "inline data":  # mke2fs 1.47 loses what stands behind a hole there; the kernel shows the same
        del found[b"usr/bin/sparse"], expected[b"usr/bin/sparse"]
    assert found == expected
    assert _nodes(image)[b"etc/hard"].link == _nodes(image)[b"etc/hostname"].link is not None


def test_what_the_kernel_wrote_is_read(tree: Path, tmp_path: Path) -> None:
    tools.require("mount", "fallocate")
    image = _make(tree, tmp_path / "disk.img", ["-t", "ext4", "-b", "1024"])
    with _mounted(image, tmp_path / "mount", "loop") as folder:
        run(["fallocate", "-l", "3M", folder / "allocated"])
        (folder / "written").write_bytes(b"abc")
        run(["fallocate", "-n", "-l", "2M", folder / "written"])
        with (folder / "fragments").open("wb") as file:
            for number in range(300):
                file.seek(number * 8192)
                file.write(b"x")
                file.flush()
                os.fsync(file.fileno()) if number % 60 == 0 else None
        for number in range(300):
            (folder / f"many/a-file-with-a-rather-long-name-{number}").unlink()
            (folder / f"many/another-file-of-the-kernel-with-a-long-name-{number}").touch()
        expected = _read_folder(folder)
    assert {path: _facts(node) for path, node in _nodes(image).items()} == expected


@pytest.mark.parametrize("block_size", [1024, 4096])
def test_directories_that_the_kernel_indexed_are_read(
    block_size: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The first block of a directory becomes the root of an index when it is full; what it held stays behind that."""
    tools.require("mount")
    (tmp_path / "tree").mkdir()
    image = _make(tmp_path / "tree", tmp_path / "disk.img", ["-t", "ext4", "-O", "^has_journal", "-b", str(block_size)])
    with _mounted(image, tmp_path / "mount", "loop") as folder:
        for count in (8, 40, 150, 1200):
            (folder / str(count)).mkdir()
            for number in range(count):
                (folder / str(count) / f"{number}{'n' * 110}").touch()
        expected = _read_folder(folder)
    assert {path: _facts(node) for path, node in _nodes(image).items()} == expected
    data, damaged = image.read_bytes(), 0
    for at in range(0, len(data), block_size):
        if (
            data[at + 8 : at + 9] == b"." and data[at + 24 : at + 32] == b"\0\0\0\0\1\x08\0\0"
        ):  # dx_root_info, one level
            image.write_bytes(data[: at + 44] + b"~~" + data[at + 46 :])  # the block of its second entry
            assert main(["ls", "-R", str(image)]) == 4
            assert "the checksum of a block of the directory's index is wrong" in capsys.readouterr().err
            damaged += 1
    assert damaged


def test_a_file_system_that_was_not_unmounted_is_read_with_its_journal(
    tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tools.require("/usr/sbin/e2fsck")
    image, dirty = _make(tree, tmp_path / "disk.img", ["-t", "ext4", "-b", "1024"]), tmp_path / "dirty.img"
    with _mounted(image, tmp_path / "mount", "loop,data=journal") as folder:
        for number in range(50):
            (folder / f"new-{number}").write_bytes(b"%d" % number * 3000)
        (folder / "etc/hostname").unlink()
        os.sync()
        dirty.write_bytes(image.read_bytes())
    before = {path: _facts(node) for path, node in _nodes(dirty).items()}
    assert b"new-49" in before
    assert b"etc/hostname" not in before
    old = dirty.read_bytes()
    assert main(["inspect", "--deep", str(dirty)]) == 0
    assert "was not unmounted" in capsys.readouterr().out
    assert dirty.read_bytes() == old, "looking at it changes nothing"
    done = subprocess.run(["/usr/sbin/e2fsck", "-fy", str(dirty)], capture_output=True, check=False)
    assert done.returncode == 1, done.stdout  # it replayed the journal
    assert {path: _facts(node) for path, node in _nodes(dirty).items()} == before


def test_a_damaged_journal_is_told_with_its_place(
    tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The kernel refuses to mount such a file system. Its blocks would be taken for those of files and directories."""
    image, dirty = _make(tree, tmp_path / "disk.img", ["-t", "ext4", "-b", "1024"]), tmp_path / "dirty.img"
    with _mounted(image, tmp_path / "mount", "loop,data=journal") as folder:
        for turn in range(2):
            for number in range(20):
                (folder / f"new-{number}").write_bytes(b"%d" % number * 2000)
                (folder / f"new-{number}").unlink() if turn else (folder / f"folder-{number}").mkdir()
            os.sync()
        dirty.write_bytes(image.read_bytes())
    data = bytearray(dirty.read_bytes())
    assert main(["ls", str(dirty)]) == 0
    heads = {
        kind: [
            at for at in range(0, len(data), 1024) if data[at : at + 8] == b"\xc0\x3b\x39\x98\0\0\0" + bytes((kind,))
        ]
        for kind in (1, 2, 4)
    }
    offsets = {
        "a list of blocks": (heads[1][-1], 600), "a block": (heads[1][-1] + 1024, 77), "a commit": (heads[2][-1], 57),
        "the superblock": (heads[4][-1], 200),
    }  # fmt: skip
    for noun, (start, within) in offsets.items():
        damaged = data.copy()
        damaged[start + within] ^= 0x20
        dirty.write_bytes(damaged)
        capsys.readouterr()
        assert main(["ls", str(dirty)]) == 4
        said = f"@0x{start:X}: the journal of the ext4 file system is damaged: the checksum of {noun} in it is wrong"
        assert said in capsys.readouterr().err
        (tmp_path / noun).mkdir()
        mount = subprocess.run(["mount", "-o", "loop", dirty, tmp_path / noun], capture_output=True, check=False)
        if not mount.returncode:
            run(["umount", tmp_path / noun])
        assert mount.returncode, noun


@pytest.fixture(scope="module")
def disk(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A disk as cloud images are: a GPT whose first partition is the root and stands last."""
    tools.require("sgdisk")
    folder = tmp_path_factory.mktemp("gpt")
    root, target = _make(tree, folder / "root.img", ["-t", "ext4"]), folder / "disk.raw"
    with target.open("wb") as file:
        file.truncate(48 << 20)
    run(["sgdisk", "-n", "14:2048:+1M", "-t", "14:ef02", "-n", "15:0:+8M", "-t", "15:ef00", "-n", "1:0:0", target])
    start = int(run(["sgdisk", "-i", "1", target]).split(b"First sector: ")[1].split()[0])
    with target.open("r+b") as file:
        file.seek(start * 512)
        file.write(root.read_bytes())
    return target


QCOW2 = {
    "raw": None,
    "zlib": ["-c"],
    "zstd": ["-c", "-o", "compression_type=zstd"],
    "version 2": ["-o", "compat=0.10"],
    "subclusters": ["-o", "extended_l2=on,cluster_size=128k"],
    "small clusters": ["-o", "cluster_size=512"],
}


@pytest.mark.parametrize("kind", QCOW2)
def test_a_partition_of_a_disk_is_listed_extracted_compared_and_exported(
    kind: str, disk: Path, tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image, options = disk, QCOW2[kind]
    if options is not None:
        tools.require("qemu-img")
        image = tmp_path / "disk.qcow2"
        run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", *options, disk, image])
    assert main(["ls", str(image)]) == 0
    assert capsys.readouterr().out.split() == ["@gpt1", "@gpt14", "@gpt15"]
    assert cosremaster.read(f"{image}::@gpt1::etc/hostname") == b"disk\n"
    assert cosremaster.read(f"{image}::@root::usr/bin/noise") == (tree / "usr/bin/noise").read_bytes()
    with cosremaster.open(image) as opened:
        info = opened.info(deep=True)
        assert (info.kind, info.root_layer) == ("disk", "@gpt1")
        assert [found.path for found in info.filesystems] == ["@gpt1"]
    assert main(["diff", str(disk), str(image)]) == 0
    exported = cosremaster.export(
        str(image), tmp_path / "root.tar.gz", archive=cosremaster.MaasResource(name="custom/disk")
    )
    assert exported.layer is not None
    assert exported.layer.endswith("@gpt1")
    with tarfile.open(tmp_path / "root.tar.gz") as tar:
        noise = tar.extractfile("./usr/bin/noise" if "./usr/bin/noise" in tar.getnames() else "usr/bin/noise")
        assert noise is not None
        assert noise.read() == (tree / "usr/bin/noise").read_bytes()


def test_a_disk_is_never_changed(disk: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site/new").write_bytes(b"1")
    assert main([str(disk), str(tmp_path / "out.img"), "--add", str(tmp_path / "site")]) == 5
    assert "is a disk image, which can be read and exported but not changed in place" in capsys.readouterr().err
    root = disk.with_name("root.img")
    assert main([str(root), str(tmp_path / "out.img"), "--add", str(tmp_path / "site")]) == 5
    assert "is an ext4 file system, which can be read and exported but not changed in place" in capsys.readouterr().err
    assert not (tmp_path / "out.img").exists()


def test_mbr_and_logical_partitions(tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tools.require("sfdisk")
    root, image = _make(tree, tmp_path / "root.img", ["-t", "ext4"]), tmp_path / "disk.raw"
    with image.open("wb") as file:
        file.truncate(80 << 20)
    parts = {1: "8M,type=ef", 2: "60M,type=5", 5: "4M,type=83", 6: "40M,type=83"}
    script = "".join(f"{image}{number} : size={words}\n" for number, words in parts.items())
    run(["sfdisk", "-q", image], stdin=f"label: dos\n{script}".encode())
    line = next(line for line in run(["sfdisk", "-d", image]).decode().splitlines() if "disk.raw6" in line)
    with image.open("r+b") as file:
        file.seek(int(line.split("start=")[1].split(",")[0]) * 512)
        file.write(root.read_bytes())
    assert main(["ls", str(image)]) == 0
    assert capsys.readouterr().out.split() == ["@mbr1", "@mbr5", "@mbr6"]
    assert cosremaster.read(f"{image}::@root::etc/hostname") == b"disk\n"
    with image.open("r+b") as file:  # the chain leads back to its beginning
        extended = int(run(["sfdisk", "-d", image]).decode().split("type=5")[0].split("start=")[-1].split(",")[0])
        second = int(line.split("start=")[1].split(",")[0]) - 2048
        file.seek(second * 512 + 446 + 16 + 8)
        file.write((0).to_bytes(4, "little") + (1).to_bytes(4, "little"))
        file.seek(second * 512 + 446 + 16 + 4)
        file.write(b"\x05")
        assert extended
    with pytest.raises(ImageError, match="the chain of logical partitions is damaged"):
        cosremaster.ls(str(image))


def test_a_gpt_of_before_does_not_count(disk: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its partitions were shown, and exported, where the table that counts is one of DOS (UEFI 2.10, 5.2.3)."""
    tools.require("sfdisk")
    image, script = tmp_path / "disk.raw", b"label: dos\nstart=8192, size=2048, type=c\n"
    image.write_bytes(disk.read_bytes())
    run(["sfdisk", "-q", "--wipe", "never", image], stdin=script)
    assert image.read_bytes()[512:520] == b"EFI PART"
    assert b"type=c" in run(["sfdisk", "-d", image])
    assert main(["ls", str(image)]) == 0
    assert capsys.readouterr().out.split() == ["@mbr1"]
    data = bytearray(image.read_bytes())
    data[446:510] = disk.read_bytes()[446:510]
    image.write_bytes(data)
    assert main(["ls", str(image)]) == 0
    assert capsys.readouterr().out.split() == ["@gpt1", "@gpt14", "@gpt15"]


def test_records_without_a_logical_partition_take_no_number(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """DOS leaves such records when a partition is deleted; Linux numbers those that there are."""
    tools.require("sfdisk")
    image = tmp_path / "disk.raw"
    with image.open("wb") as file:
        file.truncate(40 << 20)
    sizes = {1: "4M,type=c", 2: "30M,type=5", 5: "2M,type=83", 6: "3M,type=83", 7: "4M,type=83"}
    script = "".join(f"{image}{number} : size={words}\n" for number, words in sizes.items())
    run(["sfdisk", "-q", image], stdin=f"label: dos\n{script}".encode())
    extended = int(run(["sfdisk", "-d", image]).decode().split("type=5")[0].split("start=")[-1].split(",")[0])
    with image.open("r+b") as file:
        file.seek(extended * 512 + 446)
        file.write(bytes(16))
    assert run(["partx", "-g", "-o", "NR", image]).split() == [b"1", b"2", b"5", b"6"]
    assert main(["ls", str(image)]) == 0
    assert capsys.readouterr().out.split() == ["@mbr1", "@mbr5", "@mbr6"]


def test_a_disk_with_sectors_of_4096_bytes_and_a_damaged_first_table(disk: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.raw"
    data = bytearray(disk.read_bytes())
    data[512 + 16] ^= 1
    broken.write_bytes(data)
    assert cosremaster.read(f"{broken}::@gpt1::etc/hostname") == b"disk\n"
    data[-512:] = bytes(512)
    data[512:520] = bytes(8)
    broken.write_bytes(data)
    with pytest.raises(ImageError, match="announces a GPT, and neither of its copies can be read"):
        cosremaster.ls(str(broken))


def test_backing_files(disk: Path, tmp_path: Path) -> None:
    tools.require("qemu-img")
    base, over = tmp_path / "base.qcow2", tmp_path / "over.qcow2"
    run(["qemu-img", "convert", "-O", "qcow2", disk, base])
    run(["qemu-img", "create", "-q", "-f", "qcow2", "-b", "base.qcow2", "-F", "qcow2", over], cwd=tmp_path)
    assert cosremaster.read(f"{over}::@gpt1::etc/hostname") == b"disk\n"
    run(["qemu-img", "rebase", "-u", "-b", base, "-F", "qcow2", over])  # an absolute path, as most programs write it
    assert cosremaster.read(f"{over}::@gpt1::etc/hostname") == b"disk\n"
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    run(["qemu-img", "rebase", "-u", "-b", "base.qcow2", "-F", "qcow2", over])
    over.rename(elsewhere / "over.qcow2")
    with pytest.raises(UnsupportedError, match=r"needs the backing file 'base\.qcow2', which is not beside it"):
        cosremaster.ls(str(elsewhere / "over.qcow2"))
    for name in ("passwd", "base.qcow2"):  # files of these names beside the image are not those that are named
        (elsewhere / name).write_bytes(bytes(512))
    for name in ("/etc/passwd", str(base), "../base.qcow2"):
        run(["qemu-img", "rebase", "-u", "-b", name, "-F", "raw", elsewhere / "over.qcow2"])
        with pytest.raises(UnsupportedError, match="which is not beside it"):
            cosremaster.ls(str(elsewhere / "over.qcow2"))
    run(["qemu-img", "rebase", "-u", "-b", "over.qcow2", "-F", "qcow2", elsewhere / "over.qcow2"])
    with pytest.raises(UnsupportedError, match="its chain of backing files does not end"):
        cosremaster.ls(str(elsewhere / "over.qcow2"))

    base.unlink()
    for name, other in (("a", "b"), ("b", "a")):  # a circle of two
        run(["qemu-img", "create", "-q", "-u", "-f", "qcow2", "-b", f"{other}.qcow2", "-F", "qcow2",
             tmp_path / f"{name}.qcow2", "10M"])  # fmt: skip
    with pytest.raises(UnsupportedError, match="its chain of backing files does not end"):
        cosremaster.ls(str(tmp_path / "a.qcow2"))


FOREIGN = {
    "an XFS file system": (0, b"XFSB"),
    "a btrfs file system": (65_600, b"_BHRfS_M"),
    "an encrypted volume (LUKS)": (0, b"LUKS\xba\xbe"),
    "a physical volume of LVM": (512, b"LABELONE"),
}


@pytest.mark.parametrize("noun", FOREIGN)
def test_other_file_systems_are_refused_by_name(noun: str, disk: Path, tmp_path: Path) -> None:
    data = bytearray(disk.read_bytes())
    start = int(run(["sgdisk", "-i", "1", disk]).split(b"First sector: ")[1].split()[0]) * 512
    data[start : start + (1 << 17)] = bytes(1 << 17)
    at, magic = FOREIGN[noun]
    data[start + at : start + at + len(magic)] = magic
    image = tmp_path / "disk.raw"
    image.write_bytes(data)
    with pytest.raises(UnsupportedError, match=re.escape(f"is {noun}, which cannot be looked into")):
        cosremaster.ls(f"{image}::@gpt1::etc")
    with pytest.raises(CosremasterError, match="@gpt1 \\("):
        cosremaster.ls(f"{image}::@root::etc")
    (alone := tmp_path / "alone.img").write_bytes(data[start:])  # without a table of partitions
    target = tmp_path / "out.tar.gz"
    for use in (
        lambda: cosremaster.remaster(image, target, layer="@gpt1"),
        lambda: cosremaster.export(f"{image}::@gpt1", target, archive=cosremaster.MaasResource(name="a")),
        lambda: cosremaster.ls(str(alone)),
        lambda: cosremaster.inspect(alone),
        lambda: cosremaster.remaster(alone, target),
    ):
        with pytest.raises(UnsupportedError, match=re.escape(f"is {noun}, which cannot be looked into")):
            use()
        assert not target.exists()


def test_cut_off_and_damaged_images_are_told_with_their_place(disk: Path, tree: Path, tmp_path: Path) -> None:
    root = _make(tree, tmp_path / "root.img", ["-t", "ext4", "-b", "1024"], "20M")
    whole, image = root.read_bytes(), tmp_path / "bad.img"
    for length in (1500, 3000, 100_000, len(whole) // 2, len(whole) - 1):
        image.write_bytes(whole[:length])
        with pytest.raises(CosremasterError) as caught:
            list(_nodes(image).items())
        assert caught.value.place is not None
    chance = random.Random(2)
    for _ in range(15):
        data = bytearray(whole)
        for _ in range(chance.randrange(1, 4)):
            data[chance.randrange(1024, 600_000)] = chance.randrange(256)
        image.write_bytes(data)
        try:
            for node in _nodes(image).values():
                if node.content is not None:
                    node.content.table()
        except CosremasterError as error:
            assert error.place is not None
    image.write_bytes(disk.read_bytes()[: 30 << 20])
    with pytest.raises(ImageError, match=r"bytes of the partition are missing|neither of its copies"):
        cosremaster.ls(str(image))


def test_a_hole_in_inline_data_is_zeros(tmp_path: Path) -> None:
    """``mke2fs -d`` says of a file that is nothing but a hole that its data stand in the inode; Linux reads zeros."""
    tools.require("e2fsck")
    tree = tmp_path / "tree"
    tree.mkdir()
    for name, size in (("short", 7), ("field", 60), ("long", 61), ("huge", 5 << 20)):
        with (tree / name).open("wb") as file:
            file.truncate(size)
    image = _make(tree, tmp_path / "root.img", ["-t", "ext4", "-b", "1024", "-O", "inline_data", "-I", "256"], "8M")
    run(["e2fsck", "-fn", image])
    for path in tree.iterdir():
        assert cosremaster.read(f"{image}::{path.name}") == path.read_bytes()


def test_nobody_reads_a_hole_of_a_tebibyte(tmp_path: Path) -> None:
    tree, archive = tmp_path / "tree", tmp_path / "out.tar"
    tree.mkdir()
    with (tree / "lastlog").open("wb") as file:
        file.seek(3_000_000)
        file.write(b"login")
        file.truncate(1 << 40)
    image = _make(tree, tmp_path / "root.img", ["-t", "ext4"], "64M")
    with cosremaster.open(image) as opened:
        entry = opened.stat("lastlog")
        opened.extract("", tmp_path / "taken")
        opened.remaster(archive)
    assert (entry.size, entry.sha256) == (1 << 40, None)
    assert not list(cosremaster.diff(image, archive))
    for folder, unpack in (("gnu", ["tar", "-xf"]), ("bsd", ["bsdtar", "-xf"])):
        (tmp_path / folder).mkdir()
        run([*unpack, archive, "-C", tmp_path / folder])
    for folder in ("taken", "gnu", "bsd"):
        made = tmp_path / folder / "lastlog"
        assert (made.stat().st_size, made.stat().st_blocks < 2048) == (1 << 40, True)
        with made.open("rb") as file:
            file.seek(2_999_999)
            assert file.read(7) == b"\0login\0"
    (tree / "lastlog").write_bytes(bytes(3_000_000) + b"logon")
    with (tree / "lastlog").open("r+b") as file:
        file.truncate(1 << 40)
    other = _make(tree, tmp_path / "other.img", ["-t", "ext4"], "64M")
    assert any("lastlog" in difference.where for difference in cosremaster.diff(image, other))


def test_a_damaged_block_of_attributes_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tools.require("setfattr", "e2fsck")
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "file").write_bytes(b"data")
    run(["setfattr", "-n", "user.large", "-v", "Large" * 100, tree / "file"])
    image = _make(tree, tmp_path / "root.img", ["-t", "ext4", "-b", "1024"], "8M")
    assert dict(_nodes(image)[b"file"].xattrs)[b"user.large"] == b"Large" * 100
    data = image.read_bytes()
    image.write_bytes(data.replace(b"LargeLarge", b"largeLarge", 1))
    assert subprocess.run(["e2fsck", "-fn", image], capture_output=True, check=False).returncode == 4
    with pytest.raises(CorruptError, match=r"attribute of ext4 inode 1[23] is damaged: the checksum of their block"):
        list(_nodes(image).values())
    out = tmp_path / "x.tar.gz"
    assert main(["export", str(image), "--maas", "x", "--output", str(out)]) == 4
    assert "the checksum of their block is wrong" in capsys.readouterr().err
    assert not out.exists()


def test_an_encrypted_file_is_refused_by_its_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Such a file has an attribute of a class of its own, which holds no name and is not shown."""
    tools.require("setfattr", "debugfs")
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "secret").write_bytes(b"data" * 100)
    (tree / "open").write_bytes(b"open")
    run(["setfattr", "-n", "user.encryption", "-v", "c", tree / "secret"])
    image = _make(tree, tmp_path / "root.img", ["-t", "ext4", "-b", "1024", "-O", "^metadata_csum,encrypt"], "8M")
    run(["debugfs", "-w", "-R", "set_inode_field /secret flags 0x80800", image])
    data = bytearray(image.read_bytes())
    data[data.index(b"encryption") - 15] = 9
    image.write_bytes(data)
    assert not _nodes(image)[b"secret"].xattrs
    assert cosremaster.read(f"{image}::open") == b"open"
    out = tmp_path / "x.tar.gz"
    assert main(["export", str(image), "--maas", "x", "--output", str(out)]) == 5
    assert "ext4 inode" in (error := capsys.readouterr().err) and "is encrypted" in error
    assert not out.exists()


def test_a_journal_on_another_device_that_counts_is_refused(tree: Path, tmp_path: Path) -> None:
    """Without what it holds the tree would be an older one."""
    tools.require("debugfs")
    image = _make(tree, tmp_path / "root.img", ["-t", "ext4", "-b", "1024"], "20M")
    for change in ("ssv journal_inum 0", "ssv journal_dev 2049", "feature needs_recovery"):
        run(["debugfs", "-w", "-R", change, image])
    with pytest.raises(UnsupportedError, match="its journal is on another device"):
        list(_nodes(image))


def _extent_header(entries: int, depth: int, most: int = 4) -> bytes:
    return struct.pack("<HHHHI", 0xF30A, entries, most, depth, 0)


def _extent(logical: int, count: int, block: int) -> bytes:
    return struct.pack("<IHHI", logical, count, 0, block)


def _index(block: int) -> bytes:
    return struct.pack("<IIHH", 0, block, 0, 0)


LIES = {
    "a tree of six levels": (_extent_header(1, 6) + _index(20), None, "has 6 levels"),
    "a node of other levels": (_extent_header(1, 2) + _index(20), None, "a node of the extent tree is damaged"),
    "more entries than fit": (_extent_header(900, 0), None, "a node of the extent tree is damaged"),
    "behind the end": (_extent_header(1, 0) + _extent(0, 9, 1 << 30), None, "behind the end of the file system"),
    "block 0": (_extent_header(1, 0) + _extent(0, 9, 0), None, "an extent leads to block 0"),
    "an overlap": (_extent_header(2, 0) + _extent(0, 9, 30) + _extent(3, 9, 60), None, "overlap at block 3"),
    "a size that no file has": (
        _extent_header(1, 0) + _extent(0, 9, 30),
        1 << 60,
        "no file has 1,152,921,504,606,846,976",
    ),
    "nodes used again and again": (_extent_header(4, 5) + _index(15_000) * 4, None, "is used twice"),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_map_of_blocks_that_lies_is_told(lie: str, tree: Path, tmp_path: Path) -> None:
    """In a file system without checksums; a tree of nodes that lead to one another would take for ever."""
    tools.require("debugfs")
    image = _make(tree, tmp_path / "root.img", ["-t", "ext4", "-b", "1024", "-O", "^metadata_csum,^64bit"], "20M")
    place = run(["debugfs", "-R", "imap /usr/bin/noise", image]).decode()
    block, offset = re.findall(r"located at block (\d+), offset (0x[0-9a-f]+)", place)[0]
    at = int(block) * 1024 + int(offset, 16)
    field, size, message = LIES[lie]
    with image.open("r+b") as file:
        file.seek(at + 0x28)
        file.write(field.ljust(60, b"\0"))
        if size is not None:
            file.seek(at + 4)
            file.write((size & 0xFFFFFFFF).to_bytes(4, "little"))
            file.seek(at + 0x6C)
            file.write((size >> 32).to_bytes(4, "little"))
        for depth in range(5):  # below 15,000 each node leads 80 times to the next, and the last has no entries
            file.seek((15_000 + depth) * 1024)
            below = _index(15_001 + depth) * 80 if depth < 4 else b""
            file.write((_extent_header(80 if below else 0, 4 - depth, 84) + below).ljust(1024, b"\0"))
    start = time.process_time()
    with pytest.raises(CorruptError, match=message) as caught:
        cosremaster.read(f"{image}::usr/bin/noise")
    assert caught.value.place is not None
    assert time.process_time() - start < 5
    assert main(["extract", str(image), str(tmp_path / "out")]) == 4
    assert not (tmp_path / "out/usr/bin/noise").exists()
    assert main(["export", str(image), "--maas", "x", "--output", str(tmp_path / "x.tar.gz")]) == 4
    assert not (tmp_path / "x.tar.gz").exists()


def test_a_damaged_qcow2_image_is_told(disk: Path, tmp_path: Path) -> None:
    tools.require("qemu-img")
    image, bad = tmp_path / "disk.qcow2", tmp_path / "bad.qcow2"
    run(["qemu-img", "convert", "-O", "qcow2", "-c", disk, image])
    whole, chance = image.read_bytes(), random.Random(3)
    for length in (3, 50, 72, 103, 1000, 70_000, len(whole) // 2):
        bad.write_bytes(whole[:length])
        with pytest.raises(CosremasterError):
            cosremaster.read(f"{bad}::@gpt1::usr/bin/noise")
    for _ in range(30):
        data = bytearray(whole)
        data[chance.randrange(4, 300_000)] = chance.randrange(256)
        bad.write_bytes(data)
        try:
            cosremaster.read(f"{bad}::@gpt1::usr/bin/noise")
        except CosremasterError as error:
            assert error.place is not None
    first = int.from_bytes(whole[40:48], "big")  # the table of tables, whose every entry leads to itself
    circle = bytearray(whole)
    circle[first : first + 4096] = (first | 1 << 63).to_bytes(8, "big") * 512
    bad.write_bytes(circle)
    with pytest.raises(CosremasterError):
        cosremaster.read(f"{bad}::@gpt1::usr/bin/noise")
    huge = bytearray(whole)
    huge[24:32] = (1 << 60).to_bytes(8, "big")
    bad.write_bytes(huge)
    with pytest.raises(CorruptError, match="impossible sizes"):
        cosremaster.ls(str(bad))


def test_an_expected_digest_is_that_of_the_qcow2_file(disk: Path, tmp_path: Path) -> None:
    tools.require("qemu-img")
    image, target = tmp_path / "disk.qcow2", tmp_path / "root.tar"
    run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", disk, image])
    right, of_disk = (f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}" for path in (image, disk))
    assert main([str(image), str(target), "--quiet", "--no-sync", "--expect", of_disk]) == 3
    assert not target.exists()
    assert main([str(image), str(target), "--quiet", "--no-sync", "--expect", right]) == 0
    assert main(["ls", str(image), "--expect", right]) == 0


def test_the_three_forms_of_a_cloud_image_give_the_same_tree(
    tree: Path, disk: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ubuntu publishes a cloud image as a disk (``.img``: qcow2 with a GPT), as a squashfs and as root.tar.xz."""
    tools.require("mksquashfs", "tar", "xz", "qemu-img")
    published = tmp_path / "cloud.img"
    run(["qemu-img", "convert", "-O", "qcow2", "-c", disk, published])
    disk = _make(tree, tmp_path / "root.img", ["-t", "ext4"])
    squashfs, archive = tmp_path / "root.squashfs", tmp_path / "root.tar.xz"
    run(["mksquashfs", tree, squashfs, "-quiet", "-no-progress"])
    run(["tar", "--xattrs", "--xattrs-include=*", "--acls", "-cJf", archive, "-C", tree, "."])
    facts = _read_folder(tree)
    acls = {  # squashfs has no place for access control lists
        os.fsdecode(path) for path, (*_, xattrs, _) in facts.items() if any(b"posix_acl" in name for name, _ in xattrs)
    }
    assert {"etc/hostname", "small"} <= acls
    assert _changed_paths(archive, disk) == {"lost+found"}, "mke2fs makes it"
    assert _changed_paths(archive, f"{published}::@root") == {"lost+found"}
    listings = []
    for address in (f"{published}::@root", str(squashfs), str(archive)):
        assert main(["ls", "-lR", address]) == 0
        lines = capsys.readouterr().out.splitlines()
        listings.append({line for line in lines if "lost+found" not in line})
    of_disk, of_squashfs, of_archive = ({line.replace("@ ", "  ") for line in listing} for listing in listings)
    assert of_disk == of_archive
    assert of_disk == of_squashfs
    assert len(of_disk) > 600
    assert _changed_paths(squashfs, disk) == acls | {"lost+found"}
    assert _changed_paths(squashfs, archive) == acls


def _changed_paths(old: Path, new: Path | str) -> set[str]:
    """Return the paths at which two images differ."""
    return {difference.where for difference in cosremaster.diff(old, new)}
