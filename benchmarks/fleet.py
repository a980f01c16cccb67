"""Many sites from one base: time against as many copies, and what they take where blocks are shared.

``COSREMASTER_BENCH_SITES`` is the number of sites, 200 by default; a few are enough for a trial.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from shlex import quote

import cosremaster
from benchmarks import images
from benchmarks.measure import Compared, Group, shell
from cosremaster.progress import Advance, SilentProgress
from cosremaster.remastering.image import OpenedImage

Side = Callable[[Path], float | None]

SITES = int(os.environ.get("COSREMASTER_BENCH_SITES", "200"))
DISK = 24 << 30
"""Bytes of the file that holds a file system which shares blocks; it is sparse."""

PLANNED = 20
"""Sites that are planned."""
PLAN_TIME = 20.0
"""Milliseconds."""

FLEET = """\
base = "{base}"
output = "out/${{NAME}}.iso"
[[add]]
file = "/etc/hostname"
content = "${{NAME}}\\n"
[sites]
directory = "sites"
"""


def write_fleet(folder: Path, base: Path, name: str) -> Path:
    """A fleet of sites with 10 kB and a host name of their own."""
    path = folder / name
    path.write_text(FLEET.format(base=base))
    return path


def write_base(folder: Path, count: int = SITES) -> Path:
    """The vendor's image with another host name: a base that a run of ours wrote, and ``count`` sites for it."""
    base = folder / "base.iso"
    hostname = cosremaster.InlineFile("/etc/hostname", b"base\n")
    cosremaster.remaster(images.vendor(images.ONE_BLOCK).iso, base, add=[hostname], remember=False)
    for number in range(count):
        images.noise(folder / "sites" / f"site-{number:03}" / "etc" / f"site-{number}.key", 10_000)
    return base


def _run(fleet: Path, out: Path, jobs: int) -> None:
    """Makes the fleet."""
    command = f"{quote(sys.executable)} -m cosremaster fleet {fleet} --output-dir {out} --jobs {jobs} --quiet"
    shell(f'XDG_CACHE_HOME="{fleet.parent}/cache" {command}', fleet.parent)


def _times(folder: Path) -> Mapping[str, Side]:
    base = write_base(folder)
    fleet = write_fleet(folder, base, "fleet.toml")
    shell(f'XDG_CACHE_HOME="{folder}/cache" {quote(sys.executable)} -m cosremaster index {base} > /dev/null', folder)

    def copies(work: Path) -> None:
        for number in range(SITES):
            subprocess.run(["cp", "--reflink=never", base, work / f"{number}.iso"], check=True)
            subprocess.run(["sync", work / f"{number}.iso"], check=True)

    return {
        "ours": lambda work: _run(fleet, work, 1),
        "two jobs": lambda work: _run(fleet, work, 2),
        "copy": copies,
    }


@contextmanager
def _mounted(kind: str, folder: Path) -> Iterator[Path]:
    """A new file system that shares blocks."""
    disk, mount = folder / "disk", folder / "mount"
    with disk.open("wb") as file:
        file.truncate(DISK)
    subprocess.run([f"mkfs.{kind}", "-q", disk], check=True, stdout=subprocess.DEVNULL)
    mount.mkdir()
    subprocess.run(["mount", "-o", "loop", disk, mount], check=True)
    try:
        yield mount
    finally:
        subprocess.run(["umount", mount], check=True)


def _used(mount: Path) -> int:
    """Bytes that are taken."""
    subprocess.run(["sync", "-f", mount], check=True)
    return int(subprocess.run(["df", "--output=used", "-B1", mount], check=True, capture_output=True).stdout.split()[1])


def _disk(kind: str, made: Path, base: Path) -> Side:
    """The bytes on the disk of a site, on a file system of a ``kind``."""

    def side(work: Path) -> float:
        with _mounted(kind, work) as mount:
            subprocess.run(["cp", base, mount / "base.iso"], check=True)
            fleet = write_fleet(made, mount / "base.iso", f"{kind}.toml")
            before = _used(mount)
            _run(fleet, mount / "out", 1)
            return (_used(mount) - before) / SITES

    return side


