"""The memory a boot needs: the rule as values, what layers take, and a machine with just that much."""

from __future__ import annotations

import gzip
import json
import lzma
import os
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cosremaster import remaster
from cosremaster.boot_memory.estimate import (
    DEFAULT_TMPFS_SHARE,
    GIB,
    INODE,
    KERNEL_MEMORY,
    LARGEST_LOADED,
    LARGEST_LOADED_BY_BIOS,
    MIB,
    PAGE,
    SMALLEST_REFUSED,
    UNPACKER_MEMORY,
    Footprint,
    InitramfsSizes,
    NestedRootfs,
    estimate_memory,
    measure_footprint,
)
from cosremaster.boot_memory.layers import find_tmpfs_share, measure_layer
from cosremaster.boot_memory.needs import estimate_image_memory
from cosremaster.cli import main
from cosremaster.demo.image import (
    DemoEntry,
    build_archive,
    build_iso,
    directory,
    initramfs,
    regular,
    root_items,
    symlink,
)
from cosremaster.remastering.image import OpenedImage
from cosremaster.remastering.request import Request
from tests.fixtures import tools
from tests.support.layers import cpio_entries
from tests.support.small import CGZ, packed_root, write_overlay, write_small


def test_files_take_whole_pages() -> None:
    assert measure_footprint([]) == Footprint(0, 0)
    assert measure_footprint([0, 1, PAGE, PAGE + 1]) == Footprint(4 * PAGE, 4)
    assert measure_footprint([1, 1]).size == 2 * PAGE + 2 * INODE
    assert measure_footprint([1]) + measure_footprint([PAGE]) == measure_footprint([1, PAGE])


SIZES = st.integers(0, 1 << 34)
PRINTS = st.builds(Footprint, SIZES, st.integers(0, 1 << 20))
SYSTEMS = st.builds(
    lambda packed, files, nested, share: InitramfsSizes(
        packed=packed, files=files, nested=None if nested is None else NestedRootfs(nested, share)
    ),
    SIZES, PRINTS, st.none() | PRINTS, st.sampled_from([0.25, 0.5, 1.0]),
)  # fmt: skip


@given(SYSTEMS, st.integers(0, 1 << 30))
def test_the_need_holds_each_moment_and_grows_with_each_part(one: InitramfsSizes, more: int) -> None:
    need = estimate_memory(one).need
    assert need is not None
    assert one.files is not None
    assert need % MIB == 0
    assert need > one.packed + one.files.size + KERNEL_MEMORY
    assert (need - one.packed) * DEFAULT_TMPFS_SHARE > one.files.data
    if one.nested is not None:
        assert need > one.files.size + one.nested.files.size + KERNEL_MEMORY + UNPACKER_MEMORY
        assert need * one.nested.tmpfs_share > one.nested.files.data
    for larger in (
        InitramfsSizes(packed=one.packed + more, files=one.files, nested=one.nested),
        InitramfsSizes(packed=one.packed, files=one.files + Footprint(more, 1), nested=one.nested),
    ):
        grown = estimate_memory(larger).need
        assert grown is not None
        assert grown >= need


def test_without_the_archives_only_the_file_is_known() -> None:
    found = estimate_memory(InitramfsSizes(packed=5 * GIB))
    assert (found.packed, found.need, found.unpacked, found.nested) == (5 * GIB, None, None, None)
    assert found.warnings


@pytest.mark.parametrize(
    ("size", "words"),
    [
        (LARGEST_LOADED, None),
        (LARGEST_LOADED + 1, "on UEFI that may fail"),
        (LARGEST_LOADED_BY_BIOS, "on UEFI no such file booted"),
        (SMALLEST_REFUSED, "no such file booted"),
    ],
)
def test_warns_at_the_measured_limits(size: int, words: str | None) -> None:
    warnings = estimate_memory(InitramfsSizes(packed=size)).warnings
    if words is None:
        assert not warnings
        return
    (warning,) = warnings
    assert f", and {words}; put large files on the ISO's own file tree (--add-iso)" in warning


# What layers take


