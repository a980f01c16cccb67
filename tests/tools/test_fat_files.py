"""Files in the EFI file system of an image: copies of what changes on the tree follow; mtools and fsck.fat judge."""

from __future__ import annotations

import gzip
import hashlib
import json
import random
import re
import subprocess
from pathlib import Path

import pytest

import cosremaster
from cosremaster import AddPath, InlineFile, OverlayItem, remaster
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
    assert [dict(change.copies) for change in result.fats] == [{INITRAMFS.encode(): INITRAMFS}] * len(fats)
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
    assert change == {
        "fat": "EFI/efiboot.img", "address": "EFI/efiboot.img", "added": [], "exchanged": [VMLINUZ], "removed": [],
        "unchanged": [], "copies": {VMLINUZ: VMLINUZ},
    }  # fmt: skip
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


ADDED = {"grub.cfg": b"set x=1\n", "a rather long näme.conf": b"long\n", "sub/B.TXT": b""}
LISTED = (
    "EFI/", "EFI/new/", "EFI/new/a rather long näme.conf", "EFI/new/grub.cfg", "EFI/new/sub/", "EFI/new/sub/B.TXT",
    "arch/", "arch/boot/", "arch/boot/vmlinuz", "loader/", "loader/loader.conf",
)  # fmt: skip


@pytest.mark.parametrize("shape", SHAPES)
def test_files_are_added_exchanged_and_removed_by_address(shape: str, tmp_path: Path) -> None:
    iso, out = make_image(tmp_path / "made", shape, more={"EFI/old": b"old"}), tmp_path / "out.iso"
    fat = "/EFI/efiboot.img" if "on the tree" in shape else "/@gpt2" if "GPT" in shape else "/@MBR2"
    new, before = write_tree(tmp_path / "new", ADDED), iso.read_bytes()
    items = [AddPath.parse(f"{new}:{fat}::/efi/new", "--add-iso"), InlineFile(f"{fat}::/LOADER/loader.conf", b"x")]
    removals = [f"{fat}::/loader/entries", f"{fat}::arch/boot/*.img", f"{fat}::efi/OLD"]
    result = remaster(iso, out, add_iso=items, remove_iso=removals)
    assert iso.read_bytes() == before
    fats = expect_sound_fats(out, tmp_path / "after")
    for each, change in zip(fats, result.fats, strict=True):
        names = run(["mdir", "-/", "-b", "-a", "-i", each, "::/"], env={"LC_ALL": "C.UTF-8"}).decode().splitlines()
        assert sorted(names) == [f"::/{name}" for name in LISTED]
        assert read_fat_file(each, "EFI/new/grub.cfg") == b"set x=1\n"
        assert change.removed == (b"EFI/old", b"arch/boot/initramfs.img", b"loader/entries")
        assert "EFI/new/grub.cfg" in run(["7z", "l", each]).decode()
    changed = [b"EFI/new", b"EFI/old", b"loader", b"arch/boot/initramfs.img"]
    assert [one for one in verify(out, against=iso, changed=changed).findings if one.is_counted] == []
    again = remaster(out, tmp_path / "again.iso", add_iso=[AddPath.parse(f"{new}:{fat}::/EFI/NEW", "--add-iso")])
    assert again.identical
    assert (tmp_path / "again.iso").read_bytes() == out.read_bytes()


