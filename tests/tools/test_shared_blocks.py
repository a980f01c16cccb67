"""On XFS and btrfs an image shares with its base whatever it takes from it, and has the same bytes as elsewhere."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import cosremaster
from tests.fixtures import tools
from tests.fixtures.tools import require, run
from tests.support.small import CGZ, write_small

SIZES = {"xfs": 320 << 20, "btrfs": 120 << 20}
"""The least that mkfs takes, in bytes; the files are sparse."""


@contextmanager
def mounted_new(kind: str, folder: Path) -> Iterator[Path]:
    """An empty file system that can share blocks, mounted."""
    require(f"mkfs.{kind}", "filefrag", "mount")
    if os.geteuid() != 0 or f"\t{kind}" not in Path("/proc/filesystems").read_text(encoding="ascii"):
        tools.leave_out(f"This test needs root and a kernel with {kind}.")
    disk, mount = folder / f"{kind}.img", folder / kind
    with disk.open("wb") as file:
        file.truncate(SIZES[kind])
    run([f"mkfs.{kind}", "-q", disk])
    mount.mkdir()
    run(["mount", "-o", "loop", disk, mount])
    try:
        yield mount
    finally:
        run(["umount", mount])
        disk.unlink()


def _used(mount: Path) -> int:
    """Bytes that are taken on the disk."""
    run(["sync", "-f", mount])
    return int(run(["df", "--output=used", "-B1", mount]).split()[1])


def _shared(image: Path) -> int:
    """Bytes of ``image`` in blocks that other files have too, as filefrag(8) tells."""
    lines = run(["filefrag", "-v", "-b1", image]).decode().splitlines()
    return sum(int(line.split(":")[3]) for line in lines if "shared" in line.rpartition(":")[2])


def _site(folder: Path, size: int) -> Path:
    (folder / "site/opt").mkdir(parents=True, exist_ok=True)
    (folder / "site/opt/data").write_bytes(os.urandom(size))
    return folder / "site"


def _base(folder: Path) -> Path:
    """An image with large files on both sides of the layer, on blocks of 4 KiB."""
    return write_small(folder, extra={"a.bin": os.urandom(3 << 20), "z.bin": os.urandom(3 << 20)})


@pytest.mark.parametrize("kind", SIZES)
def test_an_image_takes_the_disk_of_its_difference(kind: str, tmp_path: Path) -> None:
    require("sha256sum")
    with mounted_new(kind, tmp_path) as mount:
        base, elsewhere = _base(mount), tmp_path / "elsewhere.iso"
        overlay = _site(tmp_path, 20_000)
        plain = cosremaster.remaster(base, tmp_path / "plain.iso", add=[overlay])
        if (plain.output_size - plain.input_size) % 4096 == 0:  # whatever moves shall move by an odd number of blocks
            overlay = _site(tmp_path, 22_000)
            plain = cosremaster.remaster(base, tmp_path / "plain.iso", add=[overlay], force=True)
        assert (plain.output_size - plain.input_size) % 4096 == 2048
        cosremaster.remaster(base, elsewhere, add=[overlay], align=4096)
        for options in ({}, {"digest": "sha256"}):
            before = _used(mount)
            out = mount / f"out{len(options)}.iso"
            cosremaster.remaster(base, out, add=[overlay], align="4K", **options)  # type: ignore[arg-type]
            assert out.read_bytes() == elsewhere.read_bytes(), "the bytes do not depend on the file system"
            assert _used(mount) - before < 400_000
            assert _shared(out) > 6_200_000
        run(["sha256sum", "-c", "out1.iso.sha256"], cwd=mount)
        assert cosremaster.verify(out, against=base, deep=True, changed=[CGZ]).ok