def linked(path: bytes, ino: int, data: bytes = b"") -> DemoEntry:
    return DemoEntry(path, 0o100644, data, ino=ino, nlink=2)


def test_hard_links_count_once_and_long_symlinks_take_a_page(tmp_path: Path) -> None:
    items = [
        *root_items(), directory(b"x"), regular(b"x/page", bytes(PAGE)), regular(b"x/more", bytes(PAGE + 1)),
        symlink(b"x/short", b"s" * 100), symlink(b"x/long", b"l" * 128),
    ]  # fmt: skip
    plain, more = tmp_path / "plain", tmp_path / "more"
    plain.mkdir()
    more.mkdir()
    images = [write_small(plain, packed_root()), write_small(more, packed_root(items))]
    found = []
    for image in images:
        with OpenedImage(image) as opened:
            (layer,) = opened.layers().layers
            found.append(measure_layer(layer))
    assert found[1].data - found[0].data == PAGE + 2 * PAGE + PAGE
    assert found[1].inodes - found[0].inodes == 5


def test_what_the_kernel_says_of_a_tmpfs(tmp_path: Path) -> None:
    """The same tree in a tmpfs of this machine takes the same pages."""
    tools.require("cpio")
    items = [directory(b"d"), *(regular(b"d/%d" % size, os.urandom(size)) for size in (0, 1, 4096, 5000, 70_000))]
    image = write_small(tmp_path, gzip.compress(build_archive([*root_items(), *items]), mtime=0))
    with OpenedImage(image) as opened:
        (layer,) = opened.layers().layers
        found = measure_layer(layer)
    folder = Path("/dev/shm") if os.path.ismount("/dev/shm") else None
    if folder is None:
        tools.leave_out("there is no tmpfs at /dev/shm")
    blocks = 0
    for entry in cpio_entries(layer.index):
        path = folder / f"cosremaster-test-{os.getpid()}"
        if entry.header.mode & 0o170000 != 0o100000:
            continue
        try:
            path.write_bytes(bytes(entry.header.size))
            blocks += path.stat().st_blocks * 512
        finally:
            path.unlink(missing_ok=True)
    assert found.data == blocks


@pytest.mark.parametrize(
    ("script", "share"),
    [
        (b"mount -t tmpfs tmpfs /newroot\n", 0.5),
        (b"mount -t tmpfs -o size=${MEMSIZE}k,mode=0755 tmpfs /newroot\n", 1.0),
        (b"mount -t tmpfs -o size=90% tmpfs /newroot\n", 0.9),
        (b"mount -t tmpfs -o size=300% tmpfs /newroot\n", 1.0),
        (b"mount -t tmpfs -o size=90% a /a\nmount -t tmpfs b /b\n", 0.5),
        (b"# mount -t tmpfs -o size=90% tmpfs /newroot\n", 0.5),
        (b"echo\n", 0.5),
        (b"\x7fELF", 0.5),
    ],
)
def test_how_much_the_tmpfs_may_take(tmp_path: Path, script: bytes, share: float) -> None:
    outer = build_archive([directory(b"bin"), directory(b"etc"), regular(b"init", script, 0o755),
                     regular(b"rootfs.cxz", lzma.compress(build_archive(root_items())))])  # fmt: skip
    with OpenedImage(write_small(tmp_path, gzip.compress(outer, mtime=0))) as opened:
        layers = opened.layers().layers
        assert find_tmpfs_share([layers[0]]) == share