def _disks(folder: Path) -> Mapping[str, Side]:
    base = write_base(folder)
    sides: dict[str, Side] = {kind: _disk(kind, folder, base) for kind in ("xfs", "btrfs")}
    return {**sides, "image": lambda work: float(base.stat().st_size)}


def _planning(folder: Path) -> Mapping[str, Side]:
    """The processor time in which a site is planned in a running process, in milliseconds; the median of all sites."""
    base = write_base(folder, PLANNED + 1)

    def plan_sites(work: Path) -> float:
        """Plans each site once; the first finds out what the others take over."""
        times = []
        with OpenedImage(base, remember=False) as image:
            for number in range(PLANNED + 1):
                hostname = cosremaster.InlineFile("/etc/hostname", b"site-%03d\n" % number)
                request = cosremaster.Request(add=[hostname, folder / "sites" / f"site-{number:03}"])
                start = time.process_time()
                image.plan(request)
                times.append((time.process_time() - start) * 1000)
        return statistics.median(times[1:])

    return {"ours": plan_sites, "goal": lambda work: PLAN_TIME}


class _WriteTimer(SilentProgress):
    """Adds up the time of writing."""

    seconds = 0.0

    @contextmanager
    def step(self, title: str, total: int | None) -> Iterator[Advance]:
        start = time.perf_counter()
        yield lambda count: None
        if title == "write":
            self.seconds += time.perf_counter() - start


def _writing(folder: Path) -> Mapping[str, Side]:
    base = write_base(folder)

    def side(kind: str, *, is_copy: bool) -> Side:
        def run(work: Path) -> float:
            with _mounted(kind, work) as mount:
                subprocess.run(["cp", base, mount / "base.iso"], check=True)
                timer, image = _WriteTimer(), cosremaster.open(mount / "base.iso", remember=False)
                start, spent = time.perf_counter(), 0.0
                for number in range(SITES):
                    if is_copy:
                        start = time.perf_counter()
                        subprocess.run(
                            ["cp", "--reflink=always", mount / "base.iso", mount / f"{number}.iso"], check=True
                        )
                        spent += time.perf_counter() - start
                    else:
                        site = cosremaster.Request(add=[folder / "sites" / f"site-{number:03}"], align=4096)
                        image.remaster(mount / f"{number}.iso", site, sync=False, progress=timer)
                image.close()
                return spent if is_copy else timer.seconds

        return run

    kinds = ("xfs", "btrfs")
    return {f"{kind}{' copy' * is_copy}": side(kind, is_copy=is_copy) for kind in kinds for is_copy in (False, True)}


WHAT = f"{SITES} sites with 10 kB and their own host name, own base, remembered index"
GROUPS: Mapping[str, Group] = {
    "fleet": Group(
        _times,
        (
            Compared(f"{WHAT}, synced", "ours", f"{SITES} `cp`, each with `sync`", "copy", 1.5),
            Compared(f"{WHAT}, synced, two jobs", "two jobs", f"{SITES} `cp`, each with `sync`", "copy", 1.2),
        ),
    ),
    "fleet-plan": Group(
        _planning,
        [Compared("plan of a site, processor time", "ours", f"{PLAN_TIME:.0f} ms", "goal", 1.0)],
        unit="ms",
    ),
    "fleet-disk": Group(
        _disks,
        tuple(
            Compared(f"disk that one of {WHAT} takes on {name}", kind, "the image", "image", 0.003)
            for kind, name in (("xfs", "XFS"), ("btrfs", "btrfs"))
        ),
        rounds=1,
        unit="bytes",
    ),
    "fleet-writing": Group(
        _writing,
        tuple(
            Compared(f"writing of {WHAT} on {name}", kind, "`cp --reflink=always`", f"{kind} copy", 1.0)
            for kind, name in (("xfs", "XFS"), ("btrfs", "btrfs"))
        ),
    ),
}  # fmt: skip
