"""The memory that is said to be needed boots; clearly less does not."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from cosremaster import remaster
from cosremaster.boot_memory.estimate import (
    MIB,
)
from tests.fixtures import debirf, tools
from tests.support import qemu

SITE = """#!/bin/sh
echo BLOB $(md5sum < /data/blob)
"""


def test_the_need_boots_and_clearly_less_does_not(debirf_image: debirf.DebirfImage, tmp_path: Path) -> None:
    """What does not fit ends the unpacking of the initramfs; the system that starts then lacks what came last."""
    tools.require(*qemu.TOOLS)
    overlay = tmp_path / "overlay"
    (overlay / "data").mkdir(parents=True)
    (overlay / "root").mkdir()
    blob = os.urandom(32 * MIB)
    (overlay / "data/blob").write_bytes(blob)
    (overlay / "root/site.sh").write_text(SITE)
    (overlay / "root/site.sh").chmod(0o755)
    out = tmp_path / "out.iso"
    result = remaster(debirf_image.iso, out, add=[overlay])
    assert result.memory is not None
    assert result.memory.need is not None
    need = result.memory.need // MIB
    words = f"BLOB {hashlib.md5(blob).hexdigest()}"
    assert words in qemu.boot(out, firmware="bios", medium="disc", memory_mb=need, until=words)
    with pytest.raises(AssertionError, match=f"did not say '{words}'"):
        qemu.boot(out, firmware="bios", medium="disc", memory_mb=need * 2 // 3, until=words)
