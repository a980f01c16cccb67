"""The images that are measured: the vendor's shape around a real Debian, built once and kept in the cache.

The root filesystem is a debootstrap'd minbase with a kernel's modules, without documentation and locales, as debirf
leaves them out: some 240 MB. debootstrap needs root.
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import cosremaster
from cosremaster.errors import Place
from cosremaster.io.source import open_source
from cosremaster.io.streams import ByteReader
from cosremaster.layers.cpio import newc as cpio
from cosremaster.tree.nodes import NodeKind
from tests.fixtures import debirf, tools

MIRROR = "http://deb.debian.org/debian"
INCLUDED = "systemd-sysv,udev,openssh-server,linux-image-cloud-amd64,python3-minimal"
DROPPED = "boot/* var/cache/apt/* var/lib/apt/lists/* usr/share/locale/* usr/share/doc/* usr/share/man/*"
ONE_BLOCK = ("xz", "-T1", "-6", "--check=crc64")
MANY_BLOCKS = ("xz", "-T0", "-6", "--check=crc64")
TOOLS = (*debirf.TOOLS, "debootstrap")


def minbase() -> Path:
    """The plain archive of the root filesystem, in sorted order, names without ``./``."""

    def make(folder: Path) -> None:
        tree = folder / "tree"
        argv: list[str | Path] = ["debootstrap", "--variant=minbase", f"--include={INCLUDED}", "bookworm", tree, MIRROR]
        subprocess.run(argv, check=True, stdout=subprocess.DEVNULL)
        subprocess.run(f"rm -rf {DROPPED}", shell=True, cwd=tree, check=True)
        pack = "find * -print0 | LC_ALL=C sort -z | cpio -o -0 -H newc --quiet > ../rootfs.cpio"
        subprocess.run(pack, shell=True, cwd=tree, check=True)
        shutil.rmtree(tree)

    return tools.cached(tools.default_cache(), "bench-minbase", [INCLUDED, DROPPED], make) / "rootfs.cpio"


def vendor(codec: Sequence[str]) -> debirf.DebirfImage:
    """The vendor's shape around :func:`minbase`, its root filesystem compressed by ``codec``."""
    plain, kernel = minbase(), tools.cloud_kernel(tools.default_cache())
    key = [plain.parent.name, repr(codec), Path(debirf.__file__).read_text()]
    recipe = debirf.Recipe(layer_codec=codec)

    def make(folder: Path) -> None:
        debirf.make(folder, recipe, kernel, rootfs=plain)

    folder = tools.cached(tools.default_cache(), "bench-vendor", key, make)
    return debirf.DebirfImage(folder / "debirf-live.iso", plain)


def noise(path: Path, size: int) -> None:
    """Makes ``path`` a file of ``size`` bytes that do not compress, the same each time."""
    path.parent.mkdir(parents=True, exist_ok=True)
    chance = random.Random(path.name)
    with path.open("wb") as file:
        for start in range(0, size, 1 << 20):
            file.write(chance.randbytes(min(1 << 20, size - start)))


def grown(folder: Path, size: int) -> Path:
    """The one-block image with ``size`` bytes of noise added to it by us: a base that a run of ours wrote."""
    noise(folder / "noise" / "opt" / "noise", size)
    target = folder / f"grown-{size}.iso"
    cosremaster.remaster(vendor(ONE_BLOCK).iso, target, add=[folder / "noise"], remember=False)
    shutil.rmtree(folder / "noise")
    return target


def prepared(folder: Path) -> Path:
    """The one-block image as a base for many remasters."""
    target = folder / "prepared.iso"
    with cosremaster.open(vendor(ONE_BLOCK).iso, remember=False) as image:
        image.write_base(target)
    return target


def middle_file() -> str:
    """A small regular file in the middle of :func:`minbase`."""
    plain, half = minbase(), minbase().stat().st_size // 2
    with open_source(plain) as source:
        for entry in cpio.read_entries(ByteReader(source.chunks(0, source.size), Place())):
            regular = entry.header.mode & 0o170000 == NodeKind.FILE and entry.header.nlink == 1
            if entry.offset > half and regular and 0 < entry.header.size < 10_000:
                return os.fsdecode(entry.name)
    raise AssertionError("no small file in the middle")


def described() -> str:
    """The images' sizes, in words."""
    image = vendor(ONE_BLOCK)
    layer, iso = image.rootfs_cpio.stat().st_size, image.iso.stat().st_size
    return f"{layer:,} bytes in a single-block `xz -6`, ISO of {iso:,} bytes"


def entries(folder: Path, count: int) -> Path:
    """A gzip'd initramfs of ``count`` entries: directories of a hundred files each, of words that gzip shrinks to a
    third; some 70 MB plain."""
    chance = random.Random(count)
    words = [chance.randbytes(8).hex() for _ in range(2000)]
    tree = folder / "tree"
    for number in range(count // 100):
        below = tree / "usr/lib" / f"d{number:04}"
        below.mkdir(parents=True)
        for file in range(99):
            (below / f"file-{file:03}.conf").write_text(" ".join(chance.choices(words, k=chance.randrange(20, 800))))
    pack = "find * -print0 | LC_ALL=C sort -z | cpio -o -0 -H newc --quiet | gzip -n > ../initramfs.gz"
    subprocess.run(pack, shell=True, cwd=tree, check=True)
    shutil.rmtree(tree)
    return folder / "initramfs.gz"
