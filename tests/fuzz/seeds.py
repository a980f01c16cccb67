"""Sound files from which the fuzzer starts, made by the real tools and by the demo."""

import bz2
import gzip
import lzma
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from cosremaster.demo.image import build_archive, build_iso, directory, initramfs, regular
from tests.fixtures import tools
from tests.fixtures.erofs_utils import fetch_program
from tests.fixtures.tools import run

TOOLS = (
    "genisoimage", "mksquashfs", "xorriso", "mkfs.fat", "mcopy", "mmd", "/usr/lib/ISOLINUX/isolinux.bin",
    "/usr/sbin/mke2fs", "sgdisk", "qemu-img", "mkfs.erofs",
)  # fmt: skip
ISOLINUX = Path("/usr/lib/ISOLINUX")

GRUB = b"""set timeout=5
menuentry 'Live "x"' { linux /vmlinuz boot=live quiet 'a b' $extra
 initrd /initrd.img }
menuentry xen { multiboot2 /xen.gz dom0_mem=2G
 module2 /vmlinuz console=tty0
 module2 /initrd.img }
source /boot/grub/more.cfg
"""
SYSLINUX = b"""DEFAULT live
LABEL live
  KERNEL /vmlinuz
  APPEND initrd=/initrd.img boot=live quiet
LABEL xen
  KERNEL mboot.c32
  APPEND /xen.gz dom0_mem=2G --- /vmlinuz console=tty0 --- /initrd.img
INCLUDE more.cfg
"""
ENTRY = b"title Live\nlinux /vmlinuz\ninitrd /initrd.img\noptions boot=live quiet\n"
MTREE = b"""#mtree
/set type=file uid=0 gid=0 mode=0644
. type=dir mode=0755
etc type=dir
    motd mode=0600 time=1700000000.5
    link type=link link=motd
..
./dev/null type=char device=native,1,3
./etc/with\\040space uname=root
"""
RECIPE = b"""input = "in.iso"
output = "out.iso"
[variables]
host = "live"
[[add]]
to = "/etc/hostname"
content = "${host}\\n"
[[add]]
from = "site"
to = "/srv/"
mode = "0644"
[kernel]
args = ["quiet"]
"""


def small_root() -> bytes:
    """A cpio archive of a few entries."""
    return build_archive([
        directory(b"etc"), regular(b"etc/motd", b"hello\n"), regular(b"init", b"#!/bin/sh\n", 0o755),
        directory(b"usr"), regular(b"usr/words", b"some words " * 30),
    ])  # fmt: skip


def _make_tree(folder: Path) -> Path:
    """A folder with what live images have."""
    tree = folder / "tree"
    files = {
        "boot/grub/grub.cfg": GRUB, "isolinux/isolinux.cfg": SYSLINUX, "loader/entries/a.conf": ENTRY,
        "vmlinuz": b"MZ" + b"kernel" * 500, "initrd.img": gzip.compress(small_root(), mtime=0), "d/a": b"a" * 5000,
        "d/a rather long name of a file, so that its records are long.text": b"b", "d/e/f/empty": b"",

    }  # fmt: skip
    for name, data in files.items():
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_bytes(data)
    (tree / "d/link").symlink_to("../vmlinuz")
    return tree


def make_fat(folder: Path, *options: str, kibibytes: int = 64) -> bytes:
    """A FAT file system with a few files."""
    path = folder / "fat.img"
    path.write_bytes(bytes(kibibytes * 1024))
    run(["mkfs.fat", *options, path])
    (folder / "kernel").write_bytes(b"kernel" * 900)
    (folder / "a long name.conf").write_bytes(ENTRY)
    run(["mmd", "-i", path, "::EFI", "::EFI/BOOT"])
    run(["mcopy", "-i", path, folder / "kernel", folder / "a long name.conf", "::EFI/BOOT/"])
    return path.read_bytes()


