"""Debian's installer gets a preseed file without an ISO, and takes an answer from it."""

from __future__ import annotations

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
d-i preseed/early_command string (echo {LINE}; debconf-get netcfg/get_hostname; ls /dev/fb0; {qemu.FINISH}) > /dev/ttyS0
"""


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
    screen = ("-vga", "std") if kind == "gtk" else ()
    arguments = "console=ttyS0 auto=true priority=critical panic=-1"
    said = qemu.boot_kernel(images / "linux", made, arguments, *screen, memory_mb=1536, timeout=550)
    assert LINE in said
    assert "site-seven" in said
    if kind == "gtk":
        assert "\n/dev/fb0" in said, "the screen that its frontend draws on"
