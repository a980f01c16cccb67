"""Files in the EFI file system of an image: copies of what changes on the tree follow; mtools and fsck.fat judge."""

from __future__ import annotations

import gzip
import hashlib
import json
import random
import subprocess
from pathlib import Path

import pytest

import cosremaster
from cosremaster import remaster
from cosremaster.boot.fat import Fat
from cosremaster.cli import main
from cosremaster.errors import ImageError, LayerError, OverlayError, Place, SizeError
from cosremaster.verification.run import verify
from tests.fixtures import tools
from tests.fixtures.tools import run
from tests.support import judges
from tests.support.esp import (
    KERNEL,
    SHAPES,
    TOOLS,
    fats_of,
    make_fat,
    make_image,
    read_fat_file,
    write_tree,
)

SIZES = [(["-F12", "-s1"], 4_000), (["-F16", "-s1"], 20_000), (["-F32", "-s1"], 70_000)]
INITRAMFS, VMLINUZ = "arch/boot/initramfs.img", "arch/boot/vmlinuz"


@pytest.fixture(autouse=True)
def _programs() -> None:
    tools.require(*TOOLS)


def names_in(initramfs: bytes) -> list[str]:
    done = subprocess.run(["cpio", "-t", "--quiet"], input=gzip.decompress(initramfs), check=True, capture_output=True)
    return done.stdout.decode().split()


def expect_sound_fats(iso: Path, folder: Path) -> list[Path]:
    fats = fats_of(iso, folder)
    for fat in fats:
        run(["fsck.fat", "-n", fat])
    assert [finding for finding in verify(iso).findings if finding.is_counted] == []
    return fats


def listed_time(fat: Path) -> list[str]:
    lines = run(["mdir", "-i", fat, "::/arch/boot"]).decode().splitlines()
    return next(line.split()[2:] for line in lines if "vmlinuz" in line)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_copy_of_an_initramfs_follows_it(shape: str, tmp_path: Path) -> None:
    iso, out = make_image(tmp_path / "made", shape), tmp_path / "out.iso"
    before = iso.read_bytes()
    write_tree(tmp_path / "add", {"etc/site": random.Random(2).randbytes(50_000)})
    result = remaster(iso, out, add=[tmp_path / "add"], kernel_args=["site=7"])
    assert iso.read_bytes() == before
    fats = expect_sound_fats(out, tmp_path / "after")
    assert len(fats) == 1 + (shape == "on the tree and appended")
    assert [dict(change.copies) for change in result.fats] == [{INITRAMFS.encode(): INITRAMFS.encode()}] * len(fats)
    new = judges.tree(out)
    for fat in fats:
        initramfs = read_fat_file(fat, INITRAMFS)
        assert "etc/site" in names_in(initramfs)
        assert new[INITRAMFS][4] == hashlib.sha256(initramfs).hexdigest()
        assert read_fat_file(fat, VMLINUZ) == KERNEL
        assert b"options quiet site=7" in read_fat_file(fat, "loader/entries/a.conf")
    changed = [INITRAMFS.encode(), b"loader/entries/a.conf"]
    assert [one for one in verify(out, against=iso, changed=changed).findings if one.is_counted] == []


@pytest.mark.parametrize(("options", "sectors"), SIZES)
def test_the_copy_of_a_kernel_grows_and_shrinks(options: list[str], sectors: int, tmp_path: Path) -> None:
    iso = make_image(tmp_path / "made", "appended", *options, sectors=sectors)
    for size in (1, 30_001, 400_000):
        new = tmp_path / "vmlinuz"
        new.write_bytes(random.Random(size).randbytes(size))
        result = remaster(iso, tmp_path / f"{size}.iso", add_iso=[f"{new}:/{VMLINUZ}"])
        (fat,) = expect_sound_fats(tmp_path / f"{size}.iso", tmp_path / str(size))
        assert read_fat_file(fat, VMLINUZ) == new.read_bytes()
        assert "etc" in names_in(read_fat_file(fat, INITRAMFS))
        assert result.iso_exchanged == (VMLINUZ.encode(),)
        (before,) = fats_of(iso, tmp_path / f"before{size}")
        assert listed_time(before) == listed_time(fat)


