"""The main case of files on the ISO's own tree: a platform ISO of several gigabytes that the booted system finds."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from cosremaster import remaster
from cosremaster.io.files import FileSource
from cosremaster.io.source import is_zero
from tests.fixtures import debirf, tools
from tests.fixtures.debirf import DebirfImage
from tests.fixtures.tools import run
from tests.support import judges
from tests.support.platform_iso import PATH, SIZE
from tests.support.small import write_small


def blocks(path: Path) -> int:
    """Bytes that a file takes on disk."""
    return path.stat().st_blocks * 512


def test_it_costs_its_own_copy_and_no_more(debirf_image: DebirfImage, platform: Path, tmp_path: Path) -> None:
    tools.require("bsdtar", "xorriso", "isoinfo", "sfdisk", *judges.TOOLS)
    out = tmp_path / "out.iso"
    result = remaster(debirf_image.iso, out, add_iso=[f"{platform}:/data/"])
    assert result.iso_added == (b"data", PATH.encode())
    assert 0 <= result.output_size - result.input_size - SIZE < 64 * 1024
    assert blocks(out) < blocks(debirf_image.iso) + blocks(platform) + (1 << 20), "holes stay holes"
    run(["bash", "-o", "pipefail", "-c", f"bsdtar -xOf {out} {PATH} | cmp - {platform}"])
    before, after = judges.boot_report(debirf_image.iso), judges.boot_report(out)
    assert [line for line in after if "El Torito" in line] == [line for line in before if "El Torito" in line]
    again = tmp_path / "again.iso"
    remaster(out, again, rename_iso=[f"{PATH}:/data/current.iso"])
    assert blocks(again) < blocks(out) + (1 << 20), "and so they do when the result is the input"
    run(["bash", "-o", "pipefail", "-c", f"bsdtar -xOf {again} data/current.iso | cmp - {platform}"])


@pytest.mark.parametrize("before", [0, 2048])
def test_holes_are_proved_without_being_read(before: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever the file comes to lie: blocks of the file system are twice those of the volume."""
    source, large, other = write_small(tmp_path), tmp_path / "large", tmp_path / "a"
    with large.open("wb") as file:
        file.write(b"head")
        file.truncate(1 << 30)
    other.write_bytes(bytes(range(256)) * (before // 256))
    out = tmp_path / "out.iso"
    read = 0

    def counting(self: FileSource, offset: int, length: int) -> bytes:
        nonlocal read
        read += length
        return at(self, offset, length)

    at = FileSource.read
    monkeypatch.setattr(FileSource, "read", counting)
    remaster(source, out, add_iso=[f"{other}:/", f"{large}:/"])
    assert 0 < read < 1 << 25
    with out.open("r+b") as made:
        made.seek(-(1 << 29), os.SEEK_END)
        made.write(b"x")
    with FileSource(out) as spoiled:
        size = spoiled.size
        assert not is_zero(spoiled, size - (3 << 28), 1 << 29)
        assert is_zero(spoiled, size - (1 << 29) + 1, 1 << 28)
        assert not is_zero(spoiled, size - 4, 5), "nothing is there behind the end"


def test_what_grub_reads_first_is_in_front_of_it(debirf_image: DebirfImage, platform: Path, tmp_path: Path) -> None:
    """A loader on old firmware reaches the first 2 GiB of a disk alone."""
    out = tmp_path / "out.iso"
    remaster(debirf_image.iso, out, add_iso=[f"{platform}:/data/"])
    lines = subprocess.run(
        ["xorriso", "-indev", out, "-find", "/", "-type", "f", "-exec", "report_lba"], capture_output=True, check=True
    ).stdout.decode().splitlines()  # fmt: skip
    rows = [line.split(",") for line in lines if line.startswith("File data lba") and "platform" not in line]
    assert rows and all(int(row[1]) * 2048 < 1 << 31 for row in rows)
    assert debirf.CGZ in "".join(lines)
