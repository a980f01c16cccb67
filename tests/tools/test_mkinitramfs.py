"""An initramfs of two archives as Debian makes it: microcode by iucode_tool, the rest by mkinitramfs.

Real microcode is in non-free-firmware; iucode_tool packs a blob of ours with a true header and sum instead. mkinitramfs
runs as it is but for the path of the kernel's configuration, since no kernel is installed here.
"""

from __future__ import annotations

import json
import shutil
import struct
from pathlib import Path

import pytest

import cosremaster
from cosremaster.cli import main
from tests.fixtures import tools
from tests.support.initramfs import TOOLS as INITRAMFS_TOOLS
from tests.support.initramfs import unpack_initramfs

MKINITRAMFS, IUCODE = "/usr/sbin/mkinitramfs", "/usr/sbin/iucode_tool"
VERSION = "6.1.0-none"
CONFIG = "/etc/initramfs-tools/initramfs.conf"


def microcode() -> bytes:
    """An update of Intel's format (Software Developer's Manual 3A, 10.11.1): 48 bytes of header, 2,000 of data; all
    its 32-bit words come to 0."""
    fields = [1, 0x21, 0x06172023, 0x000306C3, 0, 1, 0x32, 2000, 2048, 0, 0, 0]
    data = b"\x5a" * 2000
    fields[4] = -sum(struct.unpack("<512I", struct.pack("<12I", *fields) + data)) & 0xFFFFFFFF
    return struct.pack("<12I", *fields) + data


def make(folder: Path, compress: str) -> tuple[Path, bytes]:
    """The initramfs, and the archive that it begins with."""
    tools.require(MKINITRAMFS, IUCODE, CONFIG, *INITRAMFS_TOOLS, "gzip", "zstd", "sh")
    conf = folder / "conf"
    for name in ("hooks", "scripts", "conf.d"):
        (conf / name).mkdir(parents=True)
    (conf / "modules").touch()
    shutil.copy(CONFIG, conf)
    (conf / "conf.d/modules").write_text("MODULES=list\n")
    (folder / "microcode").write_bytes(microcode())
    tools.run([IUCODE, "-q", f"--write-earlyfw={folder}/early", str(folder / "microcode")])
    hook = conf / "hooks/early"
    hook.write_text(
        '#!/bin/sh\n[ "$1" = prereqs ] && exit 0\n. /usr/share/initramfs-tools/hook-functions\n'
        f"prepend_earlyinitramfs {folder}/early\n"
    )
    hook.chmod(0o755)
    (folder / f"config-{VERSION}").write_text("CONFIG_RD_GZIP=y\nCONFIG_RD_ZSTD=y\n")
    script = Path(MKINITRAMFS).read_text().replace("/boot/config-", f"{folder}/config-")
    (folder / "mkinitramfs").write_text(script)
    initrd = folder / "initrd.img"
    argv: list[str | Path] = ["sh", folder / "mkinitramfs", "-d", conf, "-c", compress, "-o", initrd, VERSION]
    tools.run(argv, env={"TMPDIR": str(folder)})
    return initrd, (folder / "early").read_bytes()


@pytest.mark.parametrize("compress", ["gzip", "zstd"])
def test_an_edit_goes_into_the_last_and_the_microcode_stays(
    tmp_path: Path, compress: str, capsys: pytest.CaptureFixture[str]
) -> None:
    initrd, early = make(tmp_path, compress)
    assert initrd.read_bytes().startswith(early)
    assert main(["ls", "-R", "--json", f"{initrd}::#1"]) == 0
    addresses = [one["address"] for one in json.loads(capsys.readouterr().out)["nodes"]]
    assert f"{initrd}::#1::kernel/x86/microcode/GenuineIntel.bin" in addresses
    assert main(["stat", addresses[-1]]) == 0  # which leads there again
    assert main(["cat", f"{initrd}::#1::init"]) != 0
    assert main(["cat", f"{initrd}::scripts/functions"]) == 0
    capsys.readouterr()

    (tmp_path / "hello").write_text("hello\n")
    before = initrd.read_bytes()
    result = cosremaster.remaster(initrd, tmp_path / "out", add=[f"{tmp_path}/hello:/etc/hello"])
    assert result.added == (b"etc/hello",)
    assert initrd.read_bytes() == before
    made = (tmp_path / "out").read_bytes()
    assert made.startswith(early)
    trees = {name: tmp_path / f"tree-{name}" for name in ("old", "new")}
    unpack_initramfs(initrd, trees["old"])
    early_part, main_part = unpack_initramfs(tmp_path / "out", trees["new"])
    assert (main_part / "etc/hello").read_text() == "hello\n"
    (main_part / "etc/hello").unlink()
    tools.run(["diff", "-r", "--no-dereference", str(trees["old"]), str(trees["new"])])
    assert (early_part / "kernel/x86/microcode/GenuineIntel.bin").read_bytes() == microcode()
