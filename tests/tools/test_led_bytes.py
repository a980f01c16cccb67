"""What boot records lead to follows an edit, or the edit is refused: where data have several names, sessions, or go."""

from __future__ import annotations

import os
import shutil
import struct
from collections.abc import Sequence
from pathlib import Path

import pytest

import cosremaster
from cosremaster import InlineFile, UnsupportedError, remaster
from tests.fixtures import tools
from tests.fixtures.tools import run
from tests.support import judges

ISOLINUX = Path("/usr/lib/ISOLINUX/isolinux.bin")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tools.require("genisoimage", str(ISOLINUX), *judges.TOOLS)
    (tmp_path / "tree").mkdir()
    return tmp_path / "tree"


def boot_blocks(iso: Path) -> list[int]:
    """The first blocks of all boot images, as xorriso reads them."""
    report = judges.boot_report(iso)
    return [int(line.split()[-1]) for line in report if line.startswith("El Torito boot img")]


def check(iso: Path) -> None:
    report = cosremaster.verify(iso)
    assert report.ok, [(finding.check, finding.message) for finding in report.findings if finding.is_counted]


@pytest.mark.parametrize(
    "maker", [["genisoimage", "-quiet", "-R", "-cache-inodes"], ["xorriso", "-as", "mkisofs", "-quiet", "-r"]]
)
def test_a_boot_image_of_two_names_gets_other_bytes_under_both_or_none(
    maker: Sequence[str], folder: Path, tmp_path: Path
) -> None:
    iso, out = tmp_path / "in.iso", tmp_path / "out.iso"
    (folder / "efi.img").write_bytes(b"old" * 9000)
    (folder / "again.img").hardlink_to(folder / "efi.img")
    run([*maker, "-e", "efi.img", "-no-emul-boot", "-o", iso, folder])
    new = b"new" * 9000
    for name, other in (("efi", "again"), ("again", "efi")):
        with pytest.raises(
            UnsupportedError, match=rf"{name}\.img: .*El Torito entry.*{other}\.img has them too"
        ) as refusal:
            remaster(iso, out, add_iso=[InlineFile(f"/{name}.img", new)])
        assert refusal.value.exit_code == 5
    differing = [InlineFile("/efi.img", new), InlineFile("/again.img", new[1:])]
    with pytest.raises(UnsupportedError, match="exchange all names"):
        remaster(iso, out, add_iso=differing)
    assert not out.exists()
    remaster(iso, out, add_iso=[InlineFile("/efi.img", new), InlineFile("/again.img", new)])
    (block,) = boot_blocks(out)
    assert out.read_bytes()[block * 2048 :].startswith(new)
    for name in ("efi.img", "again.img"):
        assert run(["isoinfo", "-R", "-i", out, "-x", f"/{name}"]) == new
    check(out)


def test_a_boot_image_of_an_earlier_session_gets_no_other_bytes(folder: Path, tmp_path: Path) -> None:
    iso, more = tmp_path / "in.iso", tmp_path / "more"
    (folder / "efi.img").write_bytes(b"old" * 9000)
    run(["xorriso", "-outdev", iso, "-map", folder, "/", "-boot_image", "any", "efi_path=/efi.img"])
    more.write_bytes(b"more" * 1000)
    run(["xorriso", "-dev", iso, "-boot_image", "any", "keep", "-map", more, "/more"])
    with pytest.raises(UnsupportedError, match=r"efi\.img: .*El Torito entry.*earlier session"):
        remaster(iso, tmp_path / "out.iso", add_iso=[InlineFile("/efi.img", b"new" * 9000)])
    remaster(iso, tmp_path / "out.iso", add_iso=[InlineFile("/more", b"even more" * 1000)])
    check(tmp_path / "out.iso")


def test_a_boot_image_of_a_later_session_gets_its_table(folder: Path, tmp_path: Path) -> None:
    """xorriso writes the block of the session's own volume descriptor into it."""
    iso, more, out = tmp_path / "in.iso", tmp_path / "more", tmp_path / "out.iso"
    (folder / "isolinux").mkdir()
    shutil.copy(ISOLINUX, folder / "isolinux")
    boot = ["-boot_image", "isolinux", "dir=/isolinux"]
    run(["xorriso", "-outdev", iso, "-map", folder, "/", *boot])
    more.write_bytes(b"more" * 1000)
    run(["xorriso", "-dev", iso, "-boot_image", "any", "patch", "-map", more, "/more"])
    before = read_table(iso)
    assert before[0] > 16
    new = ISOLINUX.read_bytes() + bytes(3000)
    remaster(iso, out, add_iso=[InlineFile("/isolinux/isolinux.bin", new)])
    assert read_table(out)[:3] == (before[0], boot_blocks(out)[0], len(new))
    check(out)


def read_table(iso: Path) -> tuple[int, int, int, int]:
    """The boot information table of the first boot image: descriptor, image, length, sum."""
    return struct.unpack_from("<4I", iso.read_bytes(), boot_blocks(iso)[0] * 2048 + 8)


def test_anchors_that_come_to_stand_where_directories_were(folder: Path, tmp_path: Path) -> None:
    """The end of an image, with UDF's last anchors, moves to the front over the directories that leave."""
    (folder / "a").write_bytes(os.urandom(50_000))
    many = [InlineFile(f"/site/d{number:03}/file", b"%d" % number) for number in range(100)]
    for number, options in enumerate((["-udf", "-R", "-J"], ["-udf", "-R"], ["-udf"])):
        names = [tmp_path / f"{name}{number}.iso" for name in ("udf", "udf-longer", "udf-out")]
        run(["genisoimage", "-quiet", *options, "-o", names[0], folder])
        remaster(names[0], names[1], add_iso=many)
        remaster(names[1], names[2], remove_iso=["site"])
        check(names[2])


def test_a_partition_over_all_of_any_medium_stays(folder: Path, tmp_path: Path) -> None:
    """It has 0xFFFFFFFF sectors, as where the size of the medium was not known (UEFI 2.10, table 5.4)."""
    iso = tmp_path / "in.iso"
    for name, size in (("a", 9000), ("z", 90_000)):
        (folder / name).write_bytes(os.urandom(size))
    gpt: list[str | Path] = ["-appended_part_as_gpt", "-append_partition", "2", "0xef", folder / "a"]
    run(["xorriso", "-as", "mkisofs", "-quiet", "-r", *gpt, "-o", iso, folder])
    raw = bytearray(iso.read_bytes())
    assert raw[450] == 0xEE
    raw[458:462] = b"\xff" * 4
    iso.write_bytes(raw)
    before = judges.complaints(iso)
    for number, change in enumerate(({"add_iso": [InlineFile("/new", os.urandom(500_000))]}, {"remove_iso": ["z"]})):
        out = tmp_path / f"out{number}.iso"
        remaster(iso, out, **change)  # type: ignore[arg-type]
        assert out.read_bytes()[446:462] == raw[446:462]
        assert judges.complaints(out) <= before
