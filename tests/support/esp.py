"""Images whose EFI file system has kernel and initramfs a second time, as systemd-boot's media have them."""

from __future__ import annotations

import json
import os
import random
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.fixtures.tools import EPOCH, run

TOOLS = ("xorriso", "mkfs.fat", "mcopy", "cpio", "sfdisk")
KERNEL = random.Random(1).randbytes(20_000)
ENTRY = b"title A\nlinux /arch/boot/vmlinuz\ninitrd /arch/boot/initramfs.img\noptions quiet\n"
APPENDED = ["-append_partition", "2", "0xef", "ESP", "-e", "--interval:appended_partition_2:all::", "-no-emul-boot"]
ON_TREE = ["-e", "EFI/efiboot.img", "-no-emul-boot"]
SHAPES: Mapping[str, Sequence[str]] = {
    "appended": APPENDED,
    "appended in a GPT": ["-appended_part_as_gpt", *APPENDED],
    "on the tree": ON_TREE,
    "on the tree and appended": [*ON_TREE, "-append_partition", "2", "0xef", "ESP"],
}
"""xorriso's options for where the EFI file system lies, by name."""


def pack_initramfs(folder: Path) -> bytes:
    """A small initramfs, packed by GNU cpio and gzip."""
    (folder / "bin").mkdir(parents=True)
    (folder / "etc").mkdir()
    (folder / "init").write_text("#!/bin/sh\n")
    (folder / "init").chmod(0o755)
    command = "find . -mindepth 1 | sort | cpio -o -H newc --quiet --reproducible | gzip -9n"
    return subprocess.run(command, shell=True, cwd=folder, check=True, capture_output=True).stdout


def write_tree(folder: Path, files: Mapping[str, bytes]) -> Path:
    """Write ``files`` below ``folder``, all from one time."""
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    for path in folder.rglob("*"):
        os.utime(path, (EPOCH, EPOCH))
    return folder


def make_fat(path: Path, tree: Path, *options: str, sectors: int = 8192) -> Path:
    """Make a FAT file system with the contents of ``tree``."""
    run(["mkfs.fat", "-i", "12345678", "--invariant", *options, "-C", path, str(sectors // 2)])
    env = {"SOURCE_DATE_EPOCH": str(EPOCH), "LC_ALL": "C.UTF-8"}
    run(["mcopy", "-m", "-s", "-i", path, *sorted(tree.iterdir()), "::"], env=env)
    return path


def make_image(folder: Path, shape: str, *options: str, sectors: int = 8192, more: Mapping[str, bytes] = {}) -> Path:
    """An image with an EFI file system of ``shape``, made with ``options`` of mkfs.fat, that has ``more`` files too."""
    files = {
        "arch/boot/initramfs.img": pack_initramfs(folder / "root"), "arch/boot/vmlinuz": KERNEL,
        "loader/entries/a.conf": ENTRY,
    }  # fmt: skip
    tree = write_tree(folder / "tree", files)
    esp = make_fat(folder / "esp.img", write_tree(folder / "esp", {**files, **more}), *options, sectors=sectors)
    if "on the tree" in shape:
        write_tree(tree, {"EFI/efiboot.img": esp.read_bytes()})
    iso = folder / f"{shape.replace(' ', '-')}.iso"
    words = [str(esp) if word == "ESP" else word for word in SHAPES[shape]]
    run(["xorriso", "-as", "mkisofs", "-r", "-V", "A", *words, "-o", iso, tree])
    return iso


def fats_of(iso: Path, folder: Path) -> list[Path]:
    """Every copy of the EFI file system: the file on the tree by xorriso, and the partitions by sfdisk."""
    folder.mkdir()
    on_tree = folder / "tree.img"
    subprocess.run(
        ["xorriso", "-osirrox", "on", "-indev", iso, "-extract", "/EFI/efiboot.img", on_tree],
        check=False, capture_output=True,
    )  # fmt: skip
    copies = [on_tree] if on_tree.exists() else []
    done = subprocess.run(["sfdisk", "--json", iso], check=False, capture_output=True)
    for number, each in enumerate(json.loads(done.stdout)["partitiontable"]["partitions"] if done.stdout else []):
        if each["type"] in ("ef", "C12A7328-F81F-11D2-BA4B-00A0C93EC93B"):
            with iso.open("rb") as file:
                file.seek(each["start"] * 512)
                copies.append(folder / f"partition{number}.img")
                copies[-1].write_bytes(file.read(each["size"] * 512))
    return copies


def read_fat_file(fat: Path, path: str) -> bytes:
    """A file's bytes, as mtools reads them."""
    return run(["mtype", "-i", fat, f"::/{path}"])