def test_a_copy_is_known_by_its_bytes_and_not_by_its_name(tmp_path: Path) -> None:
    other = bytes(reversed(KERNEL))
    iso = make_image(tmp_path / "made", "appended", more={"EFI/Linux/KERNEL.EFI": KERNEL, "EFI/other": other})
    (tmp_path / "new").write_bytes(b"new" * 9_000)
    result = remaster(iso, tmp_path / "out.iso", add_iso=[f"{tmp_path}/new:/{VMLINUZ}"])
    (fat,) = expect_sound_fats(tmp_path / "out.iso", tmp_path / "after")
    for path, data in ((VMLINUZ, b"new" * 9_000), ("EFI/Linux/KERNEL.EFI", b"new" * 9_000), ("EFI/other", other)):
        assert read_fat_file(fat, path) == data
    assert result.fats[0].exchanged == (b"EFI/Linux/KERNEL.EFI", VMLINUZ.encode())


def test_a_copy_without_room_is_refused_and_may_stay(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    iso, new = make_image(tmp_path / "made", "appended"), tmp_path / "new"
    new.write_bytes(random.Random(3).randbytes(5_000_000))
    argv = [str(iso), str(tmp_path / "out.iso"), "--add-iso", f"{new}:/{VMLINUZ}"]
    assert main(argv) == SizeError.exit_code
    assert not (tmp_path / "out.iso").exists()
    message = capsys.readouterr().err.splitlines()[-1]
    assert f"MBR partition 2 » {VMLINUZ}: does not fit: it needs 4,980,736 more bytes" in message
    assert "--keep-fat-copies" in message
    assert main([*argv, "--keep-fat-copies"]) == 0
    assert f"MBR partition 2 » {VMLINUZ} stays as it is, a copy of the old {VMLINUZ}" in capsys.readouterr().err
    (fat,) = expect_sound_fats(tmp_path / "out.iso", tmp_path / "after")
    assert read_fat_file(fat, VMLINUZ) == KERNEL
    assert fat.read_bytes() == fats_of(iso, tmp_path / "before")[0].read_bytes()


def test_originals_that_differ_are_told_apart_by_path(tmp_path: Path) -> None:
    iso, new = make_image(tmp_path / "made", "appended"), tmp_path / "new"
    (tmp_path / "kernel").write_bytes(KERNEL)
    twice = tmp_path / "twice.iso"
    remaster(iso, twice, add_iso=[f"{tmp_path}/kernel:/other"])  # the same bytes on the tree twice
    new.write_bytes(b"new" * 9_000)
    remaster(twice, tmp_path / "out.iso", add_iso=[f"{new}:/other"])
    (fat,) = fats_of(tmp_path / "out.iso", tmp_path / "after")
    assert read_fat_file(fat, VMLINUZ) == KERNEL  # the copy of the one that has its path
    (tmp_path / "second").write_bytes(b"2nd" * 9_000)
    both = [f"{new}:/other", f"{tmp_path}/second:/{VMLINUZ}"]
    remaster(twice, tmp_path / "both.iso", add_iso=both)
    (fat,) = fats_of(tmp_path / "both.iso", tmp_path / "both")
    assert read_fat_file(fat, VMLINUZ) == b"2nd" * 9_000
    moved = make_image(tmp_path / "moved", "appended", more={"kernel": KERNEL})
    remaster(moved, twice, add_iso=[f"{tmp_path}/kernel:/other"], force=True)
    with pytest.raises(OverlayError, match=r"kernel: is a copy of arch/boot/vmlinuz and other, which get different"):
        remaster(twice, tmp_path / "refused.iso", add_iso=both)


def test_the_plan_says_which_copies_follow(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    iso, new = make_image(tmp_path / "made", "on the tree"), tmp_path / "new"
    new.write_bytes(b"new")
    assert main(["plan", str(iso), "--add-iso", f"{new}:/{VMLINUZ}", "--json"]) == 0
    (change,) = json.loads(capsys.readouterr().out)["fats"]
    assert change == {"fat": "EFI/efiboot.img", "exchanged": [VMLINUZ], "copies": {VMLINUZ: VMLINUZ}}
    assert main(["plan", str(iso), "--add-iso", f"{new}:/{VMLINUZ}"]) == 0
    assert f"in EFI/efiboot.img: 1 exchanged\n  ~ {VMLINUZ}, as {VMLINUZ}" in capsys.readouterr().out


@pytest.mark.parametrize("shape", SHAPES)
def test_addresses_lead_into_the_file_system(shape: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    iso = make_image(tmp_path / "made", shape, more={"EFI/a rather long näme.conf": b"long\n"})
    fat = "EFI/efiboot.img" if "on the tree" in shape else "@gpt2" if "GPT" in shape else "@mbr2"
    assert main(["ls", f"{iso}::{fat}"]) == 0
    assert capsys.readouterr().out.split() == ["EFI", "arch", "loader"]
    assert main(["ls", "-R", f"{iso}::{fat}::efi"]) == 0
    assert capsys.readouterr().out == "a rather long näme.conf\n"
    with cosremaster.open(iso) as image:
        assert image.read(f"{fat}::ARCH/boot/VMLINUZ") == KERNEL
        assert image.names(f"{fat}::{INITRAMFS}") == [b"bin", b"etc", b"init"]
        entry = image.stat(f"{fat}::{VMLINUZ}", full=True)
        assert (entry.mtime, entry.sha256) == (tools.EPOCH, hashlib.sha256(KERNEL).hexdigest())
        assert image.stat("EFI/efiboot.img", full=True).contains == "FAT12" if "on the tree" in shape else True
        image.extract(fat, tmp_path / "out")
    assert (tmp_path / "out" / VMLINUZ).read_bytes() == KERNEL
    assert main(["ls", f"{iso}::@gpt9"]) == LayerError.exit_code
    assert "has no @gpt9 (it has" in capsys.readouterr().err


def test_differences_inside_the_file_system_are_listed(tmp_path: Path) -> None:
    write_tree(tmp_path / "add", {"etc/site": b"7"})
    for shape, fat in (("appended", "@mbr2"), ("on the tree", "EFI/efiboot.img")):
        iso, out = make_image(tmp_path / shape, shape), tmp_path / f"{shape}.out"
        remaster(iso, out, add=[tmp_path / "add"])
        places = [difference.where for difference in cosremaster.diff(iso, out) if difference.what == "added"]
        assert places == sorted([f"{fat}::{INITRAMFS}::etc/site", f"{INITRAMFS}::etc/site"])


def test_a_damaged_file_system_is_a_plain_file(tmp_path: Path) -> None:
    fat = make_fat(tmp_path / "bad.img", write_tree(tmp_path / "fat", {"EFI/BOOT/BOOTX64.EFI": KERNEL}))
    raw = bytearray(fat.read_bytes())
    opened = Fat.open(lambda at, length: bytes(raw[at : at + length]), len(raw), Place())
    assert opened is not None
    directory = next(file for file in opened.walk() if file.path == b"EFI")
    raw[directory.entry_offset + 26 : directory.entry_offset + 28] = b"\xf0\x7f"
    iso = tmp_path / "bad.iso"
    tree = write_tree(tmp_path / "tree", {"bad.img": bytes(raw), "kernel": KERNEL})
    run(["xorriso", "-as", "mkisofs", "-r", "-V", "A", "-o", iso, tree])
    with cosremaster.open(iso) as image:
        assert [entry.path for entry in image.walk()] == [b"bad.img", b"kernel"]
        assert image.ls("bad.img")[0].size == len(raw)
        with pytest.raises(ImageError, match=r"bad.img » EFI: its chain of clusters is broken"):
            image.read("bad.img::EFI/BOOT/BOOTX64.EFI")
