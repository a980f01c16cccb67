"""Menus that follow a new volume id boot."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

import pytest

from cosremaster import remaster
from tests.fixtures import debirf, tools
from tests.fixtures.tools import run
from tests.support import qemu
from tests.support.volume_ids import DATE, ID


@pytest.mark.parametrize("firmware", ["bios", "uefi"])
def test_retargeted_menus_boot(by_name: Path, tmp_path: Path, firmware: Literal["bios", "uefi"]) -> None:
    tools.require(*qemu.TOOLS)
    script, out = tmp_path / "site.sh", tmp_path / "out.iso"
    script.write_text("#!/bin/sh\necho CMDLINE: $(cat /proc/cmdline) :END\n")
    script.chmod(0o755)
    result = remaster(
        by_name, out, add=[f"{script}:/root/"], volume_id=ID, volume_date=DATE, retarget=True, kernel_args=["site=7"]
    )
    assert [line for line, _, _ in result.menus[0].retargeted] == [5, 6, 8]
    assert not [one for one in result.warnings if "looks for" in one]
    said = qemu.boot(out, firmware=firmware, medium="disc")
    assert debirf.MARKER in said
    assert re.search(r"root=live:CDLABEL=Site.*site=7 :END", said)
    run(["xorriso", "-osirrox", "on", "-indev", out, "-extract", "/boot/grub/grub.cfg", tmp_path / "menu"])
    menu = (tmp_path / "menu").read_bytes()
    assert rb"--label Site\ 7\ of\ the\ ring" in menu
    assert b"# search --label DEBIAN_LIVE\n" in menu
    assert b'menuentry "DEBIAN_LIVE"' in menu
