"""The kernel's own decoders read what we packed: rows of archives, zstd, legacy lz4, each started by QEMU alone."""

from __future__ import annotations

from pathlib import Path

import pytest

import cosremaster
from cosremaster.demo.image import build_archive, directory, regular
from tests.fixtures import tools
from tests.fixtures.tools import run
from tests.support import qemu

LINE = "COSREMASTER-INITRAMFS-UP"

_INIT = f"""\
#!/bin/busybox sh
/bin/busybox mount -t devtmpfs dev /dev
exec > /dev/ttyS0 2>&1
echo {LINE}
/bin/busybox cat /etc/first /etc/site
/bin/busybox mkdir /sbin
/bin/busybox --install -s /sbin
export PATH=/sbin
{qemu.FINISH}
"""

PACKERS = {
    "zstd": ["zstd", "-q", "-9"],
    "lz4-legacy": ["lz4", "-q", "-l", "-c"],
    "bzip2": ["bzip2", "-9"],
    "lzma": ["xz", "--format=lzma", "-6"],
}


@pytest.mark.parametrize("codec", PACKERS)
def test_the_kernel_reads_it(tmp_path: Path, codec: str) -> None:
    tools.require(*qemu.TOOLS, "busybox", PACKERS[codec][0])
    busybox = Path("/bin/busybox").read_bytes()
    main = build_archive(
        [
            *(directory(name) for name in (b"bin", b"dev", b"etc")),
            regular(b"bin/busybox", busybox, 0o755),
            regular(b"init", _INIT.encode(), 0o755),
        ]
    )
    early = build_archive(
        [directory(b"etc"), regular(b"etc/first", b"from the first archive\n"), regular(b"odd", b"x" * 13)]
    )
    (tmp_path / "initrd").write_bytes(early + run(PACKERS[codec], stdin=main))
    (tmp_path / "site").write_text("from the overlay\n")
    result = cosremaster.remaster(tmp_path / "initrd", tmp_path / "out", add=[f"{tmp_path}/site:/etc/site"])
    assert result.packed[0].codec == codec
    kernel = tools.cloud_kernel(tools.default_cache())
    said = qemu.boot_kernel(kernel, tmp_path / "out", "console=ttyS0 panic=-1 quiet")
    assert LINE in said
    assert "from the first archive" in said
    assert "from the overlay" in said
