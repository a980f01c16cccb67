"""A squashfs or an initramfs in a squashfs is changed by address; unsquashfs, GNU cpio and the kernel's mount judge."""

from __future__ import annotations

import gzip
import hashlib
import os
from pathlib import Path

import pytest

import cosremaster
from cosremaster.cli import main
from cosremaster.errors import CorruptError, LayerError, UnsupportedError, UsageError
from tests.fixtures import tools
from tests.fixtures.tools import run
from tests.support.mounted_trees import mounted, on_disk

INNER = "lib/inner.squashfs"
SECRET = hashlib.shake_256(b"secret").digest(200_000)
NEW = cosremaster.InlineFile("/etc/hostname", b"new\n")
QUIET = ("-quiet", "-no-progress", "-noappend")
EPOCH = 1_700_000_000


def pack_cpio(folder: Path) -> bytes:
    """The files of ``folder`` as GNU cpio packs them."""
    return run(["cpio", "-o", "-H", "newc", "--quiet"], cwd=folder, stdin=run(["find", "."], cwd=folder))


def make_nested(folder: Path, *options: str) -> Path:
    """A squashfs with another one as a file of two names, and with an initramfs of two archives."""
    tools.require("mksquashfs", "unsquashfs", "cpio")
    (folder / "in/etc").mkdir(parents=True)
    (folder / "in/etc/hostname").write_bytes(b"old\n")
    (folder / "in/etc/kept").write_bytes(b"kept\n" * 9000)
    (folder / "in/etc/secret").write_bytes(SECRET)
    (folder / "main/etc").mkdir(parents=True)
    (folder / "main/etc/hostname").write_bytes(b"old\n")
    (folder / "early/kernel").mkdir(parents=True)
    (folder / "early/kernel/microcode").write_bytes(b"microcode\n")
    (folder / "out/lib").mkdir(parents=True, exist_ok=True)
    (folder / "out/boot").mkdir()
    run(["mksquashfs", str(folder / "in"), str(folder / "out" / INNER), *QUIET, "-comp", "xz"])
    os.utime(folder / "out" / INNER, (EPOCH, EPOCH))
    os.setxattr(folder / "out" / INNER, "user.note", b"kept")
    os.link(folder / "out" / INNER, folder / "out/lib/second")
    initrd = pack_cpio(folder / "early") + gzip.compress(pack_cpio(folder / "main"), mtime=0)
    (folder / "out/boot/initrd.img-6").write_bytes(initrd)
    os.symlink("boot/initrd.img-6", folder / "out/initrd.img")
    owned = ("-p", f"{INNER} m 640 12 34")  # which needs no root
    chosen = (*owned, *(options or ("-b", "4096")))
    run(["mksquashfs", str(folder / "out"), str(folder / "outer.squashfs"), *QUIET, *chosen])
    return folder / "outer.squashfs"


def extract_inner(outer: Path, folder: Path, path: str = INNER) -> Path:
    """The file ``path`` of the squashfs ``outer``, as unsquashfs reads it."""
    target = folder / "extracted"
    target.write_bytes(run(["unsquashfs", "-cat", str(outer), path]))
    return target


