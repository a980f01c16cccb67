"""The debirf-shaped image that other tests start from is what it claims to be, and boots in all four ways."""

import os
import re
import struct
from pathlib import Path

import pytest

from tests.fixtures import debirf, tools

BLOCK = 2048


def test_missing_tools_skip_here_and_fail_in_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without the tools skips, but CI must not; either way it is told what to install."""
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(pytest.skip.Exception, match=r"xorriso \(Debian package xorriso\)\.$"):
        tools.require("xorriso")
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match=r"mformat \(Debian package mtools\)\.$"):
        tools.require("/", "mformat")


def test_a_failing_tool_tells_what_it_said() -> None:
    with pytest.raises(AssertionError, match=r"sh -c echo woe >&2; exit 3\nended with status 3:\nwoe"):
        tools.run(["sh", "-c", "echo woe >&2; exit 3"])


def uefi_block(iso: Path) -> int:
    """The block of the UEFI image: the one behind the BIOS image, whose length is that of GRUB's release."""
    told = tools.run(["xorriso", "-indev", iso, "-find", "/boot/grub/bios.img", "-exec", "report_lba"]).decode()
    ((first, count),) = re.findall(r"^File data lba: +\d+ , +(\d+) , +(\d+) ,", told, re.M)
    return int(first) + int(count)


def test_boot_records_are_the_vendors(debirf_image: debirf.DebirfImage) -> None:
    report = ["-report_el_torito", "plain", "-report_system_area", "plain"]
    told = tools.run(["xorriso", "-indev", debirf_image.iso, *report]).decode()
    told = re.sub(" +", " ", told)
    for line in (
        "El Torito cat path : /boot/grub/boot.cat",
        "El Torito boot img : 1 BIOS y none 0x0000 0x00 4 34",
        f"El Torito boot img : 2 UEFI y none 0x0000 0x00 20480 {uefi_block(debirf_image.iso)}",
        "El Torito img path : 1 /boot/grub/bios.img",
        "El Torito img opts : 1 boot-info-table grub2-boot-info",
        "El Torito img path : 2 /EFI/efiboot.img",
        "System area summary: MBR grub2-mbr cyl-align-off",
    ):
        assert line in told.splitlines()
    assert told.count("El Torito boot img :") == 2
    volume = int(re.findall(r"^ISO image size/512 : (\d+)$", told, re.M)[0])
    partitions = re.findall(r"^MBR partition : (.*)$", told, re.M)
    assert partitions == [f"1 0x80 0x83 0 {volume}", f"2 0x00 0xef {volume} 20480"]


def test_disc_holds_the_vendors_files_in_the_vendors_order(debirf_image: debirf.DebirfImage) -> None:
    where = ["-find", "/", "-type", "f", "-exec", "report_lba"]
    told = tools.run(["xorriso", "-indev", debirf_image.iso, *where]).decode()
    found = re.findall(r"^File data lba: +\d+ , +(\d+) , .* '(.*)'$", told, re.M)
    assert [name for _, name in sorted(found, key=lambda f: int(f[0]))] == [
        *("/boot/grub/bios.img", "/EFI/efiboot.img", "/boot/grub/grub.cfg"),
        *(f"/{debirf.CGZ}", "/vmlinuz"),
    ]
    image = debirf_image.iso.read_bytes()
    types = [image[n * BLOCK] for n in (16, 17, 18)]
    assert types == [1, 0, 255], "a primary and a boot descriptor, and no Joliet"
    assert image[16 * BLOCK + 40 :][:32].rstrip() == b"DEBIAN_LIVE"
    (volume,) = struct.unpack_from("<I", image, 16 * BLOCK + 80)
    fat = image[uefi_block(debirf_image.iso) * BLOCK :][: 10 << 20]
    assert image[volume * BLOCK :][: 10 << 20] == fat, "the appended partition is the El Torito image's twin"