REFUSALS: list[tuple[str, int, str]] = [
    ("--add-iso SRC:/EFI/none.img::/x", 6, r"has no FAT file system EFI/none.img; those it has: EFI/efiboot.img"),
    ("--add-iso SRC:@gpt7::/x", 6, r"has no FAT file system @gpt7"),
    ("--add-iso SRC:FAT::/x:y", 5, r"EFI/efiboot.img » x:y: its name holds a character that FAT forbids"),
    ("--add-iso LINK:FAT::/", 5, r"EFI/efiboot.img » link: is a symlink, which a FAT file system cannot hold"),
    ("--add-iso SRC:FAT::/arch", 0, ""),
    ("--add-iso SRC:FAT::/arch/boot/vmlinuz/x", 7, r"this is a file, no directory"),
    ("--remove-iso FAT::/none", 7, r"EFI/efiboot.img » none: cannot be removed: it is not there"),
    ("--remove-iso FAT::/none --allow-missing", 0, ""),
    ("--remove-iso FAT::/arch/boot/initramfs.img::/etc", 2, r"leads into a file of a FAT file system"),
    ("--rename-iso FAT::/arch:/b", 2, r"names in a FAT file system cannot be changed"),
    ("--add-iso BIG:FAT::/big", 9, r"big: does not fit: it needs [\d,]+ more .*--remove-iso 'EFI/efiboot.img::PATH'"),
]


