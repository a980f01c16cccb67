"""``make bench``: our figures beside those of the hand-made steps and plain tools, as ratios in one run.

Timings never decide anything: the exit code is 0 whatever they are. The image is the tests' real-tools image, so
that anybody can run this; its root filesystem is small.
"""

from __future__ import annotations

import datetime
import os
import platform
import random
import shlex
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from cosremaster.parallel import cores
from tests.fixtures import debirf

REPEAT = 3

# The page's seven steps but the loop mount, which needs root: xorriso takes the files out.
STEPS = """
set -e
xorriso -osirrox on -indev {iso} -extract / disc 2>/dev/null
chmod -R u+w disc
mkdir outer && cd outer
gzip -dc ../disc/{cgz} | cpio -idm --quiet
mkdir root && cd root
xz -dc ../rootfs.cxz | cpio -idm --quiet
cp -a {overlay}/. .
find . | cpio -o -H newc --quiet | xz -T0 > ../rootfs.cxz
cd .. && rm -rf root
find . | cpio -o -H newc --quiet | gzip -6 > ../disc/{cgz}
cd ..
genisoimage -quiet -R -V DEBIAN_LIVE -b boot/grub/bios.img -c boot/grub/boot.cat -no-emul-boot \
    -boot-load-size 4 -boot-info-table -o out.iso disc
"""


@dataclass(frozen=True)
class Case:
    """Two commands to compare; each runs in an empty folder of its own."""

    what: str
    against: str
    ours: Callable[[Path], None]
    theirs: Callable[[Path], None]


def run(command: str) -> Callable[[Path], None]:
    """A shell command, run as root would run it where device nodes have to be made."""
    return lambda folder: _shell(command, folder)


def _shell(command: str, folder: Path) -> None:
    argv = ["sh", "-c", command] if os.geteuid() == 0 else ["fakeroot", "sh", "-c", command]
    subprocess.run(argv, cwd=folder, check=True)


def timed(work: Callable[[Path], None]) -> float:
    """Seconds that ``work`` takes."""
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        work(Path(folder))
        return time.perf_counter() - start


def report(case: Case) -> None:
    """Runs a case's sides in turns and prints medians, their ratio and all raw values."""
    values = [(timed(case.ours), timed(case.theirs)) for _ in range(REPEAT)]
    ours, theirs = (list(side) for side in zip(*values, strict=True))
    ratio = statistics.median(ours) / statistics.median(theirs)
    raw = "; ".join(f"{mine:.2f}/{other:.2f}" for mine, other in values)
    print(f"{case.what} | {case.against} | {ratio:.2f} | {statistics.median(ours):.2f} s | "
          f"{statistics.median(theirs):.2f} s | {raw}", flush=True)  # fmt: skip


def cases(folder: Path) -> list[Case]:
    """What is compared, on inputs made in ``folder``."""
    image = debirf.build()
    overlay = folder / "overlay"
    (overlay / "data").mkdir(parents=True)
    (overlay / "data" / "noise").write_bytes(random.Random(1).randbytes(20_000_000))
    early = folder / "early"
    (early / "etc").mkdir(parents=True)
    (early / "etc" / "hostname").write_text("headend-7\n")
    packed, plain = folder / "rootfs.cxz", shlex.quote(str(image.rootfs_cpio))
    with packed.open("wb") as file:
        subprocess.run(["xz", "-T1", "-6", "-c", image.rootfs_cpio], stdout=file, check=True)
    main = f"{shlex.quote(sys.executable)} -m cosremaster {shlex.quote(str(image.iso))} out.iso --quiet --add "
    steps = STEPS.format(iso=shlex.quote(str(image.iso)), cgz=debirf.CGZ, overlay=shlex.quote(str(overlay)))
    fresh = f"XDG_CACHE_HOME=cache {main}"
    known = f"XDG_CACHE_HOME={shlex.quote(str(folder / 'cache'))} {main}"
    _shell(f"{known} {overlay}", folder)
    (folder / "out.iso").unlink()
    decode = f"xz -dc {shlex.quote(str(packed))} > /dev/null"
    return [
        Case("additions, first run", "xz -dc of the root filesystem", run(f"{fresh} {overlay}"), run(decode)),
        Case("additions, first run", "the hand-made steps", run(f"{fresh} {overlay}"), run(steps)),
        Case("additions, remembered index", "xz -dc of the root filesystem", run(f"{known} {overlay}"), run(decode)),
        Case("etc/hostname replaced", "xz -T0 of the plain archive", run(f"{fresh} {early}"),
             run(f"xz -T0 -c {plain} > /dev/null")),
    ]  # fmt: skip


def main() -> None:
    """Prints the table."""
    missing = [tool for tool in ("xz", "cpio", "gzip", "xorriso", "genisoimage") if shutil.which(tool) is None]
    if missing:
        sys.exit(f"bench needs tools that are not installed: {', '.join(missing)} (make tools installs them)")
    print(f"{datetime.date.today()}, {platform.machine()}, {cores()} cores, Linux {platform.release()}, "
          f"Python {platform.python_version()}; {REPEAT} paired runs, medians")  # fmt: skip
    print("what | against | ratio | ours | theirs | raw ours/theirs")
    with tempfile.TemporaryDirectory(prefix="cosremaster-bench-") as folder:
        for case in cases(Path(folder)):
            report(case)


if __name__ == "__main__":
    main()
