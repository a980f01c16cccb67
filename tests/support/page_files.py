"""The files that commands of the pages name: small images, archives and folders, made where a page asks for them."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import cosremaster
from cosremaster.demo.image import build_iso, initramfs
from tests.fixtures import tools, vendor_installers
from tests.fixtures.tools import EPOCH, run
from tests.support.busybox_roots import make_busybox_root, pack_tar
from tests.support.esp import make_fat, pack_initramfs, write_tree
from tests.support.user import REPOSITORY

_KERNEL = b"MZ" + bytes(0x200) + b"HdrS" + bytes(3000)
Maker = Callable[[Path], None]
"""Makes the file or folder at a path."""


def _write(text: str | bytes = b"some bytes\n", mode: int = 0o644) -> Maker:
    """Return what writes a file with ``text``."""

    def make(path: Path) -> None:
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        path.chmod(mode)

    return make


def _folder(**files: str) -> Maker:
    """Return what makes a folder with ``files``; two underscores in a name are a slash, and one behind it a dot."""

    def make(path: Path) -> None:
        for name, text in files.items():
            target = path / name.replace("__", "/").replace("_D_", ".")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text, "utf-8")
        path.mkdir(exist_ok=True)

    return make


def _debirf(name: str, **more: bytes) -> Maker:
    """Return what makes an image of debirf whose initramfs is called ``name``."""

    def make(path: Path) -> None:
        menu = b"menuentry live {\nlinux /vmlinuz quiet console=tty0\ninitrd /%s\n}\n" % name.encode()
        menu += b"menuentry 'Rescue mode' {\nlinux /vmlinuz single\ninitrd /%s\n}\n" % name.encode()
        extra = {key.replace("__", "/"): data for key, data in more.items()}
        path.write_bytes(build_iso({"vmlinuz": _KERNEL, name: initramfs(), "boot/grub/grub.cfg": menu, **extra}))

    return make


def _busybox(path: Path) -> Path:
    """Return a root file system in a folder beside ``path``."""
    root = path.parent / "busybox-root"
    if not root.exists():
        make_busybox_root(root)
        (root / "etc/os-release").write_text("ID=debian\nVERSION_CODENAME=bookworm\n")
        for name in ("etc/systemd/system", "lib", "root/.ssh", "lib/inner/etc", "boot"):
            (root / name).mkdir(parents=True, exist_ok=True)
    return root


def _runnable(path: Path, **more: bytes) -> None:
    """Make an image in whose root scripts run."""
    packed = run(["sh", "-c", "find . | cpio -o -H newc --quiet | gzip -1"], cwd=_busybox(path))
    menu = b"linux /vmlinuz\ninitrd /initrd.img\n"
    path.write_bytes(build_iso({"vmlinuz": _KERNEL, "initrd.img": packed, "boot/grub/grub.cfg": menu, **more}))


def _site(path: Path) -> None:
    """Make an image that was made of the vendor's beside it."""
    data = path.with_name("site-data")
    data.write_text("data\n", "utf-8")
    cosremaster.remaster(path.with_name("vendor.iso"), path, add_iso=[f"{data}:/data/"], force=True)


def _tar_disc(path: Path) -> None:
    """Make an image with a root file system in an initramfs, and another in an archive."""
    archive = path.with_name("made.tar.gz")
    _tar(archive)
    _runnable(path, **{"images/root.tar.gz": archive.read_bytes()})
    archive.unlink()


