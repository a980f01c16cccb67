"""A casper-shaped ISO: its initrd is a row of four archives, its root a squashfs; Debian's unmkinitramfs judges."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cosremaster.cli import main
from cosremaster.demo.image import build_archive, directory, regular, root_items
from tests.fixtures import tools
from tests.fixtures.tools import EPOCH, run
from tests.support.initramfs import TOOLS as INITRAMFS_TOOLS
from tests.support.initramfs import unpack_initramfs


def _ucode(vendor: bytes) -> bytes:
    folders = [directory(name) for name in (b"kernel", b"kernel/x86", b"kernel/x86/microcode")]
    return build_archive([*folders, regular(b"kernel/x86/microcode/" + vendor + b".bin", vendor * 5000)])


@pytest.fixture
def casper(tmp_path: Path) -> Path:
    """The ISO; what Ubuntu has had since 23.10: microcode of both vendors, modules, all plain, then zstd."""
    tools.require("xorriso", "zstd", *INITRAMFS_TOOLS)
    modules = build_archive([directory(b"usr"), directory(b"usr/lib"), regular(b"usr/lib/nic.ko", os.urandom(3001))])
    main_archive = run(["zstd", "-q", "-9"], stdin=build_archive(root_items()))
    disc = tmp_path / "disc"
    (disc / "casper").mkdir(parents=True)
    row = _ucode(b"AuthenticAMD") + _ucode(b"GenuineIntel") + modules + main_archive
    (disc / "casper" / "initrd").write_bytes(row)
    (disc / "casper" / "vmlinuz").write_bytes(b"MZ" + bytes(70_000))
    (disc / "casper" / "filesystem.squashfs").write_bytes(b"hsqs" + os.urandom(90_000))
    image = tmp_path / "casper.iso"
    argv = ["xorriso", "-as", "mkisofs", "-R", "-V", "CASPER", "-o", str(image), str(disc)]
    run(argv, env={"SOURCE_DATE_EPOCH": str(EPOCH)})
    return image


def test_casper(casper: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "preseed.cfg").write_text("d-i example\n")
    out = tmp_path / "out.iso"
    argv = [str(casper), str(out), "--add", f"{tmp_path}/preseed.cfg:/preseed.cfg"]
    assert main(argv) == 6
    assert "--layer casper/initrd changes the initramfs instead" in capsys.readouterr().err
    assert not out.exists()
    assert main([*argv, "--layer", "casper/initrd"]) == 0
    assert "casper/initrd::#4: 1 added" in capsys.readouterr().out
    # Taken out by another tool, unpacked by another.
    run(["xorriso", "-osirrox", "on", "-indev", str(out), "-extract", "/casper", str(tmp_path / "taken")])
    _, unpacked = unpack_initramfs(tmp_path / "taken/initrd", tmp_path / "tree")
    assert (unpacked / "preseed.cfg").read_text() == "d-i example\n"
    before, after = ((path / "initrd").read_bytes() for path in (tmp_path / "disc/casper", tmp_path / "taken"))
    plain = before.index(b"\x28\xb5\x2f\xfd")
    assert after[:plain] == before[:plain]
    for name in ("vmlinuz", "filesystem.squashfs"):
        assert (tmp_path / "taken" / name).read_bytes() == (tmp_path / "disc/casper" / name).read_bytes()
    assert main(["diff", str(casper), str(out)]) == 1
    assert capsys.readouterr().out == "+ casper/initrd::preseed.cfg: file, 12 bytes\n"
    assert main(["find", str(out), "**/*.bin"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 2
