"""A sparse platform ISO of 6 GiB with some random windows."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pytest

from cosremaster.overlay.request import InlineFile, OverlayItem
from tests.fixtures.tools import run

SIZE = 6 << 30


PATH = "data/platform-7.2.iso"


WINDOW = 1 << 20


WINDOWS = (0, (4 << 30) - 2 * WINDOW, 4 << 30, SIZE - WINDOW)
"""Where there is something in it: at both ends, and around the border of two extents."""


DRIVERS = ("virtio_pci", "virtio_scsi", "sr_mod", "isofs")
"""What the kernel needs to mount the disc."""


MD5SUM = "/root/md5/ld --library-path /root/md5 /root/md5/md5sum"
"""The one of GNU in the emulated system: that of busybox takes three times as long."""


def _md5sum() -> list[OverlayItem]:
    """The program and its libraries."""
    program = Path(shutil.which("md5sum") or "")
    paths = [Path(word) for word in run(["ldd", program]).decode().split() if word.startswith("/")]
    names = {path: "ld" if path.name.startswith("ld-") else path.name for path in (program, *paths)}
    return [InlineFile(f"/root/md5/{name}", path.read_bytes(), mode=0o755) for path, name in names.items()]


@pytest.fixture(scope="session")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sparse file."""
    path = tmp_path_factory.mktemp("platform") / "platform-7.2.iso"
    with path.open("wb") as file:
        file.truncate(SIZE)
        for at in WINDOWS:
            file.seek(at)
            file.write(random.Random(at).randbytes(WINDOW))
    return path