def test_a_nested_root_filesystem_counts_packed_and_unpacked(tmp_path: Path) -> None:
    source, overlay = write_small(tmp_path), write_overlay(tmp_path)
    (overlay / "noise").write_bytes(os.urandom(3 * MIB))
    (overlay / "zeros").write_bytes(bytes(5 * MIB))
    result = remaster(source, tmp_path / "out.iso", add=[overlay])
    need = result.memory
    assert need is not None
    with OpenedImage(tmp_path / "out.iso") as opened:
        (again,) = estimate_image_memory(opened.image, opened.layers().layers).values()
    # What the plan tells is what the new image tells, but for a dictionary that became smaller.
    assert need.need is not None
    assert replace(need, need=again.need) == again
    assert again.need is not None
    assert again.need <= need.need <= again.need + 9 * MIB
    with OpenedImage(source) as opened:
        (before,) = estimate_image_memory(opened.image, opened.layers().layers).values()
        nothing = opened.plan(Request(add=[], layer=f"{CGZ}::rootfs.cxz"))
        assert nothing.changes[0].memory == before
    assert before.nested is not None
    assert need.nested is not None
    assert need.nested - before.nested >= 8 * MIB
    assert need.unpacked is not None
    assert before.unpacked is not None
    assert 3 * MIB <= need.unpacked - before.unpacked < 4 * MIB
    assert need.packed == result.layer_file_size


def test_removed_things_no_longer_count(tmp_path: Path) -> None:
    items = [*root_items(), directory(b"big"), regular(b"big/one", bytes(MIB)), linked(b"big/a", 900),
             linked(b"big/b", 900, bytes(MIB))]  # fmt: skip
    source = write_small(tmp_path, packed_root(items))
    out = tmp_path / "out.iso"
    sizes = []
    for pattern in ((), ("/big/one",), ("/big/one", "/big/b"), ("/big",)):
        result = remaster(source, out, remove=pattern, layer=CGZ, force=True)
        assert result.memory is not None
        with OpenedImage(out) as opened:
            assert estimate_image_memory(opened.image, opened.layers().layers)[CGZ.encode()] == result.memory
        sizes.append(result.memory.unpacked)
    whole, one, other, none = (size or 0 for size in sizes)
    assert (whole - one, one - other) == (MIB + INODE, 0)
    assert other - none == MIB + 2 * INODE


def test_what_is_no_initramfs_is_not_counted(tmp_path: Path) -> None:
    """Casper's squashfs stays on the disc, and so does an archive of data."""
    files = {"casper/initrd": packed_root(), "casper/filesystem.squashfs": b"hsqs" + bytes(9000),
             "data.cpio.gz": gzip.compress(build_archive([regular(b"notes", bytes(5000))]), mtime=0)}  # fmt: skip
    (tmp_path / "in.iso").write_bytes(build_iso(files))
    with OpenedImage(tmp_path / "in.iso") as opened:
        needs = estimate_image_memory(opened.image, opened.layers().layers)
    assert list(needs) == [b"casper/initrd"]
    assert needs[b"casper/initrd"].nested is None


# What is told


def test_inspect_tells_it(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    image = write_small(tmp_path)
    assert main(["inspect", str(image)]) == 0
    said = capsys.readouterr().out
    assert f"memory to boot {CGZ}: more than its " in said
    assert main(["inspect", str(image), "--json"]) == 0
    (told,) = json.loads(capsys.readouterr().out)["memory"]
    assert told == {
        "path": CGZ, "packed": len(initramfs()), "unpacked": None, "nested": None, "need": None, "warnings": []
    }  # fmt: skip
    assert main(["inspect", str(image), "--deep", "--json"]) == 0
    (told,) = json.loads(capsys.readouterr().out)["memory"]
    assert told["need"] > told["packed"] + told["unpacked"] > told["packed"]
    monkeypatch.setattr("cosremaster.boot_memory.estimate.LARGEST_LOADED", 5000)
    for deep in ([], ["--deep"]):
        assert main(["inspect", str(image), *deep]) == 0
        assert "put large files on the ISO's own file tree (--add-iso)" in capsys.readouterr().out
    page = tmp_path / "page.html"
    assert main(["inspect", str(image), "--html", str(page)]) == 0
    assert f"memory to boot {CGZ}: about " in page.read_text()


def test_the_summary_and_the_plan_tell_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, overlay = write_small(tmp_path), write_overlay(tmp_path)
    assert main([str(source), str(tmp_path / "out.iso"), "--add", str(overlay)]) == 0
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("memory to boot"))
    assert main(["plan", str(source), "--add", str(overlay)]) == 0
    assert line in capsys.readouterr().out.splitlines()
    assert main(["plan", str(source), "--add", str(overlay), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["memory"]["need"] > 0