@pytest.mark.parametrize(("options", "error", "message"), REFUSALS)
def test_what_cannot_be_done_is_refused(
    options: str, error: int, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    iso, out = make_image(tmp_path / "made", "on the tree"), tmp_path / "out.iso"
    (tmp_path / "SRC").write_bytes(b"source")
    (tmp_path / "BIG").write_bytes(random.Random(5).randbytes(5_000_000))
    (tmp_path / "LINK").mkdir()
    (tmp_path / "LINK" / "link").symlink_to("arch")
    words = re.sub("(SRC|BIG|LINK):", rf"{tmp_path}/\1:", options.replace("FAT", "/EFI/efiboot.img", 1)).split()
    assert main([str(iso), str(out), *words]) == error
    assert out.exists() == (error == 0)
    assert re.search(message, capsys.readouterr().err)


def test_a_changed_file_in_one_file_system_changes_its_namesake_in_another(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = make_image(tmp_path / "made", "on the tree and appended")
    iso, out = tmp_path / "differ.iso", tmp_path / "out.iso"
    raw = bytearray(made.read_bytes())
    at = raw.rindex(b"loader  ".upper().ljust(11))  # the two file systems differ by a time in the second
    raw[at + 22] ^= 8
    iso.write_bytes(raw)
    (tmp_path / "new").write_bytes(b"new" * 999)
    assert main([str(iso), str(out), "--add-iso", f"{tmp_path}/new:/EFI/efiboot.img::/{VMLINUZ}"]) == 0
    said = capsys.readouterr()
    assert f"{VMLINUZ} on the ISO's own tree keeps the old bytes of EFI/efiboot.img » {VMLINUZ}" in said.err
    assert f"in MBR partition 2: 1 exchanged\n  ~ {VMLINUZ}, as EFI/efiboot.img » {VMLINUZ}" in said.out
    for fat in expect_sound_fats(out, tmp_path / "after"):
        assert read_fat_file(fat, VMLINUZ) == b"new" * 999
    assert judges.tree(out)[VMLINUZ][4] == hashlib.sha256(KERNEL).hexdigest()


def test_the_report_lists_files_in_file_systems(tmp_path: Path) -> None:
    iso, report = make_image(tmp_path / "made", "appended"), tmp_path / "report.json"
    (tmp_path / "new").write_bytes(b"new")
    remaster(
        iso, tmp_path / "out.iso", report=report, remove_iso=["@mbr2::/loader"],
        add_iso=[f"{tmp_path}/new:/{VMLINUZ}", InlineFile("/@mbr2::/EFI/x", b"x")],
    )  # fmt: skip
    values = json.loads(report.read_text())["fats"]
    actions = [(value["fat"], value["path"], value["action"], value.get("as")) for value in values]
    assert actions == [
        ("@mbr2", "EFI", "added", None), ("@mbr2", "EFI/x", "added", None), ("@mbr2", VMLINUZ, "exchanged", VMLINUZ),
        ("@mbr2", "loader", "removed", None), ("@mbr2", "loader/entries", "removed", None),
        ("@mbr2", "loader/entries/a.conf", "removed", None),
    ]  # fmt: skip
    assert values[2]["before"]["sha256"] == hashlib.sha256(KERNEL).hexdigest()
    assert values[2]["after"]["sha256"] == hashlib.sha256(b"new").hexdigest()


def test_the_same_request_gives_the_same_bytes(tmp_path: Path) -> None:
    iso, images = make_image(tmp_path / "made", "appended"), [tmp_path / "1.iso", tmp_path / "2.iso"]
    for out in images:
        remaster(iso, out, add_iso=[InlineFile("/@mbr2::/EFI/some long name", b"x"), InlineFile(f"/{VMLINUZ}", b"y")])
    assert images[0].read_bytes() == images[1].read_bytes()


def test_inspect_lists_the_file_systems(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    iso = make_image(tmp_path / "made", "appended", more={"kernel.efi": KERNEL})
    assert main(["inspect", str(iso), "--json"]) == 0
    (fat,) = json.loads(capsys.readouterr().out)["fats"]
    (copy,) = fats_of(iso, tmp_path / "fats")
    free = re.search(rb"([\d ]+) bytes free", run(["mdir", "-i", copy, "::/"]))
    assert free is not None
    assert fat == {
        "name": "MBR partition 2", "address": "@mbr2", "aliases": ["@mbr2", "@eltorito1"], "kind": "FAT12",
        "size": copy.stat().st_size, "free": int(free[1].replace(b" ", b"")), "files": 4,
        "copies": {INITRAMFS: INITRAMFS, VMLINUZ: VMLINUZ, "kernel.efi": VMLINUZ,
                   "loader/entries/a.conf": "loader/entries/a.conf"},
    }  # fmt: skip
    assert main(["inspect", str(iso)]) == 0
    assert f"FAT file system @mbr2 (MBR partition 2): FAT12, 4.0 MiB, 3.9 MiB free, 4 files\n  {INITRAMFS}: a copy" in (
        capsys.readouterr().out
    )


def test_a_load_size_of_zero_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    iso, out = make_image(tmp_path / "made", "appended", "-F16", sectors=70_000), tmp_path / "out.iso"
    result = remaster(iso, out, add_iso=[InlineFile("/@mbr2::/x", b"x" * 300), InlineFile("/y", b"y")])
    (line,) = [line for line in result.proof if line.startswith("El Torito entry 1")]
    assert re.search(r"35,831,808 bytes \(load size 0\) unchanged but for \d+$", line)
    (note,) = [finding for finding in verify(out).findings if finding.check == "eltorito.load-size"]
    assert note.message == (
        "El Torito entry 1 (UEFI): its load size is 0, with which firmware such as OVMF may not boot MBR partition 2"
    )
    assert verify(out).ok
    assert main(["inspect", str(iso)]) == 0
    assert "UEFI, no emulation, load size 0, with which firmware such as OVMF may not boot" in capsys.readouterr().out


def test_free_clusters_of_a_file_system_without_a_name_are_no_room(tmp_path: Path) -> None:
    made, iso, out = tmp_path / "made.iso", tmp_path / "hidden.iso", tmp_path / "out.iso"
    fat = make_fat(tmp_path / "fat.img", write_tree(tmp_path / "fat", {"kernel": KERNEL}))
    tree = write_tree(tmp_path / "tree", {"a": KERNEL, "zz/efi.img": fat.read_bytes()})
    boot = ["-e", "zz/efi.img", "-no-emul-boot", "--sort-weight", "1000", "/a"]
    run(["xorriso", "-as", "mkisofs", "-r", "-V", "A", *boot, "-o", made, tree])
    raw = bytearray(made.read_bytes())
    record = raw.index(b"EFI.IMG;1") - 33
    at = int.from_bytes(raw[record + 2 : record + 6], "little") * 2048
    raw[record + 2 : record + 18] = bytes(16)  # the name stays, for an empty file: only the boot entry leads there
    entry = raw.index(b"\x88\0\0\0\0\0")
    raw[entry + 6 : entry + 8] = b"\4\0"  # it loads a boot sector
    iso.write_bytes(raw)
    (tmp_path / "big").write_bytes(random.Random(8).randbytes(1 << 20))
    items: list[str | OverlayItem] = [f"{tmp_path}/big:/big", f"{tmp_path}/big:/a", InlineFile("/@eltorito1::/x", b"x")]
    remaster(iso, out, add_iso=items, keep_fat_copies=True)
    with cosremaster.open(out) as image:
        assert image.info().values["boot"]["entries"][0]["lba"] * 2048 == at
        assert image.read("@eltorito1::kernel") == KERNEL
    (tmp_path / "after.img").write_bytes(out.read_bytes()[at : at + (4 << 20)])
    run(["fsck.fat", "-n", tmp_path / "after.img"])
    assert (tmp_path / "after.img").read_bytes()[1 << 20 :] == fat.read_bytes()[1 << 20 :]


def test_a_damaged_file_system_with_a_copy_is_refused_and_may_stay(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made, iso, out = make_image(tmp_path / "made", "appended"), tmp_path / "bad.iso", tmp_path / "out.iso"
    (copy,) = fats_of(made, tmp_path / "fats")
    raw, fat = bytearray(made.read_bytes()), copy.read_bytes()
    opened = Fat.open(lambda at, length: fat[at : at + length], len(fat), Place())
    assert opened is not None
    entry = next(file for file in opened.walk() if file.path == b"loader/entries/a.conf").entry_offset
    start = raw.index(fat)
    raw[start + entry + 26 : start + entry + 28] = b"\xf0\x0e"  # its first cluster lies outside
    iso.write_bytes(raw)
    (tmp_path / "new").write_bytes(b"new")
    argv = [str(iso), str(out), "--add-iso", f"{tmp_path}/new:/{VMLINUZ}"]
    assert main(argv) == ImageError.exit_code
    assert not out.exists()
    said = capsys.readouterr().err
    assert re.search(
        r"loader/entries/a.conf: its chain of clusters is broken at cluster 3824 \(--keep-fat-copies", said
    )
    assert main([*argv, "--keep-fat-copies"]) == 0
    assert fats_of(out, tmp_path / "after")[0].read_bytes() == raw[start : start + len(fat)]


@pytest.mark.parametrize(("options", "kind"), [(["-udf"], "udf"), (["-J"], "iso"), (["-J", "-R"], "iso")])
def test_the_copy_of_a_file_that_only_another_tree_shows_follows(options: list[str], kind: str, tmp_path: Path) -> None:
    tools.require("genisoimage", "7z")
    fat = make_fat(tmp_path / "fat.img", write_tree(tmp_path / "fat", {"EFI/BOOT/BOOTX64.EFI": KERNEL}))
    files = {"efi/boot/bootx64.efi": KERNEL, "efi/efisys.bin": fat.read_bytes(), "readme.txt": b"readme\n"}
    iso, out = tmp_path / "in.iso", tmp_path / "out.iso"
    hide = [] if "-R" in options else ["-hide", "efi"]
    boot = ["-e", "efi/efisys.bin", "-no-emul-boot"]
    run(["genisoimage", "-quiet", *options, *hide, *boot, "-V", "WIN", "-o", iso, write_tree(tmp_path / "tree", files)])
    (tmp_path / "new.efi").write_bytes(b"new" * 5_000)
    result = remaster(iso, out, add_iso=[f"{tmp_path}/new.efi:/efi/boot/bootx64.efi"])
    assert [change.exchanged for change in result.fats] == [(b"EFI/BOOT/BOOTX64.EFI",)]
    run(["7z", "x", f"-t{kind}", f"-o{tmp_path}/unpacked", out])
    unpacked = tmp_path / "unpacked" / "efi"
    assert (unpacked / "boot" / "bootx64.efi").read_bytes() == b"new" * 5_000
    run(["fsck.fat", "-n", unpacked / "efisys.bin"])
    assert read_fat_file(unpacked / "efisys.bin", "EFI/BOOT/BOOTX64.EFI") == b"new" * 5_000
    assert [finding for finding in verify(out).findings if finding.is_counted] == []