def make_isos(folder: Path) -> dict[str, bytes]:
    """Images with every kind of structure, a few hundred KiB each."""
    tree, fat = _make_tree(folder), folder / "esp"
    fat.write_bytes(make_fat(folder))
    boot = ("-b", "isolinux/isolinux.bin", "-c", "boot.cat", "-no-emul-boot", "-boot-load-size", "4")
    forms: Mapping[str, tuple[str | os.PathLike[str], ...]] = {
        "bridge": ("genisoimage", "-quiet", "-no-pad", "-R", "-J", "-udf", *boot, "-boot-info-table"),
        "plain": ("genisoimage", "-quiet", "-no-pad", "-l"),
        "gpt": (
            *("xorriso", "-as", "mkisofs", "-quiet", "-no-pad", "-R", "-J", "-partition_offset", "16", *boot),
            *("-appended_part_as_gpt", "-append_partition", "2", "0xef", fat),
        ),
        "isohybrid": (
            *("xorriso", "-as", "mkisofs", "-quiet", "-no-pad", "-R", *boot, "-boot-info-table"),
            *("-isohybrid-mbr", ISOLINUX / "isohdpfx.bin", "-eltorito-alt-boot", "-e", "d/esp", "-no-emul-boot"),
            *("-isohybrid-gpt-basdat", "-isohybrid-apm-hfsplus"),
        ),
    }
    (tree / "d/esp").write_bytes(fat.read_bytes())
    images = {}
    for name, words in forms.items():  # genisoimage writes into the boot image
        (tree / "isolinux/isolinux.bin").write_bytes((ISOLINUX / "isolinux.bin").read_bytes())
        run([*words, "-V", "FUZZ", "-o", folder / "out.iso", tree])
        images[name] = (folder / "out.iso").read_bytes()
        (folder / "out.iso").unlink()
    images["demo"] = build_iso({"live.cgz": initramfs(b"rootfs.cgz", [regular(b"sbin/init", b"#!", 0o755)])})
    return images


def make_layers(_: Path) -> dict[str, bytes]:
    """Initramfs files: each codec, nested ones, several in a file."""
    plain = small_root()
    packed = gzip.compress(plain, mtime=0)
    outer = build_archive([regular(b"init", b"#!", 0o755), regular(b"rootfs.cxz", lzma.compress(plain))])
    return {
        "plain": plain, "gzip": packed, "xz": lzma.compress(plain, check=lzma.CHECK_CRC32),
        "bzip2": bz2.compress(plain),
        "lzma": lzma.compress(plain, lzma.FORMAT_ALONE), "nested": gzip.compress(outer, mtime=0),
        "joined": plain + packed + bytes(4 - len(packed) % 4) + lzma.compress(plain, check=lzma.CHECK_CRC32),
        "crc": build_archive([regular(b"init", b"#!", 0o755)], b"070702"),
    }  # fmt: skip


def make_squashfs(folder: Path) -> dict[str, bytes]:
    """Squashfs files of a few entries; two of them store the tables, so that a mutation reaches their fields."""
    tree = _make_tree(folder)
    os.link(tree / "vmlinuz", tree / "d/second")
    os.truncate(tree / "d/a", 20_000)
    forms = {
        "stored": ("-noI", "-noD", "-noF", "-b", "4096"), "gzip": ("-b", "4096"), "xz": ("-comp", "xz"),
        "blocks": ("-noI", "-no-fragments", "-no-exports", "-b", "4096"),
    }  # fmt: skip
    images = {}
    for name, options in forms.items():
        run(["mksquashfs", tree, folder / name, "-quiet", "-no-progress", "-nopad", *options])
        images[name] = (folder / name).read_bytes()
    return images


def make_erofs(folder: Path) -> dict[str, bytes]:
    """EROFS files of a few entries: plain, compressed in several ways, and in chunks."""
    tree = _make_tree(folder)
    os.link(tree / "vmlinuz", tree / "d/second")
    os.truncate(tree / "d/a", 20_000)
    forms = {
        "plain": (), "lz4": ("-zlz4hc",), "fragments": ("-zlz4hc", "-C16384", "-Efragments,ztailpacking"),
        "legacy": ("-zlz4", "-Elegacy-compress"), "chunks": ("--chunksize=4096", "-Eforce-chunk-indexes"),
    }  # fmt: skip
    images = {}
    for name, options in forms.items():
        run(["mkfs.erofs", "--quiet", *options, folder / name, tree])
        images[name] = (folder / name).read_bytes()
    return images | make_newer_erofs(folder, tree)


