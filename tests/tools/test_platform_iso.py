"""The main case of files on the ISO's own tree: a platform ISO of several gigabytes that the booted system finds."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import subprocess
from pathlib import Path

import pytest

from cosremaster import remaster
from cosremaster.io.files import FileSource
from cosremaster.overlay.request import InlineFile, OverlayItem
from tests.fixtures import debirf, modules, tools
from tests.fixtures.debirf import DebirfImage
from tests.fixtures.tools import run
from tests.support import judges, qemu
from tests.support.small import write_small

SIZE = 6 << 30
PATH = "data/platform-7.2.iso"
WINDOW = 1 << 20
WINDOWS = (0, (4 << 30) - 2 * WINDOW, 4 << 30, SIZE - WINDOW)
"""Where there is something in it: at both ends, and around the border of two extents."""
DRIVERS = ("virtio_pci", "virtio_scsi", "sr_mod", "isofs")
"""What the kernel needs to mount the disc."""


MD5SUM = "/root/md5/ld --library-path /root/md5 /root/md5/md5sum"
"""The one of GNU in the emulated system: that of busybox takes three times as long."""


def _md5sum() -> list[OverlayItem]:
    """The program and its libraries."""
    program = Path(shutil.which("md5sum") or "")
    paths = [Path(word) for word in run(["ldd", program]).decode().split() if word.startswith("/")]
    names = {path: "ld" if path.name.startswith("ld-") else path.name for path in (program, *paths)}
    return [InlineFile(f"/root/md5/{name}", path.read_bytes(), mode=0o755) for path, name in names.items()]


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sparse file."""
    path = tmp_path_factory.mktemp("platform") / "platform-7.2.iso"
    with path.open("wb") as file:
        file.truncate(SIZE)
        for at in WINDOWS:
            file.seek(at)
            file.write(random.Random(at).randbytes(WINDOW))
    return path


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

    at = FileSource.at
    monkeypatch.setattr(FileSource, "at", counting)
    remaster(source, out, add_iso=[f"{other}:/", f"{large}:/"])
    assert 0 < read < 1 << 25
    with out.open("r+b") as made:
        made.seek(-(1 << 29), os.SEEK_END)
        made.write(b"x")
    with FileSource(out) as spoiled:
        size = spoiled.size
        assert not spoiled.is_zero(size - (3 << 28), 1 << 29)
        assert spoiled.is_zero(size - (1 << 29) + 1, 1 << 28)
        assert not spoiled.is_zero(size - 4, 5), "nothing is there behind the end"


@pytest.mark.boot
@pytest.mark.parametrize("firmware", ["bios", "uefi"])
def test_the_running_system_mounts_the_disc_and_finds_it(
    firmware: str, debirf_image: DebirfImage, platform: Path, tmp_path: Path
) -> None:
    """It sums all 6 GiB on a BIOS; on the other firmware, where minutes would be spent on the same again, the parts
    that are no hole, and whole a file of 24 MiB."""
    tools.require(*qemu.TOOLS, *modules.TOOLS, "md5sum", "ldd")
    drivers, whole = modules.modules(tools.default_cache(), *DRIVERS), firmware == "bios"
    small = tmp_path / "small.iso"
    small.write_bytes(random.Random(1).randbytes(24 << 20))
    script = "\n".join([
        "#!/bin/sh", "set -e", "cd /root/modules", *(f"insmod {name}" for name, _ in drivers), "mkdir /media",
        "mknod /dev/sr0 b 11 0",
        "n=0; until mount -t iso9660 -o ro /dev/sr0 /media; do n=$((n+1)); [ $n -lt 20 ]; sleep 1; done",
        f"stat -c 'SIZE %s' /media/{PATH}", "sha256sum /media/data/small.iso",
        *(f"dd if=/media/{PATH} bs={WINDOW} skip={at // WINDOW} count=1 2>/dev/null | sha256sum" for at in WINDOWS),
        *([f"dd if=/media/{PATH} bs={WINDOW} 2>/dev/null | {MD5SUM}"] if whole else []),
        "",
    ])  # fmt: skip
    adds: list[OverlayItem] = [InlineFile("/root/site.sh", script.encode(), mode=0o755), *_md5sum()]
    adds += [InlineFile(f"/root/modules/{name}", data) for name, data in drivers]
    out = tmp_path / "out.iso"
    remaster(debirf_image.iso, out, add=adds, add_iso=[f"{platform}:/data/", f"{small}:/data/"])
    said = qemu.boot(out, firmware=firmware, medium="scsi-disc", timeout=850, processors=2)  # type: ignore[arg-type]
    assert f"SIZE {SIZE}" in said
    wanted = [hashlib.sha256(small.read_bytes()).hexdigest()]
    wanted += [hashlib.sha256(random.Random(at).randbytes(WINDOW)).hexdigest() for at in WINDOWS]
    wanted += [run(["md5sum", platform]).decode().split()[0]] if whole else []
    assert [one for one in wanted if one not in said] == []


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
