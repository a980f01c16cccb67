"""Scripts inside a root file system: ours beside unpacking it, and beside a chroot by root."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from benchmarks import images
from benchmarks.measure import Compared, Group, shell

Side = Callable[[Path], float | None]

STEPS = Path(__file__).with_name("steps.sh")
OURS = f"{shlex.quote(sys.executable)} -m cosremaster"
ALLOWED = 48
"""MiB that a script may take beside the tree that it runs in."""

CONTROL = "Package: site-tool\nVersion: 1\nArchitecture: all\nMaintainer: x <x@example.org>\nDescription: x\n"
POSTINST = """#!/bin/sh
set -e
useradd --system --user-group --home-dir /var/lib/site --create-home site
chown root:site /etc/site.key
"""

# A run of the command that prints the most memory that it and its helpers had at one time, in KiB: their private pages,
# and their share of common ones. What lies in a tmpfs is the tree.
PEAK = r"""
import re, sys, threading, time
from pathlib import Path
from cosremaster.cli import main
def family():
    parents = {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(status.parent.name)] = int(status.read_text().rpartition(")")[2].split()[1])
        except OSError:
            pass
    import os
    found = {os.getpid()}
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return found
def share(pid):
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return 0
    return sum(int(size) for size in re.findall(r"^Pss_(?:Anon|File):\s+(\d+)", text, re.MULTILINE))
peak = 0
def watch():
    global peak
    while True:
        peak = max(peak, sum(map(share, family())))
        time.sleep(0.01)
threading.Thread(target=watch, daemon=True).start()
main(sys.argv[1:])
print(peak, file=sys.stderr)
"""


def _known(folder: Path) -> tuple[Path, Path]:
    """The vendor's image, and a cache that remembers it."""
    iso, cache = images.vendor(images.ONE_BLOCK).iso, folder / "known"
    shell(f"XDG_CACHE_HOME={cache} {OURS} index {iso} > /dev/null 2>&1", folder)
    return iso, cache


def _package(folder: Path) -> Path:
    """A folder with ``site.deb``, which makes a user when it is installed."""
    package = folder / "package"
    for name, text in (("DEBIAN/control", CONTROL), ("DEBIAN/postinst", POSTINST), ("etc/site.key", "secret\n")):
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).write_text(text)
    (package / "DEBIAN/postinst").chmod(0o755)
    (folder / "debs/root").mkdir(parents=True)
    shell("dpkg-deb --root-owner-group -b package debs/root/site.deb > /dev/null", folder)
    return folder / "debs"


def _nothing(folder: Path) -> Mapping[str, Side]:
    """A script that does nothing, and the pipe that unpacks the root into memory."""
    iso, cache = _known(folder)
    layer = folder / "rootfs.cxz"
    shell(f"xz -T1 -6 --check=crc64 < {images.minbase()} > {layer}", folder)
    ours = f"XDG_CACHE_HOME={cache} {OURS} {iso} out.iso --quiet --no-sync --run true"
    theirs = f'd=$(mktemp -d -p /dev/shm) && xz -dc {layer} | bsdtar -x -C "$d"; rm -rf "$d"'
    return {"ours": lambda work: shell(ours, work), "theirs": lambda work: shell(theirs, work)}


def _install(folder: Path) -> Mapping[str, Side]:
    """A package installed, and the hand-made steps with a chroot."""
    iso, cache = _known(folder)
    debs = _package(folder)
    ours = f"XDG_CACHE_HOME={cache} {OURS} {iso} out.iso --quiet --no-sync --run-files {debs}/root"
    ours += " --run 'dpkg -i /run/cosremaster/site.deb' > /dev/null"
    script = "dpkg -i /root/site.deb > /dev/null && rm /root/site.deb"
    theirs = f"sh {STEPS} {iso} {debs} {shlex.quote(script)}"
    return {"ours": lambda work: shell(ours, work), "theirs": lambda work: shell(theirs, work)}


def _owners(folder: Path) -> Mapping[str, Side]:
    """A remaster whose script installs a package, whole and the seconds of its script, in both ways of owners."""
    iso, cache = _known(folder)
    debs = _package(folder)

    def command(ids: str, output: str) -> str:
        install = f"--run-files {debs}/root --run-ids {ids} --run 'dpkg -i /run/cosremaster/site.deb'"
        return f"XDG_CACHE_HOME={cache} {OURS} {output} {install} 2> /dev/null"

    def whole(ids: str) -> Side:
        return lambda work: shell(f"{command(ids, f'{iso} out.iso --quiet --no-sync')} > /dev/null", work)

    def script(ids: str) -> Side:
        def run(work: Path) -> float:
            shell(f"{command(ids, f'plan {iso} --json')} > plan.json", work)
            return float(json.loads((work / "plan.json").read_text())["runs"][0]["seconds"])

        return run

    return {
        "single": whole("single"),
        "auto": whole("auto"),
        "single script": script("single"),
        "auto script": script("auto"),
    }


def _memory(folder: Path) -> Mapping[str, Side]:
    """MiB of our process and its helpers, and those of the same work without a script, and 48 MiB."""
    iso, _ = _known(folder)
    site = folder / "site"
    (site / "opt").mkdir(parents=True)
    (site / "opt/small").write_text("site\n")

    def peak(more: float, *options: str) -> Side:
        def run(work: Path) -> float:
            argv = [
                sys.executable,
                "-c",
                PEAK,
                str(iso),
                "out.iso",
                "--quiet",
                "--no-sync",
                "--add",
                str(site),
                *options,
            ]
            done = subprocess.run(argv, cwd=work, check=True, capture_output=True, text=True)
            return int(re.findall(r"\d+", done.stderr)[-1]) / 1024 + more

        return run

    return {"with": peak(0, "--run", "true"), "without": peak(ALLOWED)}


REAL = "real owners"
BY_HAND = "the hand-made steps with a chroot, as root"
GROUPS: Mapping[str, Group] = {
    "run-true": Group(
        _nothing,
        (Compared("`--run true`, remembered index", "ours", "`xz -dc`, `bsdtar -x` to memory", "theirs", 1.3),),
        rounds=7,
    ),
    "run-deb": Group(
        _install,
        (Compared("a script that installs a package, remembered index", "ours", BY_HAND, "theirs", 1 / 8),),
        rounds=1,
    ),
    "run-owners": Group(
        _owners,
        (
            Compared("a script that installs a package, owners kept by a supervisor", "single", REAL, "auto", 1.2),
            Compared("the script alone, owners kept by a supervisor", "single script", REAL, "auto script", 1.2),
        ),
        rounds=5,
    ),
    "run-memory": Group(
        _memory,
        (Compared("peak memory with `--run true`", "with", f"without, and {ALLOWED} MiB", "without", 1),),
        unit="MiB",
    ),
}