def make_newer_erofs(folder: Path, tree: Path) -> dict[str, bytes]:
    """The same in forms that the newest mkfs.erofs makes; none where that cannot be fetched, but in CI."""
    try:
        program = fetch_program("mkfs.erofs")
    except (AssertionError, OSError) as error:
        if os.environ.get("CI") == "true":
            raise
        print(f"no seeds of the newest mkfs.erofs: {error}", file=sys.stderr)
        return {}
    forms = {
        "zstd": ("-zzstd", "-C16384", "-Efragments,dedupe"), "lzma": ("-zlzma", "-C16384"),
        "deflate": ("-zdeflate", "--zD=1"), "48bit": ("-zzstd", "-E48bit,dot-omitted"),
        "metabox": ("-zlzma:zstd", "-m4096:zstd", "-E48bit,fragments"),
    }  # fmt: skip
    images = {}
    for name, options in forms.items():
        run([*program, "--quiet", "--workers=1", *options, folder / name, tree])
        images[name] = (folder / name).read_bytes()
    return images


def make_tars(folder: Path) -> dict[str, bytes]:
    """Tar archives of a few entries in every form, one of them compressed."""
    tree = _make_tree(folder)
    os.link(tree / "vmlinuz", tree / "d/second")
    with (tree / "d/sparse").open("wb") as file:
        file.truncate(300_000)
        for at in (0, 70_000, 140_000, 210_000, 280_000):
            file.seek(at)
            file.write(b"data")
    (tree / ("d/" + "n" * 120)).write_text("a long name")
    forms = {
        "gnu": ("--format=gnu", "-S"), "pax": ("--format=pax",), "ustar": ("--format=ustar", "--exclude=n*"),
        "sparse-0.0": ("--format=pax", "-S", "--sparse-version=0.0"),
        "sparse-0.1": ("--format=pax", "-S", "--sparse-version=0.1"),
        "sparse-1.0": ("--format=pax", "-S", "--sparse-version=1.0"),
    }  # fmt: skip
    archives = {}
    for name, options in forms.items():
        run(["tar", "-b1", "-cf", folder / name, *options, "-C", tree, "."])
        archives[name] = (folder / name).read_bytes()
    return archives | {"gzip": gzip.compress(archives["gnu"], mtime=0)}


def make_disks(folder: Path) -> dict[str, bytes]:
    """File systems of a few entries, a disk with one of them, and that disk as qcow2."""
    tree, images = _make_tree(folder), dict[str, bytes]()
    options = ("-q", "-F", "-b", "1024", "-N", "64", "-d", tree)
    for name, features in (("ext4", ()), ("ext2", ("-t", "ext2")), ("inline", ("-O", "inline_data", "-I", "256"))):
        run(["/usr/sbin/mke2fs", *options, *features, folder / name, "400k"])
        images[name] = (folder / name).read_bytes()
    (folder / "gpt").write_bytes(bytes(40 * 512) + images["ext4"] + bytes(40 * 512))
    run(["sgdisk", "-a", "1", "-n", "1:40:839", folder / "gpt"])
    images["gpt"] = (folder / "gpt").read_bytes()
    run(["qemu-img", "convert", "-c", "-O", "qcow2", folder / "gpt", folder / "qcow2"])
    images["qcow2"] = (folder / "qcow2").read_bytes()
    return images


SEEDS: Mapping[str, Callable[[Path], Mapping[str, bytes]]] = {
    "image": make_isos,
    "layer": make_layers,
    "squashfs": make_squashfs,
    "erofs": make_erofs,
    "tar": make_tars,
    "disk": make_disks,
    "fat": lambda folder: {"fat12": make_fat(folder), "wide": make_fat(folder, "-s", "8", "-r", "32", kibibytes=160)},
    "menu": lambda _: {"grub": GRUB, "syslinux": SYSLINUX, "entry": ENTRY},
    "mtree": lambda _: {"mtree": MTREE},
    "recipe": lambda _: {"recipe": RECIPE},
    "index": lambda _: {"nothing": b"", "some": bytes(range(0, 256, 3))},
}
"""What makes the seeds of each target, in a folder of its own."""


def make_seeds(target: str, folder: Path) -> dict[str, bytes]:
    """Return the seeds of ``target`` by their names."""
    tools.require(*TOOLS)
    folder.mkdir(parents=True, exist_ok=True)
    return dict(SEEDS[target](folder))
