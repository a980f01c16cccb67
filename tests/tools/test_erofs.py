"""EROFS file systems: made by mkfs.erofs of Debian 12, and by the newest for newer forms; kernel and tree judge.

Debian 12's mkfs.erofs has lz4 alone. The newest makes images under zstd, LZMA and deflate, with 48-bit places, metadata
in an inode or small blocks. Kernels that do not know these cannot judge them; the tree does.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path

import pytest

import cosremaster
from cosremaster.cli import main
from cosremaster.errors import Place
from cosremaster.io.pieces import Literal, PieceTable, Range
from cosremaster.io.source import open_source
from cosremaster.layers.erofs.superblock import ErofsCompatible, ErofsFeature
from cosremaster.layers.erofs.tree import ErofsTree
from tests.fixtures import tools
from tests.fixtures.tools import run
from tests.support.archives_of_trees import write_tree
from tests.support.erofs_trees import (
    NEWER,
    describe_image,
    describe_tree,
    make_erofs,
    make_erofs_tree,
    make_newer_erofs,
    write_text,
)
from tests.support.mounted_trees import Description, mounted


@pytest.fixture(scope="session")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if os.geteuid() != 0:
        tools.leave_out("This test makes devices and owners, for which it needs root.")
    return make_erofs_tree(tmp_path_factory.mktemp("erofs") / "root")


@pytest.fixture(scope="session")
def newer_images(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_newer_erofs(tree, tmp_path_factory.mktemp("erofs-images"))


MATRIX = {
    "plain": (),
    "lz4": ("-zlz4",),
    "lz4hc 64K": ("-zlz4hc,12", "-C65536"),
    "legacy": ("-zlz4", "-Elegacy-compress"),
    "ztailpacking": ("-zlz4hc", "-Eztailpacking"),
    "fragments": ("-zlz4hc", "-C65536", "-Efragments,ztailpacking"),
    "dedupe": ("-zlz4hc", "-Ededupe"),
    "chunks": ("--chunksize=4096",),
    "chunk indexes": ("--chunksize=16384", "-Eforce-chunk-indexes"),
    "no inline data": ("-Enoinline_data",),
    "extended": ("-Eforce-inode-extended",),
    "no attributes": ("-x-1",),
    "own attributes": ("-x1000",),
}


@pytest.mark.parametrize("name", MATRIX)
def test_an_image_is_read_as_the_kernel_reads_it(name: str, tree: Path, tmp_path: Path) -> None:
    image = make_erofs(tree, tmp_path / "in.erofs", *MATRIX[name])
    with mounted(image, tmp_path / "mounted", "erofs") as folder:
        expected = describe_tree(folder)
    assert describe_image(image) == expected
    if name != "no attributes":
        assert expected == describe_tree(tree)


def drop_fractions(described: Description) -> Description:
    return {path: (*facts[:4], int(str(facts[4])) // 10**9, *facts[5:]) for path, facts in described.items()}


@pytest.mark.parametrize("name", NEWER)
def test_an_image_of_newer_tools_is_read(name: str, tree: Path, newer_images: Path) -> None:
    described, expected = describe_image(newer_images / f"{name}.erofs"), describe_tree(tree)
    if "48bit" in name:  # mkfs.erofs makes compact inodes then, whose times have no fractions
        described, expected = drop_fractions(described), drop_fractions(expected)
    assert described == expected


def test_compact_inodes_have_the_time_of_the_image(tmp_path: Path) -> None:
    root = write_tree(tmp_path / "root", {"etc/hostname": "old\n", "usr/a": "a\n"})
    image = make_erofs(root, tmp_path / "in.erofs", "-T1700000000", "-Eforce-inode-compact")
    assert {facts[4] for facts in describe_image(image).values()} == {1_700_000_000 * 10**9}


def test_a_hole_with_48_bit_places_in_a_compact_inode(tmp_path: Path) -> None:
    """mkfs.erofs gives such a file 32 bits for its first block, all of them set; the kernel 6.18 read it so."""
    root = write_tree(tmp_path / "root", {"usr/zeros": "x" * 8192, "usr/file": "file\n"})
    image = make_erofs(root, tmp_path / "in.erofs", "-T1700000000", "-Eforce-inode-compact", "--all-root")
    data = bytearray(image.read_bytes())
    compatible, block_bits, slots, number = struct.unpack_from("<IBBH", data, 1024 + 8)
    (features,) = struct.unpack_from("<I", data, 1024 + 80)
    struct.pack_into("<IBBH", data, 1024 + 8, compatible & ~ErofsCompatible.CHECKSUM, block_bits, slots, 0)
    struct.pack_into("<I", data, 1024 + 80, features | ErofsFeature.BITS48)
    struct.pack_into("<Q", data, 1024 + 112, number)
    with open_source(image) as source:
        tree = ErofsTree(PieceTable([Range(source, 0, source.size)]), Place((image.name,)))
        entry = tree.entry(b"usr/zeros")
        assert entry is not None
        struct.pack_into("<I", data, tree.filesystem.inode(entry.nid).position + 16, 0xFFFFFFFF)
    image.write_bytes(data)
    assert cosremaster.read(f"{image}::usr/zeros") == bytes(8192)
    assert cosremaster.read(f"{image}::usr/file") == b"file\n"


def test_shared_attributes_in_another_block_of_compressed_metadata(tmp_path: Path) -> None:
    """Their place counts within the metadata too; the kernel 6.18 read this image so."""
    root = write_tree(tmp_path / "root", {"a": "1", "b": "2", "metadata": "x" * 8192})
    for name in "ab":
        os.setxattr(root / name, "user.note", b"shared")
    image = make_erofs(root, tmp_path / "in.erofs", "-x1")
    data = bytearray(image.read_bytes())
    tree = ErofsTree(PieceTable([Literal(bytes(data))]), Place((image.name,)))
    entry, superblock = tree.entry(b"metadata"), tree.filesystem.superblock
    assert entry is not None
    start = 4096 * tree.filesystem.inode(entry.nid).start
    data[start : start + 8192] = bytes(4096) + data[superblock.xattr_start :][:4096]
    compatible = superblock.compatible & ~ErofsCompatible.CHECKSUM | ErofsCompatible.XATTRS_IN_METABOX
    struct.pack_into("<I", data, 1024 + 8, compatible)
    struct.pack_into("<I", data, 1024 + 44, 1)
    struct.pack_into("<I", data, 1024 + 80, superblock.features | ErofsFeature.METABOX)
    struct.pack_into("<BB", data, 1024 + 12, 12, 1)
    struct.pack_into("<Q", data, 1024 + 128, entry.nid)
    image.write_bytes(data)
    described = describe_image(image)
    assert [described[name][6] for name in ("a", "b", "metadata")] == [((b"user.note", b"shared"),)] * 2 + [()]


@pytest.mark.parametrize("options", [(), ("-Eforce-chunk-indexes",)], ids=["map", "indexes"])
def test_a_large_file_in_very_many_chunks(options: tuple[str, ...], tmp_path: Path) -> None:
    """Its zeros share a chunk, and each would be a piece of its own: these are made when they are read."""
    root, size = write_tree(tmp_path / "root", {"a": "-"}), 30_000_000
    data = bytearray(size)
    data[:70_000], data[20_000_001:20_000_100] = write_text(70_000), b"m" * 99
    (root / "a").write_bytes(data)
    image = make_erofs(root, tmp_path / "in.erofs", "--chunksize=4096", *options)
    assert image.stat().st_size < 1_000_000
    with open_source(image) as source:
        content = ErofsTree(PieceTable([Range(source, 0, source.size)]), Place((image.name,)))[b"a"].content
        assert content is not None
        assert (content.size, content.table().read()) == (size, bytes(data))
        assert len(content.table().pieces) <= 5  # since mkfs.erofs 1.9 they are holes: two texts and what follows each
        for start, length in ((0, 1), (69_990, 8200), (19_999_000, 3000), (size - 5000, 9000)):
            assert content.table().read(start, length) == data[start : start + length]
    assert cosremaster.verify(image).ok


@pytest.fixture
def image(tmp_path: Path) -> Path:
    files = {"etc/hostname": "old\n", "sbin/init": "#!/bin/sh\n", "etc/link": "-> hostname"}
    files["usr/text"] = write_text(50_000).decode()
    return make_erofs(write_tree(tmp_path / "small", files), tmp_path / "in.erofs", "-zlz4hc")


def test_every_command_reads_it(image: Path, tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    tools.require("genisoimage", "tar")
    disc = tmp_path / "disc/LiveOS"
    disc.mkdir(parents=True)
    (disc / "squashfs.img").write_bytes(image.read_bytes())
    iso = tmp_path / "in.iso"
    run(["genisoimage", "-quiet", "-R", "-o", str(iso), str(tmp_path / "disc")])
    for address in (str(image), f"{iso}::LiveOS/squashfs.img"):
        assert main(["ls", "-R", address]) == 0
        assert b"etc/hostname" in capsysbinary.readouterr().out.split()
        assert main(["cat", f"{address}::usr/text"]) == 0
        assert capsysbinary.readouterr().out == write_text(50_000)
        assert main(["find", address, "etc/host*"]) == 0
        assert b"etc/hostname" in capsysbinary.readouterr().out
        target = tmp_path / f"out-{address == str(image)}"
        assert main(["extract", f"{address}::usr", str(target)]) == 0
        assert (target / "text").read_bytes() == write_text(50_000)
    assert main(["diff", str(image), f"{iso}::LiveOS/squashfs.img"]) == 0
    assert main(["verify", str(image), "--deep"]) == 0
    assert main(["verify", str(iso), "--deep"]) == 0
    archive = tmp_path / "out.tar.gz"
    cosremaster.remaster(image, archive, add=[write_tree(tmp_path / "site", {"etc/site": "7\n"})])
    run(["tar", "-C", str(tmp_path), "-xf", str(archive), "etc/site", "usr/text"])
    assert (tmp_path / "usr/text").read_bytes() == write_text(50_000)


def test_a_partition_of_a_disk(image: Path, tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    tools.require("sgdisk", "tar")
    disk, data = tmp_path / "disk.img", image.read_bytes()
    disk.write_bytes(bytes(1 << 20) + data + bytes(1 << 20))
    run(["sgdisk", "-a", "8", "-n", f"1:2048:{2047 + len(data) // 512}", str(disk)])
    assert main(["ls", "-R", f"{disk}::@gpt1"]) == 0
    assert b"etc/hostname" in capsysbinary.readouterr().out.split()
    assert main(["cat", f"{disk}::@root::etc/hostname"]) == 0
    assert capsysbinary.readouterr().out == b"old\n"
    cosremaster.remaster(disk, tmp_path / "out.tar", add=[write_tree(tmp_path / "site", {"etc/site": "7\n"})])
    run(["tar", "-C", str(tmp_path), "-xf", str(tmp_path / "out.tar"), "etc/site", "usr/text"])
