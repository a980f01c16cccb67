"""A boot entry without a section header (Mageia 4's media): its image stays in its place, or the entry follows it."""

from __future__ import annotations

from pathlib import Path

import pytest

import cosremaster
from cosremaster import InlineFile, remaster
from cosremaster.io.source import open_source
from cosremaster.iso.read import read_image
from tests.fixtures import tools
from tests.fixtures.tools import run
from tests.support import judges


@pytest.fixture
def lone(tmp_path: Path) -> Path:
    """The second entry stands where its section header was, as pycdlib's source says of Mageia 4."""
    tools.require("genisoimage", *judges.TOOLS)
    folder, iso = tmp_path / "tree", tmp_path / "in.iso"
    folder.mkdir()
    for name, size in (("bios.img", 2048), ("aaa", 9000), ("efi.img", 5000), ("zzz", 3000)):
        (folder / name).write_bytes(name.encode() * (size // len(name)))
    boot = ["-b", "bios.img", "-no-emul-boot", "-c", "boot.cat"]
    efi = ["-eltorito-alt-boot", "-e", "efi.img", "-no-emul-boot"]
    run(["genisoimage", "-quiet", "-R", *boot, *efi, "-o", iso, folder])
    raw = bytearray(iso.read_bytes())
    with open_source(iso) as source:
        image = read_image(source)
    assert image.catalog is not None and len(image.boot_images) == 2
    second = image.catalog.entries[1].offset
    raw[second - 32 : second + 32] = raw[second : second + 32] + bytes(32)
    iso.write_bytes(raw)
    return iso


def test_it_is_shown_and_kept(lone: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.iso"
    with open_source(lone) as source:
        assert [boot.path for boot in read_image(source).boot_images] == [b"bios.img", b"efi.img"]
    remaster(lone, out, add_iso=[InlineFile("/aaa", b"a" * 400_000), InlineFile("/bios.img", b"b" * 20_000)])
    report = cosremaster.verify(out, against=lone, changed=[b"aaa", b"bios.img"])
    assert report.ok, [finding.message for finding in report.findings if finding.is_counted]
    with open_source(out) as source:
        image = read_image(source)
    efi = image.boot_images[1]
    start = efi.entry.lba * 2048
    assert out.read_bytes()[start : start + 7] == b"efi.img"
    assert efi.path == b"efi.img"


def test_its_image_is_exchanged_and_not_removed(lone: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.iso"
    remaster(lone, out, add_iso=[InlineFile("/efi.img", b"new" * 9000)])
    with open_source(out) as source:
        efi = read_image(source).boot_images[1]
    assert out.read_bytes()[efi.entry.lba * 2048 :].startswith(b"new")
    with pytest.raises(cosremaster.UnsupportedError, match="El Torito"):
        remaster(lone, out, remove_iso=["efi.img"], force=True)
