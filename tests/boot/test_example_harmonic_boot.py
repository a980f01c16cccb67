"""examples/harmonic-installer: the image is deployed as MAAS does it, and boots once into what it is for."""

from __future__ import annotations

import hashlib
import random
from pathlib import Path

import pytest

from cosremaster.cli import main
from tests.fixtures import live, roots, tools
from tests.fixtures.tools import run
from tests.support import qemu
from tests.support.harmonic import extract_as_curtin, make_package, serving
from tests.support.qemu import FINISH

MKE2FS = "/usr/sbin/mke2fs"

# Starts the installation a second time, as booting again would, and ends the machine.
REPORTER = f"""\
[Unit]
DefaultDependencies=no
After=harmonic-install.service
[Service]
Type=oneshot
StandardOutput=journal+console
ExecStart=/bin/sh -c 'echo STATE $(systemctl is-active harmonic-install.service)'
ExecStart=-/bin/systemctl restart harmonic-install.service
ExecStart=/bin/systemctl show -p ConditionResult harmonic-install.service
ExecStart=/bin/sh -c 'vendor-tool; cat /var/lib/vendor-tool; ls /etc/harmonic-installer'
ExecStart=/bin/sh -c 'echo SHADOW $(grep ^root: /etc/shadow)'
ExecStart=/bin/sh -c '{FINISH}'
[Install]
WantedBy=multi-user.target
"""
NETWORK = "[Match]\nName=e*\n[Network]\nDHCP=ipv4\nLinkLocalAddressing=no\nIPv6AcceptRA=no\n"
NOT_NEEDED = (
    *("./boot/*", "./usr/share/*", "./usr/lib/udev/hwdb.*", "./usr/lib/x86_64-linux-gnu/perl*", "./var/cache/*"),
    *("./usr/lib/modules/*/kernel/[a-ce-z]*", "./usr/lib/modules/*/kernel/drivers/[a-mo-z]*"),
)
"""What no boot needs and takes time to pack: the initramfs has the drivers but for the network card's."""


NOT_STARTED = (
    *("e2scrub_reap.service", "getty-static.service", "getty.target", "timers.target", "remote-fs.target"),
    *("systemd-update-utmp.service", "systemd-user-sessions.service", "systemd-pstore.service"),
)
"""Units that an emulated machine takes long to start, and that nothing here needs."""


def _fill(recipe: Path) -> None:
    """Let ``recipe`` bring the test's own units, and a network as MAAS would set it up."""
    folder = recipe.parent
    (folder / "reporter.service").write_text(REPORTER)
    (folder / "10-site.network").write_text(NETWORK)
    recipe.write_text(
        recipe.read_text() + '\n[[add]]\nsource = "reporter.service"\ndest = "/etc/systemd/system/"\n'
        '\n[[add]]\nservice = "reporter.service"\n'
        '\n[[add]]\nsource = "10-site.network"\ndest = "/etc/systemd/network/"\n'
        '\n[[add]]\nservice = "systemd-networkd.service"\nwanted_by = "multi-user.target"\n'
        '\n[[add]]\nservice = "systemd-networkd-wait-online.service"\nwanted_by = "network-online.target"\n'
    )


def _drive(path: Path, name: str) -> list[str]:
    """Return the options of QEMU for a disk."""
    return ["-drive", f"if=none,id={name},format=raw,file={path}", "-device", f"virtio-blk-pci,drive={name}"]


def _deploy(archive: Path, disk: Path, scratch: Path) -> None:
    """Unpack ``archive`` onto the new ``disk`` as MAAS' installer does."""
    run([MKE2FS, "-q", "-t", "ext4", disk, "400M"])
    scratch.mkdir()
    run(["mount", "-o", "loop", disk, scratch])
    try:
        extract_as_curtin(archive, scratch)
    finally:
        run(["umount", scratch])