def count_blocks(path: Path) -> int:
    """The bytes that ``path`` takes in ext4."""
    return -(-path.stat().st_size // 4096) * 4096


def make_iso(folder: Path, outer: Path, *others: str) -> Path:
    """An ISO with ``outer``."""
    tools.require("xorriso")
    iso = folder / "x.iso"
    grafts = [f"live/root.squashfs={outer}", *others]
    run(["xorriso", "-as", "mkisofs", "-quiet", "-R", "-o", str(iso), "-graft-points", *grafts])
    return iso


def test_a_nested_squashfs_is_looked_into(tmp_path: Path) -> None:
    outer = make_nested(tmp_path)
    for path, way in ((outer, INNER), (make_iso(tmp_path, outer), f"live/root.squashfs::{INNER}")):
        with cosremaster.open(path, remember=False) as image:
            assert image.names(f"{way}::etc") == [b"hostname", b"kept", b"secret"]
            assert image.read(f"{way}::etc/kept") == b"kept\n" * 9000
            assert [line.split()[-1] for line in image.long_lines(way, recursive=True)] == [
                "etc", "etc/hostname", "etc/kept", "etc/secret",
            ]  # fmt: skip


@pytest.mark.parametrize("options", [("-b", "4096"), ("-comp", "zstd"), ("-noD", "-noF"), ("-comp", "xz", "-b", "1M")])
def test_a_nested_squashfs_is_changed_by_its_address(tmp_path: Path, options: tuple[str, ...]) -> None:
    outer, out = make_nested(tmp_path, *options), tmp_path / "new.squashfs"
    before = {line.split()[-1]: line.split() for line in run(["unsquashfs", "-lln", str(outer)]).decode().splitlines()}
    cosremaster.remaster(outer, out, add=[NEW], layer=INNER, remember=False)
    inner = extract_inner(out, tmp_path)
    assert run(["unsquashfs", "-cat", str(inner), "etc/hostname"]) == b"new\n"
    assert run(["unsquashfs", "-cat", str(inner), "etc/kept"]) == b"kept\n" * 9000
    after = {line.split()[-1]: line.split() for line in run(["unsquashfs", "-lln", str(out)]).decode().splitlines()}
    assert set(after) == set(before)
    for name, words in before.items():  # mode, owner and time
        same = (0, 1, 3, 4) if name.endswith((INNER, "second")) else tuple(range(len(words)))
        assert [after[name][at] for at in same] == [words[at] for at in same]
    assert run(["unsquashfs", "-cat", str(out), "lib/second"]) == inner.read_bytes()
    run(["unsquashfs", "-q", "-n", "-d", str(tmp_path / "unpacked"), str(out)])
    file, second = (tmp_path / "unpacked" / name for name in (INNER, "lib/second"))
    assert file.stat().st_ino == second.stat().st_ino
    assert os.getxattr(file, "user.note") == b"kept"
    again = tmp_path / "again.squashfs"
    cosremaster.remaster(outer, again, add=[NEW], layer=INNER, remember=False, threads=1)
    assert again.read_bytes() == out.read_bytes()
    assert main(["verify", "--deep", str(out)]) == 0


def test_the_kernel_mounts_both(tmp_path: Path) -> None:
    tools.require("mount")
    outer, out = make_nested(tmp_path), tmp_path / "new.squashfs"
    cosremaster.remaster(outer, out, add=[NEW], layer=INNER, remember=False)
    with mounted(out, tmp_path / "outside") as outside:
        assert (outside / INNER).stat().st_nlink == 2
        with mounted(outside / INNER, tmp_path / "inside") as inside:
            (tmp_path / "in/etc/hostname").write_bytes(b"new\n")
            new, old = on_disk(inside), on_disk(tmp_path / "in")
            assert set(new) == set(old)
            assert (inside / "etc/hostname").read_bytes() == b"new\n"
            assert (inside / "etc/secret").read_bytes() == SECRET


def test_a_nested_squashfs_is_changed_on_an_iso(tmp_path: Path) -> None:
    size = tmp_path / "root.size"
    size.write_bytes(b"1000000\n")
    outer = make_nested(tmp_path)
    iso, out = make_iso(tmp_path, outer, f"live/root.size={size}"), tmp_path / "new.iso"
    way = f"live/root.squashfs::{INNER}"
    big = cosremaster.InlineFile("/etc/big", hashlib.shake_256(b"big").digest(100_000))
    for remember in (True, True, False):  # an index that is remembered holds nothing of it
        result = cosremaster.remaster(iso, out, add=[NEW, big], layer=way, remember=remember, force=True)
        assert [packed.address for packed in result.packed] == [way, "live/root.squashfs"]
        assert result.layer == way
        run(["xorriso", "-osirrox", "on", "-indev", str(out), "-extract", "live", str(tmp_path / "live")])
        new = tmp_path / "live/root.squashfs"
        assert run(["unsquashfs", "-cat", str(extract_inner(new, tmp_path)), "etc/hostname"]) == b"new\n"
        grown = (new.parent / "root.size").read_bytes()
        inner = tmp_path / "out" / INNER
        assert int(grown) - 1_000_000 == count_blocks(tmp_path / "extracted") - count_blocks(inner)
        run(["rm", "-r", str(tmp_path / "live")])
    assert main(["verify", str(out)]) == 0


def test_a_nested_squashfs_is_changed_in_an_initramfs(tmp_path: Path) -> None:
    outer, out = make_nested(tmp_path), tmp_path / "new.img"
    (tmp_path / "ram").mkdir()
    outer.rename(tmp_path / "ram/root.squashfs")
    (tmp_path / "ram/init").write_bytes(b"#!/bin/sh\n")
    initrd = tmp_path / "initrd.img"
    initrd.write_bytes(pack_cpio(tmp_path / "early") + gzip.compress(pack_cpio(tmp_path / "ram"), mtime=0))
    cosremaster.remaster(initrd, out, add=[NEW], layer=f"initrd.img::#2::root.squashfs::{INNER}", remember=False)
    early = pack_cpio(tmp_path / "early")
    data = out.read_bytes()
    assert data.startswith(early)  # the archive before it stays
    (tmp_path / "unpacked").mkdir()
    run(
        ["cpio", "-i", "--quiet"], cwd=tmp_path / "unpacked", stdin=gzip.decompress(data[data.index(b"\x1f\x8b\x08") :])
    )
    inner = extract_inner(tmp_path / "unpacked/root.squashfs", tmp_path)
    assert run(["unsquashfs", "-cat", str(inner), "etc/hostname"]) == b"new\n"


def test_an_initramfs_in_a_squashfs_is_changed_by_its_address(tmp_path: Path) -> None:
    outer, out = make_nested(tmp_path), tmp_path / "new.squashfs"
    early = cosremaster.InlineFile("/kernel/microcode", b"newer\n")
    result = cosremaster.remaster(outer, out, add=[NEW, early], layer="initrd.img", remember=False)  # a symlink
    assert result.layer == "outer.squashfs::boot/initrd.img-6"
    data = extract_inner(out, tmp_path, "boot/initrd.img-6").read_bytes()
    archives = (data, gzip.decompress(data[data.index(b"\x1f\x8b\x08") :]))
    for number, (archive, name, text) in enumerate(
        zip(archives, ("kernel/microcode", "etc/hostname"), (b"newer\n", b"new\n"), strict=True)
    ):
        (tmp_path / f"unpacked{number}").mkdir()
        run(["cpio", "-i", "--quiet"], cwd=tmp_path / f"unpacked{number}", stdin=archive)
        assert (tmp_path / f"unpacked{number}" / name).read_bytes() == text
    cosremaster.remaster(
        outer, out, add=[NEW], layer="outer.squashfs::boot/initrd.img-6::#1", remember=False, force=True
    )
    data = extract_inner(out, tmp_path, "boot/initrd.img-6").read_bytes()
    assert b"etc/hostname" in run(["cpio", "-t", "--quiet"], stdin=data)


def test_several_layers_of_a_squashfs_are_changed_together(tmp_path: Path) -> None:
    outer, out = make_nested(tmp_path), tmp_path / "new.squashfs"
    layers = ["outer.squashfs", INNER, "boot/initrd.img-6"]
    cosremaster.remaster(outer, out, add=[NEW], layer=layers, remember=False)
    assert run(["unsquashfs", "-cat", str(out), "etc/hostname"]) == b"new\n"
    assert run(["unsquashfs", "-cat", str(extract_inner(out, tmp_path)), "etc/hostname"]) == b"new\n"
    data = extract_inner(out, tmp_path, "boot/initrd.img-6").read_bytes()
    assert b"etc/hostname" in run(["cpio", "-t", "--quiet"], stdin=gzip.decompress(data[data.index(b"\x1f\x8b\x08") :]))
    with pytest.raises(UsageError, match="cannot be changed inside and be replaced or removed"):
        cosremaster.remaster(
            outer, out, add=[NEW], remove=[f"/{INNER}"], layer=["outer.squashfs", INNER], remember=False, force=True,
            allow_missing=True,
        )  # fmt: skip


def test_old_data_of_a_nested_squashfs_are_told_and_taken_out(tmp_path: Path) -> None:
    outer, out = make_nested(tmp_path), tmp_path / "new.squashfs"
    result = cosremaster.remaster(outer, out, remove=["/etc/secret"], layer=INNER, remember=False)
    told = [warning for warning in result.warnings if "--repack takes them out" in warning]
    assert len(told) == 2  # of the secret in the inner file, and of the whole inner file in the outer
    assert SECRET[:4096] in out.read_bytes()
    cosremaster.remaster(outer, out, remove=["/etc/secret"], layer=INNER, repack=True, remember=False, force=True)
    data = out.read_bytes()
    assert all(SECRET[at : at + 64] not in data for at in range(0, 1 << 17, 4096))
    inner = extract_inner(out, tmp_path)
    assert run(["unsquashfs", "-cat", str(inner), "etc/kept"]) == b"kept\n" * 9000


def test_what_is_no_layer_in_a_squashfs_is_said(tmp_path: Path) -> None:
    tools.require("mke2fs")
    (tmp_path / "out").mkdir(exist_ok=True)
    run(["mke2fs", "-q", "-t", "ext4", str(tmp_path / "out/rootfs.img"), "2M"])
    (tmp_path / "out/text").write_bytes(b"text\n")
    (tmp_path / "out/empty").write_bytes(b"")
    (tmp_path / "out/damaged").write_bytes(gzip.compress(pack_cpio(tmp_path / "out"))[:-12])
    os.symlink("loop", tmp_path / "out/loop")
    outer, out = make_nested(tmp_path), tmp_path / "new.squashfs"
    for name, kind, message in (
        ("text", LayerError, "text: is no cpio"),
        ("empty", LayerError, "an empty file"),
        ("lib", LayerError, "lib: is no archive but a directory"),
        ("nowhere", LayerError, "has no nowhere"),
        ("loop", LayerError, "symlinks lead in a loop"),
        ("damaged", CorruptError, "outer.squashfs » damaged"),
        ("rootfs.img", UnsupportedError, "rootfs.img"),
    ):
        with pytest.raises(kind, match=message):
            cosremaster.remaster(outer, out, add=[NEW], layer=name, remember=False)
        assert not out.exists()


def test_verify_looks_into_layers_of_a_squashfs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    outer = make_nested(tmp_path, "-noD", "-noF", "-no-fragments")
    for path, way in ((outer, "outer.squashfs"), (make_iso(tmp_path, outer), "live/root.squashfs")):
        assert main(["verify", "--deep", str(path)]) == 0
        told = capsys.readouterr().out
        assert f"{way}::{INNER}: 5 entries" in told
        assert f"{way}::lib/second" not in told, "which is the same file"
        assert f"{way}::boot/initrd.img-6" in told
    data, inner = bytearray(outer.read_bytes()), (tmp_path / "out" / INNER).read_bytes()
    at = data.index(inner[: 1 << 12]) + int.from_bytes(inner[64:72], "little") + 20
    data[at] ^= 1  # in the packed inodes of the inner one, which are stored data of the outer one
    outer.write_bytes(data)
    assert main(["verify", str(outer)]) == 0
    capsys.readouterr()
    assert main(["verify", "--deep", str(outer)]) == 1, "it is most of the outer one"
    (told,) = (line for line in capsys.readouterr().out.splitlines() if "layer.corrupt" in line)
    assert f"outer.squashfs » {INNER}" in told


def test_a_nested_layer_that_stays_hidden_is_told(tmp_path: Path) -> None:
    outer = make_nested(tmp_path)
    run(["mksquashfs", str(tmp_path / "out"), str(tmp_path / "over.squashfs"), *QUIET, "-e", "boot"])
    tools.require("xorriso")
    iso = tmp_path / "y.iso"
    grafts = [f"casper/minimal.squashfs={outer}", f"casper/minimal.standard.squashfs={tmp_path / 'over.squashfs'}"]
    run(["xorriso", "-as", "mkisofs", "-quiet", "-R", "-o", str(iso), "-graft-points", *grafts])
    for path, is_hidden in ((INNER, True), ("boot/initrd.img-6", False)):
        layer = f"casper/minimal.squashfs::{path}"
        result = cosremaster.remaster(iso, tmp_path / "out.iso", add=[NEW], layer=layer, remember=False, force=True)
        told = [warning for warning in result.warnings if "stays hidden in the running system" in warning]
        assert len(told) == is_hidden
        assert all(warning.startswith(path) and "minimal.standard.squashfs" in warning for warning in told)


def test_inspect_tells_of_dead_bytes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    outer, out = make_nested(tmp_path), tmp_path / "new.squashfs"
    assert main(["inspect", "--deep", str(outer)]) == 0
    assert "removed files" not in capsys.readouterr().out
    cosremaster.remaster(outer, out, remove=["/boot"], remember=False)
    assert main(["inspect", "--deep", str(out)]) == 0
    assert "of removed files and old tables are in it (--repack)" in capsys.readouterr().out
    with cosremaster.open(out) as image:
        (layer,) = image.layers()
    assert layer.dead_bytes
    assert layer.dead_bytes >= (tmp_path / "out/boot/initrd.img-6").stat().st_size // 2
