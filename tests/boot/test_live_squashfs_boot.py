"""Live systems whose root is a squashfs boot after an edit: Debian's (live-boot), and Ubuntu's in layers (casper)."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Literal

import pytest

from tests.fixtures import casper, live, roots, tools
from tests.fixtures.casper import CasperImage
from tests.fixtures.tools import run
from tests.support import qemu
from tests.support.live_site import assert_report, edit_image
from tests.support.squashfs_trees import UnpackedNode, unpack_squashfs
from tests.support.user import User

pytestmark = pytest.mark.timeout(1800)  # the first test of an image builds it

MIDDLE = "casper/minimal.standard.squashfs"
ZONES, ZSH = "usr/share/zoneinfo", "usr/share/zsh"
"""What is removed: of Debian's one layer, and of the lowest layer of Ubuntu's."""

ADDED = {
    *("etc/systemd", "etc/systemd/system", "etc/systemd/system/basic.target.wants", "opt", "opt/site"),
    *("etc/systemd/system/basic.target.wants/site-report.service", "etc/systemd/system/site-report.service"),
    *("opt/site/payload", "opt/site/report", "etc/hostname"),
}


def extract_file(iso: Path, name: str, target: Path) -> Path:
    """Return ``target`` with the bytes that xorriso finds in a file of the ISO."""
    run(["xorriso", "-osirrox", "on", "-indev", iso, "-extract", f"/{name}", target])
    return target


@pytest.mark.parametrize(("codec", "firmware"), [("xz", "bios"), ("xz", "uefi"), ("zstd", "bios")])
def test_debian_live_boots_after_an_edit(user: User, codec: str, firmware: Literal["bios", "uefi"]) -> None:
    tools.require(*live.TOOLS, *qemu.TOOLS)
    roots.require_root()
    image = live.build(codec)
    out = edit_image(user, image.iso, f"debian-{codec}-{firmware}", ZONES)
    # The cloud kernel has no driver for the disc of an IDE or AHCI controller.
    said = qemu.boot(out, firmware=firmware, medium="scsi-disc", timeout=900)
    assert_report(said, ZONES)


@pytest.fixture(scope="module")
def noble() -> CasperImage:
    """The layered image, as it was built."""
    tools.require(*casper.TOOLS)
    roots.require_root()
    return casper.build()


@pytest.fixture(scope="module")
def edited_noble(user: User, noble: CasperImage) -> Path:
    """The layered image after the edit: of the middle layer, since that is the last that the installer copies."""
    named = ("--kernel-arg", "hostname=site-noble")  # casper names the machine, whatever /etc/hostname says
    return edit_image(user, noble.iso, "noble", ZSH, *named, layer=f"/cdrom/{MIDDLE}")


def test_ubuntus_layers_keep_the_marks_of_overlay(noble: CasperImage, edited_noble: Path, tmp_path: Path) -> None:
    for name in ("minimal", "minimal.standard.live"):
        packed = extract_file(edited_noble, f"casper/{name}.squashfs", tmp_path / name)
        assert packed.read_bytes() == noble.layer(name).read_bytes()
    before = unpack_squashfs(noble.layer("minimal.standard"), tmp_path / "before")
    packed = extract_file(edited_noble, MIDDLE, tmp_path / "edited.squashfs")
    after = unpack_squashfs(packed, tmp_path / "after")
    for name in (*casper.WHITEOUTS, ZSH):
        assert _is_whiteout(after[name])
    assert ("trusted.overlay.opaque", b"y") in after[casper.OPAQUE].xattrs
    marks = {name for node in before.values() for name, _ in node.xattrs}
    assert marks >= {"trusted.overlay.opaque", "trusted.overlay.impure"}
    changed = {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
    assert changed == (ADDED - before.keys()) | {"etc/hostname", ZSH}
    assert not before.keys() - after.keys()


def _is_whiteout(node: UnpackedNode) -> bool:
    return stat.S_ISCHR(node.mode) and node.device == 0


# Under Secure Boot (system management mode) QEMU 7.2 has once failed to emulate the start of Ubuntu's kernel.
@pytest.mark.parametrize("firmware", ["uefi", pytest.param("secure", marks=pytest.mark.slow)])
def test_ubuntus_layers_boot_after_an_edit(edited_noble: Path, firmware: Literal["uefi", "secure"]) -> None:
    tools.require(*qemu.SECURE_TOOLS)
    said = qemu.boot(edited_noble, firmware=firmware, medium="scsi-disc", timeout=900)
    assert_report(said, ZSH, host="site-noble")