def _boot_deployed(example: Path, scratch: Path, port: int, physical: str, until: str, timeout: float) -> str:
    """Build the image, deploy it to the first disk of a machine, boot it, and return what it says up to ``until``.

    :param port: of the web server; ``physical``: the disk that the machine writes the ISO to.
    """
    root = roots.debian_root(live.PACKAGES)
    base = scratch / "root.tar"
    excluded = [f"--exclude={pattern}" for pattern in NOT_NEEDED]
    run(["tar", "--xattrs", "--xattrs-include=*", *excluded, "-cf", base, "-C", root, "."])
    make_package(example / "packages", scratch)
    _fill(example / "harmonic-installer.toml")
    settings = {
        "ROOT": str(base), "WORKDIR": str(scratch), "webserverHost": "10.0.2.2", "webserverPort": str(port),
        "physicalDisk": physical, "REBOOT": "no",
    }  # fmt: skip
    options = [text for name, value in settings.items() for text in ("--set", f"{name}={value}")]
    assert main(["build", str(example / "harmonic-installer.toml"), *options, "--quiet"]) == 0
    _deploy(scratch / "harmonic-installer.tar.gz", scratch / "first.img", scratch / "target")
    (kernel,), (initramfs,) = root.glob("boot/vmlinuz-*"), root.glob("boot/initrd.img-*")
    masks = " ".join(f"systemd.mask={unit}" for unit in NOT_STARTED)
    return qemu.boot_kernel(
        kernel, initramfs, f"root=/dev/vda rw console=ttyS0 quiet {masks}",
        *_drive(scratch / "first.img", "first"), *_drive(scratch / "second.img", "second"),
        *("-netdev", "user,id=net", "-device", "virtio-net-pci,netdev=net"),
        memory_mb=1024, timeout=timeout, until=until,
    )  # fmt: skip


def _served(iso: bytes) -> dict[str, bytes]:
    """Return what the web server has."""
    digest = hashlib.sha256(iso).hexdigest()
    return {"/apollo/latest": iso, "/apollo/latest.sha256": f"{digest}  latest\n".encode()}


def test_the_deployed_image_writes_the_newest_iso_once(harmonic: Path, tmp_path: Path) -> None:
    tools.require(*roots.TOOLS, *qemu.TOOLS, "tar", "mount", MKE2FS)
    roots.require_root()
    iso, second = random.Random(17).randbytes(3 << 20) + b"the end of the newest ISO", tmp_path / "second.img"
    second.write_bytes(b"old" * (2 << 20))
    with serving(_served(iso)) as (port, requests):
        said = _boot_deployed(harmonic, tmp_path, port, "/dev/vdb", qemu.END, timeout=300)
    assert f"harmonic-installer: SHA-256 {hashlib.sha256(iso).hexdigest()}, as the server says" in said
    assert said.count("harmonic-installer: done") == 1
    assert requests == ["/apollo/latest", "/apollo/latest.sha256"]
    lines = ("STATE active", "ConditionResult=no", "the vendor", "configured", "root has a password", "SHADOW root:$")
    for line in lines:
        assert line in said, said[-3000:]
    assert "credentials" not in said
    assert second.stat().st_size == 6 << 20
    with second.open("rb") as file:
        assert file.read(len(iso)) == iso, "byte for byte"


@pytest.mark.slow
def test_the_disk_that_the_system_runs_from_becomes_the_iso(harmonic: Path, tmp_path: Path) -> None:
    tools.require(*roots.TOOLS, *qemu.TOOLS, "tar", "mount", MKE2FS)
    roots.require_root()
    iso, second = random.Random(18).randbytes(16 << 20) + b"the end of the newest ISO", tmp_path / "second.img"
    second.write_bytes(b"old" * (2 << 20))
    with serving(_served(iso)) as (port, _):
        said = _boot_deployed(harmonic, tmp_path, port, "/dev/vda", "sysrq: Resetting", timeout=600)
    assert "which this system runs from" in said
    assert "/dev/vda is written" in said
    with (tmp_path / "first.img").open("rb") as file:
        assert file.read(len(iso)) == iso, "byte for byte"
    assert second.read_bytes() == b"old" * (2 << 20)