def _fat_disc(*, is_twice: bool) -> Maker:
    """Return what makes an image with an EFI system partition in which an initramfs lies, and a FAT image on its tree.

    ``is_twice``: both are the same.
    """

    def make(path: Path) -> None:
        tools.require("mkfs.fat", "mcopy", "xorriso")
        tree = {"EFI/BOOT/grub.cfg": b"linux /arch/boot/vmlinuz\n", "loader/entries/arch.conf": b"title Arch\n",
                "arch/boot/initramfs.img": pack_initramfs(path.with_name("initramfs"))}  # fmt: skip
        fat = make_fat(path.with_name("fat.img"), write_tree(path.with_name("fat"), tree))
        other = fat
        if not is_twice:
            other = make_fat(path.with_name("other.img"), write_tree(path.with_name("other"), {"EFI/BOOT/a": b"a"}))
        disc = write_tree(path.with_name("disc"), {"EFI/efiboot.img": other.read_bytes(), "arch/version": b"1\n"})
        run(["xorriso", "-as", "mkisofs", "-r", "-V", "ARCH", "-partition_offset", "16", "-append_partition", "2",
             "0xef", fat, "-appended_part_as_gpt", "-eltorito-alt-boot", "-e", "EFI/efiboot.img", "-no-emul-boot",
             "-eltorito-alt-boot", "-e", "--interval:appended_partition_2:all::", "-no-emul-boot", "-o", path,
             disc])  # fmt: skip

    return make


def _squashfs(path: Path) -> None:
    """Make a squashfs with a squashfs and an initramfs in it."""
    tools.require("mksquashfs")
    root = _busybox(path)
    options = ("-quiet", "-noappend", "-all-root", "-comp", "gzip", "-mkfs-time", str(EPOCH))
    if not (root / "lib/inner.squashfs").exists():
        (root / "lib/inner/etc/hostname").write_text("inner\n")
        (root / "boot/initrd.img").write_bytes(initramfs())
        run(["mksquashfs", root / "lib/inner", root / "lib/inner.squashfs", *options])
    run(["mksquashfs", root, path, *options])


def _live(path: Path) -> None:
    """Make a live image with a squashfs."""
    squashfs = path.parent / "made.squashfs"
    _squashfs(squashfs)
    menu = b"linux /live/vmlinuz boot=live\ninitrd /live/initrd.img\n"
    initrd = pack_initramfs(path.with_name("initramfs"))
    files = {"live/filesystem.squashfs": squashfs.read_bytes(), "live/initrd.img": initrd, "live/vmlinuz": b"MZ"}
    squashfs.unlink()
    path.write_bytes(build_iso({**files, "boot/grub/grub.cfg": menu}))


def _tar(path: Path) -> None:
    """Make an archive of a root file system."""
    plain = path.parent / "made.tar"
    pack_tar(_busybox(path), plain)
    codec = {".xz": "xz", ".gz": "gzip"}[path.suffix]
    path.write_bytes(run([codec, "-1", "-c", plain]))
    plain.unlink()


def _disk(path: Path) -> None:
    """Make a disk image with a root file system in its first partition, and data in its second."""
    tools.require("/usr/sbin/mke2fs", "sfdisk", "qemu-img")
    raw = path.with_name("made.raw")
    start, size = 2048, 12 * 2048
    with raw.open("wb") as file:
        file.truncate(((start + 2 * size) + 2048) * 512)
    root = "4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709"
    table = f"label: gpt\nstart={start}, size={size}, type={root}\nstart={start + size}, size={size}, type=linux\n"
    run(["sfdisk", "--quiet", raw], stdin=table.encode())
    data = write_tree(path.with_name("data"), {"data/file": b"data\n"})
    for number, tree in enumerate((_busybox(path), data)):
        offset = (start + number * size) * 512
        run(["/usr/sbin/mke2fs", "-q", "-F", "-t", "ext4", "-d", tree, "-E", f"offset={offset}", raw, f"{size // 2}k"])
    if path.suffix == ".qcow2":
        run(["qemu-img", "convert", "-O", "qcow2", raw, path])
        raw.unlink()
    else:
        raw.rename(path)


def _vendor(shape: str) -> Maker:
    """Return what makes a vendor's installer."""

    def make(path: Path) -> None:
        tools.require(*vendor_installers.TOOLS)
        path.symlink_to(vendor_installers.build(shape))

    return make


def _root(path: Path) -> None:
    """Make a folder with a root file system."""
    _busybox(path).rename(path)


def _clone(path: Path) -> None:
    """Make what a clone of this repository has for those who use it."""
    shutil.copytree(REPOSITORY / "examples", path / "examples")


