"""The most memory that a first run takes: by what an xz root filesystem holds it hardly grows, nor by its blocks."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

from cosremaster import remaster
from cosremaster.demo.image import build_archive, directory, regular, root_items
from tests.fixtures import tools
from tests.support.small import write_overlay, write_small

PEAK = r"""
import re, sys
from pathlib import Path
from cosremaster.cli import main
from cosremaster.codecs.xz import codec
codec.cpu_count = lambda: 2
code = main(sys.argv[1:])
print(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1])
sys.exit(code)
"""


def _measure(image: Path, overlay: Path, folder: Path) -> int:
    """Return the most bytes of memory that a first run took on two processors."""
    argv = [
        sys.executable,
        "-c",
        PEAK,
        str(image),
        str(folder / f"out{image.suffix}"),
        "--quiet",
        "--no-sync",
        "--force",
    ]
    env = {**os.environ, "XDG_CACHE_HOME": str(folder / f"cache-{image.name}")}
    argv += ["--add", str(overlay)]
    done = subprocess.run(argv, check=True, env=env, capture_output=True, text=True)
    return int(done.stdout.split()[-1]) << 10


def test_bytes_that_were_added_before_take_no_memory(tmp_path: Path) -> None:
    """A base that a run of ours wrote, with large blocks of bytes that do not compress."""
    small, overlay, noise = write_small(tmp_path), write_overlay(tmp_path), tmp_path / "noise" / "opt" / "noise"
    noise.parent.mkdir(parents=True)
    noise.write_bytes(random.Random(1).randbytes(200_000_000))
    large = tmp_path / "large.iso"
    remaster(small, large, add=[noise.parents[1]], remember=False, sync=False)
    peaks = [_measure(image, overlay, tmp_path) for image in (small, large)]
    assert peaks[1] - peaks[0] < 32 << 20, peaks


def test_large_blocks_wait_in_little_memory(tmp_path: Path) -> None:
    """Several that are decoded side by side, of a file as ``xz -T0`` makes it."""
    tools.require("xz")
    chance = random.Random(1)
    data = b"".join(chance.randbytes(1000) * 30 for _ in range(6000))
    items = [*root_items(), directory(b"opt"), regular(b"opt/data", data)]
    overlay, plain = write_overlay(tmp_path), build_archive(items)
    peaks = []
    for megabytes in (1, 24):
        image = tmp_path / f"root-{megabytes}.cpio.xz"
        image.write_bytes(tools.run(["xz", "-T2", "-0c", "--check=crc32", f"--block-size={megabytes}MiB"], stdin=plain))
        peaks.append(_measure(image, overlay, tmp_path))
    assert peaks[1] - peaks[0] < 44 << 20, peaks
