"""What export --pxe writes boots over the network."""

from __future__ import annotations

from pathlib import Path

import pytest

import cosremaster
from cosremaster.cli import main
from tests.fixtures import debirf, tools
from tests.support import qemu


def test_the_ipxe_script_boots_what_was_added(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tools.require(*debirf.TOOLS, *qemu.NETBOOT_TOOLS)
    script = tmp_path / "overlay" / "root" / "site.sh"
    script.parent.mkdir(parents=True)
    script.write_text("#!/bin/sh\necho STARTED-OVER-THE-NETWORK\n")
    script.chmod(0o755)
    cosremaster.remaster(debirf.build().iso, tmp_path / "site.iso", add=[tmp_path / "overlay"])
    monkeypatch.chdir(tmp_path)
    assert main(["export", "site.iso", "--pxe", "tftp", "--quiet"]) == 0
    said = qemu.netboot(tmp_path / "tftp", "boot.ipxe")
    assert debirf.MARKER in said
    assert "STARTED-OVER-THE-NETWORK" in said
