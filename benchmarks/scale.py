"""Images of very many files: an ISO of 100,000, an initramfs of 500,000 entries."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from benchmarks.measure import Compared, Group, shell
from benchmarks.squashfs import PEAK

Side = Callable[[Path], float | None]

OURS = f"{shlex.quote(sys.executable)} -m cosremaster"
BOOT = (
    "-c isolinux/boot.cat -b isolinux/isolinux.bin -no-emul-boot -boot-load-size 4 -boot-info-table"
    " -eltorito-alt-boot -e boot/efi.img -no-emul-boot"
)
REPLAY = "`xorriso -map -boot_image any replay`"
ADDED_TO = "pool07/package-033"
LOOP = r"""
import os, struct, sys
image = os.open(sys.argv[1], os.O_RDONLY)
unpack = struct.Struct("<BxL4xL4x7xB6xB").unpack_from
waiting = [struct.unpack_from("<2xL4xL", os.pread(image, 34, 16 * 2048 + 156))]
while waiting:
    lba, size = waiting.pop()
    data, at = os.pread(image, size, lba * 2048), 0
    while at < size:
        length, start, count, flags, name = unpack(data, at)
        if not length:
            at += 2048 - at % 2048
            continue
        if flags & 2 and data[at + 33] > 1:
            waiting.append((start, count))
        at += length
"""
"""Unpacks all directory records of a tree, and keeps and prints nothing."""


def _many_files(folder: Path) -> Path:
    """An ISO of 100,000 small files in 2,000 folders, with Rock Ridge, Joliet and two boot entries, by genisoimage."""
    tree = folder / "tree"
    for number in range(2000):
        below = tree / f"pool{number // 100:02}" / f"package-{number % 100:03}"
        below.mkdir(parents=True)
        for file in range(50):
            (below / f"file-{file:03}-{number:05}.data").write_text(f"file {file} of {number}\n" * (1 + file))
    for path, size in (("isolinux/isolinux.bin", 4096), ("boot/efi.img", 1 << 20)):
        (tree / path).parent.mkdir()
        (tree / path).write_bytes(b"boot" * (size // 4))
    shell(f"genisoimage -quiet -R -J -joliet-long -V MANY {BOOT} -o many.iso tree", folder)
    shutil.rmtree(tree)
    return folder / "many.iso"


def _iso(folder: Path) -> Mapping[str, Side]:
    """A file added, and all names listed."""
    iso, new = shlex.quote(str(_many_files(folder))), folder / "new.txt"
    new.write_text("new\n")
    added = f"{OURS} {iso} out.iso --quiet --no-sync --add-iso {shlex.quote(str(new))}:/{ADDED_TO}/"
    mapped = f"-map {shlex.quote(str(new))} /{ADDED_TO}/new.txt"
    replayed = f"xorriso -indev {iso} -outdev out.iso {mapped} -boot_image any replay > /dev/null 2>&1"
    with_joliet = replayed.replace("xorriso ", "xorriso -joliet on ", 1)
    return {
        "with joliet": lambda work: shell(with_joliet, work),
        "added": lambda work: shell(added, work),
        "xorriso": lambda work: shell(replayed, work),
        "listed": lambda work: shell(f"{OURS} ls -R {iso} > names", work),
        "loop": lambda work: shell(f"{shlex.quote(sys.executable)} -c {shlex.quote(LOOP)} {iso}", work),
        "isoinfo": lambda work: shell(f"isoinfo -R -f -i {iso} > names", work),
    }


def _many_entries(folder: Path) -> Path:
    """A gzip'd initramfs of 500,000 entries, as GNU cpio packs what ``find .`` names."""
    tree = folder / "tree"
    for number in range(5000):
        below = tree / f"usr/share/kit{number // 100:02}" / f"part-{number % 100:03}"
        below.mkdir(parents=True)
        for file in range(99):
            (below / f"item-{number:05}-{file:03}.txt").write_text(f"item {file} of {number}\n")
    pack = "find . -print0 | LC_ALL=C sort -z | cpio -o -0 -H newc --quiet --reproducible | gzip -n > ../many.gz"
    subprocess.run(pack, shell=True, cwd=tree, check=True)
    shutil.rmtree(tree)
    return folder / "many.gz"


def _memory(folder: Path) -> Mapping[str, Side]:
    """MiB that an addition to it takes at most in a first run."""
    new = folder / "new.txt"
    initramfs = _many_entries(folder)
    new.write_text("new\n")
    command = [initramfs, "out.gz", "--quiet", "--no-sync", "--add", f"{new}:/usr/share/"]

    def peak(work: Path) -> float:
        env = {**os.environ, "XDG_CACHE_HOME": str(work / "cache")}
        argv = [sys.executable, "-c", PEAK, *map(str, command)]
        done = subprocess.run(argv, cwd=work, check=True, env=env, capture_output=True, text=True)
        return int(done.stderr.split()[-1]) / 1024

    return {"many": peak, "limit": lambda work: 250}


GROUPS: Mapping[str, Group] = {
    "many-files": Group(
        _iso,
        (
            Compared(
                "one file added to an ISO of 100,000 files",
                "added",
                "`xorriso` doing it, boot replayed",
                "xorriso",
                0.5,
            ),
            Compared(
                "one file added to an ISO of 100,000 files",
                "added",
                "`xorriso` doing it, boot replayed, with the Joliet tree that the ISO has",
                "with joliet",
                None,
            ),
            Compared("`ls -R` of 100,000 files on an ISO", "listed", "`isoinfo -R -f`", "isoinfo", 2.0),
            Compared(
                "its directory records unpacked by a Python loop that finds no names and prints nothing",
                "loop",
                "`isoinfo -R -f`",
                "isoinfo",
                None,
            ),
        ),
        rounds=5,
    ),
    "many-entries": Group(
        _memory,
        (Compared("peak memory, 500,000 entries, one file added", "many", "250 MiB", "limit", 1.0),),
        rounds=1,
        unit="MiB",
    ),
}
