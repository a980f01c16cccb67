"""What boot records lead to follows an edit, or the edit is refused: where data have several names, sessions, or go."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

import cosremaster
from cosremaster import InlineFile, UnsupportedError, remaster
from tests.fixtures import tools
from tests.fixtures.tools import run
from tests.support import judges


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tools.require("genisoimage", *judges.TOOLS)
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
