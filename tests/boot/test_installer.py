"""Debian's installer gets a preseed file without an ISO, and takes an answer from it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

import cosremaster
from tests.fixtures import installer, tools
from tests.fixtures.tools import run
from tests.support import qemu

LINE = "PRESEED-ANSWERED"

# The installer asks debconf for this answer before any question, and runs it.
_PRESEED = f"""\
d-i netcfg/get_hostname string site-seven
d-i preseed/early_command string (echo {LINE}; debconf-get netcfg/get_hostname; ls /dev/fb0) > /dev/ttyS0; poweroff -f
"""


@pytest.mark.boot
@pytest.mark.parametrize("kind", ["text", "gtk"])
def test_the_installer_takes_an_answer(tmp_path: Path, kind: str) -> None:
    tools.require(*qemu.TOOLS, *installer.TOOLS, "cpio", "gzip")
    images = installer.netboot() / kind
    (tmp_path / "preseed.cfg").write_text(_PRESEED)
    made = tmp_path / "initrd.gz"
    result = cosremaster.remaster(images / "initrd.gz", made, add=[f"{tmp_path}/preseed.cfg:/preseed.cfg"])
    assert result.added == (b"preseed.cfg",)
    before, after = (run(["gzip", "-dc", str(path)]) for path in (images / "initrd.gz", made))
    names = [set(run(["cpio", "-t", "--quiet"], stdin=plain).splitlines()) for plain in (before, after)]
    assert names[1] - names[0] == {b"preseed.cfg"}
    assert not names[0] - names[1]
    screen = ["-vga", "std"] if kind == "gtk" else []
    said = subprocess.run(
        [
            *("qemu-system-x86_64", *qemu.PROCESSOR, "-machine", "q35", "-m", "1536", "-nodefaults"),
            *("-display", "none", "-no-reboot", "-net", "none", "-serial", "stdio", "-kernel", str(images / "linux")),
            *screen,
            *("-initrd", str(made), "-append", "console=ttyS0 auto=true priority=critical panic=-1"),
        ],
        capture_output=True,
        timeout=550,
        check=False,
        stdin=subprocess.DEVNULL,
    ).stdout.decode(errors="replace")
    assert LINE in said, said[-3000:]
    assert "site-seven" in said
    if kind == "gtk":
        assert "\n/dev/fb0" in said.replace("\r", ""), "the screen that its frontend draws on"