_SITE = _folder(etc__motd="welcome\n", etc__systemd__system__site_D_service="[Install]\nWantedBy=multi-user.target\n")
_FLEET = """\
base = "vendor.iso"
output = "out/${NAME}.iso"
[[add]]
source = "site"
[[site]]
name = "north"
[[site]]
name = "south"
"""
_RECIPE = """\
input = "debirf-live.iso"
output = "${SITE}.iso"
[variables]
SITE = "headend-7"
[[add]]
source = "site"
"""

FILES: Mapping[str, Maker] = {
    **dict.fromkeys(("vendor.iso", "base.iso", "in.iso", "debirf-live.iso"),
                    _debirf("initrd.img", doc__readme=b"read\n")),
    "live.iso": _live, "site.iso": _site,
    **dict.fromkeys(("filesystem.squashfs", "outer.squashfs", "noble-server-cloudimg-amd64.squashfs"), _squashfs),
    **dict.fromkeys(("root.tar.xz", "root.tar.gz"), _tar),
    **dict.fromkeys(("cloud.img", "cloud.qcow2", "old.img", "new.img", "disk.qcow2", "noble-server-cloudimg-amd64.img"),
                    _disk),
    **dict.fromkeys(("install.sh", "customize.sh", "hook.sh"), _write("#!/bin/sh\necho done\n", 0o755)),
    **dict.fromkeys(("platform.iso", "data.img", "boot.wim"), _write()),
    "site": _SITE, "hooks": _folder(etc__hook="hook\n"), "OEM": _folder(setup_D_cmd="rem\r\n"),
    "root": _root,
    "debs": _folder(),
    "grub.cfg": _write("source /boot/grub/vendor.cfg\n"), "ei.cfg": _write("[Channel]\n"),
    "owners.mtree": _write("#mtree\n./etc/hostname type=file uid=5 gid=5 mode=0644\n"),
    "Win11.iso": _vendor("windows.iso"),
    "fleet.toml": _write(_FLEET), "site.toml": _write(_RECIPE),
    "debian-12.8.0-amd64-netinst.iso": _vendor("debian-netinst.iso"),
    "ubuntu-24.04.1-live-server-amd64.iso": _vendor("ubuntu-server.iso"),
    "rhel-9.4-x86_64-boot.iso": _vendor("rhel-boot.iso"),
    "archlinux-2024.11.01-x86_64.iso": _vendor("archlinux.iso"),
    "proxmox-ve_8.3-1.iso": _vendor("proxmox-ve.iso"),
    "VMware-VMvisor-Installer-8.0U3-24022510.x86_64.iso": _vendor("esxi.iso"),
    "Win11_English_x64.iso": _vendor("windows.iso"),
    "noble-server-cloudimg-amd64-root.tar.xz": _vendor("noble-root.tar.xz"),
}  # fmt: skip
"""The files by the names that pages give them."""

OF_PAGES: Mapping[tuple[str, str], Maker] = {
    ("docs/tutorial.md", "cosremaster"): _clone,
    ("docs/usage.md", "vendor.iso"): _debirf("debirf-live.cgz"),
    ("docs/run.md", "vendor.iso"): _runnable,
    ("README.md", "vendor.iso"): _runnable,
    ("docs/tar.md", "vendor.iso"): _tar_disc,
    ("docs/fat.md", "arch.iso"): _fat_disc(is_twice=True),
    ("docs/fat.md", "in.iso"): _fat_disc(is_twice=False),
}
"""Files that are others on one page."""


def make_files(page: str, words: list[str], folder: Path) -> None:
    """Make in ``folder`` the files that ``words`` of the page's commands name, and those that these need."""
    if page.startswith("examples/"):
        shutil.copytree(REPOSITORY / page.rpartition("/")[0], folder, dirs_exist_ok=True)
    needed = ["vendor.iso", *words] if "site.iso" in words else list(words)
    needed += ["vendor.iso", "site"] if "fleet.toml" in words else []
    needed += ["debirf-live.iso", "site"] if "site.toml" in words else []
    for name in dict.fromkeys(needed):
        maker = OF_PAGES.get((page, name)) or FILES.get(name)
        if maker is not None and not (folder / name).exists():
            maker(folder / name)
