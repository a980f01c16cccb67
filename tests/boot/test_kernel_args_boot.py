"""Changed kernel arguments, as the booted kernel reports them."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import pytest

from cosremaster import remaster
from tests.fixtures import debirf, families, tools
from tests.fixtures.tools import Tree
from tests.support import qemu
from tests.support.kernel_args import ARGS, Made, extracted, site_script


@pytest.mark.parametrize("firmware", ["bios", "uefi"])
def test_the_kernel_hears_of_it(plain: Made, firmware: Literal["bios", "uefi"]) -> None:
    tools.require(*qemu.TOOLS)
    said = qemu.boot(plain.new, firmware=firmware, medium="disc")
    assert debirf.MARKER in said
    assert 'console=ttyS0 panic=30 site=7 "dyndbg=file a +p" :END' in said


def test_uefi_boots_by_the_menu_in_the_fat(with_fat_menu: Path, tmp_path: Path) -> None:
    tools.require(*qemu.TOOLS)
    out = tmp_path / "out.iso"
    remaster(with_fat_menu, out, add=[f"{site_script(tmp_path)}:/root/"], **ARGS)  # type: ignore[arg-type]
    said = qemu.boot(out, firmware="uefi", medium="disk")
    assert 'console=ttyS0 panic=30 site=7 "dyndbg=file a +p" :END' in said


def test_isolinux_boots_with_an_append_of_its_own(tmp_path: Path) -> None:
    """A label that had no arguments; INCLUDE'd, in a file that no name gives away."""
    tools.require(*debirf.TOOLS, *families.TOOLS, *qemu.TOOLS)
    base, disc = debirf.build().iso, Tree(tmp_path / "disc")
    for name in ("isolinux.bin", "ldlinux.c32", "libcom32.c32"):
        folder = "/usr/lib/ISOLINUX" if name.endswith("bin") else "/usr/lib/syslinux/modules/bios"
        disc.file(f"isolinux/{name}", Path(folder, name).read_bytes())
    disc.file("isolinux/isolinux.cfg", b"SERIAL 0 115200\r\nPROMPT 0\r\nDEFAULT live\r\nInclude labels\r\n")
    disc.file("isolinux/labels", b"LABEL live\r\n  KERNEL /vmlinuz\r\n  INITRD /live.cgz\r\n")
    disc.file("vmlinuz", extracted(base, "vmlinuz", tmp_path / "one"))
    disc.file("live.cgz", extracted(base, debirf.CGZ, tmp_path / "one"))
    families._genisoimage(tmp_path / "in.iso", disc, "-R", *families._ISOLINUX_BOOT)
    arguments = ["console=ttyS0", "panic=-1", "quiet", "site=a b"]
    script = site_script(tmp_path)
    remaster(tmp_path / "in.iso", tmp_path / "out.iso", add=[f"{script}:/root/"], kernel_args=arguments)
    labels = extracted(tmp_path / "out.iso", "isolinux/labels", tmp_path / "one")
    append = b'  KERNEL /vmlinuz\r\n  APPEND console=ttyS0 panic=-1 quiet site="a b"\r\n'
    assert labels == b"LABEL live\r\n" + append + b"  INITRD /live.cgz\r\n"
    said = qemu.boot(tmp_path / "out.iso", firmware="bios", medium="disc")
    assert debirf.MARKER in said
    assert 'console=ttyS0 panic=-1 quiet site="a b"' in said