def test_same_bytes_whoever_builds_where_and_when(
    debirf_image: debirf.DebirfImage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither the directory, the umask, the time zone nor the locale shows in the image."""
    kernel = tools.cloud_kernel(tools.default_cache())
    made: list[bytes] = []
    builders = (("a", 0o022, "UTC", "C"), ("b/c", 0o077, "Asia/Tokyo", "de_DE.UTF-8"))
    for name, umask, zone, language in builders:
        directory = tmp_path / name
        directory.mkdir(parents=True)
        monkeypatch.setenv("TZ", zone)
        monkeypatch.setenv("LC_ALL", language)
        before = os.umask(umask)
        try:
            image = debirf.make(directory, debirf.Recipe(layer_codec=debirf.FAST_LAYER), kernel)
        finally:
            os.umask(before)
        assert sorted(directory.iterdir()) == [image.iso, image.rootfs_cpio]
        assert image.rootfs_cpio.read_bytes() == debirf_image.rootfs_cpio.read_bytes()
        made.append(image.iso.read_bytes())
    assert made[0] == made[1]


def test_root_filesystem_holds_one_of_everything(debirf_image: debirf.DebirfImage) -> None:
    archive = debirf_image.rootfs_cpio.read_bytes()
    listing = re.sub(rb" +", b" ", tools.run(["cpio", "-itvn", "--quiet"], stdin=archive))
    zoneinfo = b" 0 0 %d Nov 14 2023 usr/share/zoneinfo/"
    for line in (
        b"crw------- 1 0 0 5, 1 Nov 14 2023 dev/console",
        b"crw-rw-rw- 1 0 0 1, 3 Nov 14 2023 dev/null",
        b"crw-rw---- 1 0 20 4, 64 Nov 14 2023 dev/ttyS0",
        b"-rwsr-xr-x 1 0 0 13 Nov 14 2023 usr/lib/suid-helper",
        # GNU cpio gives a group's data to its last name.
        b"-rw-r--r-- 3" + zoneinfo % 0 + b"Etc/UTC",
        b"-rw-r--r-- 3" + zoneinfo % 0 + b"UTC",
        b"-rw-r--r-- 3" + zoneinfo % 50 + b"Zulu",
        b"lrwxrwxrwx 1 0 0 7 Nov 14 2023 bin -> usr/bin",
        b"lrwxrwxrwx 1 0 0 8 Nov 14 2023 sbin -> usr/sbin",
        b"lrwxrwxrwx 1 0 0 7 Nov 14 2023 lib -> usr/lib",
        b"lrwxrwxrwx 1 0 0 12 Nov 14 2023 etc/mtab -> /proc/mounts",
        b"-rw-r--r-- 1 0 0 0 Nov 14 2023 etc/machine-id",
        b"-rw-r--r-- 1 65534 65534 6 Nov 14 2023 var/cache/nobody.cache",
        b"-rw------- 1 1000 1000 10 Nov 14 2023 home/operator/.profile",
        b"-rw-r--r-- 1 0 0 18 Nov 14 2023 " + debirf.NOT_UTF8,
        b"-rw-r--r-- 1 0 0 12 Nov 14 2023 " + debirf.LONG_NAME.encode(),
        b"drwxr-xr-x 2 0 0 0 Nov 14 2023 srv/empty",
    ):
        assert line in listing.splitlines()
    names = tools.run(["cpio", "-it", "--quiet"], stdin=archive).splitlines()
    assert len(names) == len(set(names)) and not [n for n in names if n.startswith(b".")]
    assert 5_000_000 < len(archive) < 10_000_000


def test_layer_is_one_xz_block_inside_a_gzipped_archive(debirf_image: debirf.DebirfImage, tmp_path: Path) -> None:
    tools.require("bsdtar")
    cgz = tools.run(["bsdtar", "-xOf", debirf_image.iso, debirf.CGZ])
    outer = tools.run(["gzip", "-d"], stdin=cgz)
    names = tools.run(["cpio", "-it", "--quiet"], stdin=outer).decode().splitlines()
    assert {"bin/busybox", "bin/cpio", "bin/run-init", "bin/unxz", "init", "rootfs.cxz"} <= set(names)
    listing = tools.run(["cpio", "-itvn", "--quiet"], stdin=outer).decode()
    (links,) = set(re.findall(r"^-\S+ +(\d+) .* bin/(?:busybox|sh|cpio)$", listing, re.M))
    assert int(links) > 200
    layer = tmp_path / "rootfs.cxz"
    layer.write_bytes(tools.run(["cpio", "-i", "--quiet", "--to-stdout", layer.name], stdin=outer))
    assert tools.run(["xz", "-dc", "--", layer]) == debirf_image.rootfs_cpio.read_bytes()
    told = tools.run(["xz", "--robot", "--list", layer]).decode().splitlines()
    _, streams, blocks, _, _, _, check, _ = told[1].split("\t")
    assert (streams, blocks, check) == ("1", "1", "CRC64")
