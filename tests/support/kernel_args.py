"""Images whose kernel arguments were changed, with a boot menu on the tree and one in the EFI file system."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import pytest

from cosremaster import remaster
from tests.fixtures import debirf, tools
from tests.fixtures.tools import EPOCH, Tree, run

ARGS = {
    "kernel_args": ["site=7", "dyndbg=file a +p"], "remove_kernel_args": ["quiet"],
    "replace_kernel_args": ["panic=-1=30"],
}  # fmt: skip


OPTIONS = ("--kernel-arg", "site=7", "--kernel-arg", "dyndbg=file a +p", "--remove-kernel-arg", "quiet",
           "--replace-kernel-arg", "panic=-1=30")  # fmt: skip


FAT_MENU = f"""\
search --no-floppy --set=root --file /{debirf.CGZ}
menuentry "from the FAT" {{
    linux /vmlinuz console=ttyS0 panic=-1 quiet
    initrd /{debirf.CGZ}
}}
set timeout=0
"""


FAT_EARLY = "search --no-floppy --set=esp --file /EFI/BOOT/only-here\nconfigfile ($esp)/EFI/BOOT/grub.cfg\n"


FAT_PATH = "EFI/BOOT/grub.cfg"


@dataclass(frozen=True)
class Made:
    """An image before and after."""

    old: Path
    new: Path


def extracted(iso: Path, path: str, target: Path) -> bytes:
    """A file of the tree as xorriso takes it out."""
    target.unlink(missing_ok=True)
    run(["xorriso", "-osirrox", "on", "-indev", iso, "-extract", f"/{path}", target])
    return target.read_bytes()


def site_script(folder: Path) -> Path:
    """A script that the booted system runs: it says the kernel's command line."""
    script = folder / "site.sh"
    script.write_text("#!/bin/sh\necho CMDLINE: $(cat /proc/cmdline) :END\n")
    script.chmod(0o755)
    os.utime(script, (EPOCH, EPOCH))
    return script


@pytest.fixture(scope="session")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """The debirf image with other kernel arguments, and a script that tells them."""
    tools.require(*debirf.TOOLS)
    folder = tmp_path_factory.mktemp("plain")
    iso = debirf.build().iso
    remaster(iso, folder / "out.iso", add=[f"{site_script(folder)}:/root/"], **ARGS)  # type: ignore[arg-type]
    return Made(iso, folder / "out.iso")


@pytest.fixture(scope="session")
def with_fat_menu(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The debirf image whose EFI program reads a grub.cfg in its FAT, which is on the image twice."""
    tools.require(*debirf.TOOLS)
    folder = tmp_path_factory.mktemp("fat-menu")
    base = debirf.build().iso
    disc, work = Tree(folder / "disc"), folder / "work"
    work.mkdir()
    for name in (debirf.CGZ, "vmlinuz", "boot/grub/grub.cfg"):
        disc.file(name, extracted(base, name, work / "one"))
    disc.directory("EFI")
    bios, fat, memdisk = work / "bios.img", work / "efiboot.img", Tree(work / "memdisk")
    bios.write_bytes(extracted(base, "boot/grub/bios.img", work / "one"))
    memdisk.file("boot/grub/grub.cfg", FAT_EARLY.encode())
    run(["tar", "--format=ustar", "-C", memdisk.root, "-cf", work / "memdisk.tar", "boot"])
    run(["grub-mkimage", "-m", work / "memdisk.tar", "-p", "(memdisk)/boot/grub", "-O", "x86_64-efi",
         "-o", work / "bootx64.efi", *debirf._GRUB_MODULES])  # fmt: skip
    (work / "grub.cfg").write_text(FAT_MENU)
    run(["mformat", "-i", fat, "-C", "-T", "20480", "-N", "20231114", "::"])
    run(["mmd", "-i", fat, "::/EFI", "::/EFI/BOOT"])
    for name, to in (("bootx64.efi", "BOOTX64.EFI"), ("grub.cfg", "grub.cfg"), ("grub.cfg", "only-here")):
        run(["mcopy", "-i", fat, work / name, f"::/EFI/BOOT/{to}"])
    iso = folder / "fat-menu.iso"
    debirf._master(disc, bios, fat, iso)
    return iso
