"""ls -lh, tree -L and stat: sizes as GNU's ls has them, levels, and the places of files as isoinfo has them."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

import pytest

from cosremaster.browse.report import format_short, format_time
from cosremaster.cli import main
from cosremaster.demo.image import build_archive, regular
from tests.fixtures import tools
from tests.support.small import CGZ, write_small


def places(address: str, capsys: pytest.CaptureFixture[str]) -> list[dict[str, int | str | None]]:
    """Return the extents of the file at ``address``."""
    assert main(["stat", "--json", address]) == 0
    (node,) = json.loads(capsys.readouterr().out)["nodes"]
    extents: list[dict[str, int | str | None]] = node["extents"]
    return extents


def test_places_on_an_iso_are_those_of_isoinfo(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tools.require("isoinfo")
    monkeypatch.chdir(tmp_path)
    stored = build_archive([regular(b"in", b"inside\n" * 500)])
    image = write_small(tmp_path, extra={"stored.cpio": stored}).relative_to(tmp_path)
    listing = subprocess.run(["isoinfo", "-R", "-l", "-i", image], capture_output=True, text=True, check=True).stdout
    for name in ("vmlinuz", CGZ, "stored.cpio"):
        match = re.search(rf"(\d+) \w+ +\d+ \d+ \[ *(\d+) \d+\] +{re.escape(name)} *$", listing, re.MULTILINE)
        assert match is not None, listing
        size, lba = map(int, match.groups())
        (extent,) = places(f"{image}::{name}", capsys)
        assert extent == {
            "start": 0, "length": size, "holder": "in.iso", "offset": 2048 * lba, "lba": lba, "packed": None
        }  # fmt: skip
    assert main(["stat", f"{image}::vmlinuz"]) == 0
    assert re.search(r"^  180,002 bytes at LBA \d+ \(byte [\d,]+\) of in.iso$", capsys.readouterr().out, re.MULTILINE)
    # A layer that is stored as it is has its bytes in the image; of a packed one the plain bytes are counted.
    (extent,) = places(f"{image}::stored.cpio::in", capsys)
    offset = extent["offset"]
    assert isinstance(offset, int) and extent["holder"] == "in.iso"
    assert image.read_bytes()[offset:].startswith(b"inside\n" * 500)
    (extent,) = places(f"{image}::{CGZ}::rootfs.cxz::etc/hostname", capsys)
    assert extent["holder"] == f"in.iso » {CGZ} » rootfs.cxz" and extent["lba"] is None and extent["length"] == 7
    assert main(["stat", f"{image}::{CGZ}::rootfs.cxz::etc/hostname"]) == 0
    assert f"7 bytes at plain byte {extent['offset']:,} of in.iso » {CGZ} » rootfs.cxz\n" in capsys.readouterr().out


def test_places_in_a_squashfs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tools.require("mksquashfs")
    root = tmp_path / "root"
    root.mkdir()
    noise = os.urandom(300_000)
    (root / "noise").write_bytes(noise)
    (root / "text").write_bytes(b"text\n" * 60_000)
    with (root / "hole").open("wb") as file:
        file.truncate(400_000)
    image = tmp_path / "root.squashfs"
    subprocess.run(["mksquashfs", root, image, "-quiet", "-no-progress", "-no-fragments"], check=True, timeout=60)
    (extent,) = places(f"{image}::noise", capsys)
    assert isinstance(extent["offset"], int) and extent["packed"] is None
    assert image.read_bytes()[extent["offset"] :].startswith(noise)
    (extent,) = places(f"{image}::text", capsys)
    assert isinstance(extent["packed"], int) and extent["packed"] < 5_000 and extent["length"] == 300_000
    assert places(f"{image}::hole", capsys)[0]["holder"] == ""
    assert main(["stat", f"{image}::hole"]) == 0
    assert "  hole of 400,000 bytes\n" in capsys.readouterr().out


def test_sizes_are_those_of_ls(tmp_path: Path) -> None:
    tools.require("chmod")  # of the same package
    powers = [1 << shift for shift in range(0, 42, 5)]
    sizes = sorted(
        {size + more for size in (*powers, 1000, 10_000, 10_240, 1_047_552, 10 << 20) for more in (-1, 0, 1)}
    )
    for size in sizes:
        with (tmp_path / str(size)).open("wb") as file:
            file.truncate(size)
    listing = subprocess.run(["ls", "-lh", tmp_path], capture_output=True, text=True, check=True, env={"LC_ALL": "C"})
    shown = {line.split()[-1]: line.split()[4] for line in listing.stdout.splitlines()[1:]}
    assert {str(size): format_short(size) for size in sizes} == shown


def test_levels_and_human_sizes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = write_small(tmp_path)
    assert main(["tree", str(image)]) == 0
    whole = capsys.readouterr().out.splitlines()
    for level in (1, 2, 3):
        assert main(["tree", "-L", str(level), str(image)]) == 0
        depth = (len(line) - len(line.lstrip()) for line in whole)
        expected = [line for line, spaces in zip(whole, depth, strict=True) if spaces <= 2 * level]
        assert capsys.readouterr().out.splitlines() == expected
    assert main(["tree", str(image), "--level", "0"]) == 2
    capsys.readouterr()
    assert main(["ls", "-lh", str(image)]) == 0
    assert re.search(r" +176K 20\d\d-\d\d-\d\d \d\d:\d\d vmlinuz$", capsys.readouterr().out, re.MULTILINE)
    assert main(["ls", "-h", str(image)]) == 0
    assert "vmlinuz\n" in capsys.readouterr().out
    assert main(["ls", "-h"]) == 0
    assert capsys.readouterr().out.startswith("Usage: cosremaster ls ")


def test_a_time_that_no_calendar_has_is_a_number() -> None:
    assert format_time(1_700_000_000) == "2023-11-14 22:13:20"
    assert format_time(1 << 62) == str(1 << 62)
