"""A platform ISO of 6 GiB on the image's own tree, mounted by the booted system."""

from __future__ import annotations

import hashlib
import random
from pathlib import Path

import pytest

from cosremaster import remaster
from cosremaster.overlay.request import InlineFile, OverlayItem
from tests.fixtures import modules, tools
from tests.fixtures.debirf import DebirfImage
from tests.fixtures.tools import run
from tests.support import qemu
from tests.support.platform_iso import DRIVERS, MD5SUM, PATH, SIZE, WINDOW, WINDOWS, _md5sum


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
